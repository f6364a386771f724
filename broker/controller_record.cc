#include "broker/controller_record.h"

#include <utility>

#include "broker/topic_settings.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/state/v1/controller.pb.h"

namespace sluice::broker {
namespace {

namespace state = ::sluice::state::v1;

void ToProto(const TopicRecord& topic, state::TopicState* out) {
  out->set_id(std::string(topic.id.AsBytes()));
  out->set_name(topic.name);
  out->set_partitions(topic.partitions);
  out->set_replicas(topic.replicas);
  out->mutable_config()->insert(topic.config.begin(), topic.config.end());
  out->set_created_ms(topic.created_ms);
  for (const NodeId node : topic.nodes) out->add_nodes(node.value());
}

absl::StatusOr<TopicId> IdFrom(const std::string& bytes) {
  const auto id = Uuid::FromBytes(bytes);
  if (!id || id->IsNil()) return absl::DataLossError(Cat("a topic id of ", bytes.size(), " bytes, or nil"));
  return *id;
}

absl::StatusOr<TopicRecord> FromProto(const state::TopicState& from) {
  TopicRecord topic;
  SLUICE_ASSIGN_OR_RETURN(topic.id, IdFrom(from.id()));
  topic.name = from.name();
  topic.partitions = from.partitions();
  topic.replicas = from.replicas();
  topic.config.insert(from.config().begin(), from.config().end());
  topic.created_ms = from.created_ms();
  for (const int32_t node : from.nodes()) topic.nodes.push_back(NodeId(node));
  if (!CheckTopicName(topic.name, IsInternalTopic(topic.name)).ok() || topic.partitions < 1 ||
      topic.partitions > kPartitionsMax || topic.nodes.size() != static_cast<size_t>(topic.partitions)) {
    return absl::DataLossError(Cat("topic ", topic.id, ": name, partitions or nodes are not those of a topic"));
  }
  return topic;
}

template <class Message>
std::string Serialize(const Message& message) {
  std::string bytes;
  message.SerializeToString(&bytes);
  return bytes;
}

template <class Message>
bool Parse(std::string_view bytes, Message* message) {
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

std::string EncodeControllerChange(const ControllerChange& change) {
  state::ControllerRecord record;
  if (const auto* created = std::get_if<TopicCreated>(&change)) {
    ToProto(created->topic, record.mutable_topic_created()->mutable_topic());
  } else if (const auto* deleted = std::get_if<TopicDeleted>(&change)) {
    record.mutable_topic_deleted()->set_id(std::string(deleted->id.AsBytes()));
  } else if (const auto* altered = std::get_if<TopicAltered>(&change)) {
    record.mutable_topic_altered()->set_id(std::string(altered->id.AsBytes()));
    record.mutable_topic_altered()->mutable_config()->insert(altered->config.begin(), altered->config.end());
  } else if (const auto* added = std::get_if<PartitionsAdded>(&change)) {
    record.mutable_partitions_added()->set_id(std::string(added->id.AsBytes()));
    record.mutable_partitions_added()->set_partitions(added->partitions);
    for (const NodeId node : added->nodes) record.mutable_partitions_added()->add_nodes(node.value());
  }
  return Serialize(record);
}

absl::StatusOr<ControllerChange> DecodeControllerChange(std::string_view bytes) {
  state::ControllerRecord record;
  if (!Parse(bytes, &record)) return absl::DataLossError("not a ControllerRecord");
  switch (record.change_case()) {
    case state::ControllerRecord::kTopicCreated: {
      SLUICE_ASSIGN_OR_RETURN(TopicRecord topic, FromProto(record.topic_created().topic()));
      return TopicCreated{std::move(topic)};
    }
    case state::ControllerRecord::kTopicDeleted: {
      SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdFrom(record.topic_deleted().id()));
      return TopicDeleted{id};
    }
    case state::ControllerRecord::kTopicAltered: {
      TopicAltered altered;
      SLUICE_ASSIGN_OR_RETURN(altered.id, IdFrom(record.topic_altered().id()));
      altered.config.insert(record.topic_altered().config().begin(), record.topic_altered().config().end());
      return altered;
    }
    case state::ControllerRecord::kPartitionsAdded: {
      PartitionsAdded added;
      SLUICE_ASSIGN_OR_RETURN(added.id, IdFrom(record.partitions_added().id()));
      added.partitions = record.partitions_added().partitions();
      for (const int32_t node : record.partitions_added().nodes()) added.nodes.push_back(NodeId(node));
      if (added.partitions < 1 || added.partitions > kPartitionsMax) {
        return absl::DataLossError(Cat("topic ", added.id, ": ", added.partitions, " partitions"));
      }
      return added;
    }
    case state::ControllerRecord::CHANGE_NOT_SET:
      break;
  }
  return absl::DataLossError("a change of a kind that this version does not know");
}

std::string EncodeTopicRecord(const TopicRecord& topic) {
  state::TopicState message;
  ToProto(topic, &message);
  return Serialize(message);
}

absl::StatusOr<TopicRecord> DecodeTopicRecord(std::string_view bytes) {
  state::TopicState message;
  if (!Parse(bytes, &message)) return absl::DataLossError("not a TopicState");
  return FromProto(message);
}

}  // namespace sluice::broker
