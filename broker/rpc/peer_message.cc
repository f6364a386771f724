#include "broker/rpc/peer_message.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "broker/rpc/peer_message_body.h"
#include "broker/rpc/wire.h"
#include "common/crc32c.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/internal/v1/peer.pb.h"

namespace sluice::broker::rpc {
namespace {

namespace pb = internal::v1;
using replication::LivenessMessage;

// A batch this small is copied into the text around it, which is cheaper than carrying a reference to it.
constexpr size_t kCopyBelow = 2048;

// ---- The message around the envelope

// Field 1 and 2, checked against each other; what stands behind them is left in the reader.
absl::Status ReadEnvelope(WireReader& in, pb::Envelope* envelope) {
  WireTag tag;
  char checksum[4] = {};
  if (!in.ReadTag(&tag) || tag.field != pb::PeerMessage::kEnvelopeCrc32CFieldNumber || tag.type != WireType::kFixed32 ||
      !in.Copy(checksum, sizeof(checksum))) {
    return MalformedPeerMessage("it does not begin with a checksum");
  }
  size_t length = 0;
  if (!in.ReadTag(&tag) || tag.field != pb::PeerMessage::kEnvelopeFieldNumber || tag.type != WireType::kLength ||
      !in.ReadLength(&length)) {
    return MalformedPeerMessage("it has no envelope");
  }
  if (length > kPeerEnvelopeBytesMax) return MalformedPeerMessage(Cat("an envelope of ", length, " bytes"));
  std::string bytes(length, '\0');
  if (!in.Copy(bytes.data(), length)) return MalformedPeerMessage("its envelope is cut short");
  uint32_t expected = 0;
  for (int i = 3; i >= 0; --i) expected = expected << 8 | static_cast<uint8_t>(checksum[i]);
  if (Crc32c(bytes) != expected) return absl::DataLossError("the checksum of the peer's message is wrong");
  if (!envelope->ParseFromString(bytes)) return MalformedPeerMessage("its envelope is no Envelope");
  return absl::OkStatus();
}

// How many bytes of batches follow; 0 where there is no such field.
absl::StatusOr<size_t> ReadBatchesLength(WireReader& in) {
  if (in.AtEnd()) return 0;
  WireTag tag;
  size_t length = 0;
  if (!in.ReadTag(&tag) || tag.field != pb::PeerMessage::kBatchesFieldNumber || tag.type != WireType::kLength ||
      !in.ReadLength(&length)) {
    return MalformedPeerMessage("what follows its envelope is no run of batches");
  }
  if (length != in.remaining()) return MalformedPeerMessage("bytes are left over behind its batches");
  return length;
}

// Before any memory is taken for them: the batches are exactly the bytes that are there, and none is too short.
absl::Status CheckSizes(const pb::Envelope& envelope, size_t bytes) {
  size_t left = bytes;
  for (const pb::GroupMessage& message : envelope.messages()) {
    for (const uint32_t size : message.append_request().batch_bytes()) {
      if (size < record::kBatchHeaderBytes || size > left)
        return MalformedPeerMessage(Cat("a batch of ", size, " bytes"));
      left -= size;
    }
  }
  return left == 0 ? absl::OkStatus() : MalformedPeerMessage(Cat(left, " bytes belong to no batch"));
}

// Takes the append's batches off the reader, also behind one that is damaged.
absl::Status ReadBatches(WireReader& in, const pb::AppendRequest& from, raft::AppendRequest* to, absl::Status* damage) {
  to->batches.reserve(static_cast<size_t>(from.batch_bytes_size()));
  for (int i = 0; i < from.batch_bytes_size(); ++i) {
    MutableBytes bytes(from.batch_bytes(i));
    if (!in.Copy(bytes.data(), bytes.size())) return MalformedPeerMessage("a batch is cut short");
    if (!damage->ok()) continue;
    auto batch = record::Batch::FromStored(std::move(bytes).Freeze());
    if (!batch.ok()) {
      *damage = batch.status();
    } else if (batch->whole_crc32c() != from.batch_crc32c(i)) {
      *damage = absl::DataLossError("the checksum over the whole batch is wrong");
    } else {
      to->batches.push_back(*std::move(batch));
    }
  }
  return absl::OkStatus();
}

std::string Wrap(std::string_view envelope, size_t batch_bytes) {
  std::string out;
  out.reserve(envelope.size() + kPeerFramingBytesMax);
  PutTag(&out, pb::PeerMessage::kEnvelopeCrc32CFieldNumber, WireType::kFixed32);
  const uint32_t checksum = Crc32c(envelope);
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(checksum >> shift & 0xff));
  PutLengthDelimited(&out, pb::PeerMessage::kEnvelopeFieldNumber, envelope);
  if (batch_bytes > 0) {
    PutTag(&out, pb::PeerMessage::kBatchesFieldNumber, WireType::kLength);
    PutVarint(&out, batch_bytes);
  }
  return out;
}

}  // namespace

absl::Status CheckPeerHello(const PeerHello& mine, const PeerHello& theirs) {
  const auto refuse = [](const std::string& why) { return absl::FailedPreconditionError(why); };
  if (theirs.version_min > mine.version_max || theirs.version_max < mine.version_min) {
    return refuse(Cat("node ", mine.node, " speaks versions ", mine.version_min, " to ", mine.version_max,
                      " of the peers' protocol, node ", theirs.node, " speaks ", theirs.version_min, " to ",
                      theirs.version_max));
  }
  if (theirs.cluster != mine.cluster) {
    return refuse(Cat("node ", mine.node, " is of cluster ", mine.cluster, ", node ", theirs.node, " of cluster ",
                      theirs.cluster));
  }
  if (theirs.node == mine.node) return refuse(Cat("two nodes say that they are node ", mine.node));
  if (theirs.to != mine.node) {
    return refuse(Cat("node ", theirs.node, " wants node ", theirs.to, ", and this is node ", mine.node));
  }
  return absl::OkStatus();
}

PeerPart EncodePeerPart(const ReplicaId& group, const raft::Message& message) {
  pb::GroupMessage to;
  WriteGroupMessage(group, message, &to);
  PeerPart part;
  PutLengthDelimited(&part.envelope, pb::Envelope::kMessagesFieldNumber, to.SerializeAsString());
  if (const auto* append = std::get_if<raft::AppendRequest>(&message.body)) {
    part.batches.reserve(append->batches.size());
    for (const record::Batch& batch : append->batches) {
      part.batches.push_back(batch.bytes());
      part.batch_bytes += batch.size_bytes();
    }
  }
  return part;
}

PeerPart EncodePeerPart(const LivenessMessage& message) {
  pb::Liveness to;
  WriteLiveness(message, &to);
  PeerPart part;
  PutLengthDelimited(&part.envelope, pb::Envelope::kLivenessFieldNumber, to.SerializeAsString());
  return part;
}

std::vector<Bytes> JoinPeerParts(std::span<const PeerPart> parts) {
  std::string envelope;
  size_t batch_bytes = 0;
  for (const PeerPart& part : parts) {
    envelope += part.envelope;
    batch_bytes += part.batch_bytes;
  }
  std::vector<Bytes> pieces;
  std::string text = Wrap(envelope, batch_bytes);
  for (const PeerPart& part : parts) {
    for (const Bytes& batch : part.batches) {
      if (batch.size() < kCopyBelow) {
        text += batch.view();
        continue;
      }
      if (!text.empty()) pieces.push_back(Bytes::Adopt(std::exchange(text, {})));
      pieces.push_back(batch);
    }
  }
  if (!text.empty()) pieces.push_back(Bytes::Adopt(std::move(text)));
  return pieces;
}

std::string EncodePeerHello(const PeerHello& hello) {
  pb::Envelope envelope;
  pb::Hello* to = envelope.mutable_hello();
  to->set_version_min(hello.version_min);
  to->set_version_max(hello.version_max);
  to->set_cluster_id(std::string(hello.cluster.AsBytes()));
  to->set_node_id(hello.node.value());
  to->set_to_node_id(hello.to.value());
  to->set_disk_id(std::string(hello.disk.AsBytes()));
  to->set_session_id(std::string(hello.session.AsBytes()));
  to->set_connection(hello.connection);
  to->set_lane(static_cast<pb::Lane>(hello.lane));
  return Wrap(envelope.SerializeAsString(), 0);
}

absl::StatusOr<ReceivedPeerMessage> DecodePeerMessage(std::span<const std::string_view> slices, NodeId from,
                                                      NodeId to) {
  WireReader in(slices);
  pb::Envelope envelope;
  SLUICE_RETURN_IF_ERROR(ReadEnvelope(in, &envelope));
  SLUICE_ASSIGN_OR_RETURN(const size_t batch_bytes, ReadBatchesLength(in));
  SLUICE_RETURN_IF_ERROR(CheckSizes(envelope, batch_bytes));
  if (envelope.has_hello()) return MalformedPeerMessage("a second Hello");
  ReceivedPeerMessage received;
  received.messages.reserve(static_cast<size_t>(envelope.messages_size()));
  for (const pb::GroupMessage& message : envelope.messages()) {
    SLUICE_ASSIGN_OR_RETURN(PeerGroupMessage read, ReadGroupMessage(message, from, to));
    absl::Status damage;
    if (auto* append = std::get_if<raft::AppendRequest>(&read.message.body)) {
      SLUICE_RETURN_IF_ERROR(ReadBatches(in, message.append_request(), append, &damage));
    }
    if (damage.ok()) {
      received.messages.push_back(std::move(read));
    } else if (++received.damaged == 1) {
      received.damage = absl::Status(damage.code(), Cat("replica ", read.group, ": ", Message(damage)));
    }
  }
  for (const pb::Liveness& liveness : envelope.liveness()) {
    SLUICE_ASSIGN_OR_RETURN(LivenessMessage read, ReadLiveness(liveness));
    received.liveness.push_back(std::move(read));
  }
  return received;
}

absl::StatusOr<PeerHello> DecodePeerHello(std::span<const std::string_view> slices) {
  WireReader in(slices);
  pb::Envelope envelope;
  SLUICE_RETURN_IF_ERROR(ReadEnvelope(in, &envelope));
  if (!in.AtEnd() || !envelope.has_hello() || envelope.messages_size() > 0 || envelope.liveness_size() > 0) {
    return MalformedPeerMessage("a stream begins with a Hello and nothing else");
  }
  const pb::Hello& from = envelope.hello();
  if (from.node_id() < 1 || from.version_min() > from.version_max()) return MalformedPeerMessage("a Hello from nobody");
  if (from.lane() != pb::LANE_GROUPS && from.lane() != pb::LANE_LIVENESS)
    return MalformedPeerMessage("a Hello for no lane");
  PeerHello to{.version_min = from.version_min(),
               .version_max = from.version_max(),
               .cluster = {},
               .node = NodeId(from.node_id()),
               .to = NodeId(from.to_node_id()),
               .disk = {},
               .session = {},
               .connection = from.connection(),
               .lane = static_cast<PeerLane>(from.lane())};
  SLUICE_RETURN_IF_ERROR(ReadPeerUuid(from.cluster_id(), "cluster_id", &to.cluster));
  SLUICE_RETURN_IF_ERROR(ReadPeerUuid(from.disk_id(), "disk_id", &to.disk));
  SLUICE_RETURN_IF_ERROR(ReadPeerUuid(from.session_id(), "session_id", &to.session));
  return to;
}

}  // namespace sluice::broker::rpc
