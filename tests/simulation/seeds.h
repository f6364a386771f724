// Which seeds a simulation runs: 1 to N, ten times as many (or what it says) when SLUICE_LONG is set, from another
// first one on with SLUICE_SEED=<first>, one alone with SLUICE_SEED=<seed>:1.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace sluice::simulation {

struct SeedRange {
  uint64_t first = 1;
  uint64_t count = 0;

  class Iterator {
   public:
    explicit Iterator(uint64_t seed) : seed_(seed) {}
    uint64_t operator*() const { return seed_; }
    Iterator& operator++() {
      ++seed_;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return seed_ != other.seed_; }

   private:
    uint64_t seed_;
  };
  Iterator begin() const { return Iterator(first); }
  Iterator end() const { return Iterator(first + count); }
};

inline SeedRange Seeds(uint64_t short_count, uint64_t long_factor = 10) {
  const char* const length = std::getenv("SLUICE_LONG");
  SeedRange range{1, length != nullptr && *length != '\0' ? long_factor * short_count : short_count};
  if (const char* const chosen = std::getenv("SLUICE_SEED"); chosen != nullptr && *chosen != '\0') {
    char* rest = nullptr;
    range.first = std::strtoull(chosen, &rest, 10);
    if (*rest == ':') range.count = std::strtoull(rest + 1, nullptr, 10);
  }
  return range;
}

}  // namespace sluice::simulation
