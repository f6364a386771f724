#include "broker/rpc/peer_message_body.h"

#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker::rpc {

namespace pb = internal::v1;
using replication::LivenessAnswer;
using replication::LivenessEntry;
using replication::LivenessHeartbeat;
using replication::LivenessMessage;

absl::Status MalformedPeerMessage(std::string_view what) {
  return absl::InvalidArgumentError(Cat("the peer's message cannot be read: ", what));
}

absl::Status ReadPeerUuid(const std::string& raw, std::string_view what, Uuid* to) {
  const std::optional<Uuid> uuid = Uuid::FromBytes(raw);
  if (!uuid) return MalformedPeerMessage(Cat(what, " has ", raw.size(), " bytes and not 16"));
  *to = *uuid;
  return absl::OkStatus();
}

namespace {

// Of a group: the topic's id and the partition, wherever they stand.
template <class Proto>
absl::Status ReadGroup(const Proto& from, ReplicaId* to) {
  SLUICE_RETURN_IF_ERROR(ReadPeerUuid(from.topic_id(), "topic_id", &to->topic));
  if (from.partition() < 0) return MalformedPeerMessage(Cat("partition ", from.partition()));
  to->partition = PartitionId(from.partition());
  return absl::OkStatus();
}

template <class Proto>
void WriteGroup(const ReplicaId& from, Proto* to) {
  to->set_topic_id(std::string(from.topic.AsBytes()));
  to->set_partition(from.partition.value());
}

absl::Status ReadEpoch(int32_t value, LeaderEpoch* to) {
  if (value < 0) return MalformedPeerMessage(Cat("leader epoch ", value));
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
  const auto& [pre_vote, transfer, last, campaign] = from;
  pb::VoteRequest* to = message->mutable_vote_request();
  to->set_pre_vote(pre_vote);
  to->set_transfer(transfer);
  WritePlace(last, to->mutable_last());
  to->set_campaign(campaign);
}

void Write(const raft::VoteResponse& from, pb::GroupMessage* message) {
  const auto& [pre_vote, granted, doubt, campaign, members] = from;
  pb::VoteResponse* to = message->mutable_vote_response();
  to->set_pre_vote(pre_vote);
  to->set_granted(granted);
  to->set_doubt(doubt);
  to->set_campaign(campaign);
  WritePlace(members, to->mutable_members());
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
  const auto& [rejected, end, hint, log_end, committed, doubt, cannot_lead] = from;
  pb::AppendResponse* to = message->mutable_append_response();
  to->set_rejected(rejected);
  to->set_end(end.value());
  WritePlace(hint, to->mutable_hint());
  to->set_log_end(log_end.value());
  to->set_committed(committed.value());
  to->set_doubt(doubt);
  to->set_cannot_lead(cannot_lead);
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
  const auto& [read_seq, log_end, committed, doubt, cannot_lead, members] = from;
  pb::HeartbeatResponse* to = message->mutable_heartbeat_response();
  to->set_read_seq(read_seq);
  to->set_log_end(log_end.value());
  to->set_committed(committed.value());
  to->set_doubt(doubt);
  to->set_cannot_lead(cannot_lead);
  WritePlace(members, to->mutable_members());
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
  raft::VoteRequest to{
      .pre_vote = from.pre_vote(), .transfer = from.transfer(), .last = {}, .campaign = from.campaign()};
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.last(), &to.last));
  return to;
}

absl::StatusOr<raft::MessageBody> Read(const pb::VoteResponse& from) {
  raft::VoteResponse to{.pre_vote = from.pre_vote(),
                        .granted = from.granted(),
                        .doubt = from.doubt(),
                        .campaign = from.campaign(),
                        .members = {}};
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.members(), &to.members));
  return to;
}

absl::StatusOr<raft::MessageBody> Read(const pb::AppendResponse& from) {
  raft::AppendResponse to{.rejected = from.rejected(),
                          .end = Offset(from.end()),
                          .hint = {},
                          .log_end = Offset(from.log_end()),
                          .committed = Offset(from.committed()),
                          .doubt = from.doubt(),
                          .cannot_lead = from.cannot_lead()};
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
  if (!configuration.ok()) return MalformedPeerMessage(Message(configuration.status()));
  to.configuration.configuration = *std::move(configuration);
  to.log_start = Offset(from.log_start());
  to.detail = Bytes::Copy(from.detail());
  return to;
}

// An append without its batches, whose bytes come behind the envelope.
absl::StatusOr<raft::MessageBody> Read(const pb::AppendRequest& from) {
  if (from.batch_bytes_size() != from.batch_crc32c_size())
    return MalformedPeerMessage("batches and checksums differ in number");
  raft::AppendRequest to;
  SLUICE_RETURN_IF_ERROR(ReadPlace(from.previous(), &to.previous));
  to.committed = Offset(from.committed());
  return to;
}

absl::StatusOr<raft::MessageBody> ReadBody(const pb::GroupMessage& from) {
  switch (from.body_case()) {
    case pb::GroupMessage::kVoteRequest:
      return Read(from.vote_request());
    case pb::GroupMessage::kVoteResponse:
      return Read(from.vote_response());
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
      raft::HeartbeatResponse to{.read_seq = body.read_seq(),
                                 .log_end = Offset(body.log_end()),
                                 .committed = Offset(body.committed()),
                                 .doubt = body.doubt(),
                                 .cannot_lead = body.cannot_lead(),
                                 .members = {}};
      SLUICE_RETURN_IF_ERROR(ReadPlace(body.members(), &to.members));
      return to;
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
  return MalformedPeerMessage("a message of a kind that this version does not know");
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

}  // namespace

void WriteGroupMessage(const ReplicaId& group, const raft::Message& message, pb::GroupMessage* to) {
  WriteGroup(group, to);
  to->set_from_incarnation(std::string(message.from.incarnation.AsBytes()));
  to->set_to_incarnation(std::string(message.to.incarnation.AsBytes()));
  to->set_term(message.term.value());
  std::visit([to](const auto& body) { Write(body, to); }, message.body);
}

absl::StatusOr<PeerGroupMessage> ReadGroupMessage(const pb::GroupMessage& from, NodeId from_node, NodeId to_node) {
  PeerGroupMessage to;
  SLUICE_RETURN_IF_ERROR(ReadGroup(from, &to.group));
  to.message.from.node = from_node;
  to.message.to.node = to_node;
  SLUICE_RETURN_IF_ERROR(ReadPeerUuid(from.from_incarnation(), "from_incarnation", &to.message.from.incarnation));
  SLUICE_RETURN_IF_ERROR(ReadPeerUuid(from.to_incarnation(), "to_incarnation", &to.message.to.incarnation));
  SLUICE_RETURN_IF_ERROR(ReadEpoch(from.term(), &to.message.term));
  SLUICE_ASSIGN_OR_RETURN(to.message.body, ReadBody(from));
  return to;
}

void WriteLiveness(const LivenessMessage& message, pb::Liveness* to) {
  if (const auto* heartbeat = std::get_if<LivenessHeartbeat>(&message)) {
    to->mutable_heartbeat()->set_session(heartbeat->session);
    to->mutable_heartbeat()->set_base_version(heartbeat->base_version);
    to->mutable_heartbeat()->set_version(heartbeat->version);
    WriteEntries(heartbeat->changes, to->mutable_heartbeat()->mutable_changes());
    return;
  }
  const auto& answer = std::get<LivenessAnswer>(message);
  to->mutable_answer()->set_session(answer.session);
  to->mutable_answer()->set_version(answer.version);
  WriteEntries(answer.not_following, to->mutable_answer()->mutable_not_following());
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
  return MalformedPeerMessage("liveness of a kind that this version does not know");
}

}  // namespace sluice::broker::rpc
