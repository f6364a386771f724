#include "client/thread_executor.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace sluice::client {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

}  // namespace

struct ThreadExecutor::State {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Task> tasks;
  std::map<std::pair<SteadyTime, TimerId>, Task> timers;
  std::map<TimerId, SteadyTime> timer_times;
  TimerId last_timer = 0;
  bool sleeping = false;
  bool stopping = false;
  std::thread thread;

  void WakeIfAsleep() {
    if (!sleeping) return;
    sleeping = false;
    wake.notify_one();
  }

  // Moves timers that are due behind the tasks. With the lock held.
  void TakeDueTimers() {
    if (timers.empty()) return;
    const SteadyTime now = std::chrono::steady_clock::now();
    while (!timers.empty() && timers.begin()->first.first <= now) {
      auto first = timers.begin();
      // By its id, so that a Cancel between now and its turn still holds.
      const TimerId id = first->first.second;
      tasks.push_back([this, id, task = std::move(first->second)]() mutable {
        {
          std::lock_guard lock(mutex);
          if (timer_times.erase(id) == 0) return;
        }
        task();
      });
      timers.erase(first);
    }
  }

  void Run() {
    std::vector<Task> running;
    std::unique_lock lock(mutex);
    while (true) {
      TakeDueTimers();
      if (tasks.empty()) {
        if (stopping) return;
        sleeping = true;
        if (timers.empty()) {
          wake.wait(lock, [&] { return !sleeping; });
        } else {
          const SteadyTime until = timers.begin()->first.first;
          wake.wait_until(lock, until, [&] { return !sleeping; });
        }
        sleeping = false;
        continue;
      }
      running.swap(tasks);
      lock.unlock();
      for (Task& task : running) {
        task();
        task = nullptr;  // what it holds goes before the next task runs
      }
      running.clear();
      lock.lock();
    }
  }
};

ThreadExecutor::ThreadExecutor() : state_(std::make_unique<State>()) {
  state_->thread = std::thread([state = state_.get()] { state->Run(); });
}

ThreadExecutor::~ThreadExecutor() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->WakeIfAsleep();
  }
  state_->thread.join();
}

void ThreadExecutor::Post(Task task) {
  std::lock_guard lock(state_->mutex);
  if (state_->stopping) return;
  state_->tasks.push_back(std::move(task));
  state_->WakeIfAsleep();
}

Executor::TimerId ThreadExecutor::PostAfter(absl::Duration delay, Task task) {
  std::lock_guard lock(state_->mutex);
  if (state_->stopping) return 0;
  const TimerId id = ++state_->last_timer;
  const SteadyTime at =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(std::min(delay, absl::Hours(8760)));
  state_->timer_times.emplace(id, at);
  state_->timers.emplace(std::make_pair(at, id), std::move(task));
  if (state_->timers.begin()->first.second == id) state_->WakeIfAsleep();
  return id;
}

void ThreadExecutor::Cancel(TimerId timer) {
  Task dropped;  // destroyed outside the lock
  std::lock_guard lock(state_->mutex);
  auto found = state_->timer_times.find(timer);
  if (found == state_->timer_times.end()) return;
  auto entry = state_->timers.find({found->second, timer});
  if (entry != state_->timers.end()) {
    dropped = std::move(entry->second);
    state_->timers.erase(entry);
  }
  state_->timer_times.erase(found);
}

bool ThreadExecutor::IsCurrent() const {
  return std::this_thread::get_id() == state_->thread.get_id();
}

absl::Duration ThreadExecutor::Monotonic() const {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Time ThreadExecutor::Wall() const {
  return absl::Now();
}

}  // namespace sluice::client
