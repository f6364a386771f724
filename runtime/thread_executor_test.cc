#include "runtime/thread_executor.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

namespace sluice::runtime {
namespace {

// Waits until everything posted so far has run.
void Flush(Executor& executor) {
  std::promise<void> done;
  executor.Post([&] { done.set_value(); });
  done.get_future().wait();
}

TEST_CASE("Tasks run in the order posted, on the executor's thread, and never inside Post") {
  ThreadExecutor executor("test");
  std::vector<int> order;
  bool nested_ran_inside = false;
  bool posted = false;
  CHECK(!executor.IsCurrent());
  executor.Post([&] {
    CHECK(executor.IsCurrent());
    executor.Post([&] {
      nested_ran_inside = !posted;
      order.push_back(99);
    });
    posted = true;
  });
  Flush(executor);
  Flush(executor);  // the nested task was posted behind the first flush's own
  for (int i = 0; i < 1000; ++i) executor.Post([&order, i] { order.push_back(i); });
  Flush(executor);
  CHECK(!nested_ran_inside);
  REQUIRE(order.size() == 1001);
  CHECK(order[0] == 99);
  for (int i = 0; i < 1000; ++i) CHECK(order[static_cast<size_t>(i) + 1] == i);
}

TEST_CASE("Posts from many threads all run, each thread's in its order") {
  ThreadExecutor executor("test");
  constexpr int kThreads = 4;
  constexpr int kPosts = 5000;
  std::vector<int> last(kThreads, -1);
  bool ordered = true;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        executor.Post([&, t, i] {
          ordered = ordered && last[static_cast<size_t>(t)] == i - 1;
          last[static_cast<size_t>(t)] = i;
        });
      }
    });
  }
  for (auto& thread : threads) thread.join();
  Flush(executor);
  CHECK(ordered);
  for (int t = 0; t < kThreads; ++t) CHECK(last[static_cast<size_t>(t)] == kPosts - 1);
}

TEST_CASE("Timers run in the order of their times, not before them") {
  ThreadExecutor executor("test");
  std::vector<int> order;
  std::promise<void> done;
  const auto start = std::chrono::steady_clock::now();
  executor.PostAfter(absl::Milliseconds(40), [&] {
    order.push_back(2);
    done.set_value();
  });
  executor.PostAfter(absl::Milliseconds(10), [&] { order.push_back(1); });
  executor.PostAfter(absl::InfiniteDuration(), [&] { order.push_back(3); });
  executor.PostAfter(-absl::Seconds(1), [&] { order.push_back(0); });
  done.get_future().wait();
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(40));
  CHECK(order == std::vector<int>{0, 1, 2});
}

TEST_CASE("A timer cancelled by another that is due at the same time does not run") {
  ThreadExecutor executor("test");
  std::atomic<bool> ran = false;
  std::promise<void> done;
  executor.Post([&] {
    static Executor::TimerId second;
    executor.PostAfter(absl::ZeroDuration(), [&] { executor.Cancel(second); });
    second = executor.PostAfter(absl::ZeroDuration(), [&] { ran = true; });
    executor.PostAfter(absl::Milliseconds(5), [&] { done.set_value(); });
  });
  done.get_future().wait();
  CHECK(!ran);
}

TEST_CASE("Stop runs what was posted before it and drops timers and what comes after") {
  int ran = 0;
  ThreadExecutor executor("test");
  executor.PostAfter(absl::Hours(1), [&] { ran += 1000; });
  for (int i = 0; i < 100; ++i) executor.Post([&] { ++ran; });
  executor.Stop();
  executor.Post([&] { ran += 1000; });
  executor.PostAfter(absl::ZeroDuration(), [&] { ran += 1000; });
  executor.Stop();
  CHECK(ran == 100);
}

}  // namespace
}  // namespace sluice::runtime
