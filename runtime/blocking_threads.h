// BlockingThreads: threads for tasks that block. With one thread, tasks run in the order posted; with more, each starts
// in that order and they run side by side.
//
// Threads: Post from any, also from a task. The destructor (or Stop) runs every task posted before it, then joins;
// tasks posted later are dropped. Stop must not be called from a task.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/executor.h"

namespace sluice::runtime {

class BlockingThreads final : public BlockingExecutor {
 public:
  /// `name` is what a debugger shows; at most 15 characters are kept.
  explicit BlockingThreads(size_t threads, const std::string& name = "blocking");
  ~BlockingThreads() override;
  BlockingThreads(const BlockingThreads&) = delete;
  BlockingThreads& operator=(const BlockingThreads&) = delete;

  void Post(Task task) override;
  void Stop();

 private:
  void Run();

  const size_t threads_wanted_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Task> queue_;  // guarded by mutex_
  size_t next_ = 0;          // guarded by mutex_; with several threads: the first task of queue_ not taken yet
  size_t sleeping_ = 0;      // guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace sluice::runtime
