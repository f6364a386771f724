// A node's end of the peers' network. What arrives waits, like everything else, while the process is paused; what is
// sent goes only to nodes whose address this one was told, and that are still there.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "broker/peer_calls.h"
#include "common/executor.h"
#include "replication/transport.h"
#include "tests/simulation/sim_peer_calls.h"
#include "tests/simulation/sim_transport.h"

namespace sluice::cluster_simulation {

/// What lies between the nodes.
struct Peers {
  explicit Peers(simulation::SimScheduler& scheduler) : messages(scheduler), calls(scheduler, messages) {}
  simulation::SimNetwork messages;
  simulation::SimCallNetwork calls;
  std::map<NodeId, std::string> where;  ///< Each node's address, of the process that it has or had last.
};

class PeerPort final : public replication::PeerTransport,
                       public replication::PeerReceiver,
                       public broker::PeerCalls,
                       public broker::PeerAddresses {
 public:
  PeerPort(Peers& peers, broker::PeerCaller self, Executor& wire)
      : peers_(peers), messages_(peers.messages.Join(self.node)), calls_(peers.calls, std::move(self)), wire_(wire) {}

  /// Of the cluster that the node has joined.
  void SetCluster(const Uuid& cluster) { calls_.SetCluster(cluster); }

  /// Whether what is sent to the node goes where it is.
  bool Finds(NodeId node) const {
    const auto at = peers_.where.find(node);
    return at != peers_.where.end() && at->second == calls_.AddressOf(node);
  }

  // PeerTransport
  void Start(replication::PeerReceiver& receiver) override {
    receiver_ = &receiver;
    messages_->Start(*this);
  }
  void Stop(absl::AnyInvocable<void()> done) override { messages_->Stop(std::move(done)); }
  bool Send(const ReplicaId& group, raft::Message message) override {
    return Finds(message.to.node) && messages_->Send(group, std::move(message));
  }
  bool SendLiveness(NodeId to, replication::LivenessMessage message) override {
    return Finds(to) && messages_->SendLiveness(to, std::move(message));
  }

  // PeerReceiver
  void OnMessage(const ReplicaId& group, raft::Message message) override {
    wire_.Post(
        [this, group, message = std::move(message)]() mutable { receiver_->OnMessage(group, std::move(message)); });
  }
  void OnLiveness(NodeId from, replication::LivenessMessage message) override {
    wire_.Post(
        [this, from, message = std::move(message)]() mutable { receiver_->OnLiveness(from, std::move(message)); });
  }
  void OnPeerState(NodeId peer, replication::PeerState state) override {
    wire_.Post([this, peer, state] { receiver_->OnPeerState(peer, state); });
  }

  // PeerCalls
  void Call(broker::PeerTarget to, uint32_t kind, std::string request, absl::Duration deadline,
            broker::PeerAnswered done) override {
    calls_.Call(
        std::move(to), kind, std::move(request), deadline,
        [&wire = wire_, done = std::move(done)](absl::StatusOr<std::string> answer) mutable {
          wire.Post([done = std::move(done), answer = std::move(answer)]() mutable { done(std::move(answer)); });
        });
  }
  void Serve(broker::PeerCallHandler handler) override {
    handler_ = std::move(handler);
    calls_.Serve([this](broker::PeerCall call, broker::PeerReply reply) {
      wire_.Post([this, call = std::move(call), reply = std::move(reply)]() mutable {
        handler_(std::move(call), std::move(reply));
      });
    });
  }

  // PeerAddresses
  void SetPeer(NodeId node, std::string address) override { calls_.SetPeer(node, std::move(address)); }
  void RemovePeer(NodeId node) override { calls_.RemovePeer(node); }

 private:
  const Peers& peers_;
  std::unique_ptr<simulation::SimTransport> messages_;
  simulation::SimPeerCalls calls_;
  Executor& wire_;
  replication::PeerReceiver* receiver_ = nullptr;
  broker::PeerCallHandler handler_;
};

}  // namespace sluice::cluster_simulation
