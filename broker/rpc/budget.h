// MemoryBudget: bytes that requests under way hold, and who waits because they are too many. Back-pressure is not
// starting the next read, so a call asks here before it reads and is told when it may.
//
// Threads: any. A waiter runs on the thread that released, without a lock held.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

#include "absl/functional/any_invocable.h"

namespace sluice::broker::rpc {

class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t bytes_max) : bytes_max_(bytes_max) {}

  /// Counts bytes that are there already; may pass the limit.
  void Add(int64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_ += bytes;
  }

  void Release(int64_t bytes) {
    std::deque<absl::AnyInvocable<void()>> ready;
    {
      std::lock_guard lock(mutex_);
      bytes_ -= bytes;
      if (bytes_ >= bytes_max_) return;
      ready.swap(waiting_);
    }
    for (auto& resume : ready) resume();
  }

  /// True when the budget has room. Otherwise `resume` runs once it has; it should ask again.
  bool AdmitOrWait(absl::AnyInvocable<void()> resume) {
    std::lock_guard lock(mutex_);
    if (bytes_ < bytes_max_) return true;
    waiting_.push_back(std::move(resume));
    return false;
  }

  int64_t bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  const int64_t bytes_max_;
  mutable std::mutex mutex_;
  int64_t bytes_ = 0;
  std::deque<absl::AnyInvocable<void()>> waiting_;
};

}  // namespace sluice::broker::rpc
