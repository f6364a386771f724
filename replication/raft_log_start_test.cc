// Where replicated logs start: advances, snapshots, and both across crashes and changes of leader.
#include <catch2/catch.hpp>

#include "tests/simulation/raft_cluster.h"

namespace sluice::replication {
namespace {

using simulation::RaftCluster;

NodeId Other(NodeId than) {
  return than == NodeId(1) ? NodeId(2) : NodeId(1);
}

TEST_CASE("a log start advances everywhere, and is not below what was answered under any later leader") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    for (int i = 0; i < 10; ++i) cluster.Write("v" + std::to_string(i));
    const NodeId leader = cluster.Leader();
    const auto advanced = cluster.Advance(leader, Offset(5));
    REQUIRE(advanced.ok());
    CHECK(*advanced == Offset(5));
    CHECK(cluster.log(leader).bounds().log_start == Offset(5));
    // Power fails everywhere the moment that it was answered.
    for (auto& node : cluster.nodes) cluster.Crash(node->id());
    for (auto& node : cluster.nodes) cluster.Start(node->id());
    const NodeId next = cluster.Leader();
    CHECK(cluster.log(next).bounds().log_start == Offset(5));
    cluster.Converge();
    REQUIRE(cluster.RunUntil([&] {
      return std::all_of(cluster.nodes.begin(), cluster.nodes.end(),
                         [](const auto& node) { return node->log()->bounds().log_start == Offset(5); });
    }));
    for (auto& node : cluster.nodes) CHECK(node->log()->storage_log().log_start() == Offset(5));
  }
}

TEST_CASE("a follower that crashed before it applied a committed log start applies it before it leads") {
  RaftCluster cluster;
  cluster.StartAll();
  for (int i = 0; i < 10; ++i) cluster.Write("v" + std::to_string(i));
  cluster.Converge();
  const NodeId leader = cluster.Leader();
  const NodeId follower = Other(leader);
  // The entry reaches the follower's disk; that it is committed does not.
  const ReplicaId group = RaftCluster::Group();
  std::optional<absl::StatusOr<Offset>> advanced;
  cluster.log(leader).AdvanceLogStart(Offset(6), [&](auto result) { advanced = std::move(result); });
  const Offset end = cluster.log(leader).bounds().log_end;
  cluster.network.SetFilter([&, follower](const ReplicaId& of, const raft::Message& message) {
    const auto* append = std::get_if<raft::AppendRequest>(&message.body);
    const auto* heartbeat = std::get_if<raft::Heartbeat>(&message.body);
    if (of != group || message.to.node != follower) return true;
    return !((append != nullptr && append->committed >= end) || (heartbeat != nullptr && heartbeat->committed >= end));
  });
  REQUIRE(cluster.RunUntil([&] { return advanced.has_value(); }));
  REQUIRE(cluster.RunUntil([&] { return cluster.log(follower).storage_log().durable_end() == end; }));
  REQUIRE(cluster.log(follower).storage_log().log_start() == Offset(0));
  cluster.Restart(follower);
  CHECK(cluster.log(follower).bounds().log_start == Offset(0));
  cluster.network.HealAll();
  // The old leader goes; whichever leads next has it.
  cluster.Crash(leader);
  const NodeId next = cluster.Leader();
  CHECK(cluster.log(next).bounds().log_start == Offset(6));
  REQUIRE(cluster.RunUntil([&] { return cluster.log(follower).storage_log().log_start() == Offset(6); }));
}

TEST_CASE("a log start that was never committed is undone with its entry") {
  RaftCluster cluster;
  cluster.StartAll();
  for (int i = 0; i < 10; ++i) cluster.Write("v" + std::to_string(i));
  cluster.Converge();
  const NodeId old = cluster.Leader();
  cluster.network.Isolate(old);
  std::optional<absl::StatusOr<Offset>> advanced;
  cluster.log(old).AdvanceLogStart(Offset(6), [&](auto result) { advanced = std::move(result); });
  cluster.Leader(0, old);
  const bool crash = GENERATE(false, true);
  if (crash) cluster.Restart(old);
  cluster.network.HealAll();
  cluster.Converge();
  for (int i = 0; i < 5; ++i) cluster.Write("w" + std::to_string(i));
  cluster.Converge();
  for (auto& node : cluster.nodes) CHECK(node->log()->bounds().log_start == Offset(0));
  if (!crash) {
    REQUIRE(advanced.has_value());
    CHECK(absl::IsUnavailable(advanced->status()));
  }
  CHECK(cluster.Values(old) == cluster.acknowledged);
}

TEST_CASE("a follower that is behind the log start begins anew there, and holds the same as the others") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    simulation::RaftClusterOptions options;
    options.raft.log.raft.window_bytes_max = 1 << 10;
    RaftCluster cluster(seed, options);
    cluster.StartAll();
    const NodeId leader = cluster.Leader();
    const NodeId away = Other(leader);
    cluster.Write("early");
    cluster.Converge();
    cluster.Crash(away);
    for (int i = 0; i < 60; ++i) cluster.Write("v" + std::to_string(i), 1000);
    // Inside a batch of three, if it can be; whole segments go.
    const auto batch = cluster.Await<absl::StatusOr<Committed>>([&](auto done) {
      cluster.log(cluster.Leader()).Propose(simulation::MakeBatch("three", 3), std::nullopt, std::move(done));
    });
    REQUIRE(batch.ok());
    const Offset start = batch->base_offset + 1;
    REQUIRE(cluster.Advance(cluster.Leader(), start).ok());
    cluster.Write("late");
    cluster.Start(away);
    cluster.Converge();
    CHECK(cluster.node(away).log()->stats().snapshots_installed == 1);
    CHECK(cluster.log(away).bounds().log_start == start);
    CHECK(cluster.log(away).storage_log().log_start() == start);
    CHECK(cluster.Values(away) == cluster.Values(cluster.Leader()));
    cluster.RequireSame();
    // And keeps it.
    cluster.Restart(away);
    cluster.Write("later");
    cluster.Converge();
    CHECK(cluster.log(away).bounds().log_start == start);
    cluster.RequireSame();
  }
}

TEST_CASE("what a deposed leader proposed and a snapshot replaced is not told as committed") {
  int unknown = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    cluster.Write("early");
    cluster.Converge();
    const NodeId old = cluster.Leader();
    cluster.network.Isolate(old);
    std::optional<absl::StatusOr<Committed>> lost;
    cluster.log(old).Propose(simulation::MakeBatch("lost"), std::nullopt,
                             [&](auto result) { lost = std::move(result); });
    const NodeId next = cluster.Leader(0, old);
    for (int i = 0; i < 5; ++i) REQUIRE(cluster.Propose(next, "v" + std::to_string(i)).ok());
    REQUIRE(cluster.Advance(next, cluster.log(next).bounds().high_watermark - 1).ok());
    cluster.network.HealAll();
    cluster.Converge();
    REQUIRE(cluster.RunUntil([&] { return lost.has_value(); }));
    CAPTURE(seed, lost->status().ToString());
    CHECK_FALSE(lost->ok());
    if (absl::IsUnknown(lost->status())) ++unknown;
    CHECK(cluster.node(old).log()->stats().snapshots_installed == 1);
  }
  CHECK(unknown > 0);
}

TEST_CASE("a snapshot install survives a power loss at any write") {
  int installed = 0;
  for (uint64_t cut = 0; cut < 40; ++cut) {
    simulation::RaftClusterOptions options;
    options.raft.log.raft.window_bytes_max = 1 << 10;
    RaftCluster cluster(7, options);
    cluster.StartAll();
    const NodeId away = Other(cluster.Leader());
    cluster.Write("early");
    cluster.Converge();
    cluster.Crash(away);
    for (int i = 0; i < 20; ++i) cluster.Write("v" + std::to_string(i), 1000);
    const Offset start = cluster.log(cluster.Leader()).bounds().high_watermark - 3;
    REQUIRE(cluster.Advance(cluster.Leader(), start).ok());
    cluster.Start(away);
    cluster.node(away).fs.CrashAt(cluster.node(away).fs.operations() + 1 + cut);
    cluster.RunUntil([&] { return cluster.node(away).fs.crashed() || cluster.Converged(); });
    if (cluster.node(away).log()->stats().snapshots_installed > 0) ++installed;
    cluster.Restart(away);
    // It counts: what it acknowledges now must be there when the other follower is gone.
    const NodeId leader = cluster.Leader();
    const NodeId third = NodeId(6 - leader.value() - away.value());
    cluster.Converge();
    cluster.Crash(third);
    cluster.Write("later");
    cluster.Crash(cluster.Leader());
    cluster.Start(third);
    cluster.Start(leader);
    cluster.Converge();
    CHECK(cluster.log(away).bounds().log_start == start);
    cluster.RequireSame();
    const auto values = cluster.Values(away);
    CHECK(values.back() == "later");
  }
  CHECK(installed > 0);
  CHECK(installed < 40);
}

TEST_CASE("retention at the leader frees space on every replica") {
  RaftCluster cluster;
  cluster.StartAll();
  for (int i = 0; i < 60; ++i) cluster.Write("v" + std::to_string(i), 1000);
  cluster.Converge();
  const NodeId leader = cluster.Leader();
  const auto kept = cluster.Await<absl::StatusOr<Offset>>(
      [&](auto done) { cluster.log(leader).ApplyRetention({.retention_bytes = 20'000}, std::move(done)); });
  REQUIRE(kept.ok());
  CHECK(*kept > Offset(0));
  REQUIRE(cluster.RunUntil([&] {
    return std::all_of(cluster.nodes.begin(), cluster.nodes.end(), [&](const auto& node) {
      return node->log()->bounds().log_start == *kept && node->log()->size_bytes() < 40'000;
    });
  }));
}

}  // namespace
}  // namespace sluice::replication
