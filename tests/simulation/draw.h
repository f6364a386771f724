// What plans are drawn with.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "absl/time/time.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::simulation {

/// True in `percent` of 100 cases.
inline bool Percent(SimRandom& random, int percent) {
  return static_cast<int>(random.Below(100)) < percent;
}
/// Uniform in [least, most].
inline absl::Duration Between(SimRandom& random, absl::Duration least, absl::Duration most) {
  const auto span = static_cast<uint64_t>(absl::ToInt64Nanoseconds(most - least));
  return least + absl::Nanoseconds(static_cast<int64_t>(random.Below(span + 1)));
}
/// Most values are small, some are 0, a few are as large as `most`.
inline int Skewed(SimRandom& random, int most) {
  if (random.OneIn(4)) return 0;
  const int bound = random.OneIn(3) ? most : most / 4;
  return static_cast<int>(random.Below(static_cast<uint64_t>(bound) + 1));
}
template <class T>
T OneOf(SimRandom& random, std::initializer_list<T> choices) {
  return choices.begin()[random.Below(choices.size())];
}

}  // namespace sluice::simulation
