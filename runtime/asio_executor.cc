#include "runtime/asio_executor.h"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
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

class AsioExecutor::Impl {
 public:
  explicit Impl(const std::string& name) : work_(boost::asio::make_work_guard(context_)), alarm_(context_) {
    thread_ = std::thread([this] { context_.run(); });
    thread_id_ = thread_.get_id();
    pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }

  void Post(Task task) {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
    if (!drain_posted_) {
      drain_posted_ = true;
      boost::asio::post(context_, [this] { Drain(); });
    }
  }

  TimerId PostAfter(absl::Duration delay, Task task) {
    const SteadyTime at = std::chrono::steady_clock::now() +
                          absl::ToChronoNanoseconds(std::clamp(delay, absl::ZeroDuration(), kDelayMax));
    std::lock_guard lock(mutex_);
    if (stopping_) return 0;
    const TimerId id = ++last_timer_;
    const auto entry = timers_.emplace(std::pair(at, id), std::move(task)).first;
    timer_times_.emplace(id, at);
    if (entry == timers_.begin()) boost::asio::post(context_, [this] { Arm(); });
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
    }
    boost::asio::post(context_, [this] {
      alarm_.cancel();
      work_.reset();
    });
    thread_.join();
  }

 private:
  void Drain() {
    {
      std::lock_guard lock(mutex_);
      running_.swap(tasks_);
      drain_posted_ = false;
    }
    for (Task& task : running_) {
      task();
      task = nullptr;  // its captures go now, not when the whole run is done
    }
    running_.clear();
  }

  void Arm() {
    std::lock_guard lock(mutex_);
    if (stopping_ || timers_.empty()) return;
    alarm_.expires_at(timers_.begin()->first.first);
    alarm_.async_wait([this](const boost::system::error_code& error) {
      if (!error) Fire();
    });
  }

  // One timer at a time, so that a timer's task can still cancel another that is due.
  void Fire() {
    const SteadyTime now = std::chrono::steady_clock::now();
    while (true) {
      Task task;
      {
        std::lock_guard lock(mutex_);
        if (timers_.empty() || timers_.begin()->first.first > now) break;
        const auto entry = timers_.begin();
        task = std::move(entry->second);
        timer_times_.erase(entry->first.second);
        timers_.erase(entry);
      }
      task();
    }
    Arm();
  }

  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer alarm_;  // for the earliest of timers_; touched on the thread only
  std::vector<Task> running_;        // on the thread only; kept for its capacity

  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool drain_posted_ = false;
  bool stopping_ = false;
  TimerId last_timer_ = 0;
  std::map<std::pair<SteadyTime, TimerId>, Task> timers_;
  std::unordered_map<TimerId, SteadyTime> timer_times_;

  std::thread::id thread_id_;
  std::thread thread_;
};

AsioExecutor::AsioExecutor(const std::string& name) : impl_(std::make_unique<Impl>(name)) {}
AsioExecutor::~AsioExecutor() {
  Stop();
}
void AsioExecutor::Post(Task task) {
  impl_->Post(std::move(task));
}
Executor::TimerId AsioExecutor::PostAfter(absl::Duration delay, Task task) {
  return impl_->PostAfter(delay, std::move(task));
}
void AsioExecutor::Cancel(TimerId timer) {
  impl_->Cancel(timer);
}
bool AsioExecutor::IsCurrent() const {
  return impl_->IsCurrent();
}
void AsioExecutor::Stop() {
  impl_->Stop();
}

}  // namespace sluice::runtime
