// Replicated logs on disks that are full, damaged, or lose power.
#include <catch2/catch.hpp>

#include "tests/simulation/raft_cluster.h"
#include "tests/simulation/seeds.h"

namespace sluice::replication {
namespace {

using simulation::MakeBatch;
using simulation::RaftCluster;
using simulation::SimFileSystem;

NodeId Other(NodeId than) {
  return than == NodeId(1) ? NodeId(2) : NodeId(1);
}

simulation::RaftClusterOptions WithWatermark() {
  simulation::RaftClusterOptions options;
  options.store.disk_low_watermark_bytes = 100'000;
  options.store.disk_high_watermark_bytes = 200'000;
  return options;
}

void Fill(SimFileSystem& fs) {
  fs.SetCapacity(fs.UsedBytes() + 50'000);
}

TEST_CASE("a full disk at the leader refuses proposals with the reason, and nothing is written") {
  RaftCluster cluster(1, WithWatermark());
  for (auto& node : cluster.nodes) node->fs.SetCapacity(10'000'000);
  cluster.StartAll();
  cluster.Write("a");
  cluster.Converge();
  const NodeId leader = cluster.Leader();
  Fill(cluster.node(leader).fs);
  cluster.RunFor(absl::Seconds(3));
  REQUIRE(cluster.LeaderNow() == leader);
  const Offset end = cluster.log(leader).bounds().log_end;
  CHECK(absl::IsResourceExhausted(cluster.Propose(leader, "b").status()));
  CHECK(cluster.log(leader).bounds().log_end == end);
  // What frees space goes through.
  CHECK(cluster.Advance(leader, Offset(2)).ok());
  cluster.node(leader).fs.SetCapacity(10'000'000);
  cluster.RunFor(absl::Seconds(3));
  cluster.Write("c");
  cluster.Converge();
  cluster.RequireSame();
}

TEST_CASE("a follower with a full disk takes no batches, keeps its place and goes on once there is room") {
  RaftCluster cluster(1, WithWatermark());
  for (auto& node : cluster.nodes) node->fs.SetCapacity(10'000'000);
  cluster.StartAll();
  cluster.Write("a");
  cluster.Converge();
  const NodeId leader = cluster.Leader();
  const NodeId full = Other(leader);
  Fill(cluster.node(full).fs);
  cluster.RunFor(absl::Seconds(3));
  const LeaderEpoch epoch = cluster.log(leader).leader_epoch();
  for (int i = 0; i < 20; ++i) cluster.Write("b" + std::to_string(i));
  cluster.RunFor(absl::Seconds(10));
  CHECK(cluster.log(full).stats().appends_refused > 0);
  CHECK(cluster.log(full).bounds().log_end < cluster.log(leader).bounds().log_end);
  CHECK(cluster.log(leader).stats().voters_behind == 1);
  CHECK(cluster.log(leader).leader_epoch() == epoch);  // it knew all the time who leads
  cluster.node(full).fs.SetCapacity(10'000'000);
  cluster.Converge();
  CHECK(cluster.Values(full) == cluster.acknowledged);
  CHECK(cluster.log(cluster.Leader()).leader_epoch() == epoch);
}

TEST_CASE("a leader that cannot read its log gives way and leads no more, but votes and follows") {
  RaftCluster cluster;
  cluster.StartAll();
  const NodeId bad = cluster.DamagedLeader();
  auto read = cluster.Await<absl::StatusOr<ReadResult>>(
      [&](auto done) { cluster.log(bad).Read({.offset = Offset(1)}, std::move(done)); });
  REQUIRE(absl::IsDataLoss(read.status()));
  CHECK(absl::IsDataLoss(cluster.log(bad).damage()));
  const NodeId next = cluster.Leader(0, bad);
  cluster.Write("after");
  cluster.RequireAcknowledged(next);
  CHECK(cluster.log(bad).stats().damaged);
  // With one of the good ones gone the last one needs its vote, and then its acknowledgements, to lead.
  cluster.Crash(next);
  const NodeId last = cluster.Leader(0, next);
  REQUIRE(last != bad);
  cluster.Write("with the damaged one");
  const LeaderEpoch epoch = cluster.log(last).leader_epoch();
  cluster.RunFor(absl::Seconds(20));
  CHECK(cluster.LeaderNow() == last);
  CHECK(cluster.log(last).leader_epoch() == epoch);
  cluster.RequireAcknowledged(last);
  CHECK(absl::IsFailedPrecondition(cluster.log(bad).Campaign()));
  // It is known where it matters: leadership is not handed to it.
  CHECK(absl::IsFailedPrecondition(cluster.log(last).TransferLeadership(cluster.node(bad).voter())));
  cluster.RunFor(absl::Seconds(20));
  CHECK(cluster.LeaderNow() == last);
  CHECK(cluster.log(last).leader_epoch() == epoch);
  cluster.Crash(last);
  cluster.RunFor(absl::Seconds(20));
  CHECK_FALSE(cluster.LeaderNow().has_value());
}

TEST_CASE("of two voters one that cannot read its log goes on, for the other could not lead without it") {
  simulation::RaftClusterOptions options;
  options.nodes = 2;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  const NodeId bad = cluster.DamagedLeader();
  auto read = cluster.Await<absl::StatusOr<ReadResult>>(
      [&](auto done) { cluster.log(bad).Read({.offset = Offset(1)}, std::move(done)); });
  REQUIRE(absl::IsDataLoss(read.status()));
  CHECK(cluster.log(bad).damage().ok());
  CHECK(absl::IsDataLoss(cluster.log(bad).read_damage()));
  CHECK(cluster.log(bad).stats().damaged);
  cluster.RunFor(absl::Seconds(5));
  CHECK(cluster.LeaderNow() == bad);
  cluster.Write("after");
  // What it cannot read the other one can.
  REQUIRE(cluster.log(bad).TransferLeadership(cluster.node(Other(bad)).voter()).ok());
  REQUIRE(cluster.RunUntil([&] { return cluster.LeaderNow() == Other(bad); }));
  cluster.RequireAcknowledged(Other(bad));
}

TEST_CASE("of two voters one that cannot read what the other one needs takes nothing that it cannot commit") {
  simulation::RaftClusterOptions options;
  options.nodes = 2;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  cluster.Write("first");
  cluster.Converge();
  const NodeId bad = cluster.Leader();
  // The other one comes back with an older copy of its files.
  SimFileSystem& disk = cluster.node(Other(bad)).fs;
  cluster.Crash(Other(bad));
  std::map<std::string, std::string> before;
  for (const std::string& path : disk.Files()) before[path] = disk.Contents(path);
  cluster.Start(Other(bad));
  for (int i = 0; i < 40; ++i) cluster.Write("v" + std::to_string(i), 1000);
  cluster.Converge();
  REQUIRE(cluster.Leader() == bad);
  cluster.Crash(Other(bad));
  for (const std::string& path : disk.Files()) {
    if (!before.contains(path)) REQUIRE(disk.Remove(path).ok());
  }
  for (const auto& [path, bytes] : before) disk.SetContents(path, bytes);
  cluster.DamageClosedSegments(bad);
  cluster.Start(Other(bad));
  REQUIRE(cluster.RunUntil([&] { return !cluster.log(bad).damage().ok(); }));
  CHECK_FALSE(cluster.LeaderNow().has_value());
  const auto refused = cluster.Propose(bad, "after");
  CHECK(absl::IsUnavailable(refused.status()));
}

TEST_CASE("a failed journal stops the replica; what it had not answered is unknown") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("a");
  cluster.Converge();
  const NodeId leader = cluster.Leader();
  cluster.node(leader).fs.FailSyncsOf(".journal", 1);
  std::optional<absl::Status> outcome;
  cluster.log(leader).Propose(MakeBatch("b"), std::nullopt, [&](auto result) { outcome = result.status(); });
  REQUIRE(cluster.RunUntil([&] { return outcome.has_value(); }));
  // The followers may have had it before the sync failed.
  CHECK((outcome->ok() || absl::IsUnknown(*outcome)));
  REQUIRE(cluster.RunUntil([&] { return !cluster.node(leader).fatal.ok(); }));
  REQUIRE(cluster.RunUntil([&] { return !cluster.log(leader).failure().ok(); }));
  CHECK_FALSE(cluster.log(leader).IsLeader());
  cluster.Crash(leader);
  cluster.Leader(0, leader);
  cluster.Write("c");
  cluster.Start(leader);
  cluster.Converge();
  cluster.RequireAcknowledged(leader);
  cluster.RequireSame();
}

/// Writes without pause; counts what was acknowledged, and keeps going over changes of leader.
struct Producer {
  explicit Producer(RaftCluster& of) : cluster(of) {}
  void Go() {
    if (under_way || sent >= most) return;
    const auto leader = cluster.LeaderNow();
    if (!leader) return;
    under_way = true;
    const std::string text = "p" + std::to_string(sent++);
    cluster.log(*leader).Propose(MakeBatch(text, 1, 300), std::nullopt, [this, text](auto result) {
      under_way = false;
      if (result.ok()) cluster.acknowledged.push_back(text);
    });
  }
  RaftCluster& cluster;
  bool under_way = false;
  int sent = 0;
  int most = 150;
};

TEST_CASE("power cuts at many points lose nothing that was acknowledged") {
  uint64_t cuts = 0;
  for (const uint64_t seed : simulation::Seeds(40)) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    cluster.Leader();
    Producer producer(cluster);
    simulation::SimRandom random(seed);
    for (int round = 0; round < 4; ++round) {
      // One node at a time: a minority.
      const NodeId victim(static_cast<int32_t>(1 + random.Below(3)));
      auto& node = cluster.node(victim);
      node.fs.CrashAt(node.fs.operations() + 1 + random.Below(30));
      for (int i = 0; i < 20'000 && !node.fs.crashed(); ++i) {
        producer.Go();
        if (!cluster.scheduler.Step()) break;
      }
      if (node.fs.crashed()) ++cuts;
      producer.under_way = false;
      cluster.Crash(victim);
      const absl::Duration down = absl::Milliseconds(static_cast<int64_t>(random.Below(3000)));
      for (const absl::Duration end = cluster.scheduler.now() + down; cluster.scheduler.now() < end;) {
        producer.Go();
        cluster.scheduler.Step();
      }
      cluster.Start(victim);
      if (random.OneIn(2)) cluster.Converge();
    }
    producer.most = 0;
    cluster.Converge();
    cluster.RequireSame();
    for (auto& each : cluster.nodes) cluster.RequireAcknowledged(each->id());
    REQUIRE(cluster.acknowledged.size() > 5);
  }
  CHECK(cuts > 40);
}

TEST_CASE("a power cut of all nodes at once loses nothing that was acknowledged") {
  for (const uint64_t seed : simulation::Seeds(20)) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    cluster.Leader();
    Producer producer(cluster);
    simulation::SimRandom random(seed);
    const uint64_t steps = 500 + random.Below(3000);
    for (uint64_t i = 0; i < steps; ++i) {
      producer.Go();
      cluster.scheduler.Step();
    }
    producer.most = 0;
    for (auto& node : cluster.nodes) cluster.Crash(node->id());
    for (auto& node : cluster.nodes) cluster.Start(node->id());
    cluster.Converge();
    cluster.RequireSame();
    for (auto& node : cluster.nodes) cluster.RequireAcknowledged(node->id());
  }
}

}  // namespace
}  // namespace sluice::replication
