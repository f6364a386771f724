// The first byte chooses the codec; the rest is decompressed within a limit, and compressed and read back.
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/check.h"
#include "common/record/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::record;
  if (size == 0) return 0;
  const auto codec = static_cast<Codec>(data[0] % 5);
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const DecompressLimits limits{1 << 16};
  const auto plain = Decompress(codec, input, limits);
  if (plain.ok()) SLUICE_CHECK(plain->size() <= limits.bytes_max);
  std::string packed;
  SLUICE_CHECK(Compress(codec, kDefaultLevel, input, &packed).ok());
  const auto back = Decompress(codec, packed, DecompressLimits{input.size()});
  SLUICE_CHECK(back.ok() && *back == input);
  return 0;
}
