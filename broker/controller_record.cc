#include "broker/controller_record.h"

#include <algorithm>
#include <set>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "broker/limits.h"
#include "broker/topic_settings.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/state/v1/controller.pb.h"

namespace sluice::broker {
namespace {

namespace state = ::sluice::state::v1;

/// Whether 0.1's form says all there is: one replica each, without an incarnation.
bool OneOfEach(const std::vector<PartitionAssignment>& assignments) {
  return std::all_of(assignments.begin(), assignments.end(), [](const PartitionAssignment& replicas) {
    return replicas.size() == 1 && replicas.front().incarnation.IsNil();
  });
}

/// Of TopicState and PartitionsAdded.
template <class Message>
void AssignmentsToProto(const std::vector<PartitionAssignment>& assignments, Message* out) {
  if (OneOfEach(assignments)) {
    for (const auto& replicas : assignments) out->add_nodes(replicas.front().node.value());
    return;
  }
  for (const auto& replicas : assignments) {
    state::PartitionAssignment* partition = out->add_assignments();
    for (const ReplicaAssignment& replica : replicas) {
      state::ReplicaAssignment* one = partition->add_replicas();
      one->set_node(replica.node.value());
      if (!replica.incarnation.IsNil()) one->set_incarnation(std::string(replica.incarnation.AsBytes()));
    }
  }
}

template <class Message>
absl::StatusOr<std::vector<PartitionAssignment>> AssignmentsFromProto(const Message& from) {
  std::vector<PartitionAssignment> assignments;
  if (from.nodes_size() > 0 && from.assignments_size() > 0) {
    return absl::DataLossError("assignments in two forms");
  }
  for (const int32_t node : from.nodes()) assignments.push_back({{.node = NodeId(node), .incarnation = {}}});
  for (const auto& partition : from.assignments()) {
    PartitionAssignment& replicas = assignments.emplace_back();
    for (const auto& one : partition.replicas()) {
      const auto incarnation = one.incarnation().empty() ? Uuid{} : Uuid::FromBytes(one.incarnation());
      if (!incarnation) return absl::DataLossError("the incarnation of a replica is no UUID");
      replicas.push_back({.node = NodeId(one.node()), .incarnation = *incarnation});
    }
  }
  for (const auto& replicas : assignments) {
    std::set<NodeId> nodes;
    for (const ReplicaAssignment& replica : replicas) {
      if (replica.node < NodeId(1) || !nodes.insert(replica.node).second) {
        return absl::DataLossError(Cat("a partition with a replica on node ", replica.node, " twice, or on no node"));
      }
    }
    if (nodes.empty() || nodes.size() > kReplicasMax) {
      return absl::DataLossError(Cat("a partition with ", nodes.size(), " replicas"));
    }
  }
  return assignments;
}

void ToProto(const TopicRecord& topic, state::TopicState* out) {
  out->set_id(std::string(topic.id.AsBytes()));
  out->set_name(topic.name);
  out->set_partitions(topic.partitions);
  out->set_replicas(topic.replicas);
  out->mutable_config()->insert(topic.config.begin(), topic.config.end());
  out->set_created_ms(topic.created_ms);
  AssignmentsToProto(topic.assignments, out);
}

absl::StatusOr<Uuid> IdFrom(const std::string& bytes, std::string_view what = "a topic id") {
  const auto id = Uuid::FromBytes(bytes);
  if (!id || id->IsNil()) return absl::DataLossError(Cat(what, " of ", bytes.size(), " bytes, or nil"));
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
  auto assignments = AssignmentsFromProto(from);
  if (!assignments.ok()) return absl::DataLossError(Cat("topic ", topic.id, ": ", Message(assignments.status())));
  topic.assignments = *std::move(assignments);
  if (!CheckTopicName(topic.name, IsInternalTopic(topic.name)).ok() || topic.partitions < 1 ||
      topic.partitions > kPartitionsMax || topic.assignments.size() != static_cast<size_t>(topic.partitions)) {
    return absl::DataLossError(Cat("topic ", topic.id, ": name, partitions or nodes are not those of a topic"));
  }
  return topic;
}

void ToProto(const NodeRecord& node, state::NodeState* out) {
  out->set_id(node.id.value());
  out->set_disk(std::string(node.disk.AsBytes()));
  out->set_incarnation(std::string(node.incarnation.AsBytes()));
  out->set_grpc_address(node.grpc_address);
  out->set_peer_address(node.peer_address);
  out->set_rack(node.rack);
  out->set_version(node.version);
  out->set_feature_min(node.feature_min);
  out->set_feature_max(node.feature_max);
  if (!node.process.IsNil()) out->set_process(std::string(node.process.AsBytes()));
}

absl::StatusOr<NodeId> NodeFrom(int32_t id) {
  if (id < 1) return absl::DataLossError(Cat("a node with number ", id));
  return NodeId(id);
}

absl::StatusOr<NodeRecord> FromProto(const state::NodeState& from) {
  NodeRecord node;
  SLUICE_ASSIGN_OR_RETURN(node.id, NodeFrom(from.id()));
  SLUICE_ASSIGN_OR_RETURN(node.disk, IdFrom(from.disk(), "a disk id"));
  SLUICE_ASSIGN_OR_RETURN(node.incarnation, IdFrom(from.incarnation(), "an incarnation"));
  node.grpc_address = from.grpc_address();
  node.peer_address = from.peer_address();
  node.rack = from.rack();
  node.version = from.version();
  node.feature_min = from.feature_min();
  node.feature_max = from.feature_max();
  if (!from.process().empty()) {
    SLUICE_ASSIGN_OR_RETURN(node.process, IdFrom(from.process(), "a process"));
  }
  for (const std::string* text : {&node.grpc_address, &node.peer_address, &node.rack, &node.version}) {
    if (text->size() > kNodeTextBytesMax) {
      return absl::DataLossError(
          Cat("node ", node.id, ": a text of ", text->size(), " bytes, and ", kNodeTextBytesMax, " are allowed"));
    }
  }
  if (node.feature_min < 0 || node.feature_max < node.feature_min) {
    return absl::DataLossError(Cat("node ", node.id, ": feature levels ", node.feature_min, " to ", node.feature_max));
  }
  return node;
}

template <class Message>
std::string Serialize(const Message& message) {
  // Maps in the order of their keys: equal values have equal bytes, on every node.
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&out);
  }
  return bytes;
}

template <class Message>
bool Parse(std::string_view bytes, Message* message) {
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

int32_t FeatureLevelOf(const ControllerChange& change) {
  if (const auto* created = std::get_if<TopicCreated>(&change)) return OneOfEach(created->topic.assignments) ? 0 : 1;
  if (const auto* added = std::get_if<PartitionsAdded>(&change)) return OneOfEach(added->assignments) ? 0 : 1;
  if (std::holds_alternative<NodeFenced>(change) || std::holds_alternative<NodeUnfenced>(change)) return 1;
  return 0;
}

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
    AssignmentsToProto(added->assignments, record.mutable_partitions_added());
  } else if (const auto* formed = std::get_if<ClusterFormed>(&change)) {
    record.mutable_cluster_formed()->set_id(std::string(formed->id.AsBytes()));
    record.mutable_cluster_formed()->set_name(formed->name);
  } else if (const auto* registered = std::get_if<NodeRegistered>(&change)) {
    ToProto(registered->node, record.mutable_node_registered()->mutable_node());
  } else if (const auto* fenced = std::get_if<NodeFenced>(&change)) {
    record.mutable_node_fenced()->set_id(fenced->id.value());
    record.mutable_node_fenced()->set_epoch(fenced->epoch.value());
  } else if (const auto* unfenced = std::get_if<NodeUnfenced>(&change)) {
    record.mutable_node_unfenced()->set_id(unfenced->id.value());
    record.mutable_node_unfenced()->set_epoch(unfenced->epoch.value());
  } else if (const auto* raised = std::get_if<FeatureLevelRaised>(&change)) {
    record.mutable_feature_level_raised()->set_level(raised->level);
  }
  return Serialize(record);
}

namespace {

absl::StatusOr<PartitionsAdded> FromProto(const state::PartitionsAdded& from) {
  PartitionsAdded added;
  SLUICE_ASSIGN_OR_RETURN(added.id, IdFrom(from.id()));
  added.partitions = from.partitions();
  auto assignments = AssignmentsFromProto(from);
  if (!assignments.ok()) return absl::DataLossError(Cat("topic ", added.id, ": ", Message(assignments.status())));
  added.assignments = *std::move(assignments);
  if (added.partitions < 1 || added.partitions > kPartitionsMax) {
    return absl::DataLossError(Cat("topic ", added.id, ": ", added.partitions, " partitions"));
  }
  return added;
}

}  // namespace

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
    case state::ControllerRecord::kPartitionsAdded:
      return FromProto(record.partitions_added());
    case state::ControllerRecord::kClusterFormed: {
      SLUICE_ASSIGN_OR_RETURN(const Uuid id, IdFrom(record.cluster_formed().id(), "a cluster id"));
      return ClusterFormed{.id = id, .name = record.cluster_formed().name()};
    }
    case state::ControllerRecord::kNodeRegistered: {
      SLUICE_ASSIGN_OR_RETURN(NodeRecord node, FromProto(record.node_registered().node()));
      return NodeRegistered{std::move(node)};
    }
    case state::ControllerRecord::kNodeFenced: {
      SLUICE_ASSIGN_OR_RETURN(const NodeId id, NodeFrom(record.node_fenced().id()));
      return NodeFenced{.id = id, .epoch = Offset(record.node_fenced().epoch())};
    }
    case state::ControllerRecord::kNodeUnfenced: {
      SLUICE_ASSIGN_OR_RETURN(const NodeId id, NodeFrom(record.node_unfenced().id()));
      return NodeUnfenced{.id = id, .epoch = Offset(record.node_unfenced().epoch())};
    }
    case state::ControllerRecord::kFeatureLevelRaised:
      return FeatureLevelRaised{record.feature_level_raised().level()};
    case state::ControllerRecord::CHANGE_NOT_SET:
      break;
  }
  return absl::DataLossError("a change of a kind that this version does not know");
}

std::string EncodeRegisteredNode(const RegisteredNode& node) {
  state::RegisteredNodeState message;
  ToProto(node.node, message.mutable_node());
  message.set_epoch(node.epoch.value());
  message.set_fenced(node.fenced);
  return Serialize(message);
}

absl::StatusOr<RegisteredNode> DecodeRegisteredNode(std::string_view bytes) {
  state::RegisteredNodeState message;
  if (!Parse(bytes, &message)) return absl::DataLossError("not a RegisteredNodeState");
  SLUICE_ASSIGN_OR_RETURN(NodeRecord node, FromProto(message.node()));
  return RegisteredNode{.node = std::move(node), .epoch = Offset(message.epoch()), .fenced = message.fenced()};
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
