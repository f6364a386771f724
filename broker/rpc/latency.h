// A histogram of times that many threads add to and one reads: fixed bounds, a counter each.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace sluice::broker::rpc {

/// Upper bounds in seconds, as Prometheus has them; one more bucket counts what is above the last.
inline constexpr std::array kLatencyBounds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                              0.05,   0.1,     0.25,   0.5,   1.0,    2.5,   5.0,  10.0};

struct LatencySnapshot {
  std::array<int64_t, kLatencyBounds.size() + 1> counts{};  ///< Each bucket's own, not cumulative.
  double sum_seconds = 0;
};

class LatencyHistogram {
 public:
  void Observe(absl::Duration time) {
    const double seconds = absl::ToDoubleSeconds(time);
    size_t bucket = 0;
    while (bucket < kLatencyBounds.size() && seconds > kLatencyBounds[bucket]) ++bucket;
    counts_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_nanoseconds_.fetch_add(absl::ToInt64Nanoseconds(time), std::memory_order_relaxed);
  }

  LatencySnapshot Snapshot() const {
    LatencySnapshot snapshot;
    for (size_t i = 0; i < counts_.size(); ++i) snapshot.counts[i] = counts_[i].load(std::memory_order_relaxed);
    snapshot.sum_seconds = static_cast<double>(sum_nanoseconds_.load(std::memory_order_relaxed)) * 1e-9;
    return snapshot;
  }

 private:
  std::array<std::atomic<int64_t>, kLatencyBounds.size() + 1> counts_{};
  std::atomic<int64_t> sum_nanoseconds_{0};
};

}  // namespace sluice::broker::rpc
