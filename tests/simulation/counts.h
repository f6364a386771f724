// How often everything has struck that can: each kind counts its hits, and over many seeds none may stay at 0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sluice::simulation {

/// `Kind`: an enum whose last value, kCount, is none.
template <class Kind>
class Counts {
 public:
  static constexpr size_t kKinds = static_cast<size_t>(Kind::kCount);

  void Add(Kind kind, uint64_t times = 1) { counts_[static_cast<size_t>(kind)] += times; }
  void Hit(Kind kind) { Add(kind); }
  void Add(const Counts& other) {
    for (size_t i = 0; i < kKinds; ++i) counts_[i] += other.counts_[i];
  }
  uint64_t of(Kind kind) const { return counts_[static_cast<size_t>(kind)]; }

 private:
  std::array<uint64_t, kKinds> counts_{};
};

}  // namespace sluice::simulation
