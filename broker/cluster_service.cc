#include "broker/cluster_service.h"

#include <utility>

#include "common/planted_bug.h"
#include "common/text.h"
#include "replication/core/configuration.h"

namespace sluice::broker {

std::string WhyRefused(const ClusterState& state, const RegisterRequest& request) {
  const NodeRecord& node = request.node;
  if (!request.cluster_id.IsNil() && request.cluster_id != state.cluster_id) {
    return Cat("node ", node.id, "'s data folder belongs to cluster ", request.cluster_id, ", this is cluster ",
               state.cluster_id, ": are cluster.seeds those of another cluster?");
  }
  if (!request.cluster_name.empty() && request.cluster_name != state.cluster_name) {
    return Cat("node ", node.id, " is configured with cluster.name \"", request.cluster_name,
               "\", and this cluster's name is \"", state.cluster_name, "\"");
  }
  if (state.feature_level < node.feature_min || state.feature_level > node.feature_max) {
    return Cat("node ", node.id, " (version ", node.version, ") works at feature levels ", node.feature_min, " to ",
               node.feature_max, ", and the cluster is at level ", state.feature_level);
  }
  if (const RegisteredNode* known = state.FindNode(node.id); known != nullptr) {
    if (known->node.disk == node.disk || Planted(PlantedBug::kJoinWithAnyDisk)) return {};
    return Cat("node ", node.id, " is registered with disk ", known->node.disk, ", this data folder is disk ",
               node.disk, ": give it a new node.id");
  }
  for (const auto& [id, other] : state.nodes) {
    if (other.node.disk != node.disk) continue;
    return Cat("disk ", node.disk, " is registered as node ", id, ", it cannot be node ", node.id,
               " as well: was the data folder copied?");
  }
  if (state.nodes.size() >= raft::Configuration::kMembersMax) {
    return Cat("there are ", state.nodes.size(), " nodes, and a cluster has no more than that");
  }
  return {};
}

std::optional<OtherProcess> OtherThan(const ClusterState& state, const RegisterRequest& request) {
  const RegisteredNode* known = state.FindNode(request.node.id);
  // Not known of what an older program has written down, or says.
  if (known == nullptr || known->node.process.IsNil() || request.node.process.IsNil()) return std::nullopt;
  if (known->node.disk != request.node.disk || known->node.process == request.node.process) return std::nullopt;
  if (known->epoch <= request.replaces) return std::nullopt;
  return OtherProcess{.epoch = known->epoch, .peer_address = known->node.peer_address};
}

void ClusterService::Answer(PeerCall call, PeerReply reply) {
  if (call.kind == kHeartbeatCall) {
    const auto heartbeat = DecodeHeartbeat(call.request);
    if (!heartbeat.ok()) return reply(heartbeat.status());
    if (call.from.node != heartbeat->node) return reply(absl::InvalidArgumentError("a heartbeat of another node"));
    const auto answer = OnHeartbeat(*heartbeat);
    if (!answer.ok()) return reply(answer.status());
    return reply(EncodeHeartbeatAnswer(*answer));
  }
  if (call.kind == kSnapshotPieceCall) {
    const auto request = DecodeSnapshotPieceRequest(call.request);
    return reply(request.ok() ? seams_.controller.AnswerSnapshotPiece(*request)
                              : absl::StatusOr<std::string>(request.status()));
  }
  if (call.kind != kRegisterCall) return reply(absl::UnimplementedError(Cat("a call of kind ", call.kind)));
  auto request = DecodeRegisterRequest(call.request);
  if (!request.ok()) return reply(request.status());
  const bool names_itself = !request->ask_only || request->node.id != NodeId(0);
  if (names_itself && (call.from.node != request->node.id || call.from.disk != request->node.disk)) {
    return reply(absl::InvalidArgumentError("a registration of another node, or of another disk, than the caller's"));
  }
  Register(*std::move(request), [reply = std::move(reply)](absl::StatusOr<RegisterAnswer> answer) mutable {
    if (!answer.ok()) return reply(answer.status());
    reply(EncodeRegisterAnswer(*answer));
  });
}

absl::StatusOr<HeartbeatAnswer> ClusterService::OnHeartbeat(const Heartbeat& heartbeat) {
  if (absl::Status heard = seams_.registry.OnHeartbeat(heartbeat); !heard.ok()) return heard;
  return HeartbeatAnswer{.applied = seams_.controller.applied(), .full = seams_.registry.Full()};
}

RegisterAnswer ClusterService::WhoWeAre() const {
  const ControllerState& state = seams_.controller.state();
  RegisterAnswer answer{.cluster_id = state.cluster_id,
                        .cluster_name = state.cluster_name,
                        .leader = {},
                        .leader_address = {},
                        .registered = std::nullopt,
                        .refused = {},
                        .nodes = {}};
  if (book_ != nullptr) answer.nodes = book_->All();
  for (const auto& [id, registered] : state.nodes) {
    PeerWhere& where = answer.nodes[id];
    if (where.epoch >= registered.epoch || (book_ != nullptr && id == book_->self())) continue;
    where = {.address = registered.node.peer_address, .epoch = registered.epoch, .since = false};
  }
  if (const auto leader = seams_.controller.leader(); leader.has_value()) {
    answer.leader = *leader;
    if (answer.nodes.contains(*leader)) answer.leader_address = answer.nodes.at(*leader).address;
  }
  return answer;
}

RegisterAnswer ClusterService::AnswerTo(const RegisterRequest& request) const {
  RegisterAnswer answer = WhoWeAre();
  if (request.cluster_id == answer.cluster_id || request.cluster_id.IsNil()) {
    answer.other = OtherThan(seams_.controller.state(), request);
  }
  return answer;
}

// The transport has seen to it that it is that node, as far as nodes have certificates; the disk that it is, unless
// this node has not heard of it yet, or of nothing at all: what has just joined gets its state from a leader, wherever
// that is by then.
void ClusterService::NoteWhere(const RegisterRequest& request) {
  const ControllerState& state = seams_.controller.state();
  const Uuid& ours = state.cluster_id.IsNil() ? cluster_ : state.cluster_id;
  if (book_ == nullptr || ours.IsNil() || request.cluster_id != ours) return;
  const RegisteredNode* known = state.FindNode(request.node.id);
  if (known != nullptr && known->node.disk != request.node.disk) return;
  if (OtherThan(state, request).has_value()) return;
  book_->SaidItself(request.node.id, request.node.peer_address, request.known_epoch);
}

void ClusterService::Register(RegisterRequest request, Callback<absl::StatusOr<RegisterAnswer>> done) {
  NoteWhere(request);
  if (seams_.controller.state().cluster_id.IsNil()) {
    return done(absl::UnavailableError("this node belongs to no cluster yet"));
  }
  if (request.ask_only || !seams_.controller.IsLeader()) return done(AnswerTo(request));
  const uint64_t high = seams_.random.Next();
  const Uuid drawn = Uuid::FromRandom(high, seams_.random.Next());
  auto refused = std::make_shared<std::string>();
  seams_.controller.Decide(
      [request, drawn, refused](const ControllerState& state) -> absl::StatusOr<std::optional<ControllerChange>> {
        *refused = WhyRefused(state, request);
        if (!refused->empty()) return absl::FailedPreconditionError(*refused);
        if (OtherThan(state, request).has_value()) return std::optional<ControllerChange>();
        NodeRecord node = request.node;
        if (node.incarnation.IsNil()) node.incarnation = drawn;
        return std::optional<ControllerChange>(NodeRegistered{std::move(node)});
      },
      [this, alive = alive_, request, refused, done = std::move(done)](absl::Status decided) mutable {
        if (!*alive) return done(absl::UnavailableError("the node is stopping"));
        // With where this node itself is: it may have moved, and have its own registration still before it.
        RegisterAnswer answer = WhoWeAre();
        // A refusal is final, so it is only what the cluster's leader says: the decision comes back as something else
        // where it is not certain that this node still was.
        if (absl::IsFailedPrecondition(decided) && !refused->empty()) {
          seams_.log.Warn("a node was refused", {{"node", request.node.id}, {"why", *refused}});
          answer.refused = *refused;
          return done(std::move(answer));
        }
        if (!decided.ok()) return done(decided);
        const ControllerState& state = seams_.controller.state();
        const RegisteredNode& node = state.nodes.at(request.node.id);
        // Also where another has come since: the epoch is that one's.
        if (!request.node.process.IsNil() && node.node.process != request.node.process) {
          return done(AnswerTo(request));
        }
        Registration& registered = answer.registered.emplace();
        registered.incarnation = node.node.incarnation;
        registered.epoch = node.epoch;
        registered.nodes = answer.nodes;
        seams_.log.Info("a node is registered",
                        {{"node", request.node.id}, {"epoch", node.epoch}, {"peer", node.node.peer_address}});
        done(std::move(answer));
      });
}

}  // namespace sluice::broker
