#include "broker/rpc/peer_call_message.h"

#include <optional>
#include <utility>

#include "common/crc32c.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/internal/v1/peer.pb.h"

namespace sluice::broker::rpc {
namespace {

namespace pb = internal::v1;

constexpr size_t kHeadBytesMax = 4096;

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Cat("the node's call cannot be read: ", what));
}

std::string Encode(pb::CallHead head, std::string_view payload) {
  head.set_payload_crc32c(Crc32c(payload));
  pb::CallMessage message;
  message.set_head(head.SerializeAsString());
  message.set_head_crc32c(Crc32c(message.head()));
  message.set_payload(std::string(payload));
  return message.SerializeAsString();
}

// Gives the payload.
absl::StatusOr<std::string> Decode(std::string_view bytes, pb::CallHead* head) {
  pb::CallMessage message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Malformed("it is no CallMessage");
  if (message.head().size() > kHeadBytesMax) return Malformed(Cat("a head of ", message.head().size(), " bytes"));
  if (Crc32c(message.head()) != message.head_crc32c()) {
    return absl::DataLossError("the checksum of the node's call is wrong");
  }
  if (!head->ParseFromString(message.head())) return Malformed("its head is no CallHead");
  if (Crc32c(message.payload()) != head->payload_crc32c()) {
    return absl::DataLossError("the checksum over what the node's call carries is wrong");
  }
  return std::move(*message.mutable_payload());
}

absl::Status ReadUuid(const std::string& raw, std::string_view what, Uuid* to) {
  const std::optional<Uuid> uuid = Uuid::FromBytes(raw);
  if (!uuid) return Malformed(Cat(what, " has ", raw.size(), " bytes and not 16"));
  *to = *uuid;
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPeerCaller(const PeerCallHello& mine, const PeerCallHello& theirs) {
  const auto refuse = [](const std::string& why) { return absl::FailedPreconditionError(why); };
  if (theirs.version_min > mine.version_max || theirs.version_max < mine.version_min) {
    return refuse(Cat("node ", mine.node, " speaks versions ", mine.version_min, " to ", mine.version_max,
                      " of the peers' protocol, who calls it speaks ", theirs.version_min, " to ", theirs.version_max));
  }
  if (!theirs.cluster.IsNil() && !mine.cluster.IsNil() && theirs.cluster != mine.cluster) {
    return refuse(
        Cat("node ", mine.node, " is of cluster ", mine.cluster, ", who calls it of cluster ", theirs.cluster));
  }
  if (theirs.to != NodeId() && theirs.to != mine.node) {
    return refuse(Cat("node ", theirs.to, " is called, and this is node ", mine.node));
  }
  if (theirs.node != NodeId() && theirs.node == mine.node && theirs.session != mine.session) {
    if (theirs.disk == mine.disk) {
      return absl::AlreadyExistsError(Cat("two processes say that they are node ", mine.node));
    }
    return refuse(Cat("node ", mine.node, " is here, on disk ", mine.disk, ", who calls it has that number and disk ",
                      theirs.disk, ": give one of the two another node.id"));
  }
  return absl::OkStatus();
}

std::string EncodePeerQuestion(const PeerCallHello& caller, uint32_t kind, std::string_view request) {
  const auto& [version_min, version_max, cluster, node, to_node, disk, session] = caller;
  pb::CallHead head;
  pb::Caller* to = head.mutable_caller();
  to->set_version_min(version_min);
  to->set_version_max(version_max);
  to->set_cluster_id(std::string(cluster.AsBytes()));
  to->set_node_id(node.value());
  to->set_to_node_id(to_node.value());
  to->set_disk_id(std::string(disk.AsBytes()));
  to->set_session_id(std::string(session.AsBytes()));
  head.set_kind(kind);
  return Encode(std::move(head), request);
}

absl::StatusOr<PeerQuestion> DecodePeerQuestion(std::string_view message) {
  pb::CallHead head;
  PeerQuestion question;
  SLUICE_ASSIGN_OR_RETURN(question.request, Decode(message, &head));
  if (!head.has_caller()) return Malformed("it does not say who calls");
  const pb::Caller& from = head.caller();
  if (from.node_id() < 0 || from.to_node_id() < 0 || from.version_min() > from.version_max()) {
    return Malformed("a caller that cannot be");
  }
  question.kind = head.kind();
  question.caller.version_min = from.version_min();
  question.caller.version_max = from.version_max();
  question.caller.node = NodeId(from.node_id());
  question.caller.to = NodeId(from.to_node_id());
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.cluster_id(), "cluster_id", &question.caller.cluster));
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.disk_id(), "disk_id", &question.caller.disk));
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.session_id(), "session_id", &question.caller.session));
  return question;
}

std::string EncodePeerAnswer(std::string_view answer) {
  pb::CallHead head;
  head.set_answer(true);
  return Encode(std::move(head), answer);
}

absl::StatusOr<std::string> DecodePeerAnswer(std::string_view message) {
  pb::CallHead head;
  SLUICE_ASSIGN_OR_RETURN(std::string answer, Decode(message, &head));
  if (!head.answer()) return Malformed("it is no answer");
  return answer;
}

}  // namespace sluice::broker::rpc
