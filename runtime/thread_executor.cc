#include "runtime/thread_executor.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/check.h"

namespace sluice::runtime {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// Far delays are capped to a year so that no arithmetic on time points can overflow.
constexpr absl::Duration kDelayMax = absl::Hours(24 * 365);

}  // namespace

class ThreadExecutor::Impl {
 public:
  explicit Impl(const std::string& name) {
    thread_ = std::thread([this] { Run(); });
    thread_id_ = thread_.get_id();
    pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }

  void Post(Task task) {
    bool wake = false;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      tasks_.push_back(std::move(task));
      wake = std::exchange(asleep_, false);
    }
    if (wake) wake_.notify_one();
  }

  TimerId PostAfter(absl::Duration delay, Task task) {
    const SteadyTime at = std::chrono::steady_clock::now() +
                          absl::ToChronoNanoseconds(std::clamp(delay, absl::ZeroDuration(), kDelayMax));
    bool wake = false;
    TimerId id = 0;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return 0;
      id = ++last_timer_;
      const auto entry = timers_.emplace(std::pair(at, id), std::move(task)).first;
      timer_times_.emplace(id, at);
      wake = entry == timers_.begin() && std::exchange(asleep_, false);
    }
    if (wake) wake_.notify_one();
    return id;
  }

  void Cancel(TimerId id) {
    Task forgotten;  // destroyed after the lock is gone: its captures may post
    std::lock_guard lock(mutex_);
    const auto time = timer_times_.find(id);
    if (time == timer_times_.end()) return;
    const auto entry = timers_.find({time->second, id});
    forgotten = std::move(entry->second);
    timers_.erase(entry);
    timer_times_.erase(time);
  }

  bool IsCurrent() const { return std::this_thread::get_id() == thread_id_; }

  void Stop() {
    SLUICE_CHECK(!IsCurrent()) << "an executor cannot join itself";
    std::map<std::pair<SteadyTime, TimerId>, Task> dropped;
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(stopping_, true)) return;
      dropped.swap(timers_);
      timer_times_.clear();
      asleep_ = false;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      Drain(lock);
      Fire(lock);
      if (!tasks_.empty()) continue;
      if (stopping_) return;
      asleep_ = true;
      if (timers_.empty()) {
        wake_.wait(lock, [this] { return !asleep_; });
      } else {
        const SteadyTime until = timers_.begin()->first.first;
        wake_.wait_until(lock, until, [this] { return !asleep_; });
        asleep_ = false;
      }
    }
  }

  // Called with the lock, which is not held while tasks run.
  void Drain(std::unique_lock<std::mutex>& lock) {
    if (tasks_.empty()) return;
    running_.swap(tasks_);
    lock.unlock();
    for (Task& task : running_) {
      task();
      task = nullptr;  // its captures go now, not when the whole run is done
    }
    running_.clear();
    lock.lock();
  }

  // The same. One timer at a time, so that a timer's task can still cancel another that is due.
  void Fire(std::unique_lock<std::mutex>& lock) {
    if (timers_.empty()) return;
    const SteadyTime now = std::chrono::steady_clock::now();
    while (!timers_.empty() && timers_.begin()->first.first <= now) {
      const auto entry = timers_.begin();
      Task task = std::move(entry->second);
      timer_times_.erase(entry->first.second);
      timers_.erase(entry);
      lock.unlock();
      task();
      task = nullptr;
      lock.lock();
    }
  }

  std::vector<Task> running_;  // on the thread only; kept for its capacity

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Task> tasks_;
  bool asleep_ = false;  // the thread waits, and nobody has woken it
  bool stopping_ = false;
  TimerId last_timer_ = 0;
  std::map<std::pair<SteadyTime, TimerId>, Task> timers_;
  std::unordered_map<TimerId, SteadyTime> timer_times_;

  std::thread::id thread_id_;
  std::thread thread_;
};

ThreadExecutor::ThreadExecutor(const std::string& name) : impl_(std::make_unique<Impl>(name)) {}
ThreadExecutor::~ThreadExecutor() {
  Stop();
}
void ThreadExecutor::Post(Task task) {
  impl_->Post(std::move(task));
}
Executor::TimerId ThreadExecutor::PostAfter(absl::Duration delay, Task task) {
  return impl_->PostAfter(delay, std::move(task));
}
void ThreadExecutor::Cancel(TimerId timer) {
  impl_->Cancel(timer);
}
bool ThreadExecutor::IsCurrent() const {
  return impl_->IsCurrent();
}
void ThreadExecutor::Stop() {
  impl_->Stop();
}

}  // namespace sluice::runtime
