// Asks the connector's threads to stop, and is what they sleep on, so that a stop ends every wait at once.
//
// Threads: any.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace sluice::connector {

class StopSignal {
 public:
  virtual ~StopSignal() = default;

  void Stop() {
    std::vector<std::function<void()>> hooks;
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) return;
      stopped_ = true;
      hooks = std::move(hooks_);
    }
    wake_.notify_all();
    for (const auto& hook : hooks) hook();
  }
  bool stopped() const {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }
  /// Runs `hook` once on Stop, on the stopping thread, or now when that was before.
  void OnStop(std::function<void()> hook) {
    {
      const std::lock_guard lock(mutex_);
      if (!stopped_) {
        hooks_.push_back(std::move(hook));
        return;
      }
    }
    hook();
  }
  /// Waits; false when stopped before or while waiting. Tests override it to have time pass at once.
  virtual bool Sleep(absl::Duration duration) {
    std::unique_lock lock(mutex_);
    return !wake_.wait_for(lock, absl::ToChronoNanoseconds(duration), [this] { return stopped_; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;
  std::vector<std::function<void()>> hooks_;
};

}  // namespace sluice::connector
