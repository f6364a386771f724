// Who a node is: its folder, its disk and its process, when others come in its name, on simulated nodes.
#include <catch2/catch.hpp>

#include "tests/broker/cluster_rig.h"

namespace sluice::broker {
namespace {

TEST_CASE("a node with another disk than it is registered with is refused") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);
  const Uuid was = rig.node(2).folder.disk;
  rig.node(2).Wipe();
  const absl::Status refused = rig.node(2).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(Has(refused, "node 2 is registered with disk " + was.ToString() + ", this data folder is disk " +
                         rig.node(2).folder.disk.ToString() + ": give it a new node.id"));
  CHECK(rig.State().FindNode(NodeId(2))->node.disk == was);
}

TEST_CASE("a node of another cluster is refused, with its data left alone") {
  ClusterRig rig(3);
  rig.node(3).seeds = {};
  rig.StartAll();  // 1 and 2 are a cluster, 3 is one
  rig.Until([&] { return rig.node(3).client->epoch().has_value(); });
  rig.node(3).Kill();
  rig.node(3).seeds = {rig.node(1).address};
  const Uuid other = rig.node(3).folder.cluster;
  rig.Start(3);  // it has a replica of its own group 0, and leads that
  rig.base.scheduler.RunFor(absl::Seconds(5));
  CHECK(rig.State().FindNode(NodeId(3)) == nullptr);
  CHECK(rig.node(3).controller().state().cluster_id == other);
  CHECK(rig.node(3).folder.cluster == other);
}

TEST_CASE("a folder of another cluster that has lost its group 0 is refused") {
  ClusterRig rig(2);
  rig.Start(1);
  rig.Settle(1);
  rig.node(2).folder = {.made = true, .disk = Uuid::FromRandom(1, 2), .cluster = Uuid::FromRandom(3, 4)};
  const absl::Status refused = rig.node(2).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(Has(refused, Uuid::FromRandom(3, 4).ToString()));
  CHECK(Has(refused, rig.node(1).folder.cluster.ToString()));
}

TEST_CASE("a second node of one number is refused") {
  ClusterRig rig(3);
  rig.Start(1);
  rig.Start(2);
  rig.Settle(1);
  // Another machine, with a folder of its own, that is configured as node 2.
  ControlNode& other = rig.base.node(NodeId(3));
  other.Boot();
  simulation::SimPeerCalls calls(rig.call_network, PeerCaller{.node = NodeId(2),
                                                              .cluster = {},
                                                              .disk = Uuid::FromRandom(6, 6),
                                                              .session = Uuid::FromRandom(7, 7),
                                                              .address = "n9:7401"});
  ClusterClientOptions options;
  options.node = {.id = NodeId(2), .disk = Uuid::FromRandom(6, 6), .peer_address = "n9:7401", .feature_max = 1};
  for (const int seed : {1, 2}) {
    options.seeds = {rig.node(seed).address};
    ClusterJoiner joiner(options, {.executor = other.executor(), .calls = calls, .log = rig.base.logger});
    std::optional<absl::StatusOr<Joined>> joined;
    other.executor().Post(
        [&] { joiner.Join([&](absl::StatusOr<Joined> answer) { joined.emplace(std::move(answer)); }); });
    rig.Until([&] { return joined.has_value(); });
    CHECK(absl::IsFailedPrecondition(joined->status()));
    CHECK(Has(joined->status(), seed == 1 ? "node 2 is registered with disk" : "node 2 is here, on another disk"));
  }
  CHECK(rig.State().FindNode(NodeId(2))->node.disk == rig.node(2).folder.disk);
}

/// Another process with a copy of a node's folder from which group 0 is missing, on the machine of node `on`.
struct CopiedNode {
  CopiedNode(ClusterRig& rig, int of, int on)
      : calls(rig.call_network, PeerCaller{.node = NodeId(of),
                                           .cluster = rig.node(of).folder.cluster,
                                           .disk = rig.node(of).folder.disk,
                                           .session = kProcess,
                                           .address = kAddress}) {
    ControlNode& machine = rig.base.node(NodeId(on));
    machine.Boot();
    ClusterClientOptions options;
    options.node = {.id = NodeId(of),
                    .disk = rig.node(of).folder.disk,
                    .peer_address = kAddress,
                    .feature_max = 1,
                    .process = kProcess};
    options.cluster_id = rig.node(of).folder.cluster;
    options.seeds = {rig.node(1).address};
    ClusterJoiner joiner(options, {.executor = machine.executor(), .calls = calls, .log = rig.base.logger});
    machine.executor().Post(
        [&] { joiner.Join([&](absl::StatusOr<Joined> answer) { joined.emplace(std::move(answer)); }); });
    rig.Until([&] { return joined.has_value(); });
  }
  static constexpr const char* kAddress = "n9:7401";
  inline static const Uuid kProcess = Uuid::FromRandom(7, 7);
  simulation::SimPeerCalls calls;
  std::optional<absl::StatusOr<Joined>> joined;
};

RegisterRequest RequestOf(const NodeRecord& node, const Uuid& cluster) {
  RegisterRequest request;
  request.cluster_id = cluster;
  request.node = node;
  return request;
}

/// What the leader, which is node 1, answers to that.
RegisterAnswer AnswerOf(ClusterRig& rig, const RegisterRequest& request) {
  std::optional<absl::StatusOr<RegisterAnswer>> answered;
  rig.base.node(NodeId(1)).executor().Post([&] {
    rig.node(1).service->Register(request,
                                  [&](absl::StatusOr<RegisterAnswer> answer) { answered = std::move(answer); });
  });
  rig.Until([&] { return answered.has_value(); });
  REQUIRE(answered->ok());
  return **answered;
}

TEST_CASE("of two processes with one data folder the later is the node, and the earlier stops and says why") {
  ClusterRig rig(3);
  rig.Start(1);
  rig.Start(2);
  rig.Settle(1);
  const Offset before = rig.State().FindNode(NodeId(2))->epoch;
  const CopiedNode copy(rig, 2, 3);
  REQUIRE(copy.joined->ok());
  const Offset epoch = rig.State().FindNode(NodeId(2))->epoch;
  CHECK(epoch > before);
  rig.Until([&] { return rig.node(2).refused.has_value(); }, absl::Seconds(2));
  CHECK(Has(*rig.node(2).refused, "two processes run as node 2"));
  CHECK(Has(*rig.node(2).refused, "this one, at n2:7401"));
  CHECK(Has(*rig.node(2).refused, "one at n9:7401 that has registered later"));
  CHECK(Has(*rig.node(2).refused, "delete the other"));
  rig.base.scheduler.RunFor(absl::Seconds(5));
  CHECK(rig.State().FindNode(NodeId(2))->epoch == epoch);
  CHECK(rig.State().FindNode(NodeId(2))->node.peer_address == "n9:7401");
}

TEST_CASE("a copy of the folder of the node that leads the controller is not let in, and hears why") {
  ClusterRig rig(2);
  rig.Start(1);
  rig.Settle(1);
  const CopiedNode copy(rig, 1, 2);
  CHECK(absl::IsFailedPrecondition(copy.joined->status()));
  CHECK(Has(copy.joined->status(), "two processes run as node 1: this one, at n9:7401, and one at n1:7401"));
  CHECK_FALSE(rig.node(1).refused.has_value());
}

TEST_CASE("a leader that others follow goes on when it meets who has its number, a copy of its folder or not") {
  for (const bool copied : {true, false}) {
    ClusterRig rig(3);
    rig.StartAll();
    rig.Settle(3);
    REQUIRE(rig.Leader() == 1);
    rig.node(3).Crash();  // so the leader looks for it
    const Uuid disk = copied ? rig.node(1).folder.disk : Uuid::FromRandom(6, 6);
    simulation::SimPeerCalls calls(rig.call_network, PeerCaller{.node = NodeId(1),
                                                                .cluster = {},
                                                                .disk = disk,
                                                                .session = Uuid::FromRandom(7, 7),
                                                                .address = rig.node(3).address});
    calls.Serve([](PeerCall, PeerReply reply) { reply(absl::UnavailableError("it belongs to no cluster yet")); });
    rig.base.scheduler.RunFor(absl::Seconds(15));
    CHECK(calls.refused() > 0);
    CHECK_FALSE(rig.node(1).refused.has_value());
    CHECK(rig.Leader() == 1);
  }
}

TEST_CASE("what a node sent before its restart, and arrives after that, does not take its place") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);
  const RegisteredNode first = *rig.State().FindNode(NodeId(2));
  rig.node(2).Crash();
  rig.Start(2);
  rig.Until([&] { return rig.State().FindNode(NodeId(2))->epoch > first.epoch && rig.Settled(1); });
  const RegisteredNode second = *rig.State().FindNode(NodeId(2));
  RegisterRequest late = RequestOf(first.node, rig.node(1).folder.cluster);
  // Its first registration, and one of when it had been registered.
  for (const Offset replaces : {Offset(0), first.epoch}) {
    late.replaces = replaces;
    const RegisterAnswer answer = AnswerOf(rig, late);
    CHECK_FALSE(answer.registered.has_value());
    CHECK(answer.other == OtherProcess{.epoch = second.epoch, .peer_address = rig.node(2).address});
    CHECK(answer.refused.empty());
  }
  rig.base.scheduler.RunFor(absl::Seconds(3));
  CHECK(*rig.State().FindNode(NodeId(2)) == second);
  CHECK_FALSE(rig.node(2).refused.has_value());
}

TEST_CASE("a registration that is sent again, as its answer was lost, is taken again") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);
  const RegisteredNode before = *rig.State().FindNode(NodeId(2));
  const RegisterAnswer answer = AnswerOf(rig, RequestOf(before.node, rig.node(1).folder.cluster));
  REQUIRE(answer.registered.has_value());
  CHECK_FALSE(answer.other.has_value());
  // The epoch that the process knows is over then, and it is no other that has ended it.
  rig.Settle(1);
  CHECK(rig.State().FindNode(NodeId(2))->epoch > before.epoch);
  CHECK_FALSE(rig.node(2).refused.has_value());
}

TEST_CASE("what an older program has registered without a process is replaced by whoever comes") {
  ClusterState state;
  NodeRecord node{.id = NodeId(1), .disk = Uuid::FromRandom(2, 2)};
  state.nodes[NodeId(1)] = {.node = node, .epoch = Offset(5)};
  RegisterRequest request = RequestOf(node, {});
  request.node.process = Uuid::FromRandom(3, 3);
  CHECK_FALSE(OtherThan(state, request).has_value());
  state.nodes[NodeId(1)].node.process = Uuid::FromRandom(4, 4);
  CHECK(OtherThan(state, request)->epoch == Offset(5));
  request.replaces = Offset(5);
  CHECK_FALSE(OtherThan(state, request).has_value());
  request = RequestOf(node, {});
  CHECK_FALSE(OtherThan(state, request).has_value());
}

}  // namespace
}  // namespace sluice::broker
