// Records that are too large for the topic: each becomes one dead letter, whatever happens on the way.
#include <catch2/catch.hpp>
#include <map>

#include "connector/source/pull_world.h"

namespace sluice::connector {
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

}  // namespace sluice::connector
