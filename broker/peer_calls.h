// PeerCalls: questions from node to node, each with one answer: joining by a seed's address, registrations, heartbeats
// of brokers, what is forwarded to the controller's leader. broker/rpc implements it with gRPC, beside the streams of
// replication/transport.h; a simulator implements it with its event heap. What kinds of calls there are, and what their
// bytes mean, is the business of those who call and serve.
//
// What it promises, and what not:
//  - `done` runs exactly once for each Call, never inside it (but see the stop below);
//  - calls may overtake each other, and a call is never repeated by itself: the handler runs once or not at all. After
//    UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED nobody knows which: what is called must bear being called again;
//  - request and answer arrive byte for byte as they were sent, or the call fails with DATA_LOSS;
//  - a call is refused with FAILED_PRECONDITION, and the handler does not run, when the caller's cluster is not the
//    server's (a side that has none yet does not differ), when it was meant for another node than the one that serves,
//    or when they share no version; with ALREADY_EXISTS, when both say that they are the same node (same number,
//    different process).
//
// Threads: every method from any thread, and none blocks. `done` and the handler run on threads of the implementation:
// they do not block, and post to their executor. They may call Call. An answer may be given from any thread.
//
// Ownership: whoever wires the node owns it, and stops it by the implementation's own means; what the handler refers to
// lives until then. Calls under way then are CANCELLED; later ones are dropped, `done` with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/types.h"

namespace sluice::broker {

/// Of a request, and of an answer. What is larger fails with RESOURCE_EXHAUSTED.
inline constexpr size_t kPeerCallBytesMax = size_t{4} << 20;

/// Whom to call: a node, at the address that PeerAddresses has for it, and nobody else there; or whoever listens at an
/// address (host:port).
using PeerTarget = std::variant<NodeId, std::string>;

/// Who calls. All but `address` is the caller's own word; where nodes have certificates, theirs name `node`.
struct PeerCaller {
  NodeId node;          ///< 0: it has no number yet.
  Uuid cluster;         ///< Nil: it belongs to none yet. Never another than this node's, if that has one.
  Uuid disk;            ///< Of its data folder; nil: it has none yet.
  Uuid session;         ///< Of its process.
  std::string address;  ///< Where the connection comes from, for people to read.
};

struct PeerCall {
  PeerCaller from;
  uint32_t kind = 0;
  std::string request;
  /// How long the caller still waits, at arrival.
  absl::Duration time_left;
};

/// Answers the call; a second answer has no effect. A status reaches the caller with its code and message (which is cut
/// at 4 KiB), an OK status without bytes does not exist. Destroyed without an answer, the call is UNAVAILABLE.
using PeerReply = absl::AnyInvocable<void(absl::StatusOr<std::string> answer)>;
using PeerCallHandler = absl::AnyInvocable<void(PeerCall call, PeerReply reply)>;
using PeerAnswered = absl::AnyInvocable<void(absl::StatusOr<std::string> answer)>;

class PeerCalls {
 public:
  virtual ~PeerCalls() = default;

  /// Asks `to` and waits `deadline` for its answer, connecting included. Beside what the handler answers:
  /// UNAVAILABLE: it cannot be reached, or the connection broke, or it does not serve calls (yet, or any more);
  /// DEADLINE_EXCEEDED; NOT_FOUND: no address is known for that node; RESOURCE_EXHAUSTED: too large, or it is asked too
  /// much at once; FAILED_PRECONDITION, ALREADY_EXISTS, DATA_LOSS, CANCELLED: as above.
  virtual void Call(PeerTarget to, uint32_t kind, std::string request, absl::Duration deadline, PeerAnswered done) = 0;

  /// Who answers the calls that arrive. Once. Calls that arrive before are UNAVAILABLE.
  virtual void Serve(PeerCallHandler handler) = 0;
};

/// Where the other nodes are. What is set is called, in the background and again and again, until it is removed. Calls
/// to the own number are ignored, so that a whole list of nodes can be given. From any thread, also before the start.
class PeerAddresses {
 public:
  virtual ~PeerAddresses() = default;
  /// `address`: host:port. A peer that has moved is broken first.
  virtual void SetPeer(NodeId node, std::string address) = 0;
  virtual void RemovePeer(NodeId node) = 0;
};

}  // namespace sluice::broker
