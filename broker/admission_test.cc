#include "broker/admission.h"

#include <catch2/catch.hpp>
#include <thread>
#include <vector>

namespace sluice::broker {
namespace {

TEST_CASE("a closed gate lets nobody in and is drained once the last one has left") {
  auto gate = std::make_shared<CallGate>();
  CHECK_FALSE(gate->Enter());
  gate->Open();
  CallGate::Pass one = gate->Enter();
  CallGate::Pass two = gate->Enter();
  REQUIRE(one);
  int drained = 0;
  gate->Close([&] { ++drained; });
  CHECK_FALSE(gate->is_open());
  CHECK_FALSE(gate->Enter());
  one = {};
  CHECK(drained == 0);
  two = {};
  CHECK(drained == 1);
  CHECK_FALSE(gate->Enter());
  CHECK(drained == 1);
}

TEST_CASE("a gate that is closed while many threads pass is drained exactly once, when it is empty") {
  for (int round = 0; round < 50; ++round) {
    auto gate = std::make_shared<CallGate>();
    gate->Open();
    std::atomic<int> inside{0};
    std::atomic<int> drained{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i) {
          inside.fetch_add(1);
          CallGate::Pass pass = gate->Enter();
          if (!pass) {
            inside.fetch_sub(1);
            continue;
          }
          inside.fetch_sub(1);
          if (drained.load() > 0) inside.fetch_add(1'000'000);  // nobody may be inside by then
        }
      });
    }
    gate->Close([&] { drained.fetch_add(1); });
    for (auto& thread : threads) thread.join();
    CHECK(drained.load() == 1);
    CHECK(inside.load() == 0);
  }
}

TEST_CASE("a memory quota never gives more than its bound and gets all of it back") {
  auto quota = std::make_shared<MemoryQuota>(100);
  MemoryQuota::Hold first = quota->Take(60);
  CHECK(first);
  CHECK_FALSE(quota->Take(41));
  CHECK(quota->used() == 60);
  {
    MemoryQuota::Hold second = quota->Take(40);
    CHECK(second);
    CHECK(quota->used() == 100);
  }
  first = {};
  CHECK(quota->used() == 0);
}

TEST_CASE("a disk that fell below the low mark takes appends again only from the high mark on") {
  DiskWatermarks disk(100, 200);
  disk.Update(150);
  CHECK_FALSE(disk.refusing());
  disk.Update(99);
  CHECK(disk.refusing());
  disk.Update(199);
  CHECK(disk.refusing());
  disk.Update(200);
  CHECK_FALSE(disk.refusing());
}

}  // namespace
}  // namespace sluice::broker
