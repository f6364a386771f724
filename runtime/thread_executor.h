// ThreadExecutor: the Executor of real processes. One thread of its own; a shard is one of these.
//
// Always holds: tasks run one after the other, in the order posted, on the executor's own thread; a timer's task runs
// no earlier than asked and never once Cancel (called here) returned. Posting takes one lock; only a post that finds
// the thread asleep wakes it, and a wake-up drains the whole queue.
// Threads: as Executor; Stop from any thread but the executor's own.
#pragma once

#include <memory>
#include <string>

#include "common/executor.h"

namespace sluice::runtime {

class ThreadExecutor final : public Executor {
 public:
  /// Starts the thread; `name` is what debuggers and `top -H` show (at most 15 bytes are).
  explicit ThreadExecutor(const std::string& name);
  ~ThreadExecutor() override;
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  void Post(Task task) override;
  TimerId PostAfter(absl::Duration delay, Task task) override;
  void Cancel(TimerId timer) override;
  bool IsCurrent() const override;

  /// Runs what was posted before, drops timers and what comes after, and joins the thread. Again: no effect.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::runtime
