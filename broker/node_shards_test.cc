// The number of shards is of the process and not of the data: each start may have another one.
#include <catch2/catch.hpp>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/broker/sim_node.h"

namespace sluice::broker {
namespace {

constexpr int kPartitions = 5;

/// What each partition of each topic holds.
using Contents = std::map<std::string, std::vector<std::vector<std::string>>>;

/// Everything, each call to all shards.
std::vector<std::string> FetchAll(SimNode& node, const Contents& contents) {
  FetchSpec spec;
  for (const auto& [topic, partitions] : contents) {
    for (int partition = 0; partition < kPartitions; ++partition) {
      spec.items.push_back({.topic = topic, .partition = PartitionId(partition), .offset = Offset(0)});
    }
  }
  std::vector<std::vector<std::string>> found(spec.items.size());
  for (bool more = true; std::exchange(more, false);) {
    const std::vector<FetchOutcome> outcomes = node.Fetch(spec);
    for (size_t i = 0; i < outcomes.size(); ++i) {
      REQUIRE_FALSE(outcomes[i].error.has_value());
      for (const std::string& value : SimNode::ValuesOf(outcomes[i])) found[i].push_back(value);
      more = more || outcomes[i].next_offset > spec.items[i].offset;
      spec.items[i].offset = outcomes[i].next_offset;
    }
  }
  std::vector<std::string> values;
  for (const auto& partition : found) values.insert(values.end(), partition.begin(), partition.end());
  return values;
}

std::vector<std::string> All(const Contents& contents) {
  std::vector<std::string> values;
  for (const auto& [topic, partitions] : contents) {
    for (const auto& partition : partitions) values.insert(values.end(), partition.begin(), partition.end());
  }
  return values;
}

TEST_CASE("a node starts with more shards and with fewer, and all that was produced is there and goes on") {
  enum class End { kGoodOrder, kKill, kPowerLoss };
  const End end = GENERATE(End::kGoodOrder, End::kKill, End::kPowerLoss);
  SimNode node;
  std::set<Executor*> used;
  node.on_open = [&](const ReplicaSpec&, Executor& shard) { used.insert(&shard); };
  Contents contents;
  int life = 0;
  for (const int shards : {1, 3, 2, 1}) {
    CAPTURE(static_cast<int>(end), ++life, shards);
    used.clear();
    node.SetShards(shards);
    node.Start();
    CHECK(FetchAll(node, contents) == All(contents));
    const std::string made = "made-in-life-" + std::to_string(life);
    REQUIRE(node.Create(made, kPartitions).ok());
    contents[made].resize(kPartitions);
    CHECK(used.size() == static_cast<size_t>(shards));
    for (auto& [topic, partitions] : contents) {
      for (int partition = 0; partition < kPartitions; ++partition) {
        std::vector<std::string>& values = partitions[static_cast<size_t>(partition)];
        CHECK(node.Values(topic, partition) == values);
        values.push_back(topic + "/" + std::to_string(partition) + " in life " + std::to_string(life));
        REQUIRE(node.Produce(topic, values.back(), partition).ok());
      }
    }
    CHECK(FetchAll(node, contents) == All(contents));
    switch (end) {
      case End::kGoodOrder:
        node.Stop();
        break;
      case End::kKill:
        node.Kill();
        break;
      case End::kPowerLoss:
        node.Crash();
        break;
    }
  }
  CHECK(node.fatal.ok());
}

}  // namespace
}  // namespace sluice::broker
