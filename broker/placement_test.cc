#include "broker/placement.h"

#include <catch2/catch.hpp>

#include "tests/simulation/sim_executor.h"

namespace sluice::broker {
namespace {

struct World {
  explicit World(uint64_t seed = 1) : random(seed) {}

  void AddNode(int id, const std::string& rack = "", bool fenced = false) {
    RegisteredNode node;
    node.node.id = NodeId(id);
    node.node.rack = rack;
    node.fenced = fenced;
    state.nodes[NodeId(id)] = node;
  }
  absl::StatusOr<std::vector<PartitionAssignment>> Try(int32_t partitions, int32_t replicas) {
    return Place(state, partitions, replicas, random);
  }
  /// Places a topic, checks what must hold of each partition, and keeps it.
  void Add(int32_t partitions, int32_t replicas) {
    auto placed = Try(partitions, replicas);
    REQUIRE(placed.ok());
    REQUIRE(placed->size() == static_cast<size_t>(partitions));
    for (const auto& assignment : *placed) CheckOne(assignment, replicas);
    TopicRecord topic{.id = Uuid::FromRandom(state.topics.size(), 1), .name = "t", .partitions = partitions};
    topic.assignments = *std::move(placed);
    state.topics[topic.id] = topic;
  }
  void CheckOne(const PartitionAssignment& assignment, int32_t replicas) {
    REQUIRE(assignment.size() == static_cast<size_t>(replicas));
    std::set<NodeId> nodes;
    std::set<Uuid> incarnations;
    std::map<std::string, int> racks;
    for (const auto& [id, node] : state.nodes) {
      if (!node.fenced) racks[node.node.rack] = 0;
    }
    for (const auto& replica : assignment) {
      REQUIRE_FALSE(state.nodes.at(replica.node).fenced);
      nodes.insert(replica.node);
      incarnations.insert(replica.incarnation);
      ++racks[state.nodes.at(replica.node).node.rack];
      REQUIRE_FALSE(replica.incarnation.IsNil());
    }
    REQUIRE(nodes.size() == assignment.size());
    REQUIRE(incarnations.size() == assignment.size());
    if (racks.size() >= assignment.size()) {
      for (const auto& [rack, used] : racks) REQUIRE(used <= 1);
    }
  }
  /// The difference between the most and the fewest of any alive node: replicas, leaders.
  std::pair<int, int> Spread() const {
    std::map<NodeId, int> replicas;
    std::map<NodeId, int> leaders;
    for (const auto& [id, node] : state.nodes) {
      if (!node.fenced) replicas[id] = leaders[id] = 0;
    }
    for (const auto& [id, topic] : state.topics) {
      for (const auto& assignment : topic.assignments) {
        for (const auto& replica : assignment) ++replicas[replica.node];
        ++leaders[assignment.front().node];
      }
    }
    const auto spread = [](const auto& counts) {
      const auto [least, most] = std::minmax_element(counts.begin(), counts.end(),
                                                     [](const auto& a, const auto& b) { return a.second < b.second; });
      return most->second - least->second;
    };
    return {spread(replicas), spread(leaders)};
  }

  ClusterState state;
  simulation::SimRandom random;
};

TEST_CASE("on equal nodes replicas differ by one at most, and so do leaders where all topics have as many replicas") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    World world(seed);
    const int nodes = 1 + static_cast<int>(world.random.Below(9));
    for (int i = 1; i <= nodes; ++i) world.AddNode(i);
    const bool alike = seed % 2 == 0;
    auto replicas = 1 + static_cast<int32_t>(world.random.Below(static_cast<uint64_t>(nodes)));
    for (int topic = 0; topic < 5; ++topic) {
      if (!alike) replicas = 1 + static_cast<int32_t>(world.random.Below(static_cast<uint64_t>(nodes)));
      world.Add(1 + static_cast<int32_t>(world.random.Below(40)), replicas);
      INFO("seed " << seed << ", " << nodes << " nodes, " << replicas << " replicas");
      CHECK(world.Spread().first <= 1);
      if (alike) CHECK(world.Spread().second <= 1);
    }
  }
}

TEST_CASE("racks of one size share replicas and leaders evenly") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    World world(seed);
    const int racks = 2 + static_cast<int>(world.random.Below(3));
    const int each = 1 + static_cast<int>(world.random.Below(3));
    for (int i = 0; i < racks * each; ++i) world.AddNode(i + 1, "r" + std::to_string(i % racks));
    world.Add(1 + static_cast<int32_t>(world.random.Below(60)), std::min(racks, 3));
    INFO("seed " << seed << ", " << racks << " racks of " << each);
    CHECK(world.Spread().first <= 1);
    CHECK(world.Spread().second <= 1);
  }
}

TEST_CASE("replicas of a partition are in different racks also when one rack is much larger") {
  World world;
  for (int i = 1; i <= 6; ++i) world.AddNode(i, "large");
  world.AddNode(7, "b");
  world.AddNode(8, "c");
  world.Add(20, 3);
}

TEST_CASE("with fewer racks than replicas every rack has its share") {
  World world;
  for (int i = 1; i <= 8; ++i) world.AddNode(i, i <= 4 ? "a" : "b");
  const auto placed = world.Try(20, 4);
  REQUIRE(placed.ok());
  for (const auto& assignment : *placed) {
    CHECK(std::count_if(assignment.begin(), assignment.end(),
                        [](const auto& replica) { return replica.node <= NodeId(4); }) == 2);
  }
}

TEST_CASE("a fenced node gets nothing, and a new one gets the most") {
  World world;
  for (int i = 1; i <= 3; ++i) world.AddNode(i);
  world.AddNode(4, "", true);
  world.Add(9, 3);  // which looks for fenced ones
  world.AddNode(5);
  const auto placed = world.Try(6, 1);
  REQUIRE(placed.ok());
  for (const auto& assignment : *placed) CHECK(assignment[0].node == NodeId(5));
}

TEST_CASE("the same state and the same random numbers give the same placement") {
  const auto place = [](uint64_t seed) {
    World world(seed);
    for (int i = 1; i <= 5; ++i) world.AddNode(i);
    return *world.Try(30, 3);
  };
  CHECK(place(7) == place(7));
  CHECK(place(7) != place(8));
}

TEST_CASE("without a number of replicas there are as many as nodes are alive, up to three") {
  World world;
  world.AddNode(1);
  CHECK(*ResolveReplicas(world.state, 0) == 1);
  world.AddNode(2);
  CHECK(*ResolveReplicas(world.state, 0) == 2);
  for (int i = 3; i <= 5; ++i) world.AddNode(i);
  CHECK(*ResolveReplicas(world.state, 0) == 3);
  CHECK(*ResolveReplicas(world.state, 5) == 5);
}

TEST_CASE("more replicas than alive nodes are refused, naming both") {
  World world;
  CHECK(absl::IsUnavailable(world.Try(1, 0).status()));
  world.AddNode(1);
  world.AddNode(2);
  world.AddNode(3, "", true);
  CHECK(world.Try(1, 3).status() == absl::UnavailableError("replicas: 3 were asked for, and 2 of 3 nodes are alive"));
  CHECK(world.Try(1, -1).status() == absl::InvalidArgumentError("replicas: expected 1 to 15, got -1"));
  CHECK(absl::IsInvalidArgument(world.Try(1, 16).status()));
}

}  // namespace
}  // namespace sluice::broker
