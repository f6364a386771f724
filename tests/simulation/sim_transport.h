// A network of nodes in the simulator, with the ways a network can fail: delay, loss, duplicates, reordering across
// groups, partitions in one or both directions.
//
// Within one (sender, receiver, group) what arrives keeps its order, as the seam promises. That a message comes twice
// it does not promise to bear, and the Raft core bears it all the same (paper section 5.3): so it is tried. Messages
// are carried as values: what a codec could break is tested where the codec is.
// Threads: all of it from one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "absl/time/time.h"
#include "replication/transport.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::simulation {

/// How often each fault has struck.
struct SimNetworkCounts {
  uint64_t sent = 0;
  uint64_t delivered = 0;
  uint64_t lost = 0;
  uint64_t duplicated = 0;
  uint64_t blocked = 0;    ///< By a partition.
  uint64_t reordered = 0;  ///< Overtook a message of another group on the same way.
  uint64_t refused = 0;    ///< Over the bound of what may be under way.
};

class SimTransport;

class SimNetwork {
 public:
  explicit SimNetwork(SimScheduler& scheduler) : scheduler_(scheduler) {}
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  /// The transport of a node's present life; the one before, if any, is dead.
  std::unique_ptr<SimTransport> Join(NodeId node);

  // Faults, from now on.
  void SetDelay(absl::Duration least, absl::Duration most) { delay_least_ = least, delay_most_ = most; }
  /// In a thousand.
  void SetLoss(uint64_t per_mille) { loss_per_mille_ = per_mille; }
  /// In a thousand, of groups' messages: what arrives a second time, soon, and behind nothing that its group sent after
  /// it.
  void SetDuplicates(uint64_t per_mille) { duplicates_per_mille_ = per_mille; }
  void Block(NodeId from, NodeId to);
  void Unblock(NodeId from, NodeId to);
  /// Both directions, between this node and all others.
  void Isolate(NodeId node);
  void Rejoin(NodeId node);
  void HealAll();
  bool IsBlocked(NodeId from, NodeId to) const { return blocked_.contains({from, to}); }
  /// What one node may have under way to another; beyond it Send refuses.
  void SetBytesMax(int64_t bytes) { bytes_max_ = bytes; }
  /// What each node sends to all others goes out one after the other at this rate; 0: at once.
  void SetUplink(int64_t bytes_per_second) { uplink_bytes_per_second_ = bytes_per_second; }
  /// Sees each message of a group as it is sent; false loses it.
  void SetFilter(std::function<bool(const ReplicaId&, const raft::Message&)> filter) { filter_ = std::move(filter); }

  const SimNetworkCounts& counts() const { return counts_; }
  /// Messages of groups that were sent, heartbeats and all.
  uint64_t group_messages() const { return group_messages_; }

 private:
  friend class SimTransport;
  using Way = std::pair<NodeId, NodeId>;
  using Lane = std::tuple<NodeId, NodeId, ReplicaId>;

  struct Port {
    uint64_t life = 0;
    replication::PeerReceiver* receiver = nullptr;
  };

  bool Send(NodeId from, uint64_t life, const ReplicaId& group, raft::Message message);
  bool SendLiveness(NodeId from, uint64_t life, NodeId to, replication::LivenessMessage message);
  void Deliver(const Way& way, uint64_t its_life, int64_t bytes, const ReplicaId& group, absl::Duration arrives,
               raft::Message message);
  /// Whether a message takes its way at all.
  bool Passes(NodeId from, uint64_t life, NodeId to);
  bool Alive(NodeId node, uint64_t life) const;
  absl::Duration DrawDelay();
  /// When the last byte of a message that is sent now leaves its node.
  absl::Duration Leaves(NodeId from, int64_t bytes);
  void Leave(NodeId node, uint64_t life);
  void TellAll(NodeId about, replication::PeerState state);
  void Tell(NodeId whom, NodeId about, replication::PeerState state);

  SimScheduler& scheduler_;
  std::map<NodeId, Port> ports_;
  std::set<Way> blocked_;
  std::map<Lane, absl::Duration> lane_busy_until_;
  std::map<Way, absl::Duration> way_latest_;
  std::map<Way, int64_t> under_way_;
  absl::Duration delay_least_ = absl::Microseconds(50);
  absl::Duration delay_most_ = absl::Milliseconds(1);
  uint64_t loss_per_mille_ = 0;
  uint64_t duplicates_per_mille_ = 0;
  int64_t bytes_max_ = int64_t{64} << 20;
  int64_t uplink_bytes_per_second_ = 0;
  std::map<NodeId, absl::Duration> uplink_busy_until_;
  std::function<bool(const ReplicaId&, const raft::Message&)> filter_;
  uint64_t lives_ = 0;
  uint64_t group_messages_ = 0;
  SimNetworkCounts counts_;
};

/// One node's end. Destroying it is the node's death: others see the connection break.
class SimTransport final : public replication::PeerTransport {
 public:
  SimTransport(SimNetwork& network, NodeId node, uint64_t life) : network_(network), node_(node), life_(life) {}
  ~SimTransport() override { network_.Leave(node_, life_); }

  void Start(replication::PeerReceiver& receiver) override;
  void Stop(absl::AnyInvocable<void()> done) override;
  bool Send(const ReplicaId& group, raft::Message message) override {
    return network_.Send(node_, life_, group, std::move(message));
  }
  bool SendLiveness(NodeId to, replication::LivenessMessage message) override {
    return network_.SendLiveness(node_, life_, to, std::move(message));
  }

 private:
  SimNetwork& network_;
  const NodeId node_;
  const uint64_t life_;
};

}  // namespace sluice::simulation
