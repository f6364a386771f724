// The peers' transport seam: how replicas of one group, and nodes as such, speak to each other. broker/rpc implements
// it with gRPC streams, tests/simulation with an event heap.
//
// What it promises, and what not:
//  - it may lose anything, at any time, without saying so: Raft tolerates it;
//  - what it delivers of one (peer, group) arrives in the order sent, within one connection and across them. A message
//    never arrives twice, and is never changed: what does not pass the transport's checksum is lost. Batches arrive
//    with their checksums verified (record::Batch::FromStored), byte for byte as they were sent;
//  - messages of different groups may overtake each other; liveness messages may overtake everything, and should: they
//    must not wait behind batches;
//  - the sender's node is the transport's word (its certificate, where peers have one): a message whose `from.node` is
//    another, or whose `to.node` is not this node, is not delivered. Incarnations are for Raft to judge.
//
// Bounds: what waits to be sent is bounded in bytes for each peer (Send refuses beyond it). What was received and not
// taken yet is the receiver's to bound: it drops.
//
// Threads: every method of PeerTransport from any thread, and none blocks. The Receiver's methods are called on threads
// of the transport, calls for one peer one after the other, those for different peers perhaps at the same time; they do
// not block and may call Send.
//
// Ownership: whoever wires the node owns transport and receiver. The transport outlives what sends through it; the
// receiver is given to Start and must live until Stop's `done` has run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/types.h"
#include "replication/core/message.h"

namespace sluice::replication {

/// "I lead this group in this term, and you follow." Term 0: no longer said of this group.
struct LivenessEntry {
  ReplicaId group;
  LeaderEpoch term;
  bool operator==(const LivenessEntry&) const = default;
};

/// From the leader's node: it lives, and so do all leaders in its table for this peer. The table's changes travel as
/// deltas, so that between settled groups nothing but numbers does. Which rules they follow: liveness.h.
struct LivenessHeartbeat {
  uint64_t session = 0;       ///< Of the sender's process; drawn at its start, never 0.
  uint64_t base_version = 0;  ///< `changes` lead from here ... 0 is the empty table.
  uint64_t version = 0;       ///< ... to here.
  std::vector<LivenessEntry> changes;
  bool operator==(const LivenessHeartbeat&) const = default;
};

/// To the leader's node: the answerer lives, and follows all that the table names but `not_following`.
struct LivenessAnswer {
  uint64_t session = 0;  ///< As in the heartbeat.
  uint64_t version = 0;  ///< Of the table that the answerer has; 0: none of this session.
  std::vector<LivenessEntry> not_following;
  bool operator==(const LivenessAnswer&) const = default;
};

using LivenessMessage = std::variant<LivenessHeartbeat, LivenessAnswer>;

/// Whether what is sent to a peer now can reach it. Broken: what is under way may be lost.
enum class PeerState : uint8_t { kConnected, kBroken };

class PeerReceiver {
 public:
  virtual ~PeerReceiver() = default;
  virtual void OnMessage(const ReplicaId& group, raft::Message message) = 0;
  virtual void OnLiveness(NodeId from, LivenessMessage message) = 0;
  /// Changes only: an attempt to connect that failed is none.
  virtual void OnPeerState(NodeId peer, PeerState state) = 0;
};

class PeerTransport {
 public:
  virtual ~PeerTransport() = default;

  /// Once, before anything is sent. Nothing is received before it.
  virtual void Start(PeerReceiver& receiver) = 0;
  /// Calls the receiver no more, closes what is open, then runs `done` on a thread of its own. Later sends are dropped.
  virtual void Stop(absl::AnyInvocable<void()> done) = 0;

  /// Queues `message` for the node `message.to.node`. False when it was dropped at once: the peer is not known or not
  /// connected, or what waits for it is over the bound. True promises nothing.
  virtual bool Send(const ReplicaId& group, raft::Message message) = 0;
  /// As Send.
  virtual bool SendLiveness(NodeId to, LivenessMessage message) = 0;
};

}  // namespace sluice::replication
