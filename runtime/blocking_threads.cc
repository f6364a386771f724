#include "runtime/blocking_threads.h"

#include <pthread.h>

#include <utility>

namespace sluice::runtime {

BlockingThreads::BlockingThreads(size_t threads, const std::string& name) : threads_wanted_(threads) {
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
    ::pthread_setname_np(threads_.back().native_handle(), name.substr(0, 15).c_str());
  }
}

BlockingThreads::~BlockingThreads() {
  Stop();
}

void BlockingThreads::Post(Task task) {
  bool wake = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    queue_.push_back(std::move(task));
    wake = sleeping_ > 0;
  }
  if (wake) wake_.notify_one();
}

void BlockingThreads::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void BlockingThreads::Run() {
  std::vector<Task> taken;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    while (next_ == queue_.size() && !stopping_) {
      ++sleeping_;
      wake_.wait(lock);
      --sleeping_;
    }
    if (next_ == queue_.size()) return;
    if (threads_wanted_ == 1) {
      taken.swap(queue_);  // everything at once: the other threads have nothing to wait for
    } else {
      taken.push_back(std::move(queue_[next_++]));
      if (next_ == queue_.size()) {
        queue_.clear();
        next_ = 0;
      }
    }
    lock.unlock();
    for (Task& task : taken) {
      task();
      task = nullptr;  // lets go of what the task holds before the next one runs
    }
    taken.clear();
    lock.lock();
  }
}

}  // namespace sluice::runtime
