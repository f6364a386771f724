// Calls between nodes in the simulator: PeerCalls over the event heap, with SimNetwork's partitions, delays and losses
// of their own, and the refusals of broker/peer_calls.h.
//
// Threads: all of it from one. Answers and handlers run in events of their own, on no executor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "broker/peer_calls.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_transport.h"

namespace sluice::simulation {

class SimPeerCalls;

/// Who listens where.
class SimCallNetwork {
 public:
  SimCallNetwork(SimScheduler& scheduler, const SimNetwork& network) : scheduler_(scheduler), network_(network) {}
  SimCallNetwork(const SimCallNetwork&) = delete;
  SimCallNetwork& operator=(const SimCallNetwork&) = delete;

  /// In a thousand, of requests and of answers.
  void SetLoss(uint64_t per_mille) { loss_per_mille_ = per_mille; }
  void SetDelay(absl::Duration least, absl::Duration most) { delay_least_ = least, delay_most_ = most; }
  uint64_t lost() const { return lost_; }

 private:
  friend class SimPeerCalls;
  bool Passes(NodeId from, NodeId to);
  absl::Duration DrawDelay();

  SimScheduler& scheduler_;
  const SimNetwork& network_;
  std::map<std::string, SimPeerCalls*> listening_;
  uint64_t loss_per_mille_ = 0;
  absl::Duration delay_least_ = absl::Microseconds(100);
  absl::Duration delay_most_ = absl::Microseconds(2100);
  uint64_t lost_ = 0;
};

/// One node's end, of one life: destroying it is the node's death.
class SimPeerCalls final : public broker::PeerCalls, public broker::PeerAddresses {
 public:
  /// `self.address` is where it listens.
  SimPeerCalls(SimCallNetwork& network, broker::PeerCaller self);
  ~SimPeerCalls() override;

  /// Of the cluster that the node has joined.
  void SetCluster(const Uuid& cluster) { self_.cluster = cluster; }

  void Call(broker::PeerTarget to, uint32_t kind, std::string request, absl::Duration deadline,
            broker::PeerAnswered done) override;
  void Serve(broker::PeerCallHandler handler) override { handler_ = std::move(handler); }
  void SetPeer(NodeId node, std::string address) override { addresses_[node] = std::move(address); }
  void RemovePeer(NodeId node) override { addresses_.erase(node); }
  std::string AddressOf(NodeId node) const;
  /// Calls that were not served for who asked them.
  uint64_t refused() const { return refused_; }

 private:
  struct Pending {
    std::map<uint64_t, broker::PeerAnswered> calls;
  };
  struct Reply;

  static void Answer(const std::weak_ptr<Pending>& pending, uint64_t id, absl::StatusOr<std::string> answer);
  absl::Status Refusal(const broker::PeerTarget& to, const broker::PeerCaller& from) const;

  SimCallNetwork& network_;
  broker::PeerCaller self_;
  broker::PeerCallHandler handler_;
  std::map<NodeId, std::string> addresses_;
  std::shared_ptr<Pending> pending_ = std::make_shared<Pending>();
  uint64_t calls_made_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace sluice::simulation
