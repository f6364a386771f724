#include "tests/simulation/sim_transport.h"

#include <catch2/catch.hpp>

#include <string>

namespace sluice::simulation {
namespace {

const ReplicaId kFirst{Uuid::FromRandom(1, 1), PartitionId(0)};
const ReplicaId kSecond{Uuid::FromRandom(1, 1), PartitionId(1)};

struct Listener final : replication::PeerReceiver {
  void OnMessage(const ReplicaId& group, raft::Message message) override {
    terms[group].push_back(message.term.value());
  }
  void OnLiveness(NodeId, replication::LivenessMessage) override { ++liveness; }
  void OnPeerState(NodeId peer, replication::PeerState state) override { states[peer].push_back(state); }

  std::map<ReplicaId, std::vector<int32_t>> terms;
  std::map<NodeId, std::vector<replication::PeerState>> states;
  int liveness = 0;
};

raft::Message At(int32_t term, NodeId from = NodeId(1), NodeId to = NodeId(2)) {
  return {.from = {from, Uuid::FromRandom(1, 1)},
          .to = {to, Uuid::FromRandom(2, 2)},
          .term = LeaderEpoch(term),
          .body = raft::TimeoutNow{}};
}

struct Net {
  explicit Net(uint64_t seed = 1) : scheduler(seed) {
    one->Start(at_one);
    two->Start(at_two);
    scheduler.RunUntilIdle();
  }
  SimScheduler scheduler;
  SimNetwork network{scheduler};
  Listener at_one;
  Listener at_two;
  std::unique_ptr<SimTransport> one = network.Join(NodeId(1));
  std::unique_ptr<SimTransport> two = network.Join(NodeId(2));
};

TEST_CASE("messages of one group keep their order, those of two groups overtake each other") {
  Net net;
  for (int i = 1; i <= 100; ++i) CHECK(net.one->Send(i % 2 == 0 ? kFirst : kSecond, At(i)));
  net.scheduler.RunUntilIdle();
  REQUIRE(net.at_two.terms[kFirst].size() == 50);
  CHECK(std::is_sorted(net.at_two.terms[kFirst].begin(), net.at_two.terms[kFirst].end()));
  CHECK(std::is_sorted(net.at_two.terms[kSecond].begin(), net.at_two.terms[kSecond].end()));
  CHECK(net.network.counts().reordered > 0);
}

TEST_CASE("a partition stops one direction until it heals, also for what is under way") {
  Net net;
  net.one->Send(kFirst, At(1));
  net.network.Block(NodeId(1), NodeId(2));
  net.one->Send(kFirst, At(2));
  net.two->Send(kFirst, At(7, NodeId(2), NodeId(1)));
  net.scheduler.RunUntilIdle();
  CHECK(net.at_two.terms.empty());
  CHECK(net.at_one.terms[kFirst] == std::vector<int32_t>{7});
  net.network.HealAll();
  net.one->Send(kFirst, At(3));
  net.scheduler.RunUntilIdle();
  CHECK(net.at_two.terms[kFirst] == std::vector<int32_t>{3});
}

TEST_CASE("a node that dies breaks its connections, and what was sent to it does not reach its next life") {
  Net net;
  CHECK(net.at_one.states[NodeId(2)] == std::vector{replication::PeerState::kConnected});
  net.one->Send(kFirst, At(1));
  net.two.reset();
  CHECK_FALSE(net.one->Send(kFirst, At(2)));
  net.two = net.network.Join(NodeId(2));
  net.two->Start(net.at_two);
  net.scheduler.RunUntilIdle();
  CHECK(net.at_two.terms.empty());
  CHECK(net.at_one.states[NodeId(2)].size() == 3);
  net.one->Send(kFirst, At(3));
  net.scheduler.RunUntilIdle();
  CHECK(net.at_two.terms[kFirst] == std::vector<int32_t>{3});
}

TEST_CASE("loss takes about the share that was asked for, and a full way refuses") {
  Net net;
  net.network.SetLoss(300);
  for (int i = 0; i < 1000; ++i) net.one->Send(kFirst, At(i));
  net.scheduler.RunUntilIdle();
  CHECK(net.network.counts().lost > 200);
  CHECK(net.network.counts().lost < 400);
  CHECK(net.at_two.terms[kFirst].size() == 1000 - net.network.counts().lost);
  net.network.SetLoss(0);
  net.network.SetBytesMax(250);
  CHECK(net.one->Send(kFirst, At(1)));
  CHECK(net.one->Send(kFirst, At(2)));
  CHECK_FALSE(net.one->Send(kFirst, At(3)));
}

}  // namespace
}  // namespace sluice::simulation
