#include "broker/cluster_calls.h"

#include <utility>

#include "broker/limits.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/internal/v1/controller.pb.h"

namespace sluice::broker {
namespace {

namespace wire = ::sluice::internal::v1;

template <class Message>
absl::Status Parse(std::string_view bytes, Message* message) {
  if (message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("not a ", message->GetTypeName()));
}

absl::Status CheckText(const std::string& text) {
  if (text.size() <= kNodeTextBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("a name, address, rack or version of ", text.size(), " bytes, and ", kNodeTextBytesMax, " are allowed"));
}

std::string BytesOf(const Uuid& id) {
  return id.IsNil() ? std::string() : std::string(id.AsBytes());
}

absl::StatusOr<Uuid> IdFrom(const std::string& bytes) {
  if (bytes.empty()) return Uuid{};
  const auto id = Uuid::FromBytes(bytes);
  if (!id) return absl::InvalidArgumentError(Cat("an id of ", bytes.size(), " bytes"));
  return *id;
}

}  // namespace

std::string EncodeRegisterRequest(const RegisterRequest& request) {
  wire::RegisterRequest out;
  out.set_ask_only(request.ask_only);
  out.set_cluster_id(BytesOf(request.cluster_id));
  out.set_cluster_name(request.cluster_name);
  const NodeRecord& node = request.node;
  out.set_id(node.id.value());
  out.set_disk(BytesOf(node.disk));
  out.set_incarnation(BytesOf(node.incarnation));
  out.set_grpc_address(node.grpc_address);
  out.set_peer_address(node.peer_address);
  out.set_rack(node.rack);
  out.set_version(node.version);
  out.set_feature_min(node.feature_min);
  out.set_feature_max(node.feature_max);
  out.set_known_epoch(request.known_epoch.value());
  out.set_process(BytesOf(node.process));
  out.set_replaces(request.replaces.value());
  return out.SerializeAsString();
}

absl::StatusOr<RegisterRequest> DecodeRegisterRequest(std::string_view bytes) {
  wire::RegisterRequest from;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &from));
  RegisterRequest request;
  request.ask_only = from.ask_only();
  SLUICE_ASSIGN_OR_RETURN(request.cluster_id, IdFrom(from.cluster_id()));
  request.cluster_name = from.cluster_name();
  NodeRecord& node = request.node;
  node.id = NodeId(from.id());
  SLUICE_ASSIGN_OR_RETURN(node.disk, IdFrom(from.disk()));
  SLUICE_ASSIGN_OR_RETURN(node.incarnation, IdFrom(from.incarnation()));
  node.grpc_address = from.grpc_address();
  node.peer_address = from.peer_address();
  node.rack = from.rack();
  node.version = from.version();
  node.feature_min = from.feature_min();
  node.feature_max = from.feature_max();
  request.known_epoch = Offset(from.known_epoch());
  SLUICE_ASSIGN_OR_RETURN(node.process, IdFrom(from.process()));
  request.replaces = Offset(from.replaces());
  for (const std::string* text :
       {&request.cluster_name, &node.grpc_address, &node.peer_address, &node.rack, &node.version}) {
    SLUICE_RETURN_IF_ERROR(CheckText(*text));
  }
  if (request.ask_only) return request;
  if (node.id < NodeId(1) || node.disk.IsNil()) return absl::InvalidArgumentError("a node without number or disk");
  if (node.feature_min < 0 || node.feature_max < node.feature_min) {
    return absl::InvalidArgumentError(Cat("feature levels ", node.feature_min, " to ", node.feature_max));
  }
  return request;
}

std::string EncodeRegisterAnswer(const RegisterAnswer& answer) {
  wire::RegisterAnswer out;
  out.set_cluster_id(BytesOf(answer.cluster_id));
  out.set_cluster_name(answer.cluster_name);
  out.set_leader(answer.leader.value());
  out.set_leader_address(answer.leader_address);
  out.set_refused(answer.refused);
  for (const auto& [id, where] : answer.nodes) {
    wire::RegisterAnswer::Node* node = out.add_nodes();
    node->set_id(id.value());
    node->set_peer_address(where.address);
    node->set_epoch(where.epoch.value());
    node->set_since(where.since);
  }
  if (answer.other.has_value()) {
    out.mutable_other()->set_epoch(answer.other->epoch.value());
    out.mutable_other()->set_peer_address(answer.other->peer_address);
  }
  if (answer.registered.has_value()) {
    wire::RegisterAnswer::Registered* registered = out.mutable_registered();
    registered->set_incarnation(BytesOf(answer.registered->incarnation));
    registered->set_epoch(answer.registered->epoch.value());
  }
  return out.SerializeAsString();
}

absl::StatusOr<RegisterAnswer> DecodeRegisterAnswer(std::string_view bytes) {
  wire::RegisterAnswer from;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &from));
  RegisterAnswer answer;
  SLUICE_ASSIGN_OR_RETURN(answer.cluster_id, IdFrom(from.cluster_id()));
  answer.cluster_name = from.cluster_name();
  answer.leader = NodeId(from.leader());
  answer.leader_address = from.leader_address();
  answer.refused = from.refused();
  for (const auto& node : from.nodes()) {
    SLUICE_RETURN_IF_ERROR(CheckText(node.peer_address()));
    answer.nodes[NodeId(node.id())] = {
        .address = node.peer_address(), .epoch = Offset(node.epoch()), .since = node.since()};
  }
  if (from.has_other()) {
    answer.other = {.epoch = Offset(from.other().epoch()), .peer_address = from.other().peer_address()};
    SLUICE_RETURN_IF_ERROR(CheckText(answer.other->peer_address));
  }
  if (!from.has_registered()) return answer;
  Registration& registered = answer.registered.emplace();
  SLUICE_ASSIGN_OR_RETURN(registered.incarnation, IdFrom(from.registered().incarnation()));
  registered.epoch = Offset(from.registered().epoch());
  registered.nodes = answer.nodes;
  if (registered.incarnation.IsNil() || answer.cluster_id.IsNil()) {
    return absl::InvalidArgumentError("a registration without cluster or incarnation");
  }
  return answer;
}

std::string EncodeHeartbeat(const Heartbeat& heartbeat) {
  wire::HeartbeatRequest out;
  out.set_node(heartbeat.node.value());
  out.set_epoch(heartbeat.epoch.value());
  out.set_applied(heartbeat.applied.value());
  out.set_disk_free_bytes(heartbeat.disk_free_bytes);
  out.set_draining(heartbeat.draining);
  out.set_cannot_write(heartbeat.cannot_write);
  return out.SerializeAsString();
}

absl::StatusOr<Heartbeat> DecodeHeartbeat(std::string_view bytes) {
  wire::HeartbeatRequest from;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &from));
  return Heartbeat{.node = NodeId(from.node()),
                   .epoch = Offset(from.epoch()),
                   .applied = Offset(from.applied()),
                   .disk_free_bytes = from.disk_free_bytes(),
                   .draining = from.draining(),
                   .cannot_write = from.cannot_write()};
}

std::string EncodeHeartbeatAnswer(const HeartbeatAnswer& answer) {
  wire::HeartbeatAnswer out;
  out.set_applied(answer.applied.value());
  for (const NodeId node : answer.full) out.add_full(node.value());
  return out.SerializeAsString();
}

absl::StatusOr<HeartbeatAnswer> DecodeHeartbeatAnswer(std::string_view bytes) {
  wire::HeartbeatAnswer from;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &from));
  HeartbeatAnswer answer{.applied = Offset(from.applied()), .full = {}};
  for (const int32_t node : from.full()) answer.full.emplace_back(node);
  return answer;
}

std::string EncodeSnapshotPieceRequest(const SnapshotPieceRequest& request) {
  wire::SnapshotPieceRequest out;
  out.set_name(EncodeSnapshotName(request.name));
  out.set_position(request.position);
  out.set_bytes_max(request.bytes_max);
  return out.SerializeAsString();
}

absl::StatusOr<SnapshotPieceRequest> DecodeSnapshotPieceRequest(std::string_view bytes) {
  wire::SnapshotPieceRequest from;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &from));
  auto name = DecodeSnapshotName(from.name());
  if (!name.ok()) return absl::InvalidArgumentError(name.status().message());
  return SnapshotPieceRequest{.name = *name, .position = from.position(), .bytes_max = from.bytes_max()};
}

}  // namespace sluice::broker
