#include "broker/rpc/peer_message.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <variant>

#include "broker/rpc/wire.h"
#include "common/crc32c.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/internal/v1/peer.pb.h"

namespace sluice::broker::rpc {
namespace {

namespace pb = internal::v1;
using replication::LivenessAnswer;
using replication::LivenessEntry;
using replication::LivenessHeartbeat;
using replication::LivenessMessage;

// A batch this small is copied into the text around it, which is cheaper than carrying a reference to it.
constexpr size_t kCopyBelow = 2048;

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Cat("the peer's message cannot be read: ", what));
}

// ---- Values

absl::Status ReadUuid(const std::string& raw, std::string_view what, Uuid* to) {
  const std::optional<Uuid> uuid = Uuid::FromBytes(raw);
  if (!uuid) return Malformed(Cat(what, " has ", raw.size(), " bytes and not 16"));
  *to = *uuid;
  return absl::OkStatus();
}

// Of a group: the topic's id and the partition, wherever they stand.
template <class Proto>
absl::Status ReadGroup(const Proto& from, ReplicaId* to) {
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.topic_id(), "topic_id", &to->topic));
  if (from.partition() < 0) return Malformed(Cat("partition ", from.partition()));
  to->partition = PartitionId(from.partition());
  return absl::OkStatus();
}

template <class Proto>
void WriteGroup(const ReplicaId& from, Proto* to) {
  to->set_topic_id(std::string(from.topic.AsBytes()));
  to->set_partition(from.partition.value());
}

absl::Status ReadEpoch(int32_t value, LeaderEpoch* to) {
  if (value < 0) return Malformed(Cat("leader epoch ", value));
  *to = LeaderEpoch(value);
  return absl::OkStatus();
}

absl::Status ReadPlace(const pb::LogPlace& from, raft::LogPlace* to) {
  to->end = Offset(from.end());
  return ReadEpoch(from.epoch(), &to->epoch);
}

void WritePlace(const raft::LogPlace& from, pb::LogPlace* to) {
  to->set_epoch(from.epoch.value());
  to->set_end(from.end.value());
}

// ---- Writing the bodies
//
// Each names all fields of its message, so that one that is added and would not travel does not compile.

void Write(const raft::VoteRequest& from, pb::GroupMessage* message) {
  const auto& [pre_vote, transfer, last] = from;
  pb::VoteRequest* to = message->mutable_vote_request();
  to->set_pre_vote(pre_vote);
  to->set_transfer(transfer);
  WritePlace(last, to->mutable_last());
}

void Write(const raft::VoteResponse& from, pb::GroupMessage* message) {
  const auto& [pre_vote, granted, doubt] = from;
  pb::VoteResponse* to = message->mutable_vote_response();
  to->set_pre_vote(pre_vote);
  to->set_granted(granted);
  to->set_doubt(doubt);
}

void Write(const raft::AppendRequest& from, pb::GroupMessage* message) {
  const auto& [previous, committed, batches] = from;
  pb::AppendRequest* to = message->mutable_append_request();
  WritePlace(previous, to->mutable_previous());
  to->set_committed(committed.value());
  for (const record::Batch& batch : batches) {
    to->add_batch_bytes(static_cast<uint32_t>(batch.size_bytes()));
    to->add_batch_crc32c(batch.whole_crc32c());
  }
}

void Write(const raft::AppendResponse& from, pb::GroupMessage* message) {
  const auto& [rejected, end, hint, log_end, committed, doubt] = from;
  pb::AppendResponse* to = message->mutable_append_response();
  to->set_rejected(rejected);
  to->set_end(end.value());
  WritePlace(hint, to->mutable_hint());
  to->set_log_end(log_end.value());
  to->set_committed(committed.value());
  to->set_doubt(doubt);
}

void Write(const raft::Heartbeat& from, pb::GroupMessage* message) {
  const auto& [committed, answer, read_seq, confirmed_end, doubt] = from;
  pb::Heartbeat* to = message->mutable_heartbeat();
  to->set_committed(committed.value());
  to->set_answer(answer);
  to->set_read_seq(read_seq);
  to->set_confirmed_end(confirmed_end.value());
  to->set_doubt(doubt);
}

void Write(const raft::HeartbeatResponse& from, pb::GroupMessage* message) {
  const auto& [read_seq, log_end, committed, doubt] = from;
  pb::HeartbeatResponse* to = message->mutable_heartbeat_response();
  to->set_read_seq(read_seq);
  to->set_log_end(log_end.value());
  to->set_committed(committed.value());
  to->set_doubt(doubt);
}

void Write(const raft::InstallSnapshot& from, pb::GroupMessage* message) {
  const auto& [base, next_epoch, configuration, log_start, detail] = from;
  pb::InstallSnapshot* to = message->mutable_install_snapshot();
  WritePlace(base, to->mutable_base());
  to->set_next_epoch(next_epoch.value());
  to->set_configuration_offset(configuration.offset.value());
  to->set_configuration_epoch(configuration.epoch.value());
  to->set_configuration(configuration.configuration.Encode());
  to->set_log_start(log_start.value());
  to->set_detail(std::string(detail.view()));
}

void Write(const raft::SnapshotFailed& from, pb::GroupMessage* message) {
  const auto& [base_end] = from;
  message->mutable_snapshot_failed()->set_base_end(base_end.value());
}

void Write(const raft::TimeoutNow&, pb::GroupMessage* message) {
  message->mutable_timeout_now();
}

// ---- Reading the bodies

absl::StatusOr<raft::MessageBody> Read(const pb::VoteRequest& from) {
  raft::VoteRequest to{.pre_vote = from.pre_vote(), .transfer = from.transfer(), .last = {}};
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.last(), &to.last));
  return to;
}

absl::StatusOr<raft::MessageBody> Read(const pb::AppendResponse& from) {
  raft::AppendResponse to{.rejected = from.rejected(),
                          .end = Offset(from.end()),
                          .hint = {},
                          .log_end = Offset(from.log_end()),
                          .committed = Offset(from.committed()),
                          .doubt = from.doubt()};
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.hint(), &to.hint));
  return to;
}

absl::StatusOr<raft::MessageBody> Read(const pb::InstallSnapshot& from) {
  raft::InstallSnapshot to;
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.base(), &to.base));
  SLUICE_RETURN_IF_ERROR(ReadEpoch(from.next_epoch(), &to.next_epoch));
  to.configuration.offset = Offset(from.configuration_offset());
  SLUICE_RETURN_IF_ERROR(ReadEpoch(from.configuration_epoch(), &to.configuration.epoch));
  auto configuration = raft::Configuration::Decode(from.configuration());
  if (!configuration.ok()) return Malformed(Message(configuration.status()));
  to.configuration.configuration = *std::move(configuration);
  to.log_start = Offset(from.log_start());
  to.detail = Bytes::Copy(from.detail());
  return to;
}

// An append without its batches, whose bytes come behind the envelope.
absl::StatusOr<raft::MessageBody> Read(const pb::AppendRequest& from) {
  if (from.batch_bytes_size() != from.batch_crc32c_size()) return Malformed("batches and checksums differ in number");
  raft::AppendRequest to;
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.previous(), &to.previous));
  to.committed = Offset(from.committed());
  return to;
}

absl::StatusOr<raft::MessageBody> ReadBody(const pb::GroupMessage& from) {
  switch (from.body_case()) {
    case pb::GroupMessage::kVoteRequest:
      return Read(from.vote_request());
    case pb::GroupMessage::kVoteResponse: {
      const pb::VoteResponse& body = from.vote_response();
      return raft::VoteResponse{.pre_vote = body.pre_vote(), .granted = body.granted(), .doubt = body.doubt()};
    }
    case pb::GroupMessage::kAppendRequest:
      return Read(from.append_request());
    case pb::GroupMessage::kAppendResponse:
      return Read(from.append_response());
    case pb::GroupMessage::kHeartbeat: {
      const pb::Heartbeat& body = from.heartbeat();
      return raft::Heartbeat{.committed = Offset(body.committed()),
                             .answer = body.answer(),
                             .read_seq = body.read_seq(),
                             .confirmed_end = Offset(body.confirmed_end()),
                             .doubt = body.doubt()};
    }
    case pb::GroupMessage::kHeartbeatResponse: {
      const pb::HeartbeatResponse& body = from.heartbeat_response();
      return raft::HeartbeatResponse{.read_seq = body.read_seq(),
                                     .log_end = Offset(body.log_end()),
                                     .committed = Offset(body.committed()),
                                     .doubt = body.doubt()};
    }
    case pb::GroupMessage::kInstallSnapshot:
      return Read(from.install_snapshot());
    case pb::GroupMessage::kSnapshotFailed:
      return raft::SnapshotFailed{.base_end = Offset(from.snapshot_failed().base_end())};
    case pb::GroupMessage::kTimeoutNow:
      return raft::TimeoutNow{};
    case pb::GroupMessage::BODY_NOT_SET:
      break;
  }
  return Malformed("a message of a kind that this version does not know");
}

absl::StatusOr<PeerGroupMessage> ReadGroupMessage(const pb::GroupMessage& from, NodeId from_node, NodeId to_node) {
  PeerGroupMessage to;
  SLUICE_RETURN_IF_ERROR(ReadGroup(from, &to.group));
  to.message.from.node = from_node;
  to.message.to.node = to_node;
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.from_incarnation(), "from_incarnation", &to.message.from.incarnation));
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.to_incarnation(), "to_incarnation", &to.message.to.incarnation));
  SLUICE_RETURN_IF_ERROR(ReadEpoch(from.term(), &to.message.term));
  SLUICE_ASSIGN_OR_RETURN(to.message.body, ReadBody(from));
  return to;
}

// ---- Liveness

void WriteEntries(const std::vector<LivenessEntry>& from, google::protobuf::RepeatedPtrField<pb::LivenessEntry>* to) {
  for (const LivenessEntry& entry : from) {
    pb::LivenessEntry* added = to->Add();
    WriteGroup(entry.group, added);
    added->set_term(entry.term.value());
  }
}

absl::Status ReadEntries(const google::protobuf::RepeatedPtrField<pb::LivenessEntry>& from,
                         std::vector<LivenessEntry>* to) {
  to->reserve(static_cast<size_t>(from.size()));
  for (const pb::LivenessEntry& entry : from) {
    LivenessEntry& added = to->emplace_back();
    SLUICE_RETURN_IF_ERROR(ReadGroup(entry, &added.group));
    SLUICE_RETURN_IF_ERROR(ReadEpoch(entry.term(), &added.term));
  }
  return absl::OkStatus();
}

absl::StatusOr<LivenessMessage> ReadLiveness(const pb::Liveness& from) {
  if (from.has_heartbeat()) {
    const pb::LivenessHeartbeat& body = from.heartbeat();
    LivenessHeartbeat to{
        .session = body.session(), .base_version = body.base_version(), .version = body.version(), .changes = {}};
    SLUICE_RETURN_IF_ERROR(ReadEntries(body.changes(), &to.changes));
    return to;
  }
  if (from.has_answer()) {
    const pb::LivenessAnswer& body = from.answer();
    LivenessAnswer to{.session = body.session(), .version = body.version(), .not_following = {}};
    SLUICE_RETURN_IF_ERROR(ReadEntries(body.not_following(), &to.not_following));
    return to;
  }
  return Malformed("liveness of a kind that this version does not know");
}

// ---- The message around the envelope

// Field 1 and 2, checked against each other; what stands behind them is left in the reader.
absl::Status ReadEnvelope(WireReader& in, pb::Envelope* envelope) {
  WireTag tag;
  char checksum[4] = {};
  if (!in.ReadTag(&tag) || tag.field != pb::PeerMessage::kEnvelopeCrc32CFieldNumber || tag.type != WireType::kFixed32 ||
      !in.Copy(checksum, sizeof(checksum))) {
    return Malformed("it does not begin with a checksum");
  }
  size_t length = 0;
  if (!in.ReadTag(&tag) || tag.field != pb::PeerMessage::kEnvelopeFieldNumber || tag.type != WireType::kLength ||
      !in.ReadLength(&length)) {
    return Malformed("it has no envelope");
  }
  if (length > kPeerEnvelopeBytesMax) return Malformed(Cat("an envelope of ", length, " bytes"));
  std::string bytes(length, '\0');
  if (!in.Copy(bytes.data(), length)) return Malformed("its envelope is cut short");
  uint32_t expected = 0;
  for (int i = 3; i >= 0; --i) expected = expected << 8 | static_cast<uint8_t>(checksum[i]);
  if (Crc32c(bytes) != expected) return absl::DataLossError("the checksum of the peer's message is wrong");
  if (!envelope->ParseFromString(bytes)) return Malformed("its envelope is no Envelope");
  return absl::OkStatus();
}

// How many bytes of batches follow; 0 where there is no such field.
absl::StatusOr<size_t> ReadBatchesLength(WireReader& in) {
  if (in.AtEnd()) return 0;
  WireTag tag;
  size_t length = 0;
  if (!in.ReadTag(&tag) || tag.field != pb::PeerMessage::kBatchesFieldNumber || tag.type != WireType::kLength ||
      !in.ReadLength(&length)) {
    return Malformed("what follows its envelope is no run of batches");
  }
  if (length != in.remaining()) return Malformed("bytes are left over behind its batches");
  return length;
}

// Before any memory is taken for them: the batches are exactly the bytes that are there, and none is too short.
absl::Status CheckSizes(const pb::Envelope& envelope, size_t bytes) {
  size_t left = bytes;
  for (const pb::GroupMessage& message : envelope.messages()) {
    for (const uint32_t size : message.append_request().batch_bytes()) {
      if (size < record::kBatchHeaderBytes || size > left) return Malformed(Cat("a batch of ", size, " bytes"));
      left -= size;
    }
  }
  return left == 0 ? absl::OkStatus() : Malformed(Cat(left, " bytes belong to no batch"));
}

// Takes the append's batches off the reader, also behind one that is damaged.
absl::Status ReadBatches(WireReader& in, const pb::AppendRequest& from, raft::AppendRequest* to, absl::Status* damage) {
  to->batches.reserve(static_cast<size_t>(from.batch_bytes_size()));
  for (int i = 0; i < from.batch_bytes_size(); ++i) {
    MutableBytes bytes(from.batch_bytes(i));
    if (!in.Copy(bytes.data(), bytes.size())) return Malformed("a batch is cut short");
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
  WriteGroup(group, &to);
  to.set_from_incarnation(std::string(message.from.incarnation.AsBytes()));
  to.set_to_incarnation(std::string(message.to.incarnation.AsBytes()));
  to.set_term(message.term.value());
  std::visit([&to](const auto& body) { Write(body, &to); }, message.body);
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
  if (const auto* heartbeat = std::get_if<LivenessHeartbeat>(&message)) {
    to.mutable_heartbeat()->set_session(heartbeat->session);
    to.mutable_heartbeat()->set_base_version(heartbeat->base_version);
    to.mutable_heartbeat()->set_version(heartbeat->version);
    WriteEntries(heartbeat->changes, to.mutable_heartbeat()->mutable_changes());
  } else {
    const auto& answer = std::get<LivenessAnswer>(message);
    to.mutable_answer()->set_session(answer.session);
    to.mutable_answer()->set_version(answer.version);
    WriteEntries(answer.not_following, to.mutable_answer()->mutable_not_following());
  }
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
  if (envelope.has_hello()) return Malformed("a second Hello");
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
    return Malformed("a stream begins with a Hello and nothing else");
  }
  const pb::Hello& from = envelope.hello();
  if (from.node_id() < 1 || from.version_min() > from.version_max()) return Malformed("a Hello from nobody");
  if (from.lane() != pb::LANE_GROUPS && from.lane() != pb::LANE_LIVENESS) return Malformed("a Hello for no lane");
  PeerHello to{.version_min = from.version_min(),
               .version_max = from.version_max(),
               .cluster = {},
               .node = NodeId(from.node_id()),
               .to = NodeId(from.to_node_id()),
               .disk = {},
               .session = {},
               .connection = from.connection(),
               .lane = static_cast<PeerLane>(from.lane())};
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.cluster_id(), "cluster_id", &to.cluster));
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.disk_id(), "disk_id", &to.disk));
  SLUICE_RETURN_IF_ERROR(ReadUuid(from.session_id(), "session_id", &to.session));
  return to;
}

}  // namespace sluice::broker::rpc
