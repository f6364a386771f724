// One seeded event heap on one thread with a clock of its own: everything that runs in the simulator runs from here.
//
// The same seed and the same code give the same run, event by event; trace_hash() says so. Events due at the same time
// run in an order drawn from the seed, except that an executor keeps the order posted.
// Threads: all of it from one.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/time/time.h"
#include "common/executor.h"

namespace sluice::simulation {

/// SplitMix64: small, seeded, the same on every machine.
class SimRandom final : public Random {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next() override;
  /// Uniform in [0, bound); bound > 0.
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  /// True once in `n` on average.
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

class SimScheduler {
 public:
  explicit SimScheduler(uint64_t seed) : random_(seed) {}

  absl::Duration now() const { return now_; }
  SimRandom& random() { return random_; }
  uint64_t trace_hash() const { return trace_hash_; }
  uint64_t events_run() const { return events_run_; }

  using EventKey = std::tuple<absl::Duration, uint64_t, uint64_t>;
  EventKey At(absl::Duration delay, Task task);
  void Cancel(const EventKey& key) { events_.erase(key); }

  /// When the next event is due; InfiniteDuration when there is none.
  absl::Duration next_due() const {
    return events_.empty() ? absl::InfiniteDuration() : std::get<0>(events_.begin()->first);
  }
  /// Runs the next event, moving the clock to it; false when there is none.
  bool Step();
  /// Runs events until none is left, or `events_max` have run; true when none is left.
  bool RunUntilIdle(uint64_t events_max = 10'000'000);
  /// Runs what is due within `span`, then moves the clock to its end.
  void RunFor(absl::Duration span);
  /// Forgets every event, as when all processes are killed.
  void Clear();

 private:
  SimRandom random_;
  absl::Duration now_ = absl::ZeroDuration();
  std::map<EventKey, Task> events_;  // by time, then a random number, then the order made
  uint64_t made_ = 0;
  uint64_t events_run_ = 0;
  uint64_t trace_hash_ = 0;
};

class SimClock final : public Clock {
 public:
  explicit SimClock(const SimScheduler& scheduler) : scheduler_(scheduler) {}
  absl::Duration Monotonic() const override { return scheduler_.now(); }
  absl::Time Wall() const override { return absl::FromUnixSeconds(1'700'000'000) + scheduler_.now() + wall_offset_; }
  /// Makes the wall clock jump.
  void JumpWall(absl::Duration by) { wall_offset_ += by; }

 private:
  const SimScheduler& scheduler_;
  absl::Duration wall_offset_ = absl::ZeroDuration();
};

/// What runs as one process. While it is paused (SIGSTOP) nothing of it runs; what became due meanwhile does, in that
/// order, once it goes on. Destroying it drops all of it.
class SimProcess {
 public:
  explicit SimProcess(SimScheduler& scheduler) : scheduler_(scheduler), state_(std::make_shared<State>()) {}

  void At(absl::Duration delay, Task task);
  void Pause() { state_->paused = true; }
  void Resume();
  bool paused() const { return state_->paused; }
  SimScheduler& scheduler() const { return scheduler_; }

 private:
  struct State {
    bool paused = false;
    std::deque<Task> held;
  };

  SimScheduler& scheduler_;
  const std::shared_ptr<State> state_;
};

/// Destroying it drops its tasks and timers.
class SimExecutor final : public Executor {
 public:
  explicit SimExecutor(SimScheduler& scheduler) : scheduler_(scheduler), queue_(std::make_shared<Queue>()) {}
  explicit SimExecutor(SimProcess& process)
      : scheduler_(process.scheduler()), process_(&process), queue_(std::make_shared<Queue>()) {}
  void Post(Task task) override;
  TimerId PostAfter(absl::Duration delay, Task task) override;
  void Cancel(TimerId timer) override;
  bool IsCurrent() const override { return queue_->running; }
  /// Drops its tasks and timers now, while what they hold on to still lives. Nothing is to run here any more.
  void Drop() {
    const auto tasks = std::exchange(queue_->tasks, {});
    const auto timers = std::exchange(queue_->timers, {});
  }

 private:
  struct Queue {
    std::deque<Task> tasks;
    std::map<TimerId, Task> timers;
    bool running = false;
  };
  static void RunNext(const std::weak_ptr<Queue>& weak);

  SimScheduler& scheduler_;
  SimProcess* const process_ = nullptr;  // null: never paused
  std::shared_ptr<Queue> queue_;
  TimerId timers_made_ = 0;
};

/// A blocking executor: each task takes a drawn time. `kSequenced` keeps the order posted, one at a time.
class SimBlockingExecutor final : public BlockingExecutor {
 public:
  enum class Order { kSequenced, kAny };
  explicit SimBlockingExecutor(SimScheduler& scheduler, Order order = Order::kSequenced)
      : scheduler_(scheduler), order_(order), queue_(std::make_shared<Queue>()) {}
  explicit SimBlockingExecutor(SimProcess& process, Order order = Order::kSequenced)
      : scheduler_(process.scheduler()), process_(&process), order_(order), queue_(std::make_shared<Queue>()) {}
  void Post(Task task) override;
  /// Bounds of the time drawn for each task.
  void SetLatency(absl::Duration least, absl::Duration most) { least_ = least, most_ = most; }
  /// As SimExecutor::Drop.
  void Drop() { const auto tasks = std::exchange(queue_->tasks, {}); }

 private:
  struct Queue {
    std::deque<Task> tasks;
    absl::Duration busy_until = absl::ZeroDuration();
  };

  SimScheduler& scheduler_;
  SimProcess* const process_ = nullptr;  // null: never paused
  const Order order_;
  std::shared_ptr<Queue> queue_;
  absl::Duration least_ = absl::Microseconds(5);
  absl::Duration most_ = absl::Microseconds(200);
};

}  // namespace sluice::simulation
