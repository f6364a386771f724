// How a node comes to be of a cluster: its seeds, and what is refused, on simulated nodes.
#include <catch2/catch.hpp>

#include "tests/broker/cluster_rig.h"

namespace sluice::broker {
namespace {

/// Somebody who listens at `address`.
PeerCaller Listener(int node, const std::string& address) {
  return {.node = NodeId(node), .cluster = {}, .disk = {}, .session = {}, .address = address};
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

size_t Times(const std::string& text, std::string_view what) {
  size_t times = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++times;
  return times;
}

TEST_CASE("each reason why a node is not let in is told once, and again after it was let in") {
  std::string lines;
  const Logger log = WarningsTo(&lines);
  RegisterTrouble trouble(log);
  for (int i = 0; i < 9; ++i) trouble.OnFailed("n1:7401", absl::UnavailableError("nobody answers"));
  CHECK(lines.empty());
  for (int i = 0; i < 9; ++i) {
    trouble.OnFailed("n1:7401", absl::UnavailableError("nobody answers"));
    trouble.OnFailed("n1:7401", absl::PermissionDeniedError("another node's certificate"));
  }
  CHECK(Times(lines, "nobody answers") == 1);
  CHECK(Times(lines, "another node's certificate") == 1);
  CHECK(Times(lines, "n1:7401") == 2);
  trouble.OnDone();
  trouble.OnFailed("n1:7401", absl::UnavailableError("nobody answers"));
  trouble.OnFailed("n1:7401", absl::PermissionDeniedError("another node's certificate"));
  CHECK(Times(lines, "nobody answers") == 1);
  CHECK(Times(lines, "another node's certificate") == 2);
  for (int i = 0; i < 100; ++i) trouble.OnFailed("n1:7401", absl::InternalError("at " + std::to_string(i)));
  CHECK(Times(lines, "n1:7401") < 30);
}

TEST_CASE("who looks at a node's log sees why the cluster does not let it in: joining, and coming back") {
  ClusterRig rig(2);
  rig.Start(1);
  const auto refuse = [&](const std::string& why) {
    rig.node(1).calls->Serve([why](const PeerCall&, PeerReply reply) { reply(absl::PermissionDeniedError(why)); });
  };
  const auto serve = [&] {
    rig.node(1).calls->Serve([&rig](PeerCall call, PeerReply reply) {
      rig.node(1).base().executor().Post([&rig, call = std::move(call), reply = std::move(reply)]() mutable {
        rig.node(1).service->Answer(std::move(call), std::move(reply));
      });
    });
  };
  refuse("the first reason");
  CHECK_FALSE(rig.node(2).TryStart(absl::Seconds(5)).ok());
  CHECK(Times(rig.base.warnings, "the first reason") == 1);
  serve();
  rig.Start(2);
  rig.Settle(1);
  rig.node(2).Kill();
  refuse("the second reason");
  rig.Start(2);
  rig.base.scheduler.RunFor(absl::Seconds(5));
  CHECK(Times(rig.base.warnings, "the second reason") == 1);
  serve();
  rig.Settle(1);
}

TEST_CASE("who looks at a node's log sees that it is not let in for want of a leader") {
  ClusterRig rig(2);
  rig.Start(1);
  rig.node(1).calls->Serve([&rig](const PeerCall&, PeerReply reply) {
    RegisterAnswer answer;
    answer.cluster_id = rig.node(1).folder.cluster;
    reply(EncodeRegisterAnswer(answer));
  });
  CHECK_FALSE(rig.node(2).TryStart(absl::Seconds(20)).ok());
  CHECK(Times(rig.base.warnings, "no leader of the controller is known there") == 1);
  CHECK(Times(rig.base.warnings, "at=n1:7401") == 1);
}

}  // namespace
}  // namespace sluice::broker
