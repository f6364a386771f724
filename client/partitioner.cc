#include <cstring>

#include "client/producer.h"
#include "common/check.h"

namespace sluice::client {
namespace {

uint32_t LoadLittle(const char* p) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(p);
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

}  // namespace

// MurmurHash2 by Austin Appleby (public domain), with the seed that Kafka's clients use.
uint32_t Murmur2(std::string_view data) {
  constexpr uint32_t kSeed = 0x9747b28c;
  constexpr uint32_t kMultiplier = 0x5bd1e995;
  constexpr int kShift = 24;
  uint32_t hash = kSeed ^ static_cast<uint32_t>(data.size());
  size_t at = 0;
  for (; at + 4 <= data.size(); at += 4) {
    uint32_t word = LoadLittle(data.data() + at) * kMultiplier;
    word ^= word >> kShift;
    hash = hash * kMultiplier ^ word * kMultiplier;
  }
  const size_t rest = data.size() - at;
  if (rest != 0) {
    for (size_t i = 0; i < rest; ++i)
      hash ^= static_cast<uint32_t>(static_cast<unsigned char>(data[at + i])) << (8 * i);
    hash *= kMultiplier;
  }
  hash ^= hash >> 13;
  hash *= kMultiplier;
  return hash ^ hash >> 15;
}

PartitionId PartitionForKey(std::string_view key, int32_t partitions) {
  SLUICE_CHECK(partitions > 0);
  return PartitionId(static_cast<int32_t>((Murmur2(key) & 0x7fffffff) % static_cast<uint32_t>(partitions)));
}

}  // namespace sluice::client
