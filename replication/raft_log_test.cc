#include "replication/raft_log.h"

#include <catch2/catch.hpp>

#include <functional>

#include "tests/simulation/raft_cluster.h"

namespace sluice::replication {
namespace {

using simulation::MakeBatch;
using simulation::RaftCluster;

NodeId Other(NodeId than, NodeId and_than = NodeId(0)) {
  for (int i = 1; i <= 3; ++i) {
    if (NodeId(i) != than && NodeId(i) != and_than) return NodeId(i);
  }
  return NodeId(0);
}

TEST_CASE("a follower never gives out as committed what a new leader has replaced") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    cluster.Write("early");
    cluster.Converge();
    const NodeId old = cluster.Leader();
    const Offset from = cluster.log(old).bounds().high_watermark;
    cluster.network.Isolate(old);
    for (int i = 0; i < 3; ++i) {
      cluster.log(old).Propose(simulation::MakeBatch("lost"), std::nullopt, [](auto) {});
    }
    const NodeId next = cluster.Leader(0, old);
    REQUIRE(cluster.RunUntil([&] { return cluster.log(old).storage_log().durable_end() >= from + 3; }));
    if (seed % 2 == 0) cluster.Restart(old);
    for (int i = 0; i < 3; ++i) REQUIRE(cluster.Propose(next, "kept").ok());
    // As the controller reads at each node: the moment that something is committed there.
    std::optional<absl::StatusOr<ReadResult>> read;
    std::function<void()> look = [&] {
      cluster.log(old).ReadCommitted({.offset = from}, [&](absl::StatusOr<ReadResult> result) {
        // One that has just started does not know yet that so much is committed.
        if (result.ok() ? !result->batches.empty() : !absl::IsOutOfRange(result.status())) {
          read = std::move(result);
        } else {
          cluster.log(old).WaitForCommit(from, look);
        }
      });
    };
    look();
    cluster.network.HealAll();
    REQUIRE(cluster.RunUntil([&] { return read.has_value(); }));
    REQUIRE(read->ok());
    REQUIRE_FALSE((*read)->batches.empty());
    const LeaderEpoch epoch = cluster.log(next).leader_epoch();
    CAPTURE(seed, (*read)->batches.front().epoch().value(), epoch.value());
    for (const auto& batch : (*read)->batches) CHECK(batch.epoch() == epoch);
    cluster.Converge();
  }
}

TEST_CASE("three replicas elect a leader, commit, and hold the same bytes") {
  RaftCluster cluster;
  cluster.StartAll();
  for (int i = 0; i < 20; ++i) cluster.Write("v" + std::to_string(i));
  cluster.Converge();
  for (int i = 1; i <= 3; ++i) CHECK(cluster.Values(NodeId(i)) == cluster.acknowledged);
  cluster.RequireSame();
}

TEST_CASE("a group commits with one node down, and that one catches up") {
  RaftCluster cluster;
  cluster.StartAll();
  const NodeId leader = cluster.Leader();
  const NodeId away = Other(leader);
  cluster.Crash(away);
  for (int i = 0; i < 20; ++i) cluster.Write("v" + std::to_string(i));
  cluster.Start(away);
  cluster.Converge();
  CHECK(cluster.Values(away) == cluster.acknowledged);
  cluster.RequireSame();
}

TEST_CASE("after the leader's crash another leads, and what was acknowledged is there") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    RaftCluster cluster(seed);
    cluster.StartAll();
    for (int i = 0; i < 10; ++i) cluster.Write("a" + std::to_string(i));
    const NodeId first = cluster.Leader();
    cluster.Crash(first);
    const NodeId second = cluster.Leader();
    CHECK(second != first);
    cluster.RequireAcknowledged(second);
    for (int i = 0; i < 10; ++i) cluster.Write("b" + std::to_string(i));
    cluster.Start(first);
    cluster.Converge();
    for (int i = 1; i <= 3; ++i) cluster.RequireAcknowledged(NodeId(i));
    cluster.RequireSame();
  }
}

TEST_CASE("a leader that is cut off acknowledges nothing, and its tail gives way to the new leader's") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("before");
  const NodeId old = cluster.Leader();
  cluster.Converge();
  cluster.network.Isolate(old);
  std::vector<absl::StatusOr<Committed>> lost;
  for (int i = 0; i < 3; ++i) {
    cluster.log(old).Propose(MakeBatch("lost" + std::to_string(i)), std::nullopt,
                             [&](absl::StatusOr<Committed> result) { lost.push_back(std::move(result)); });
  }
  CHECK(cluster.log(old).bounds().log_end == cluster.log(old).bounds().high_watermark + 3);
  cluster.Leader(0, old);
  cluster.Write("after");
  CHECK(lost.empty());  // nobody knows yet
  cluster.network.HealAll();
  cluster.Converge();
  REQUIRE(lost.size() == 3);
  for (const auto& result : lost) CHECK(absl::IsUnavailable(result.status()));
  for (int i = 1; i <= 3; ++i) CHECK(cluster.Values(NodeId(i)) == std::vector<std::string>{"before", "after"});
  CHECK_FALSE(cluster.log(old).IsLeader());
  CHECK(cluster.log(old).leader() == cluster.Leader());
}

TEST_CASE("a proposal whose leader is gone for long is unknown, and may still be committed") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("before");
  const NodeId old = cluster.Leader();
  cluster.network.Isolate(old);
  std::optional<absl::Status> outcome;
  cluster.log(old).Propose(MakeBatch("maybe"), std::nullopt, [&](auto result) { outcome = result.status(); });
  cluster.RunFor(absl::Seconds(5));
  CHECK_FALSE(outcome.has_value());
  CHECK_FALSE(cluster.log(old).IsLeader());
  cluster.RunFor(absl::Seconds(30));
  REQUIRE(outcome.has_value());
  CHECK(absl::IsUnknown(*outcome));
}

TEST_CASE("a proposal that is committed after its leader lost its place is answered with success") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("before");
  const NodeId old = cluster.Leader();
  cluster.Converge();
  // Its batches arrive, the answers to them do not.
  for (const auto& node : cluster.nodes) {
    if (node->id() != old) cluster.network.Block(node->id(), old);
  }
  std::optional<absl::StatusOr<Committed>> outcome;
  cluster.log(old).Propose(MakeBatch("kept"), std::nullopt, [&](auto result) { outcome = std::move(result); });
  cluster.RunFor(absl::Milliseconds(20));
  cluster.network.Isolate(old);
  cluster.Leader(0, old);
  CHECK_FALSE(outcome.has_value());
  cluster.network.HealAll();
  REQUIRE(cluster.RunUntil([&] { return outcome.has_value(); }));
  CHECK(outcome->ok());
  cluster.Converge();
  CHECK(cluster.Values(old) == std::vector<std::string>{"before", "kept"});
}

TEST_CASE("a follower takes no proposals and serves no reads, and knows who does") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("v");
  cluster.Converge();
  const NodeId leader = cluster.Leader();
  const NodeId follower = Other(leader);
  RaftLog& log = cluster.log(follower);
  CHECK_FALSE(log.IsLeader());
  CHECK(log.leader() == leader);
  CHECK(absl::IsUnavailable(cluster.Propose(follower, "no").status()));
  CHECK(absl::IsUnavailable(cluster.Advance(follower, Offset(1)).status()));
  auto read = cluster.Await<absl::StatusOr<ReadResult>>([&](auto done) { log.Read({}, std::move(done)); });
  CHECK(absl::IsUnavailable(read.status()));
  auto barrier = cluster.Await<absl::Status>([&](auto done) { log.ReadBarrier(std::move(done)); });
  CHECK(absl::IsUnavailable(barrier));
}

TEST_CASE("a read barrier needs a quorum") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("v");
  const NodeId leader = cluster.Leader();
  CHECK(cluster.Await<absl::Status>([&](auto done) { cluster.log(leader).ReadBarrier(std::move(done)); }).ok());
  cluster.network.Isolate(leader);
  const auto barrier =
      cluster.Await<absl::Status>([&](auto done) { cluster.log(leader).ReadBarrier(std::move(done)); });
  CHECK(absl::IsUnavailable(barrier));
}

// A cluster in which one follower was away while 200 batches of about 570 bytes were written, and may begin to catch
// up; the leader remembers hardly any of them.
simulation::RaftClusterOptions ReadsBehind() {
  simulation::RaftClusterOptions options;
  options.raft.recovery_bytes_max = 16 << 10;
  options.raft.log.raft.message_bytes_max = 4 << 10;
  options.raft.log.raft.window_bytes_max = 4 << 10;
  return options;
}

NodeId LeaveOneBehind(RaftCluster& cluster, int batches = 200) {
  cluster.StartAll();
  const NodeId away = Other(cluster.Leader());
  cluster.Crash(away);
  for (int i = 0; i < batches; ++i) cluster.Write("v" + std::to_string(i), 500);
  cluster.RunFor(absl::Seconds(5));
  return away;
}

// How many batches an append to `to` carries; 0 for everything else.
size_t BatchesFor(const raft::Message& message, NodeId to) {
  const auto* append = std::get_if<raft::AppendRequest>(&message.body);
  return append != nullptr && message.to.node == to ? append->batches.size() : 0;
}

TEST_CASE("a follower that was away for long catches up from old segments, within the recovery budget") {
  const simulation::RaftClusterOptions options = ReadsBehind();
  RaftCluster cluster(1, options);
  const NodeId away = LeaveOneBehind(cluster);
  cluster.Start(away);
  int64_t most = 0;
  REQUIRE(cluster.RunUntil([&] {
    most = std::max(most, cluster.node(cluster.LeaderNow().value_or(NodeId(1))).raft->stats().recovery_bytes);
    return cluster.Converged();
  }));
  CHECK(most > 0);
  CHECK(most <= options.raft.recovery_bytes_max);
  CHECK(cluster.Values(away) == cluster.acknowledged);
  cluster.RunFor(absl::Seconds(5));
  for (const auto& node : cluster.nodes) CHECK(node->raft->stats().recovery_bytes == 0);
}

// How long the slowest of a producer's batches took to be committed while a follower that was away caught up, over a
// wire that all followers share.
absl::Duration SlowestCommitBeside(int64_t recovery_bytes_max) {
  simulation::RaftClusterOptions options = ReadsBehind();
  options.raft.recovery_bytes_max = recovery_bytes_max;
  options.raft.log.raft.window_bytes_max = 16 << 10;  // what the live one needs
  RaftCluster cluster(1, options);
  const NodeId away = LeaveOneBehind(cluster, 600);
  const NodeId leader = cluster.Leader();
  cluster.network.SetUplink(1 << 20);
  cluster.Start(away);
  int proposed = 0;
  int committed = 0;
  absl::Duration slowest;
  while (cluster.log(away).bounds().log_end + 50 < cluster.log(leader).bounds().high_watermark) {
    ++proposed;
    cluster.log(leader).Propose(MakeBatch("live", 1, 500), std::nullopt,
                                [&, from = cluster.scheduler.now()](absl::StatusOr<Committed> result) {
                                  REQUIRE(result.ok());
                                  ++committed;
                                  slowest = std::max(slowest, cluster.scheduler.now() - from);
                                });
    cluster.RunFor(absl::Milliseconds(5));
    REQUIRE(proposed < 10'000);
  }
  CHECK(proposed > 50);
  REQUIRE(cluster.RunUntil([&] { return committed == proposed && cluster.Converged(); }));
  CHECK(cluster.Leader() == leader);
  return slowest;
}

TEST_CASE(
    "a follower that catches up does not make live ones wait: the recovery budget is all that stands before them") {
  // 16 KiB take 16 ms.
  CHECK(SlowestCommitBeside(16 << 10) < absl::Milliseconds(40));
  // So they would without it.
  CHECK(SlowestCommitBeside(1 << 30) > absl::Milliseconds(150));
}

TEST_CASE("a follower that catches up is sent as many batches at once as a message may hold") {
  RaftCluster cluster(1, ReadsBehind());
  const NodeId away = LeaveOneBehind(cluster);
  size_t messages = 0;
  cluster.network.SetFilter([&](const ReplicaId&, const raft::Message& message) {
    messages += BatchesFor(message, away) > 0 ? 1 : 0;
    return true;
  });
  cluster.Start(away);
  cluster.Converge();
  CHECK(messages < 100);
}

TEST_CASE("what was read for a follower and lost on its way does not hold up what is read again") {
  simulation::RaftClusterOptions options = ReadsBehind();
  options.raft.log.recovery_lease_max = absl::Hours(1);
  RaftCluster cluster(1, options);
  const NodeId away = LeaveOneBehind(cluster);
  int lost = 0;
  cluster.network.SetFilter([&](const ReplicaId&, const raft::Message& message) {
    const bool pass = lost == 10 || BatchesFor(message, away) == 0;
    lost += pass ? 0 : 1;
    return pass;
  });
  cluster.Start(away);
  REQUIRE(cluster.RunUntil([&] { return cluster.Converged(); }, absl::Seconds(20)));
  CHECK(lost == 10);
}

TEST_CASE("leadership is handed over without a proposal lost") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("a");
  cluster.Converge();
  const NodeId from = cluster.Leader();
  const NodeId to = Other(from);
  REQUIRE(cluster.log(from).TransferLeadership(cluster.node(to).voter()).ok());
  REQUIRE(cluster.RunUntil([&] { return cluster.LeaderNow() == to; }, absl::Seconds(1)));
  cluster.Write("b");
  cluster.Converge();
  CHECK(cluster.Values(from) == cluster.acknowledged);
}

TEST_CASE("stopping answers proposals with unknown, reads and waiters too") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("a");
  const NodeId leader = cluster.Leader();
  RaftLog& log = cluster.log(leader);
  std::optional<absl::Status> proposed;
  std::optional<absl::Status> read;
  std::optional<absl::Status> barrier;
  bool woken = false;
  log.Propose(MakeBatch("b"), std::nullopt, [&](auto result) { proposed = result.status(); });
  log.Read({.offset = Offset(0)}, [&](auto result) { read = result.status(); });
  log.ReadBarrier([&](auto result) { barrier = result; });
  log.WaitForCommit(Offset(100), [&] { woken = true; });
  log.Stop();
  CHECK_FALSE(proposed.has_value());
  cluster.RunFor(absl::Milliseconds(10));
  REQUIRE(proposed.has_value());
  CHECK(absl::IsUnknown(*proposed));
  REQUIRE(read.has_value());
  CHECK(absl::IsUnavailable(*read));
  REQUIRE(barrier.has_value());
  CHECK(absl::IsUnavailable(*barrier));
  CHECK(woken);
  CHECK_FALSE(log.IsLeader());
}

}  // namespace
}  // namespace sluice::replication
