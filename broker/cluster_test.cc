// Forming, joining and running a cluster: what registers, reports, fences and grows group 0, on simulated nodes.
#include <catch2/catch.hpp>

#include "tests/broker/cluster_rig.h"

namespace sluice::broker {
namespace {

bool Has(const absl::Status& status, const std::string& text) {
  const bool has = status.ToString().find(text) != std::string::npos;
  if (!has) UNSCOPED_INFO(status.ToString() << " does not say: " << text);
  return has;
}

TopicCreated Topic(uint64_t n) {
  TopicRecord topic{.id = Uuid::FromRandom(n, n), .name = "t" + std::to_string(n), .partitions = 1, .replicas = 1};
  topic.assignments = {{{.node = NodeId(1), .incarnation = Uuid{}}}};
  return {topic};
}

/// Somebody who listens at `address`.
PeerCaller Listener(int node, const std::string& address) {
  return {.node = NodeId(node), .cluster = {}, .disk = {}, .session = {}, .address = address};
}

TEST_CASE("a node without seeds forms a cluster of its own") {
  ClusterRig rig(1);
  rig.node(1).cluster_name = "prod";
  rig.Start(1);
  rig.Until([&] { return rig.Settled(1) && rig.State().feature_level == kFeatureLevelMax; });
  const ControllerState& state = rig.State();
  CHECK(state.cluster_id == rig.node(1).folder.cluster);
  CHECK(state.cluster_name == "prod");
  const RegisteredNode* node = state.FindNode(NodeId(1));
  CHECK(node->node.disk == rig.node(1).folder.disk);
  CHECK(node->node.incarnation == rig.base.controller(NodeId(1)).log()->raft().self().incarnation);
}

TEST_CASE("nodes join by a seed, and group 0 grows from one voter to three to five") {
  ClusterRig rig(5);
  rig.Start(1);
  rig.Settle(1);
  rig.Start(2);
  rig.Settle(1);
  rig.Start(3);
  rig.Settle(3);
  rig.Start(4);
  rig.Settle(3);
  rig.Start(5);
  rig.Settle(5);
  CHECK(rig.State().nodes.size() == 5);
  for (int i = 1; i <= 5; ++i) {
    CHECK(rig.node(i).folder.cluster == rig.node(1).folder.cluster);
    CHECK(rig.node(i).calls->AddressOf(NodeId(i == 1 ? 2 : 1)) == rig.node(i == 1 ? 2 : 1).address);
  }
}

TEST_CASE("a grown cluster goes on without a minority of its voters, and fences it") {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    ClusterRig rig(5, seed);
    rig.StartAll();
    rig.Settle(5);
    const int first = rig.Leader();
    rig.node(first).Crash();
    const int second = rig.base.Leader(NodeId(first)).value();
    rig.node(second).Crash();
    rig.Until([&] {
      const auto leader = rig.base.LeaderNow();
      if (!leader) return false;
      const ControllerState& state = rig.base.controller(*leader).state();
      return state.FindNode(NodeId(first))->fenced && state.FindNode(NodeId(second))->fenced;
    });
    rig.base.Change(Topic(1));
    rig.Start(first);
    rig.Start(second);
    rig.Settle(5);
    CHECK(rig.State().topics.size() == 1);
  }
}

TEST_CASE("a node that starts again has a new epoch and the same incarnation") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);
  const RegisteredNode before = *rig.State().FindNode(NodeId(2));
  rig.node(2).Crash();
  rig.Start(2);
  rig.Until([&] { return rig.State().FindNode(NodeId(2))->epoch > before.epoch && rig.Settled(1); });
  NodeRecord now = rig.State().FindNode(NodeId(2))->node;
  CHECK(now.process == rig.node(2).process);
  CHECK(now.process != before.node.process);
  now.process = before.node.process;
  CHECK(now == before.node);
}

TEST_CASE("a node that died between being let in and opening its replica joins once more") {
  ClusterRig rig(2);
  rig.Start(1);
  rig.Settle(1);
  rig.node(2).stop_after_join = true;
  CHECK(absl::IsAborted(rig.node(2).TryStart()));
  const Uuid incarnation = rig.State().FindNode(NodeId(2))->node.incarnation;
  rig.node(2).stop_after_join = false;
  rig.Start(2);
  rig.Settle(1);
  CHECK(rig.State().FindNode(NodeId(2))->node.incarnation == incarnation);
  CHECK(rig.node(2).controller().log()->raft().self().incarnation == incarnation);
}

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

TEST_CASE("seeds of different clusters are refused, naming both") {
  ClusterRig rig(3);
  rig.node(2).seeds = {};
  rig.Start(1);
  rig.Start(2);
  rig.Until([&] { return rig.node(1).client->epoch().has_value() && rig.node(2).client->epoch().has_value(); });
  rig.node(3).seeds = {rig.node(1).address, rig.node(2).address};
  const absl::Status refused = rig.node(3).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(Has(refused, "the seeds are of different clusters"));
  CHECK(Has(refused, rig.node(1).folder.cluster.ToString()));
  CHECK(Has(refused, rig.node(2).folder.cluster.ToString()));
  CHECK(rig.node(3).folder.cluster.IsNil());
}

TEST_CASE("a cluster.name that is not the cluster's is refused, naming both") {
  ClusterRig rig(2);
  rig.node(1).cluster_name = "prod";
  rig.node(2).cluster_name = "test";
  rig.Start(1);
  rig.Settle(1);
  const absl::Status refused = rig.node(2).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(Has(refused, "\"test\""));
  CHECK(Has(refused, "\"prod\""));
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
    CHECK(
        Has(joined->status(), seed == 1 ? "node 2 is registered with disk" : "two processes say that they are node 2"));
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
  CHECK(Has(copy.joined->status(), "two processes say that they are node 1"));
  CHECK_FALSE(rig.node(1).refused.has_value());
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

TEST_CASE("a seed that is no member yet is asked again until it is") {
  ClusterRig rig(3);
  rig.node(2).seeds = {rig.node(3).address};
  rig.node(3).seeds = {rig.node(2).address, rig.node(1).address};
  CHECK(absl::IsAborted(rig.node(3).TryStart(absl::Seconds(5))));  // nobody is there
  rig.Start(1);
  rig.Start(3);
  rig.Start(2);  // by a seed that does not lead
  rig.Settle(3);
}

TEST_CASE("a node joins as soon as one seed that is a member answers") {
  ClusterRig rig(3);
  rig.Start(1);
  rig.Settle(1);
  // A seed that takes the question and is still joining itself.
  std::vector<PeerReply> held;
  simulation::SimPeerCalls silent(rig.call_network, Listener(3, "n3:7401"));
  silent.Serve([&](PeerCall, PeerReply reply) { held.push_back(std::move(reply)); });
  rig.node(2).seeds = {"n3:7401", rig.node(1).address};
  CHECK(rig.node(2).TryStart(absl::Milliseconds(700)).ok());
  CHECK_FALSE(held.empty());
}

TEST_CASE("a seed of another cluster is named although it answers late") {
  ClusterRig rig(3);
  rig.node(3).seeds = {};
  rig.Start(1);
  rig.Start(3);
  rig.Until([&] { return rig.node(1).client->epoch().has_value() && rig.node(3).client->epoch().has_value(); });
  simulation::SimPeerCalls late(rig.call_network, Listener(3, "n9:7401"));
  late.Serve([&](PeerCall call, PeerReply reply) {
    auto shared = std::make_shared<PeerReply>(std::move(reply));
    rig.base.scheduler.At(absl::Milliseconds(100), [&rig, shared, call = std::move(call)]() mutable {
      rig.node(3).service->Answer(std::move(call), std::move(*shared));
    });
  });
  rig.node(2).seeds = {"n9:7401", rig.node(1).address};
  const absl::Status refused = rig.node(2).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(Has(refused, "the seeds are of different clusters"));
}

TEST_CASE("a node joins though the leader dies meanwhile") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    ClusterRig rig(4, seed);
    rig.Start(1);
    rig.Start(2);
    rig.Start(3);
    rig.Settle(3);
    rig.node(4).seeds = {rig.node(1).address, rig.node(2).address, rig.node(3).address};
    const int leader = rig.Leader();
    rig.base.scheduler.At(absl::Microseconds(500 * static_cast<int64_t>(seed)), [&] { rig.node(leader).Kill(); });
    rig.Start(4);
    rig.Start(leader);
    rig.Settle(3);
    CHECK(rig.State().nodes.size() == 4);
    CHECK(rig.node(4).controller().log()->raft().self().incarnation ==
          rig.State().FindNode(NodeId(4))->node.incarnation);
  }
}

TEST_CASE("a silent node is fenced, and unfenced when it is heard and has caught up") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  const int victim = rig.Leader() == 3 ? 2 : 3;
  rig.base.network.Isolate(NodeId(victim));
  rig.Until([&] { return rig.State().FindNode(NodeId(victim))->fenced; }, absl::Seconds(6));
  rig.base.network.HealAll();
  rig.Settle(3);
}

TEST_CASE("a change of leader fences nobody that lives") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  const int old = rig.Leader();
  rig.node(old).Kill();
  rig.base.Leader(NodeId(old));
  rig.base.scheduler.RunFor(absl::Seconds(10));
  for (const auto& [id, node] : rig.State().nodes) CHECK(node.fenced == (id == NodeId(old)));
}

TEST_CASE("a node that is about to stop gets no new replicas, and does again after its next start") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  const int leaving = rig.Leader() == 3 ? 2 : 3;
  rig.base.node(NodeId(leaving)).executor().Post([&] { rig.node(leaving).client->SetDraining(); });
  rig.Until([&] { return rig.State().FindNode(NodeId(leaving))->fenced; }, absl::Seconds(2));
  rig.node(leaving).Kill();
  rig.Start(leaving);
  rig.Settle(3);
}

TEST_CASE("a node whose epoch is over registers again") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);
  const Offset before = *rig.node(2).client->epoch();
  // As by a registration whose answer was lost.
  NodeRecord again = rig.State().FindNode(NodeId(2))->node;
  rig.base.Change(NodeRegistered{again});
  rig.Until([&] { return rig.node(2).client->epoch() != before; }, absl::Seconds(5));
  rig.Settle(1);
  CHECK(*rig.node(2).client->epoch() > before + 1);
}

TEST_CASE("who waits for the registration hears when this node knows of it") {
  ClusterRig rig(2);
  rig.Start(1);
  rig.Start(2);
  std::optional<absl::Status> heard;
  rig.base.node(NodeId(2)).executor().Post(
      [&] { rig.node(2).client->WhenRegistered([&](absl::Status status) { heard = std::move(status); }); });
  rig.Until([&] { return heard.has_value(); });
  CHECK(heard->ok());
  CHECK(rig.node(2).controller().state().FindNode(NodeId(2)) != nullptr);
}

TEST_CASE("who waits for the registration hears why it was refused") {
  ClusterRig rig(2);
  rig.node(1).cluster_name = "prod";
  rig.StartAll();
  rig.Settle(1);
  rig.node(2).Kill();
  rig.node(2).cluster_name = "test";
  rig.Start(2);
  std::optional<absl::Status> heard;
  rig.base.node(NodeId(2)).executor().Post(
      [&] { rig.node(2).client->WhenRegistered([&](absl::Status status) { heard = std::move(status); }); });
  rig.Until([&] { return heard.has_value() && rig.node(2).refused.has_value(); });
  CHECK(absl::IsFailedPrecondition(*heard));
  CHECK(Has(*heard, "cluster.name \"test\""));
  heard.reset();
  rig.base.node(NodeId(2)).executor().Post(
      [&] { rig.node(2).client->WhenRegistered([&](absl::Status status) { heard = std::move(status); }); });
  rig.Until([&] { return heard.has_value(); }, absl::Seconds(1));
  CHECK(Has(*heard, "cluster.name \"test\""));
}

TEST_CASE("a node that registers twice before its first heartbeat has a whole time-out each time") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);
  rig.node(2).Kill();
  const NodeRecord again = rig.State().FindNode(NodeId(2))->node;
  rig.base.Change(NodeRegistered{again});
  rig.base.scheduler.RunFor(absl::Milliseconds(2500));
  rig.base.Change(NodeRegistered{again});
  rig.base.scheduler.RunFor(absl::Milliseconds(2500));
  CHECK_FALSE(rig.State().FindNode(NodeId(2))->fenced);
  rig.base.scheduler.RunFor(absl::Milliseconds(1500));
  CHECK(rig.State().FindNode(NodeId(2))->fenced);
}

TEST_CASE("the feature level rises with the registration that lets it") {
  ClusterRig rig(1);
  rig.Start(1);
  rig.Until([&] { return rig.State().nodes.size() == 1; });
  rig.base.scheduler.RunFor(absl::Milliseconds(50));
  CHECK(rig.State().feature_level == kFeatureLevelMax);
}

TEST_CASE("the feature level is what every node supports, and a node that does not is refused") {
  ClusterRig rig(3);
  rig.node(2).feature_max = 0;
  rig.Start(1);
  rig.Until([&] { return rig.Settled(1) && rig.State().feature_level == 1; });
  const absl::Status refused = rig.node(2).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(Has(refused, "node 2 (version test) works at feature levels 0 to 0, and the cluster is at level 1"));
}

TEST_CASE("a cluster whose calls are lost now and then still forms, joins and settles") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    ClusterRig rig(3, seed);
    rig.call_network.SetLoss(200);
    rig.StartAll();
    rig.Settle(3);
  }
}

TEST_CASE("each reason to refuse a node has its words") {
  ClusterState state;
  state.cluster_id = Uuid::FromRandom(1, 1);
  state.cluster_name = "prod";
  state.feature_level = 1;
  const NodeRecord known{.id = NodeId(1), .disk = Uuid::FromRandom(2, 2), .feature_max = 1};
  state.nodes[NodeId(1)] = {.node = known, .epoch = Offset(1)};
  RegisterRequest request;
  request.node = known;
  CHECK(WhyRefused(state, request).empty());
  request.cluster_id = state.cluster_id;
  request.cluster_name = "prod";
  CHECK(WhyRefused(state, request).empty());
  const auto why = [&](auto change) {
    RegisterRequest changed = request;
    change(changed);
    return absl::FailedPreconditionError(WhyRefused(state, changed));
  };
  CHECK(Has(why([](auto& r) { r.cluster_id = Uuid::FromRandom(9, 9); }), "belongs to cluster"));
  CHECK(Has(why([](auto& r) { r.cluster_name = "test"; }), "cluster.name \"test\""));
  CHECK(Has(why([](auto& r) { r.node.feature_min = r.node.feature_max = 2; }), "feature levels 2 to 2"));
  CHECK(Has(why([](auto& r) { r.node.disk = Uuid::FromRandom(3, 3); }), "give it a new node.id"));
  CHECK(Has(why([](auto& r) { r.node.id = NodeId(2); }), "was the data folder copied?"));
}

TEST_CASE("calls of the cluster that are garbage are refused") {
  CHECK_FALSE(DecodeRegisterRequest("\xff").ok());
  CHECK_FALSE(DecodeRegisterAnswer("\xff").ok());
  CHECK_FALSE(DecodeHeartbeat("\xff").ok());
  CHECK_FALSE(DecodeHeartbeatAnswer("\xff").ok());
  RegisterRequest request;
  CHECK_FALSE(DecodeRegisterRequest(EncodeRegisterRequest(request)).ok());  // no number, no disk
  request.ask_only = true;
  CHECK(DecodeRegisterRequest(EncodeRegisterRequest(request)).ok());
  const Heartbeat heartbeat{
      .node = NodeId(3), .epoch = Offset(4), .applied = Offset(5), .disk_free_bytes = 6, .draining = true};
  CHECK(*DecodeHeartbeat(EncodeHeartbeat(heartbeat)) == heartbeat);
  const HeartbeatAnswer taken{.applied = Offset(7), .full = {NodeId(2), NodeId(3)}};
  CHECK(*DecodeHeartbeatAnswer(EncodeHeartbeatAnswer(taken)) == taken);
  RegisterAnswer answer;
  answer.cluster_id = Uuid::FromRandom(1, 1);
  answer.nodes = {{NodeId(1), {"a:1", Offset(2), false}}, {NodeId(2), {"b:1", Offset(-1), true}}};
  answer.registered = Registration{Uuid::FromRandom(2, 2), Offset(3), answer.nodes};
  CHECK(DecodeRegisterAnswer(EncodeRegisterAnswer(answer))->registered == answer.registered);
  answer.other = OtherProcess{.epoch = Offset(7), .peer_address = "b:2"};
  CHECK(DecodeRegisterAnswer(EncodeRegisterAnswer(answer))->other == answer.other);
  request.node.process = Uuid::FromRandom(8, 8);
  request.replaces = Offset(9);
  CHECK(DecodeRegisterRequest(EncodeRegisterRequest(request))->node.process == request.node.process);
  CHECK(DecodeRegisterRequest(EncodeRegisterRequest(request))->replaces == Offset(9));
}

}  // namespace
}  // namespace sluice::broker
