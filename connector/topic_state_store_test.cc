#include "connector/topic_state_store.h"

#include <catch2/catch.hpp>
#include <set>

#include "connector/source/fake_topic.h"

namespace sluice::connector {
namespace {

class TickingClock final : public Clock {
 public:
  absl::Duration Monotonic() const override { return absl::Milliseconds(++ticks_); }
  absl::Time Wall() const override { return absl::UnixEpoch(); }

 private:
  mutable int64_t ticks_ = 0;
};
class CountingRandom final : public Random {
 public:
  explicit CountingRandom(uint64_t seed) : next_(seed << 32) {}
  uint64_t Next() override { return next_ += 0x9e3779b9; }

 private:
  uint64_t next_;
};
class NoWait final : public StopSignal {
 public:
  bool Sleep(absl::Duration) override { return !stopped(); }
};

/// A process with a store of its own on a topic that others share.
struct Process {
  Process(FakeTopic& topic, uint64_t seed)
      : random(seed), store(std::make_unique<FakePartitionLog>(topic), clock, random, stop) {}
  TickingClock clock;
  CountingRandom random;
  NoWait stop;
  TopicStateStore store;
};

}  // namespace

TEST_CASE("What was put is there for every process, under its version") {
  FakeTopic topic;
  Process a(topic, 1), b(topic, 2);
  CHECK(a.store.Get("k")->version == -1);
  const auto first = a.store.Put("k", "one", -1);
  REQUIRE(first.ok());
  CHECK(b.store.Get("k")->value == "one");
  CHECK(b.store.Get("k")->version == *first);
  REQUIRE(b.store.Put("k", "two", *first).ok());
  CHECK(a.store.Get("k")->value == "two");
}

TEST_CASE("Of two that read the same version, one is refused") {
  FakeTopic topic;
  Process a(topic, 1), b(topic, 2);
  const int64_t version = a.store.Put("k", "one", -1).value();
  REQUIRE(b.store.Put("k", "b", version).ok());
  CHECK(absl::IsAborted(a.store.Put("k", "a", version).status()));
  CHECK(a.store.Get("k")->value == "b");
  CHECK(absl::IsAborted(a.store.Put("k", "a", -1).status()));
}

TEST_CASE("Other keys' changes do not refuse a put") {
  FakeTopic topic;
  Process a(topic, 1), b(topic, 2);
  const int64_t version = a.store.Put("k", "one", -1).value();
  for (int i = 0; i < 5; ++i) REQUIRE(b.store.Put("other", "x", b.store.Get("other")->version).ok());
  CHECK(a.store.Put("k", "two", version).ok());
}

TEST_CASE("A put whose answer is lost is written once, and answers as if nothing had happened") {
  for (const Fault fault :
       {Fault::kUnknownLost, Fault::kUnknownWritten, Fault::kUnknownLate, Fault::kUnavailable, Fault::kControlBatch}) {
    for (int64_t step = 1; step < 6; ++step) {
      FakeTopic topic;
      Process a(topic, 1);
      const int64_t version = a.store.Put("k", "one", -1).value();
      topic.steps = 0;
      topic.fault = fault;
      topic.fault_at = step;
      const auto put = a.store.Put("k", "two", version);
      INFO("fault " << static_cast<int>(fault) << " at " << step << ": " << put.status());
      REQUIRE(put.ok());
      topic.fault_at = 0;
      Process b(topic, 2);
      CHECK(b.store.Get("k")->value == "two");
      CHECK(b.store.Get("k")->version == *put);
      const std::vector<std::string> values = topic.Values();
      CHECK(std::count(values.begin(), values.end(), "two") == 1);
    }
  }
}

TEST_CASE("The log is kept short, and no version changes by that") {
  FakeTopic topic;
  Process a(topic, 1), b(topic, 2);
  const int64_t quiet = a.store.Put("quiet", "still here", -1).value();
  REQUIRE(b.store.Get("quiet").ok());
  int64_t version = -1;
  for (int i = 0; i < 3000; ++i) version = a.store.Put("busy", std::to_string(i), version).value();
  CHECK(topic.log_start > Offset(0));
  CHECK(topic.Values().size() < 1500);
  for (Process* process : {&a, &b}) {
    CHECK(process->store.Get("busy")->value == "2999");
    CHECK(process->store.Get("busy")->version == version);
    CHECK(process->store.Get("quiet")->version == quiet);
  }
  Process late(topic, 3);
  CHECK(late.store.Put("quiet", "changed", quiet).ok());
}

}  // namespace sluice::connector
