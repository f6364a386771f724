#include "connector/source/slice_puller.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <numeric>
#include <thread>

#include "common/text.h"
#include "connector/source/fake_topic.h"
#include "connector/source/json_text.h"

namespace sluice::connector {
namespace {

constexpr Fault kAllFaults[] = {Fault::kCrashBefore, Fault::kCrashAfter,  Fault::kUnknownLost, Fault::kUnknownWritten,
                                Fault::kUnknownLate, Fault::kUnavailable, Fault::kControlBatch};

class TickingClock final : public Clock {
 public:
  absl::Duration Monotonic() const override { return absl::Milliseconds(++ticks_); }
  absl::Time Wall() const override { return absl::FromUnixSeconds(1'700'000'000); }

 private:
  mutable std::atomic<int64_t> ticks_{0};
};

class CountingRandom final : public Random {
 public:
  uint64_t Next() override { return next_ += 0x9e3779b97f4a7c15; }

 private:
  uint64_t next_ = 1;
};

class NoWait final : public StopSignal {
 public:
  bool Sleep(absl::Duration) override { return !stopped(); }
};

/// Pages of records; tokens are page numbers.
class FakeApi final : public PageSource {
 public:
  std::vector<std::vector<std::string>> pages;
  std::function<void(std::vector<std::string>*)> disturb;  // how an answer differs from the last
  std::vector<std::string> asked_from;

  absl::StatusOr<Page> Fetch(const PageAsk& ask) override {
    asked_from.push_back(ask.from);
    const size_t number = ask.token.empty() ? 0 : std::stoul(ask.token);
    Page page;
    std::vector<std::string> values = number < pages.size() ? pages[number] : std::vector<std::string>();
    if (disturb) disturb(&values);
    for (const std::string& value : values) {
      PageRecord record{.value = value, .key = Cat("key of ", value), .cursor = {}};
      const auto document = JsonDocument::Parse(value);
      if (document.ok() && document->root().kind == JsonValue::Kind::kObject) {
        if (const auto time = At(document->root(), "/t")) record.cursor = std::string(time->raw);
      }
      page.records.push_back(std::move(record));
    }
    page.last = number + 1 >= pages.size();
    if (!page.last) page.next = std::to_string(number + 1);
    return page;
  }
};

/// One connector process after the other on one topic.
struct World {
  FakeTopic topic;
  FakeTopic letters;
  bool letters_exist = false;
  FakeApi api;
  std::optional<IncrementalConfig> incremental;
  bool once = true;
  int64_t batch_records = 2;
  int64_t retries = 0;

  /// A new process pulls once.
  absl::Status Pull() {
    FakePartitionLog log(topic);
    FakeStateStore state(topic);
    DeadLetterQueue dead_letters(FakeDeadLetters(letters, letters_exist));
    TickingClock clock;
    CountingRandom random;
    NoWait stop;
    SourceProgress progress;
    SlicePuller puller(
        {.pipeline = "p", .slice = "0", .incremental = incremental, .once = once, .batch_records = batch_records},
        {.log = &log,
         .state = &state,
         .dead_letters = &dead_letters,
         .pages = &api,
         .clock = &clock,
         .random = &random,
         .stop = &stop,
         .progress = &progress,
         .on_retry = {}});
    const absl::Status status = puller.Pull();
    retries += progress.retries;
    return status;
  }
  /// Processes follow one another until one comes to the end.
  void PullToTheEnd() {
    for (int process = 0; process < 10; ++process) {
      const absl::Status status = Pull();
      if (status.ok()) return;
      REQUIRE(absl::IsCancelled(status));
    }
    FAIL("no process came to the end");
  }
  std::vector<std::string> Published() const {
    std::vector<std::string> all;
    for (const auto& page : api.pages) all.insert(all.end(), page.begin(), page.end());
    return all;
  }
};

const std::vector<std::vector<std::string>> kPages = {
    {"1", "2", "3"}, {}, {"4", "5", "6", "7", "8", "9", "10"}, {"11"}, {}};

std::vector<std::string> Sorted(std::vector<std::string> values) {
  std::sort(values.begin(), values.end());
  return values;
}

}  // namespace

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

namespace {

/// Pages in which "#…" are larger than the topic takes.
std::string Large(int n) {
  return Cat("\"#", n, std::string(2000, 'x'), "\"");
}
const std::vector<std::vector<std::string>> kMixedPages = {{Large(1), "2", Large(3), "4", "5", "6", Large(7)},
                                                           {Large(8)},
                                                           {"9", Large(10), Large(10), "11"},
                                                           {Large(12), Large(13)}};
struct MixedWorld : World {
  MixedWorld() {
    api.pages = kMixedPages;
    topic.bytes_max = 1500;
  }
};
bool IsLarge(const std::string& value) {
  return value.starts_with("\"#");
}
void RequireOnceEach(const World& world) {
  std::vector<std::string> small = world.Published(), large = small;
  std::erase_if(small, IsLarge);
  std::erase_if(large, [](const std::string& value) { return !IsLarge(value); });
  REQUIRE(world.topic.Values() == small);
  REQUIRE(Sorted(world.letters.Values()) == Sorted(large));
}

}  // namespace

TEST_CASE("A record that is too large for the topic becomes a dead letter, and the pull goes on") {
  MixedWorld world;
  REQUIRE(world.Pull().ok());
  RequireOnceEach(world);
  const auto& letter = world.letters.batches.front().items.front();
  CHECK(letter.key == Cat("key of ", Large(1)));
  std::map<std::string, std::string> headers(letter.headers.begin(), letter.headers.end());
  CHECK(headers["sluice.reason"].find("too large for t/0") != std::string::npos);
  CHECK(headers["sluice.source"] == "p/0");
  CHECK(headers["sluice.page"] == "0");
  SECTION("and what is complete stays so") {
    world.api.asked_from.clear();
    REQUIRE(world.Pull().ok());
    CHECK(world.api.asked_from.empty());
  }
}

TEST_CASE("Records that are too large only together are written in smaller batches") {
  World world;
  world.api.pages = {{"\"" + std::string(700, 'a') + "\"", "\"" + std::string(700, 'b') + "\"", "3", "4"}};
  world.topic.bytes_max = 1500;
  world.batch_records = 100;
  REQUIRE(world.Pull().ok());
  CHECK(world.topic.Values() == world.Published());
  CHECK(world.topic.batches.size() > 1);
  CHECK_FALSE(world.letters_exist);
}

TEST_CASE(
    "Any fault at any step leaves each record that is too large in one dead letter, and each other in the topic") {
  for (const bool letters : {false, true}) {
    for (const Fault fault : kAllFaults) {
      int64_t fired = 0;
      for (int64_t step = 1;; ++step) {
        MixedWorld world;
        FakeTopic& faulty = letters ? world.letters : world.topic;
        faulty.fault = fault;
        faulty.fault_at = step;
        INFO("fault " << static_cast<int>(fault) << " at step " << step << (letters ? " of the letters" : ""));
        world.PullToTheEnd();
        RequireOnceEach(world);
        if (!faulty.fired) break;
        ++fired;
      }
      CHECK(fired > 10);
    }
  }
}

TEST_CASE("A second connector at any step writes no second letter") {
  for (const bool letters : {false, true}) {
    for (int64_t step = 1;; ++step) {
      MixedWorld world;
      FakeTopic& busy = letters ? world.letters : world.topic;
      busy.fault_at = step;
      busy.at_step = [&] { REQUIRE(world.Pull().ok()); };
      INFO("at step " << step << (letters ? " of the letters" : ""));
      world.PullToTheEnd();
      RequireOnceEach(world);
      if (!busy.fired) break;
    }
  }
}

TEST_CASE("A record stays the letter that it became before a crash, though the topic's limit was raised meanwhile") {
  for (int64_t step = 1; step < 60; ++step) {
    MixedWorld world;
    world.letters.fault = Fault::kCrashAfter;
    world.letters.fault_at = step;
    if (world.Pull().ok()) break;
    world.topic.bytes_max = 0;
    INFO("at step " << step);
    world.PullToTheEnd();
    std::vector<std::string> all = world.topic.Values();
    const std::vector<std::string> away = world.letters.Values();
    all.insert(all.end(), away.begin(), away.end());
    REQUIRE(Sorted(all) == Sorted(world.Published()));
  }
}

TEST_CASE("The incremental cursor passes a record that became a letter") {
  for (int64_t step = 0; step < 60; ++step) {
    World world;
    world.once = false;
    world.topic.bytes_max = 1500;
    world.incremental = IncrementalConfig{.field = "/t", .param = "since", .start = "1", .format = {}};
    const std::string large = Cat(R"({"t":3,"a":")", std::string(2000, 'x'), R"("})");
    world.api.pages = {{R"({"t":2})", large}};
    world.letters.fault = Fault::kCrashAfter;
    world.letters.fault_at = step;
    world.PullToTheEnd();
    world.letters.fault_at = 0;
    world.api.pages = {{large, R"({"t":4})"}};
    world.api.asked_from.clear();
    REQUIRE(world.Pull().ok());
    CHECK(world.api.asked_from.front() == "3");
    CHECK(world.letters.Values() == std::vector<std::string>{large});
    CHECK(world.topic.Values() == std::vector<std::string>{R"({"t":2})", R"({"t":4})"});
  }
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
