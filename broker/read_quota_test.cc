#include "broker/read_quota.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "tests/simulation/sim_executor.h"

namespace sluice::broker {
namespace {

using HoldPtr = ReadQuota::HoldPtr;

struct World {
  simulation::SimScheduler scheduler{1};
  simulation::SimClock clock{scheduler};
  std::shared_ptr<ReadQuota> Quota(int64_t bytes_max) { return std::make_shared<ReadQuota>(bytes_max, clock); }
};

TEST_CASE("reads get what they want while memory is free, and less as it gets short, but never less than they need") {
  World world;
  const auto quota = world.Quota(1000);
  std::vector<HoldPtr> holds;
  std::vector<int64_t> sizes;
  while (auto hold = quota->TryTake(50, 300)) {
    sizes.push_back(hold->bytes());
    holds.push_back(std::move(hold));
  }
  CHECK(sizes.front() == 250);
  CHECK(std::is_sorted(sizes.rbegin(), sizes.rend()));
  CHECK(sizes.back() == 50);
  CHECK(quota->stats().bytes > 950);
  CHECK(quota->stats().bytes <= 1000);
  holds.clear();
  CHECK(quota->stats().bytes == 0);
}

TEST_CASE("who finds no memory is served in line, and nobody overtakes") {
  World world;
  const auto quota = world.Quota(100);
  auto all = quota->TryTake(100, 100);
  REQUIRE(all != nullptr);
  std::vector<int> served;
  std::vector<HoldPtr> got;
  const auto wait = [&](int who, int64_t need) {
    return quota->Wait(need, need, [&, who](HoldPtr hold) {
      served.push_back(who);
      got.push_back(std::move(hold));
    });
  };
  wait(1, 80);
  wait(2, 10);
  const uint64_t third = wait(3, 10);
  wait(4, 10);
  all->Resize(50);  // room for the small ones, but the first is not one of them
  CHECK(served.empty());
  CHECK(quota->TryTake(1, 1) == nullptr);
  CHECK_FALSE(all->Grow(1, 1));
  quota->Forget(third);
  all = nullptr;
  CHECK(served == std::vector<int>{1, 2, 4});
  CHECK(quota->stats().bytes == 100);
}

TEST_CASE("a need beyond the bound waits for all of it, not for ever") {
  World world;
  const auto quota = world.Quota(100);
  CHECK(quota->TryTake(5000, 5000)->bytes() == 100);
  auto small = quota->TryTake(10, 10);
  bool served = false;
  quota->Wait(5000, 5000, [&](const HoldPtr& hold) { served = hold->bytes() == 100; });
  CHECK_FALSE(served);
  small = nullptr;
  CHECK(served);
}

TEST_CASE("memory is called in from those that are due, oldest first, and no more of it than is needed") {
  World world;
  const auto quota = world.Quota(100);
  std::vector<HoldPtr> holds;
  std::vector<int> called;
  for (int i = 0; i < 4; ++i) {
    holds.push_back(quota->TryTake(25, 25));
    holds.back()->CallIn(absl::Seconds(10), [&called, i] { called.push_back(i); });
  }
  HoldPtr got;
  quota->Reclaim();
  quota->Wait(40, 40, [&](HoldPtr hold) { got = std::move(hold); });
  world.scheduler.RunFor(absl::Seconds(9));
  quota->Reclaim();
  CHECK(called.empty());
  world.scheduler.RunFor(absl::Seconds(2));
  quota->Reclaim();
  quota->Reclaim();  // what is on its way back is not asked for again, nor is more
  CHECK(called == std::vector<int>{0, 1});
  CHECK(quota->stats().called_in == 2);
  holds[0] = nullptr;
  CHECK(got == nullptr);
  holds[1] = nullptr;
  CHECK(got != nullptr);
  quota->Reclaim();
  CHECK(called.size() == 2);
}

TEST_CASE("many threads that take, wait and give back never pass the bound, and all get theirs") {
  World world;
  const auto quota = world.Quota(1000);
  std::atomic<int64_t> held{0};
  std::atomic<int64_t> most{0};
  std::atomic<int> got{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const auto use = [&](const HoldPtr& hold) {
          const int64_t now = held += hold->bytes();
          for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
          }
          held -= hold->bytes();
          ++got;
        };
        if (auto hold = quota->TryTake(300, 600)) {
          use(hold);
        } else {
          quota->Wait(300, 600, [use](const HoldPtr& granted) { use(granted); });
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(got == 8000);
  CHECK(most <= 1000);
  CHECK(quota->stats().bytes == 0);
  CHECK(quota->stats().waiting == 0);
}

}  // namespace
}  // namespace sluice::broker
