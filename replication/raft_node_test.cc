#include "replication/raft_node.h"

#include <catch2/catch.hpp>

#include "tests/simulation/raft_cluster.h"

namespace sluice::replication {
namespace {

using simulation::RaftCluster;

simulation::RaftClusterOptions ManyGroups(int groups) {
  simulation::RaftClusterOptions options;
  options.groups = groups;
  return options;
}

TEST_CASE("settled groups send nothing of their own, and keep their leaders") {
  RaftCluster cluster(1, ManyGroups(30));
  cluster.StartAll();
  std::map<int, LeaderEpoch> epochs;
  for (int group = 0; group < 30; ++group) {
    cluster.Write("v", 20, group);
    epochs[group] = cluster.log(cluster.Leader(group), group).leader_epoch();
  }
  cluster.RunFor(absl::Seconds(3));
  const uint64_t before = cluster.network.group_messages();
  const uint64_t sent = cluster.network.counts().sent;
  cluster.RunFor(absl::Seconds(20));
  CHECK(cluster.network.group_messages() - before < 10);
  // Two ways, two messages each, ten times a second, three pairs of nodes: however many groups.
  CHECK(cluster.network.counts().sent - sent < 20 * 10 * 2 * 2 * 3 + 100);
  for (int group = 0; group < 30; ++group) {
    CHECK(cluster.log(cluster.Leader(group), group).leader_epoch() == epochs[group]);
  }
}

TEST_CASE("quiet groups sleep, one that has something to do wakes alone, and sleeps again") {
  RaftCluster cluster(1, ManyGroups(20));
  cluster.StartAll();
  for (int group = 0; group < 20; ++group) cluster.Write("v", 20, group);
  cluster.RunFor(absl::Seconds(3));
  for (const auto& node : cluster.nodes) CHECK(node->raft->stats().asleep == 20);
  std::map<int, LeaderEpoch> epochs;
  for (int group = 0; group < 20; ++group) epochs[group] = cluster.log(cluster.Leader(group), group).leader_epoch();
  cluster.Write("w", 20, 7);
  cluster.RunFor(absl::Milliseconds(550));  // numbers are taken every ten ticks
  for (const auto& node : cluster.nodes) CHECK(node->raft->stats().asleep >= 19);
  cluster.RunFor(absl::Seconds(2));
  for (const auto& node : cluster.nodes) {
    CHECK(node->raft->stats().asleep == 20);
    CHECK(node->raft->stats().groups == 20);
    CHECK(node->raft->stats().without_leader == 0);
  }
  // Not even an hour later does anybody campaign.
  cluster.RunFor(absl::Minutes(60));
  for (int group = 0; group < 20; ++group) {
    CHECK(cluster.log(cluster.Leader(group), group).leader_epoch() == epochs[group]);
  }
}

TEST_CASE("sleeping groups wake when their leader's node no longer leads them, though it lives") {
  RaftCluster cluster(1, ManyGroups(4));
  cluster.StartAll();
  for (int group = 0; group < 4; ++group) cluster.Write("v", 20, group);
  cluster.RunFor(absl::Seconds(3));
  for (const auto& node : cluster.nodes) REQUIRE(node->raft->stats().asleep == 4);
  const NodeId leader = cluster.Leader(2);
  CHECK(cluster
            .Await<absl::Status>(
                [&](auto done) { cluster.node(leader).raft->Close(RaftCluster::Group(2), std::move(done)); })
            .ok());
  const absl::Duration from = cluster.scheduler.now();
  const NodeId next = cluster.Leader(2, leader);
  CHECK(next != leader);
  CHECK(cluster.scheduler.now() - from < absl::Seconds(5));
}

TEST_CASE("a sleeping leader that no quorum answers wakes and steps down") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("v");
  cluster.RunFor(absl::Seconds(3));
  const NodeId leader = cluster.Leader();
  REQUIRE(cluster.node(leader).raft->stats().asleep == 1);
  // It hears nothing; the others hear it, for as long as it speaks.
  for (const auto& node : cluster.nodes) {
    if (node->id() != leader) cluster.network.Block(node->id(), leader);
  }
  cluster.RunFor(absl::Seconds(3));
  CHECK_FALSE(cluster.log(leader).IsLeader());
  const NodeId next = cluster.Leader(0, leader);
  CHECK(next != leader);
  cluster.network.HealAll();
  cluster.Converge();
}

TEST_CASE("when a node falls silent its groups get other leaders, and a leader without a quorum steps down") {
  const bool coalesce = GENERATE(true, false);
  auto options = ManyGroups(10);
  options.raft.coalesce_heartbeats = coalesce;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  for (int group = 0; group < 10; ++group) cluster.Write("v", 20, group);
  cluster.RunFor(absl::Seconds(3));
  const NodeId gone = cluster.Leader(0);
  cluster.network.Isolate(gone);
  cluster.RunFor(absl::Seconds(5));
  for (int group = 0; group < 10; ++group) {
    CHECK_FALSE(cluster.log(gone, group).IsLeader());
    const auto leader = cluster.LeaderNow(group);
    REQUIRE(leader.has_value());
    CHECK(*leader != gone);
  }
  cluster.network.HealAll();
  for (int group = 0; group < 10; ++group) cluster.Converge(group);
}

TEST_CASE("a follower that restarts under a settled leader follows it again without an election") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("v");
  cluster.RunFor(absl::Seconds(3));
  const NodeId leader = cluster.Leader();
  const LeaderEpoch epoch = cluster.log(leader).leader_epoch();
  const NodeId follower = leader == NodeId(1) ? NodeId(2) : NodeId(1);
  for (int i = 0; i < 3; ++i) {
    cluster.Restart(follower);
    REQUIRE(cluster.RunUntil([&] { return cluster.log(follower).leader() == leader; }, absl::Seconds(2)));
    cluster.RunFor(absl::Seconds(5));
    CHECK(cluster.log(leader).leader_epoch() == epoch);
    CHECK(cluster.log(follower).leader() == leader);
  }
}

TEST_CASE("a killed leader is noticed by its broken connection, not only by its silence") {
  int quick = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    cluster.Write("v");
    cluster.RunFor(absl::Seconds(3));
    const NodeId leader = cluster.Leader();
    const absl::Duration from = cluster.scheduler.now();
    cluster.Crash(leader);
    cluster.Leader();
    if (cluster.scheduler.now() - from < absl::Milliseconds(600)) ++quick;
  }
  // Less than the election time-out; now and then both that are left ask at once, and must ask again.
  CAPTURE(quick);
  CHECK(quick >= 34);
}

TEST_CASE("groups are opened, closed, opened again and removed while others go on") {
  RaftCluster cluster(1, ManyGroups(2));
  cluster.StartAll();
  cluster.Write("a", 20, 0);
  cluster.Write("a", 20, 1);
  const NodeId leader = cluster.Leader(0);
  auto& node = cluster.node(leader);
  CHECK(cluster.Await<absl::Status>([&](auto done) { node.raft->Close(RaftCluster::Group(0), std::move(done)); }).ok());
  CHECK(node.log(0) == nullptr);
  cluster.Leader(0, leader);
  cluster.Write("b", 20, 0);
  REQUIRE(node.Open(0, {}).ok());
  CHECK(absl::IsAlreadyExists(node.Open(0, {})));
  cluster.Converge(0);
  CHECK(cluster.Values(leader, 0) == std::vector<std::string>{"a", "b"});
  CHECK(
      cluster.Await<absl::Status>([&](auto done) { node.raft->Remove(RaftCluster::Group(0), std::move(done)); }).ok());
  CHECK_FALSE(node.store->Has(RaftCluster::Group(0)));
  cluster.Write("c", 20, 1);
  cluster.Converge(1);
  cluster.RunFor(absl::Seconds(2));
  const RaftNodeStats stats = node.raft->stats();
  CHECK(stats.groups == 1);
  CHECK(stats.messages_unrouted > 0);
}

TEST_CASE("a learner catches up, becomes a voter, and the group goes on when another is removed") {
  simulation::RaftClusterOptions options;
  options.nodes = 4;
  options.groups = 0;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  raft::Configuration three = cluster.Members();
  const VoterId fourth = three.voters.back();
  three.voters.pop_back();
  for (int i = 1; i <= 3; ++i) REQUIRE(cluster.node(NodeId(i)).Open(0, three).ok());
  REQUIRE(cluster.node(NodeId(4)).Open(0, {}).ok());
  for (int i = 0; i < 10; ++i) cluster.Write("v" + std::to_string(i));
  const auto change = [&](const raft::Configuration& next) {
    return cluster.Await<absl::StatusOr<Committed>>(
        [&](auto done) { cluster.log(cluster.Leader()).ChangeMembers(next, std::move(done)); });
  };
  raft::Configuration next = three;
  next.learners = {fourth};
  REQUIRE(change(next).ok());
  REQUIRE(cluster.RunUntil([&] { return cluster.Values(NodeId(4)) == cluster.acknowledged; }));
  next = cluster.Members();
  REQUIRE(change(next).ok());
  const NodeId removed = cluster.Leader();
  std::erase_if(next.voters, [&](const VoterId& voter) { return voter.node == removed; });
  REQUIRE(change(next).ok());
  cluster.Leader(0, removed);
  cluster.Crash(removed);
  cluster.Write("after");
  cluster.RunFor(absl::Seconds(2));
  CHECK(cluster.Values(NodeId(4)) == cluster.acknowledged);
  // It stays so over a restart of all.
  for (int i = 1; i <= 4; ++i) {
    if (NodeId(i) == removed) continue;
    cluster.Restart(NodeId(i));
    REQUIRE(cluster.node(NodeId(i)).Open(0, {}).ok());
  }
  CHECK(cluster.log(cluster.Leader()).raft().configuration() == next);
  cluster.Write("later");
}

TEST_CASE("messages for a full inbox are dropped and counted, and the group goes on") {
  simulation::RaftClusterOptions options;
  options.raft.inbox_bytes_max = 3000;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  const NodeId leader = cluster.Leader();
  std::vector<absl::Status> outcomes;
  for (int i = 0; i < 20; ++i) {
    cluster.log(leader).Propose(simulation::MakeBatch("v" + std::to_string(i), 1, 1000), std::nullopt,
                                [&](auto result) { outcomes.push_back(result.status()); });
    cluster.RunFor(absl::Microseconds(200));
  }
  REQUIRE(cluster.RunUntil([&] { return outcomes.size() == 20; }));
  for (const auto& outcome : outcomes) CHECK(outcome.ok());
  cluster.Converge();
  cluster.RequireSame();
  cluster.RunFor(absl::Seconds(2));
  uint64_t dropped = 0;
  for (const auto& node : cluster.nodes) dropped += node->raft->stats().messages_dropped;
  CHECK(dropped > 0);
}

}  // namespace
}  // namespace sluice::replication
