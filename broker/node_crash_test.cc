// A whole node that loses power in the middle of creating, filling, widening and deleting topics.
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "tests/broker/sim_node.h"
#include "tests/simulation/seeds.h"

namespace sluice::broker {
namespace {

/// What a client knows after its calls: certain, or one of two.
struct Known {
  std::map<std::string, std::vector<std::string>> acknowledged;  // of topics that surely are there
  std::set<std::string> maybe;                                   // topics whose last change was not answered
  std::map<std::string, std::string> maybe_value;                // appended, not answered
};

/// Runs the workload until it is done or the world stops.
Known RunWorkload(SimNode& node) {
  Known known;
  const auto create = [&](const std::string& name) {
    auto made = node.TryWait<Result<TopicInfo>>(
        [&](auto done) { node.broker->CreateTopic({.name = name, .partitions = 2}, std::move(done)); });
    if (made.has_value() && made->ok()) {
      known.acknowledged[name];
    } else {
      known.maybe.insert(name);
    }
  };
  const auto produce = [&](const std::string& name, const std::string& value) {
    if (node.fs.crashed() || !known.acknowledged.contains(name)) return;
    auto ack = node.TryWait<ProduceOutcome>([&](auto done) {
      node.broker->Produce({.topic = name, .partition = PartitionId(1), .batch = MakeBatch({value})}, nullptr,
                           std::move(done));
    });
    if (ack.has_value() && ack->ok()) {
      known.acknowledged[name].push_back(value);
    } else {
      known.maybe_value[name] = value;
    }
  };
  const auto remove = [&](const std::string& name) {
    if (node.fs.crashed() || !known.acknowledged.contains(name)) return;
    auto gone = node.TryWait<Result<Done>>([&](auto done) { node.broker->DeleteTopic(name, std::move(done)); });
    known.acknowledged.erase(name);
    if (!gone.has_value() || !gone->ok()) known.maybe.insert(name);
  };
  create("a");
  produce("a", "a1");
  if (!node.fs.crashed()) create("b");
  produce("b", "b1");
  produce("a", "a2");
  remove("a");
  produce("b", "b2");
  if (!node.fs.crashed() && !known.maybe.contains("a")) {
    create("a");  // the same name, another topic
    produce("a", "a3");
  }
  return known;
}

void CheckAgainst(SimNode& node, const Known& known) {
  const auto listed =
      node.Wait<Result<std::vector<TopicInfo>>>([&](auto done) { node.broker->ListTopics(false, std::move(done)); });
  std::set<std::string> there;
  for (const auto& topic : *listed) {
    there.insert(topic.name);
    CHECK((known.acknowledged.contains(topic.name) || known.maybe.contains(topic.name)));
    CHECK(topic.partitions == 2);
  }
  for (const auto& [name, values] : known.acknowledged) {
    INFO(name);
    REQUIRE(there.contains(name));
    auto expected = values;
    const auto found = node.Values(name, 1);
    if (found.size() > values.size() && known.maybe_value.contains(name)) {
      expected.push_back(known.maybe_value.at(name));
    }
    CHECK(found == expected);
  }
  // Whatever became of the rest, every name can be used.
  for (const std::string name : {"a", "b", "c"}) {
    if (!there.contains(name)) REQUIRE(node.Create(name, 2).ok());
    REQUIRE(node.Produce(name, "after").ok());
    REQUIRE(node.Delete(name).ok());
  }
  // Nothing is left of deleted topics.
  const auto folders = node.fs.List("data/topics");
  REQUIRE(folders.ok());
  for (const auto& folder : *folders) {
    CHECK(folder.starts_with("00000000-"));
  }
}

TEST_CASE("power loss at any operation of a node's work keeps what was acknowledged and leaves nothing half done") {
  uint64_t operations = 0;
  {
    SimNode node(3);
    node.Start();
    RunWorkload(node);
    REQUIRE_FALSE(node.fs.crashed());
    operations = node.fs.operations();
  }
  uint64_t crashes_hit = 0;
  const simulation::SeedRange seeds = simulation::Seeds(5 * operations);
  for (const uint64_t seed : seeds) {
    const uint64_t at = 1 + seed % operations;
    SimNode node(seed);
    node.fs.CrashAt(at);
    Known known;
    if (node.TryStart().ok()) known = RunWorkload(node);
    crashes_hit += node.fs.crashed() ? 1 : 0;
    node.Crash();
    INFO("seed " << seed << ", crash at operation " << at << " of " << operations);
    node.Start();
    CheckAgainst(node, known);
  }
  CHECK(5 * crashes_hit + 5 > 2 * seeds.count);
}

TEST_CASE("a node whose parts are not of one folder refuses to start and says what is wrong") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  node.Stop();
  const auto forget = [&](const std::string& dir) {
    const auto names = node.fs.List(dir);
    for (const auto& name : *names) REQUIRE(node.fs.Remove(dir + "/" + name).ok());
  };
  SECTION("the journal is gone, and with it the controller's log") {
    forget("data/journal");
    const absl::Status refused = node.TryStart();
    INFO(refused);
    CHECK_FALSE(refused.ok());
  }
  SECTION("the metadata store is gone: it is made again from the controller's log") {
    forget("data/meta");
    node.Start();
    CHECK(node.Produce("t", "v").ok());
  }
}

}  // namespace
}  // namespace sluice::broker
