#include "connector/source/slice_puller.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "connector/source/pull_world.h"

namespace sluice::connector {

TEST_CASE("A pull writes each record of each page once, in order, with its key") {
  World world;
  world.api.pages = kPages;
  REQUIRE(world.Pull().ok());
  CHECK(world.topic.Values() == world.Published());
  CHECK(world.topic.batches[0].items[0].key == "key of 1");
}

TEST_CASE("Each batch carries slice, page and part in its last record") {
  World world;
  world.api.pages = kPages;
  REQUIRE(world.Pull().ok());
  std::vector<std::string> places;
  for (const FakeTopic::Stored& batch : world.topic.batches) {
    for (size_t i = 0; i + 1 < batch.items.size(); ++i) CHECK(batch.items[i].headers.empty());
    REQUIRE(batch.items.back().headers.size() == 1);
    CHECK(batch.items.back().headers[0].first == kPositionHeader);
    const auto position = DecodePosition(batch.items.back().headers[0].second);
    REQUIRE(position.ok());
    places.push_back(Cat(position->page, ":", position->part, "/", position->parts));
  }
  CHECK(places == std::vector<std::string>{"0:1/2", "0:2/2", "2:1/4", "2:2/4", "2:3/4", "2:4/4", "3:1/1"});
}

TEST_CASE("A pull that is complete is not done again when it is to be done once") {
  World world;
  world.api.pages = kPages;
  REQUIRE(world.Pull().ok());
  world.api.asked_from.clear();
  REQUIRE(world.Pull().ok());
  CHECK(world.api.asked_from.empty());
  CHECK(world.topic.Values() == world.Published());
}

TEST_CASE("Any fault at any step, followed by a restart where the process died, neither loses nor repeats a record") {
  for (const Fault fault : kAllFaults) {
    int64_t fired = 0;
    for (int64_t step = 1;; ++step) {
      World world;
      world.api.pages = kPages;
      world.topic.fault = fault;
      world.topic.fault_at = step;
      INFO("fault " << static_cast<int>(fault) << " at step " << step);
      world.PullToTheEnd();
      REQUIRE(world.topic.Values() == world.Published());
      if (!world.topic.fired) break;
      ++fired;
    }
    CHECK(fired > 10);
  }
}

TEST_CASE("A second connector that pulls everything between any two steps of the first changes nothing") {
  int64_t fired = 0;
  for (int64_t step = 1;; ++step) {
    World world;
    world.api.pages = kPages;
    world.topic.fault_at = step;
    world.topic.at_step = [&] { REQUIRE(world.Pull().ok()); };
    INFO("at step " << step);
    world.PullToTheEnd();
    REQUIRE(world.topic.Values() == world.Published());
    if (!world.topic.fired) break;
    ++fired;
  }
  CHECK(fired > 10);
}

TEST_CASE("Connectors that pull at the same time write each record once") {
  for (int round = 0; round < 50; ++round) {
    World world;
    for (int page = 0; page < 20; ++page) {
      std::vector<std::string> values;
      for (int i = 0; i < (page * 7 + round) % 6; ++i) values.push_back(std::to_string(page * 100 + i));
      world.api.pages.push_back(values);
    }
    std::vector<std::thread> threads;
    std::vector<absl::Status> ends(3);
    std::vector<FakeApi> apis(3, world.api);
    for (size_t i = 0; i < 3; ++i) {
      threads.emplace_back([&, i] {
        FakePartitionLog log(world.topic);
        FakeStateStore state(world.topic);
        DeadLetterQueue dead_letters(FakeDeadLetters(world.letters, world.letters_exist));
        TickingClock clock;
        CountingRandom random;
        NoWait stop;
        SourceProgress progress;
        SlicePuller puller({.pipeline = "p", .slice = "0", .incremental = {}, .once = true, .batch_records = 2},
                           {.log = &log,
                            .state = &state,
                            .dead_letters = &dead_letters,
                            .pages = &apis[i],
                            .clock = &clock,
                            .random = &random,
                            .stop = &stop,
                            .progress = &progress,
                            .on_retry = {}});
        ends[i] = puller.Pull();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& end : ends) REQUIRE(end.ok());
    REQUIRE(world.topic.Values() == world.Published());
  }
}

TEST_CASE("A page whose order changes between its parts is still written once") {
  for (int64_t step = 1; step < 40; ++step) {
    World world;
    world.api.pages = kPages;
    int64_t fetches = 0;
    world.api.disturb = [&](std::vector<std::string>* values) {
      if (++fetches % 2 == 0) std::reverse(values->begin(), values->end());
    };
    world.topic.fault = Fault::kCrashAfter;
    world.topic.fault_at = step;
    world.PullToTheEnd();
    REQUIRE(Sorted(world.topic.Values()) == Sorted(world.Published()));
  }
}

TEST_CASE("Records of the same text in one page are as many as the API sent") {
  for (int64_t step = 1; step < 20; ++step) {
    World world;
    world.api.pages = {{"7", "7", "7", "8", "7"}};
    world.topic.fault = Fault::kCrashAfter;
    world.topic.fault_at = step;
    world.PullToTheEnd();
    REQUIRE(world.topic.Values() == world.Published());
  }
}

TEST_CASE("The checkpoint takes over when retention has removed every batch") {
  World world;
  world.api.pages = kPages;
  REQUIRE(world.Pull().ok());
  FakePartitionLog log(world.topic);
  world.topic.log_start = world.topic.End();
  world.topic.batches.clear();
  REQUIRE(world.Pull().ok());
  CHECK(world.topic.Values().empty());
}

TEST_CASE("Another writer's records in the topic do not hide the position") {
  World world;
  world.api.pages = kPages;
  world.topic.fault = Fault::kCrashAfter;
  world.topic.fault_at = 8;
  REQUIRE_FALSE(world.Pull().ok());
  world.topic.batches.push_back(
      {.base = world.topic.End(), .control = false, .items = {{.key = {}, .value = "by hand", .headers = {}}}});
  REQUIRE(world.Pull().ok());
  std::vector<std::string> values = world.topic.Values();
  std::erase(values, "by hand");
  CHECK(values == world.Published());
}

TEST_CASE("A topic made again that others have filled is not taken for the one that the checkpoint is of") {
  World world;
  world.api.pages = kPages;
  REQUIRE(world.Pull().ok());
  const int64_t records = world.topic.End().value();
  world.topic.batches.clear();
  world.topic.id = "another topic";
  for (int64_t i = 0; i <= records; ++i) {
    world.topic.batches.push_back(
        {.base = world.topic.End(), .control = false, .items = {{.key = {}, .value = "by hand", .headers = {}}}});
  }
  REQUIRE(world.Pull().ok());
  std::vector<std::string> values = world.topic.Values();
  std::erase(values, "by hand");
  CHECK(values == world.Published());
}

TEST_CASE("A topic made again under the same name is filled from the beginning") {
  World world;
  world.api.pages = kPages;
  REQUIRE(world.Pull().ok());
  world.topic.batches.clear();
  world.topic.log_start = Offset(0);
  REQUIRE(world.Pull().ok());
  CHECK(world.topic.Values() == world.Published());
}

TEST_CASE("An incremental pull asks from the largest value on, and leaves out what it has seen there") {
  for (int64_t step = 0; step < 40; ++step) {
    World world;
    world.once = false;
    world.incremental = IncrementalConfig{.field = "/t", .param = "since", .start = "1", .format = {}};
    world.api.pages = {{R"({"t":1})", R"({"t":3,"a":1})"}, {R"({"t":2})", R"({"t":3,"a":2})"}};
    REQUIRE(world.Pull().ok());
    REQUIRE(world.api.asked_from == std::vector<std::string>{"1", "1"});
    // The API answers "from 3, inclusive", with one record more at 3 than before.
    world.api.pages = {{R"({"t":3,"a":1})", R"({"t":3,"a":2})", R"({"t":3,"a":3})", R"({"t":4})"}};
    world.api.asked_from.clear();
    world.topic.steps = 0;
    world.topic.fault = Fault::kCrashAfter;
    world.topic.fault_at = step;
    world.PullToTheEnd();
    CHECK(world.api.asked_from.front() == "3");
    // A crash after the pull's end makes the next process begin another pull, which finds nothing new.
    CHECK(Sorted(world.topic.Values()) == Sorted({R"({"t":1})", R"({"t":2})", R"({"t":3,"a":1})", R"({"t":3,"a":2})",
                                                  R"({"t":3,"a":3})", R"({"t":4})"}));
  }
}

TEST_CASE("A topic that stays away ends the pull with its error") {
  World world;
  world.api.pages = kPages;
  world.topic.at_step = nullptr;
  class Dead final : public StateStore {
   public:
    absl::StatusOr<StateEntry> Get(std::string_view) override { return absl::UnavailableError("no broker"); }
    absl::StatusOr<int64_t> Put(std::string_view, std::string_view, int64_t) override {
      return absl::UnavailableError("no broker");
    }
  } dead;
  FakePartitionLog log(world.topic);
  DeadLetterQueue dead_letters(FakeDeadLetters(world.letters, world.letters_exist));
  TickingClock clock;
  CountingRandom random;
  NoWait stop;
  SourceProgress progress;
  SlicePuller puller({.pipeline = "p", .slice = "0", .incremental = {}, .retry_max = absl::Milliseconds(50)},
                     {.log = &log,
                      .state = &dead,
                      .dead_letters = &dead_letters,
                      .pages = &world.api,
                      .clock = &clock,
                      .random = &random,
                      .stop = &stop,
                      .progress = &progress,
                      .on_retry = {}});
  CHECK(absl::IsUnavailable(puller.Pull()));
  CHECK(progress.retries > 3);
}

TEST_CASE("Retention inside a page that is half written is told, and nothing is guessed") {
  World world;
  world.api.pages = kPages;
  world.topic.fault = Fault::kCrashAfter;
  for (int64_t step = 1; world.topic.batches.size() != 1; ++step) {
    world.topic.steps = 0;
    world.topic.fault_at = step;
    (void)world.Pull();
  }
  world.topic.fault_at = 0;
  world.topic.log_start = world.topic.End() - 1;
  const absl::Status status = world.Pull();
  CHECK(absl::IsDataLoss(status));
  CHECK(Message(status).find("from offset 0") != std::string_view::npos);
}

}  // namespace sluice::connector
