// LogLimit: keeps what others can make happen as often as they like from filling the log. Threads: any.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>

#include "absl/time/time.h"

namespace sluice {

class LogLimit {
 public:
  explicit LogLimit(absl::Duration every) : every_(every) {}

  /// How often it happened since the last line, this time included, when a line is due now; otherwise 0.
  int64_t Due(absl::Duration now) {
    std::lock_guard lock(mutex_);
    ++count_;
    if (now < next_) return 0;
    next_ = now + every_;
    return std::exchange(count_, 0);
  }

 private:
  const absl::Duration every_;
  std::mutex mutex_;
  absl::Duration next_ = -absl::InfiniteDuration();
  int64_t count_ = 0;
};

}  // namespace sluice
