// Members, leadership and the status of groups, as the cluster's controller and a stopping node use them.
#include <catch2/catch.hpp>

#include "tests/simulation/raft_cluster.h"

namespace sluice::replication {
namespace {

using simulation::MakeBatch;
using simulation::RaftCluster;
using Answer = absl::StatusOr<Committed>;

/// Three voters, and a fourth node whose replica knows nobody yet.
struct Growing {
  Growing() : cluster(1, Options()) {
    cluster.StartAll();
    raft::Configuration three = cluster.Members();
    fourth = three.voters.back();
    three.voters.pop_back();
    for (int i = 1; i <= 3; ++i) REQUIRE(cluster.node(NodeId(i)).Open(0, three).ok());
    REQUIRE(cluster.node(NodeId(4)).Open(0, {}).ok());
  }
  static simulation::RaftClusterOptions Options() {
    simulation::RaftClusterOptions options;
    options.nodes = 4;
    options.groups = 0;
    return options;
  }
  RaftLog& leader() { return cluster.log(cluster.Leader()); }
  absl::Status AddLearner(const VoterId& id) {
    return cluster.Await<Answer>([&](auto done) { leader().AddLearner(id, std::move(done)); }).status();
  }
  absl::Status Promote(const VoterId& id) {
    return cluster.Await<Answer>([&](auto done) { leader().Promote(id, std::move(done)); }).status();
  }
  absl::Status Remove(const VoterId& id) {
    return cluster.Await<Answer>([&](auto done) { leader().RemoveMember(id, std::move(done)); }).status();
  }

  RaftCluster cluster;
  VoterId fourth;
};

TEST_CASE("a learner becomes a voter once it has caught up, and not before") {
  Growing g;
  RaftCluster& cluster = g.cluster;
  for (int i = 0; i < 10; ++i) cluster.Write("v" + std::to_string(i));
  cluster.network.Isolate(NodeId(4));
  REQUIRE(g.AddLearner(g.fourth).ok());
  CHECK(absl::IsAlreadyExists(g.AddLearner(g.fourth)));
  cluster.RunFor(absl::Seconds(3));
  const absl::Status early = g.Promote(g.fourth);
  CHECK(absl::IsFailedPrecondition(early));
  {
    const GroupStatus status = g.leader().group_status();
    REQUIRE(status.members.size() == 4);
    const MemberStatus& learner = *status.Find(g.fourth);
    CHECK_FALSE(learner.voter);
    CHECK_FALSE(learner.active);
    CHECK_FALSE(learner.in_sync);
    CHECK(learner.lag_offsets == status.bounds.log_end - Offset(0));
    CHECK_FALSE(status.members_changing);
  }
  cluster.network.HealAll();
  REQUIRE(cluster.RunUntil([&] { return g.leader().group_status().Find(g.fourth)->in_sync; }));
  REQUIRE(g.Promote(g.fourth).ok());
  CHECK(absl::IsAlreadyExists(g.Promote(g.fourth)));
  CHECK(g.leader().group_status().Find(g.fourth)->voter);
  CHECK(cluster.RunUntil([&] { return g.leader().group_status().Find(g.fourth)->lag_offsets == 0; }));
}

TEST_CASE("a voter is removed by name, the leader too, and strangers are told so") {
  Growing g;
  RaftCluster& cluster = g.cluster;
  cluster.Write("a");
  CHECK(absl::IsNotFound(g.Remove(g.fourth)));
  CHECK(absl::IsNotFound(g.Promote(g.fourth)));
  const NodeId leader = cluster.Leader();
  REQUIRE(g.Remove(cluster.node(leader).voter()).ok());
  cluster.Leader(0, leader);
  cluster.Write("b");
  CHECK_FALSE(g.leader().group_status().Find(cluster.node(leader).voter()));
  CHECK(g.leader().group_status().members.size() == 2);
  const RaftLog& removed = cluster.log(leader);
  CHECK_FALSE(removed.IsLeader());
  const absl::Status refused =
      cluster.Await<Answer>([&](auto done) { cluster.log(leader).AddLearner(g.fourth, std::move(done)); }).status();
  CHECK(absl::IsUnavailable(refused));
}

TEST_CASE("who leads is told once for each change, by every replica, and of itself only once it serves") {
  struct Told {
    std::optional<NodeId> leader;
    LeaderEpoch epoch;
  };
  std::map<NodeId, std::vector<Told>> told;
  RaftCluster cluster;
  cluster.on_leader_change = [&](NodeId at, const ReplicaId& group, std::optional<NodeId> leader, LeaderEpoch epoch) {
    REQUIRE(group == RaftCluster::Group());
    if (leader == at) CHECK(cluster.log(at).raft().Serving());
    told[at].push_back({leader, epoch});
  };
  cluster.StartAll();
  cluster.Write("a");
  cluster.Converge();
  cluster.RunFor(absl::Seconds(3));
  const auto all_say = [&](NodeId leader) {
    return std::all_of(cluster.nodes.begin(), cluster.nodes.end(), [&](const auto& node) {
      return !node->up() || (!told[node->id()].empty() && told[node->id()].back().leader == leader &&
                             told[node->id()].back().epoch == cluster.log(leader).leader_epoch());
    });
  };
  const NodeId first = cluster.Leader();
  CHECK(all_say(first));
  const NodeId second = first == NodeId(1) ? NodeId(2) : NodeId(1);
  REQUIRE(cluster.log(first).TransferLeadership(cluster.node(second).voter()).ok());
  REQUIRE(cluster.RunUntil([&] { return all_say(second); }, absl::Seconds(1)));
  cluster.Crash(second);
  const NodeId third = cluster.Leader(0, second);
  REQUIRE(cluster.RunUntil([&] { return all_say(third); }, absl::Seconds(1)));
  for (const auto& [node, all] : told) {
    for (size_t i = 1; i < all.size(); ++i) {
      CHECK(all[i].epoch >= all[i - 1].epoch);
      const bool changed = all[i].leader != all[i - 1].leader || all[i].epoch != all[i - 1].epoch;
      CHECK(changed);
    }
  }
}

TEST_CASE("while leadership moves, what is under way is answered, and new proposals are told where to go") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("a");
  cluster.Converge();
  const NodeId from = cluster.Leader();
  const NodeId to = from == NodeId(1) ? NodeId(2) : NodeId(1);
  // The next leader lacks a batch for a while.
  cluster.network.SetFilter([&](const ReplicaId&, const raft::Message& message) {
    const auto* append = std::get_if<raft::AppendRequest>(&message.body);
    return append == nullptr || append->batches.empty() || message.to.node != to;
  });
  std::optional<absl::Status> under_way;
  cluster.log(from).Propose(MakeBatch("b"), std::nullopt, [&](auto result) { under_way = result.status(); });
  REQUIRE(cluster.log(from).TransferLeadership(cluster.node(to).voter()).ok());
  CHECK_FALSE(cluster.log(from).IsLeader());
  CHECK(cluster.log(from).leader() == to);
  const absl::Duration asked = cluster.scheduler.now();
  const absl::Status refused = cluster.Propose(from, "c").status();
  CHECK(absl::IsUnavailable(refused));
  CHECK(refused.message().find("moving to node " + std::to_string(to.value())) != std::string::npos);
  CHECK(cluster.scheduler.now() - asked < absl::Milliseconds(1));
  cluster.network.SetFilter(nullptr);
  CHECK(cluster.Leader(0, from) == to);
  REQUIRE(cluster.RunUntil([&] { return under_way.has_value(); }));
  CHECK(under_way->ok());
  cluster.Converge();
  CHECK(cluster.Values(to) == std::vector<std::string>{"a", "b"});
}

TEST_CASE("a node that leaves hands all its groups over, and no proposal that it took fails") {
  constexpr int kGroups = 30;
  simulation::RaftClusterOptions options;
  options.groups = kGroups;
  RaftCluster cluster(3, options);
  cluster.StartAll();
  const NodeId leaves(1);
  for (int group = 0; group < kGroups; ++group) {
    const NodeId leader = cluster.Leader(group);
    cluster.Converge(group);
    if (leader == leaves) continue;
    REQUIRE(cluster.log(leader, group).TransferLeadership(cluster.node(leaves).voter()).ok());
    cluster.Leader(group, leader);
  }
  int made = 0;
  int committed = 0;
  int refused = 0;
  std::optional<absl::Status> left;
  const auto propose_all = [&] {
    for (int group = 0; group < kGroups; ++group) {
      const bool takes = cluster.log(leaves, group).IsLeader();
      ++made;
      cluster.log(leaves, group).Propose(MakeBatch("v"), std::nullopt, [&, takes](auto result) {
        INFO(result.status().ToString());
        if (takes) {
          CHECK(result.ok());
        } else {
          CHECK(absl::IsUnavailable(result.status()));
        }
        ++(result.ok() ? committed : refused);
      });
    }
  };
  propose_all();
  const absl::Duration began = cluster.scheduler.now();
  cluster.node(leaves).raft->LeaveLeadership(absl::Seconds(10), [&](absl::Status status) { left = status; });
  while (!left.has_value() && cluster.scheduler.now() - began < absl::Seconds(20)) {
    propose_all();
    cluster.RunFor(absl::Milliseconds(2));
  }
  REQUIRE(left.has_value());
  INFO(left->ToString());
  CHECK(left->ok());
  CHECK(cluster.scheduler.now() - began < absl::Seconds(2));
  REQUIRE(cluster.RunUntil([&] { return committed + refused == made; }));
  CHECK(committed >= kGroups);
  CHECK(refused > 0);
  std::map<NodeId, int> leads;
  for (int group = 0; group < kGroups; ++group) ++leads[cluster.Leader(group)];
  CHECK(leads.count(leaves) == 0);
  CHECK(leads[NodeId(2)] >= kGroups / 4);
  CHECK(leads[NodeId(3)] >= kGroups / 4);
}

TEST_CASE("a node that nobody can take over from says so when its time is over") {
  simulation::RaftClusterOptions options;
  options.groups = 2;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  const NodeId leader = cluster.Leader(0);
  cluster.Write("a");
  cluster.Converge();
  // Nobody is sent what would let them win.
  cluster.network.SetFilter([&](const ReplicaId&, const raft::Message& message) {
    return !std::holds_alternative<raft::TimeoutNow>(message.body);
  });
  const absl::Duration began = cluster.scheduler.now();
  const auto left = cluster.Await<absl::Status>(
      [&](auto done) { cluster.node(leader).raft->LeaveLeadership(absl::Seconds(3), std::move(done)); });
  CHECK(absl::IsDeadlineExceeded(left));
  CHECK(cluster.scheduler.now() - began < absl::Seconds(4));
  CHECK(cluster.scheduler.now() - began >= absl::Seconds(3));
  // It goes on where it is.
  cluster.RunFor(absl::Seconds(3));
  cluster.Write("b");
}

TEST_CASE("a node that leaves hands nothing to a replica that cannot read its log") {
  RaftCluster cluster;
  cluster.StartAll();
  const NodeId bad = cluster.DamagedLeader();
  const auto read = cluster.Await<absl::StatusOr<ReadResult>>(
      [&](auto done) { cluster.log(bad).Read({.offset = Offset(1)}, std::move(done)); });
  REQUIRE(absl::IsDataLoss(read.status()));
  const auto leave = [&](NodeId node) {
    return cluster.Await<absl::Status>(
        [&](auto done) { cluster.node(node).raft->LeaveLeadership(absl::Seconds(3), std::move(done)); });
  };
  NodeId leader = cluster.Leader(0, bad);
  cluster.Write("after");
  // Asleep the replicas say nothing to each other; that one of them cannot lead has been said before.
  cluster.RunFor(absl::Seconds(5));
  for (const auto& node : cluster.nodes) REQUIRE(node->raft->stats().asleep == 1);
  for (int i = 0; i < 6; ++i) {
    const LeaderEpoch epoch = cluster.log(leader).leader_epoch();
    const absl::Duration began = cluster.scheduler.now();
    REQUIRE(leave(leader).ok());
    leader = cluster.Leader(0, leader);
    REQUIRE(leader != bad);
    CHECK(cluster.log(leader).leader_epoch() == epoch + 1);
    CHECK(cluster.scheduler.now() - began < absl::Milliseconds(500));
    cluster.Write("after " + std::to_string(i));
  }
  // With nobody else there it goes on until its time is over.
  cluster.Crash(NodeId(6 - leader.value() - bad.value()));
  cluster.RunFor(absl::Seconds(3));
  const LeaderEpoch epoch = cluster.log(leader).leader_epoch();
  std::optional<absl::Status> left;
  cluster.node(leader).raft->LeaveLeadership(absl::Seconds(3), [&](absl::Status status) { left = status; });
  while (!left.has_value()) {
    CHECK(cluster.Propose(leader, "while it tries to leave").ok());
    cluster.RunFor(absl::Milliseconds(100));
  }
  CHECK(absl::IsDeadlineExceeded(*left));
  CHECK(cluster.log(leader).leader_epoch() == epoch);
}

TEST_CASE("the status of all groups names voters, who is in sync, and who lags how far") {
  simulation::RaftClusterOptions options;
  options.groups = 2;
  RaftCluster cluster(1, options);
  cluster.StartAll();
  for (int group : {0, 1}) {
    cluster.Write("a", 20, group);
    cluster.Converge(group);
  }
  const auto status_at = [&](NodeId at) {
    std::optional<std::vector<GroupStatus>> all;
    cluster.node(at).raft->CollectStatus([&](std::vector<GroupStatus> found) { all = std::move(found); });
    REQUIRE(cluster.RunUntil([&] { return all.has_value(); }));
    return *std::move(all);
  };
  const NodeId leader = cluster.Leader(0);
  const NodeId away = leader == NodeId(1) ? NodeId(2) : NodeId(1);
  const NodeId third(6 - leader.value() - away.value());
  {
    const auto all = status_at(leader);
    REQUIRE(all.size() == 2);
    CHECK(all[0].group == RaftCluster::Group(0));
    CHECK(all[1].group == RaftCluster::Group(1));
    CHECK(all[0].leads());
    CHECK(all[0].leader == leader);
    REQUIRE(all[0].members.size() == 3);
    for (const MemberStatus& member : all[0].members) {
      CHECK(member.voter);
      CHECK(member.in_sync);
      CHECK(member.lag_offsets == 0);
      CHECK(member.leads == (member.id.node == leader));
    }
  }
  cluster.network.Isolate(away);
  for (int i = 0; i < 5; ++i) cluster.Write("b" + std::to_string(i));
  cluster.RunFor(absl::Seconds(3));
  const auto at_leader = status_at(leader).front();
  const MemberStatus& behind = *at_leader.Find(cluster.node(away).voter());
  CHECK_FALSE(behind.active);
  CHECK_FALSE(behind.in_sync);
  CHECK(behind.lag_offsets == 5);
  CHECK(at_leader.Find(cluster.node(third).voter())->in_sync);
  const auto at_follower = status_at(third).front();
  CHECK_FALSE(at_follower.leads());
  CHECK(at_follower.leader == leader);
  CHECK(at_follower.members.size() == 3);
  CHECK(at_follower.Find(cluster.node(leader).voter())->leads);
}

// The journal's end may have held the making of a replica, and its vote. One that was placed here since holds nothing
// back: it would leave its group without a quorum where another voter is gone for good.
TEST_CASE("after a journal whose end was lost, only a replica that may have been there before is in doubt") {
  RaftCluster cluster;
  cluster.StartAll();
  cluster.Write("a");
  simulation::RaftClusterNode& node = cluster.node(NodeId(3));
  node.Kill();
  const std::string path = "data/journal/00000000000000000001.journal";
  std::string contents = node.fs.Contents(path);
  const size_t frame = contents.rfind("SLJF");
  contents[frame + 100] = static_cast<char>(contents[frame + 100] ^ 1);
  node.fs.SetContents(path, contents);
  cluster.Start(NodeId(3));
  REQUIRE_FALSE(node.store->recovery().journal.vouched);
  cluster.node(NodeId(2)).Kill();
  const auto leads = [&](int group) {
    return cluster.log(NodeId(1), group).IsLeader() || cluster.log(NodeId(3), group).IsLeader();
  };
  for (const NodeId id : {NodeId(1), NodeId(3)}) {
    REQUIRE(cluster.node(id).Open(1, cluster.Members()).ok());
    REQUIRE(cluster.node(id).Open(2, cluster.Members(), true).ok());
  }
  CHECK(cluster.log(NodeId(3), 1).raft().in_doubt());
  CHECK_FALSE(cluster.log(NodeId(3), 2).raft().in_doubt());
  CHECK(cluster.RunUntil([&] { return leads(2); }));
  CHECK_FALSE(leads(1));
}

}  // namespace
}  // namespace sluice::replication
