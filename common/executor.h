// The seams of time and execution: everything above runtime/ learns the time, waits, and runs elsewhere only through
// these, so that a whole node can run in the simulator on one thread with a clock of its own.
//
// runtime/ implements them with Asio and threads, tests/simulation/ with one seeded event heap.
#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace sluice {

using Task = absl::AnyInvocable<void()>;

/// Monotonic and wall time. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Time since an arbitrary start that never goes back; for intervals and time-outs.
  virtual absl::Duration Monotonic() const = 0;
  /// Wall time; may jump. Only for record timestamps and what people read, never for a decision about order.
  virtual absl::Time Wall() const = 0;
};

/// Runs tasks one after the other in the order posted: an actor's home. State that is touched only from one executor
/// needs no lock. A shard is one Executor.
class Executor {
 public:
  /// Names a timer of this executor; 0 names none.
  using TimerId = uint64_t;

  virtual ~Executor() = default;
  /// Runs `task` later, never inside this call. Thread-safe. Tasks posted after shutdown began are dropped.
  virtual void Post(Task task) = 0;
  /// Runs `task` here once `delay` has passed. Thread-safe.
  virtual TimerId PostAfter(absl::Duration delay, Task task) = 0;
  /// Forgets a timer; no effect when it has run or is none. Call on this executor: then the task surely does not run.
  virtual void Cancel(TimerId timer) = 0;
  /// Whether the caller runs on this executor; for checks of the thread rule.
  virtual bool IsCurrent() const = 0;
};

/// Runs tasks that block, off the shards: each file call is one task, a write and its sync apart, so that the simulator
/// schedules each as an event of its own. Whether tasks run in parallel is the implementation's choice unless made
/// with one thread (`Sequenced`), which keeps the order posted.
class BlockingExecutor {
 public:
  virtual ~BlockingExecutor() = default;
  /// Runs `task` on a blocking thread. Thread-safe.
  virtual void Post(Task task) = 0;
};

/// Where random numbers come from. Used from one thread.
class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t Next() = 0;
};

}  // namespace sluice
