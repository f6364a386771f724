// Forming, joining and running a cluster: what registers, reports, fences and grows group 0, on simulated nodes.
#include <catch2/catch.hpp>

#include "tests/broker/cluster_rig.h"

namespace sluice::broker {
namespace {

TopicCreated Topic(uint64_t n) {
  TopicRecord topic{.id = Uuid::FromRandom(n, n), .name = "t" + std::to_string(n), .partitions = 1, .replicas = 1};
  topic.assignments = {{{.node = NodeId(1), .incarnation = Uuid{}}}};
  return {topic};
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
