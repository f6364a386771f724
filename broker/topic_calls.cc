#include "broker/topic_calls.h"

#include <map>
#include <optional>
#include <utility>

#include "broker/error.h"
#include "broker/limits.h"
#include "broker/topic_settings.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/internal/v1/topic_calls.pb.h"

namespace sluice::broker {
namespace {

namespace wire = ::sluice::internal::v1;

constexpr int kReasonMax = static_cast<int>(Reason::kCorruptLog);

template <class Message>
absl::Status Parse(std::string_view bytes, Message* message) {
  if (message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("not a ", message->GetTypeName()));
}

absl::StatusOr<TopicId> IdFrom(const std::string& bytes) {
  const auto id = Uuid::FromBytes(bytes);
  if (!id || id->IsNil()) return absl::InvalidArgumentError(Cat("a topic id of ", bytes.size(), " bytes, or nil"));
  return *id;
}

absl::StatusOr<ReplicaId> ReplicaFrom(const std::string& topic, int32_t partition) {
  SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdFrom(topic));
  if (partition < 0 || partition >= kPartitionsMax) {
    return absl::InvalidArgumentError(Cat("there is no partition ", partition));
  }
  return ReplicaId{id, PartitionId(partition)};
}

void ToWire(const Error& error, wire::CallError* out) {
  out->set_reason(static_cast<int32_t>(error.reason));
  out->set_message(error.message);
  out->set_leader(error.leader);
}

Error FromWire(const wire::CallError& from, std::string_view topic, PartitionId partition = {}) {
  // A reason of a later version is none that this one could act on.
  const bool known = from.reason() >= 0 && from.reason() <= kReasonMax;
  Error error =
      MakeError(known ? static_cast<Reason>(from.reason()) : Reason::kUnknown, from.message(), topic, partition);
  error.leader = from.leader();
  return error;
}

template <class Map>
TopicConfig ConfigFrom(const Map& map) {
  return {map.begin(), map.end()};
}

}  // namespace

// ---- Changes of topics ---------------------------------------------------------------------------------------------

std::string EncodeTopicChange(const TopicChange& change) {
  wire::TopicChangeRequest request;
  if (const auto* create = std::get_if<CreateTopicSpec>(&change)) {
    auto* out = request.mutable_create();
    out->set_name(create->name);
    out->set_partitions(create->partitions);
    out->set_replicas(create->replicas);
    out->mutable_config()->insert(create->config.begin(), create->config.end());
    out->set_internal(create->internal);
  } else if (const auto* alter = std::get_if<AlterTopicSpec>(&change)) {
    auto* out = request.mutable_alter();
    out->set_name(alter->name);
    out->mutable_set()->insert(alter->set.begin(), alter->set.end());
    for (const std::string& key : alter->unset) out->add_unset(key);
  } else if (const auto* add = std::get_if<AddPartitionsSpec>(&change)) {
    request.mutable_add_partitions()->set_name(add->name);
    request.mutable_add_partitions()->set_partitions(add->partitions);
  } else {
    request.mutable_delete_()->set_name(std::get<DeleteTopicSpec>(change).name);
  }
  return request.SerializeAsString();
}

absl::StatusOr<TopicChange> DecodeTopicChange(std::string_view bytes) {
  wire::TopicChangeRequest request;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &request));
  switch (request.change_case()) {
    case wire::TopicChangeRequest::kCreate: {
      const auto& from = request.create();
      return CreateTopicSpec{.name = from.name(),
                             .partitions = from.partitions(),
                             .replicas = from.replicas(),
                             .config = ConfigFrom(from.config()),
                             .internal = from.internal()};
    }
    case wire::TopicChangeRequest::kAlter: {
      const auto& from = request.alter();
      return AlterTopicSpec{
          .name = from.name(), .set = ConfigFrom(from.set()), .unset = {from.unset().begin(), from.unset().end()}};
    }
    case wire::TopicChangeRequest::kAddPartitions:
      return AddPartitionsSpec{.name = request.add_partitions().name(),
                               .partitions = request.add_partitions().partitions()};
    case wire::TopicChangeRequest::kDelete:
      return DeleteTopicSpec{.name = request.delete_().name()};
    case wire::TopicChangeRequest::CHANGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a change of topics of a kind that this version does not know");
}

std::string EncodeTopicChanged(const Result<TopicChanged>& changed) {
  wire::TopicChangeAnswer answer;
  if (!changed.ok()) {
    ToWire(changed.error(), answer.mutable_error());
    answer.set_name(changed.error().topic);
    return answer.SerializeAsString();
  }
  const TopicInfo& topic = changed.value().topic;
  answer.set_id(std::string(topic.id.AsBytes()));
  answer.set_name(topic.name);
  answer.set_partitions(topic.partitions);
  answer.set_replicas(topic.replicas);
  answer.mutable_config()->insert(topic.config.begin(), topic.config.end());
  answer.set_created_ms(topic.created_ms);
  answer.set_applied(changed.value().applied.value());
  return answer.SerializeAsString();
}

absl::StatusOr<Result<TopicChanged>> DecodeTopicChanged(std::string_view bytes) {
  wire::TopicChangeAnswer answer;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &answer));
  if (answer.has_error()) return Result<TopicChanged>(FromWire(answer.error(), answer.name()));
  SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdFrom(answer.id()));
  return Result<TopicChanged>(TopicChanged{.topic = {.name = answer.name(),
                                                     .id = id,
                                                     .partitions = answer.partitions(),
                                                     .replicas = answer.replicas(),
                                                     .config = ConfigFrom(answer.config()),
                                                     .created_ms = answer.created_ms()},
                                           .applied = Offset(answer.applied())});
}

// ---- How partitions stand ------------------------------------------------------------------------------------------

std::string EncodePartitionStatusRequest(const std::vector<ReplicaId>& replicas) {
  wire::PartitionStatusRequest request;
  std::map<TopicId, std::vector<PartitionId>> by_topic;
  for (const ReplicaId& replica : replicas) by_topic[replica.topic].push_back(replica.partition);
  for (const auto& [id, partitions] : by_topic) {
    auto* topic = request.add_topics();
    topic->set_id(std::string(id.AsBytes()));
    for (const PartitionId partition : partitions) topic->add_partitions(partition.value());
  }
  return request.SerializeAsString();
}

absl::StatusOr<std::vector<ReplicaId>> DecodePartitionStatusRequest(std::string_view bytes) {
  wire::PartitionStatusRequest request;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &request));
  std::vector<ReplicaId> replicas;
  for (const auto& topic : request.topics()) {
    for (const int32_t partition : topic.partitions()) {
      SLUICE_ASSIGN_OR_RETURN(replicas.emplace_back(), ReplicaFrom(topic.id(), partition));
    }
  }
  return replicas;
}

std::string EncodePartitionStatusAnswer(const std::vector<ReplicaReport>& reports) {
  wire::PartitionStatusAnswer answer;
  for (const ReplicaReport& report : reports) {
    auto* out = answer.add_partitions();
    out->set_topic(std::string(report.replica.topic.AsBytes()));
    out->set_partition(report.replica.partition.value());
    out->set_leads(report.leads);
    out->set_epoch(report.status.leader_epoch.value());
    out->set_log_start(report.status.log_start.value());
    out->set_high_watermark(report.status.high_watermark.value());
    out->set_size_bytes(report.status.size_bytes);
    if (report.status.error.has_value()) ToWire(*report.status.error, out->mutable_error());
    if (!report.leads) continue;
    for (const ReplicaStatus& replica : report.status.replicas) {
      auto* one = out->add_replicas();
      one->set_node(replica.node.value());
      one->set_learner(replica.learner);
      one->set_in_sync(replica.in_sync);
      one->set_lag(replica.lag);
    }
  }
  return answer.SerializeAsString();
}

absl::StatusOr<std::vector<ReplicaReport>> DecodePartitionStatusAnswer(std::string_view bytes) {
  wire::PartitionStatusAnswer answer;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &answer));
  std::vector<ReplicaReport> reports;
  for (const auto& from : answer.partitions()) {
    ReplicaReport report;
    SLUICE_ASSIGN_OR_RETURN(report.replica, ReplicaFrom(from.topic(), from.partition()));
    report.leads = from.leads();
    report.status.partition = report.replica.partition;
    report.status.leader_epoch = LeaderEpoch(from.epoch());
    report.status.log_start = Offset(from.log_start());
    report.status.high_watermark = Offset(from.high_watermark());
    report.status.size_bytes = from.size_bytes();
    if (from.has_error()) report.status.error = FromWire(from.error(), {}, report.replica.partition);
    for (const auto& replica : from.replicas()) {
      report.status.replicas.push_back({.node = NodeId(replica.node()),
                                        .learner = replica.learner(),
                                        .in_sync = replica.in_sync(),
                                        .lag = replica.lag()});
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

// ---- How nodes stand -----------------------------------------------------------------------------------------------

std::string EncodeNodeStatus(const NodeStatus& status) {
  wire::NodeStatusAnswer answer;
  answer.set_started_ms(status.started_ms);
  answer.set_disk_free_bytes(status.disk_free_bytes);
  answer.set_disk_used_bytes(status.disk_used_bytes);
  answer.set_draining(status.draining);
  return answer.SerializeAsString();
}

absl::StatusOr<NodeStatus> DecodeNodeStatus(std::string_view bytes) {
  wire::NodeStatusAnswer answer;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &answer));
  return NodeStatus{.started_ms = answer.started_ms(),
                    .disk_free_bytes = answer.disk_free_bytes(),
                    .disk_used_bytes = answer.disk_used_bytes(),
                    .draining = answer.draining()};
}

// ---- Elections -----------------------------------------------------------------------------------------------------

std::string EncodeElectLeaderCall(const ElectLeaderCall& call) {
  wire::ElectLeaderRequest request;
  request.set_topic(std::string(call.replica.topic.AsBytes()));
  request.set_partition(call.replica.partition.value());
  request.set_to(call.to.value());
  return request.SerializeAsString();
}

absl::StatusOr<ElectLeaderCall> DecodeElectLeaderCall(std::string_view bytes) {
  wire::ElectLeaderRequest request;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &request));
  ElectLeaderCall call;
  SLUICE_ASSIGN_OR_RETURN(call.replica, ReplicaFrom(request.topic(), request.partition()));
  call.to = NodeId(request.to());
  return call;
}

std::string EncodeElectLeaderAnswer(const Result<Done>& answer) {
  wire::ElectLeaderAnswer message;
  if (!answer.ok()) ToWire(answer.error(), message.mutable_error());
  return message.SerializeAsString();
}

absl::StatusOr<Result<Done>> DecodeElectLeaderAnswer(std::string_view bytes) {
  wire::ElectLeaderAnswer message;
  SLUICE_RETURN_IF_ERROR(Parse(bytes, &message));
  if (message.has_error()) return Result<Done>(FromWire(message.error(), {}));
  return Result<Done>(Done{});
}

}  // namespace sluice::broker
