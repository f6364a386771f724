// The client's own thread as an Executor, and the machine's clocks, for programs that have no event loop of their own.
// (The dependency rule keeps runtime/ out of the client, and one thread with a timer heap is all that a client needs.)
#pragma once

#include <memory>

#include "common/executor.h"

namespace sluice::client {

class ThreadExecutor : public Executor, public Clock {
 public:
  ThreadExecutor();
  /// Runs what was posted, drops timers, and ends the thread. Not on the executor itself.
  ~ThreadExecutor() override;

  void Post(Task task) override;
  TimerId PostAfter(absl::Duration delay, Task task) override;
  void Cancel(TimerId timer) override;
  bool IsCurrent() const override;
  absl::Duration Monotonic() const override;
  absl::Time Wall() const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::client
