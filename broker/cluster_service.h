// ClusterService: what a node answers when other nodes register and report. Every node serves it; only where the
// controller leads is anything decided, the others say who leads.
//
// What is refused for good, each with a text that says what to do: a node of another cluster or of another
// cluster.name; a number that another disk is registered with; a disk that is registered under another number; a
// program that does not support the cluster's feature level; one more node than a group can have members.
//
// Of two processes with one number and one disk (a data folder that was copied) the one that registered last is the
// node. A process replaces only a registration that it knows of, by its epoch: so what one sent before another took its
// place, and arrives after that, changes nothing, and the process is told of the other. Epochs only grow, and a process
// never replaces itself in vain: what it has sent twice is taken twice.
// Threads: the controller's executor; callbacks too.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "broker/cluster_calls.h"
#include "broker/controller.h"
#include "broker/node_registry.h"
#include "broker/peer_book.h"
#include "broker/peer_calls.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

class ClusterService {
 public:
  /// All borrowed.
  struct Seams {
    Controller& controller;
    NodeRegistry& registry;
    Random& random;  ///< Of the controller's executor.
    const Logger& log;
  };

  explicit ClusterService(Seams seams) : seams_(seams) {}
  ~ClusterService() { *alive_ = false; }

  /// Whether calls of this kind are for Answer.
  static bool Serves(uint32_t kind) {
    return kind == kRegisterCall || kind == kHeartbeatCall || kind == kSnapshotPieceCall;
  }
  void Answer(PeerCall call, PeerReply reply);
  /// What nodes say of where they are goes into it, and what it has is told. Borrowed; null ends that. `cluster`: of
  /// the data folder, for as long as this node has no state.
  void SetPeerBook(PeerBook* book, const Uuid& cluster) {
    book_ = book;
    cluster_ = cluster;
  }

  /// Without a registration and without a refusal in it: ask `leader_address`, or somebody else, again later.
  /// Unavailable: this node belongs to no cluster yet. Otherwise as Controller::Decide.
  void Register(RegisterRequest request, Callback<absl::StatusOr<RegisterAnswer>> done);
  /// Errors: as NodeRegistry::OnHeartbeat.
  absl::StatusOr<HeartbeatAnswer> OnHeartbeat(const Heartbeat& heartbeat);

 private:
  RegisterAnswer WhoWeAre() const;
  RegisterAnswer AnswerTo(const RegisterRequest& request) const;
  void NoteWhere(const RegisterRequest& request);

  const Seams seams_;
  PeerBook* book_ = nullptr;
  Uuid cluster_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// Who is registered as the request's node, and not replaced by it.
std::optional<OtherProcess> OtherThan(const ClusterState& state, const RegisterRequest& request);

/// Why the node may not register, in words for its operator; empty when it may.
std::string WhyRefused(const ClusterState& state, const RegisterRequest& request);

}  // namespace sluice::broker
