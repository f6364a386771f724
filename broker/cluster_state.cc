#include "broker/cluster_state.h"

#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

// Keys: "topic/<uuid>" holds a TopicState, "dropping/<uuid>" the number of its partitions, "node/<id>" a
// RegisteredNodeState, "cluster" a ClusterFormed record, "feature_level" a number.
constexpr std::string_view kTopicPrefix = "topic/";
constexpr std::string_view kDroppingPrefix = "dropping/";
constexpr std::string_view kNodePrefix = "node/";
constexpr std::string_view kClusterKey = "cluster";
constexpr std::string_view kFeatureLevelKey = "feature_level";

ClusterDelta Touched(const TopicId& id) {
  ClusterDelta delta;
  delta.topics.insert(id);
  return delta;
}

ClusterDelta ApplyOne(ClusterState& state, const TopicCreated& created, Offset /*offset*/) {
  const TopicRecord& topic = created.topic;
  if (state.by_name.contains(topic.name) || state.topics.contains(topic.id)) return {};
  state.by_name[topic.name] = topic.id;
  state.topics[topic.id] = topic;
  return Touched(topic.id);
}

ClusterDelta ApplyOne(ClusterState& state, const TopicDeleted& deleted, Offset /*offset*/) {
  const auto it = state.topics.find(deleted.id);
  if (it == state.topics.end() || Planted(PlantedBug::kForgetDeletedTopic)) return {};
  ClusterDelta delta;
  state.by_name.erase(it->second.name);
  delta.deleted[deleted.id] = std::move(it->second);
  state.topics.erase(it);
  return delta;
}

ClusterDelta ApplyOne(ClusterState& state, const TopicAltered& altered, Offset /*offset*/) {
  const auto it = state.topics.find(altered.id);
  if (it == state.topics.end() || it->second.config == altered.config) return {};
  it->second.config = altered.config;
  return Touched(altered.id);
}

ClusterDelta ApplyOne(ClusterState& state, const PartitionsAdded& added, Offset /*offset*/) {
  const auto it = state.topics.find(added.id);
  if (it == state.topics.end()) return {};
  TopicRecord& topic = it->second;
  if (added.partitions <= topic.partitions ||
      topic.assignments.size() + added.assignments.size() != static_cast<size_t>(added.partitions)) {
    return {};
  }
  topic.partitions = added.partitions;
  topic.assignments.insert(topic.assignments.end(), added.assignments.begin(), added.assignments.end());
  return Touched(added.id);
}

ClusterDelta ApplyOne(ClusterState& state, const ClusterFormed& formed, Offset /*offset*/) {
  if (!state.cluster_id.IsNil()) return {};
  state.cluster_id = formed.id;
  state.cluster_name = formed.name;
  ClusterDelta delta;
  delta.cluster = true;
  return delta;
}

ClusterDelta Touched(NodeId id) {
  ClusterDelta delta;
  delta.nodes.insert(id);
  return delta;
}

ClusterDelta ApplyOne(ClusterState& state, const NodeRegistered& registered, Offset offset) {
  const NodeRecord& node = registered.node;
  const auto it = state.nodes.find(node.id);
  if (it == state.nodes.end()) {
    // The first node is the one whose log this is: there is nothing that it could have to catch up with.
    const bool fenced = !state.nodes.empty();
    state.nodes[node.id] = {.node = node, .epoch = offset, .fenced = fenced};
    return Touched(node.id);
  }
  RegisteredNode& known = it->second;
  if (known.node.disk != node.disk || offset <= known.epoch) return {};
  const Uuid incarnation = known.node.incarnation;
  known.node = node;
  known.node.incarnation = incarnation;
  known.epoch = offset;
  return Touched(node.id);
}

ClusterDelta SetFenced(ClusterState& state, NodeId id, Offset epoch, bool fenced) {
  const auto it = state.nodes.find(id);
  if (it == state.nodes.end() || it->second.epoch != epoch || it->second.fenced == fenced) return {};
  it->second.fenced = fenced;
  return Touched(id);
}

ClusterDelta ApplyOne(ClusterState& state, const NodeFenced& fenced, Offset /*offset*/) {
  return SetFenced(state, fenced.id, fenced.epoch, true);
}

ClusterDelta ApplyOne(ClusterState& state, const NodeUnfenced& unfenced, Offset /*offset*/) {
  return SetFenced(state, unfenced.id, unfenced.epoch, false);
}

ClusterDelta ApplyOne(ClusterState& state, const FeatureLevelRaised& raised, Offset /*offset*/) {
  if (raised.level <= state.feature_level) return {};
  state.feature_level = raised.level;
  ClusterDelta delta;
  delta.cluster = true;
  return delta;
}

absl::Status BadKey(std::string_view key, std::string_view why) {
  return absl::DataLossError(Cat("metadata store: ", key, ": ", why));
}

absl::StatusOr<TopicId> IdOfKey(std::string_view key, std::string_view prefix) {
  const auto id = Uuid::Parse(key.substr(prefix.size()));
  if (!id) return BadKey(key, "names no topic");
  return *id;
}

absl::Status LoadTopics(storage::MetadataStore& store, LoadedClusterState* loaded) {
  SLUICE_ASSIGN_OR_RETURN(const auto topics, store.Scan(kControllerMachine, kTopicPrefix));
  for (const auto& entry : topics) {
    SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdOfKey(entry.key, kTopicPrefix));
    auto topic = DecodeTopicRecord(entry.value);
    if (!topic.ok()) return BadKey(entry.key, Message(topic.status()));
    if (topic->id != id || !loaded->state.by_name.emplace(topic->name, id).second) {
      return BadKey(entry.key, "is another topic, or one whose name is taken");
    }
    loaded->state.topics[id] = *std::move(topic);
  }
  SLUICE_ASSIGN_OR_RETURN(const auto dropping, store.Scan(kControllerMachine, kDroppingPrefix));
  for (const auto& entry : dropping) {
    SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdOfKey(entry.key, kDroppingPrefix));
    int32_t partitions = 0;
    if (!absl::SimpleAtoi(entry.value, &partitions) || partitions < 1) {
      return BadKey(entry.key, Cat("is \"", entry.value, "\""));
    }
    loaded->dropping[id] = partitions;
  }
  return absl::OkStatus();
}

absl::Status LoadCluster(storage::MetadataStore& store, ClusterState* state) {
  SLUICE_ASSIGN_OR_RETURN(const auto nodes, store.Scan(kControllerMachine, kNodePrefix));
  for (const auto& entry : nodes) {
    auto node = DecodeRegisteredNode(entry.value);
    if (!node.ok()) return BadKey(entry.key, Message(node.status()));
    if (entry.key != Cat(kNodePrefix, node->node.id)) return BadKey(entry.key, "is another node");
    const NodeId id = node->node.id;
    state->nodes[id] = *std::move(node);
  }
  SLUICE_ASSIGN_OR_RETURN(const auto cluster, store.Get(kControllerMachine, kClusterKey));
  if (cluster.has_value()) {
    auto change = DecodeControllerChange(*cluster);
    const auto* formed = change.ok() ? std::get_if<ClusterFormed>(&*change) : nullptr;
    if (formed == nullptr) return BadKey(kClusterKey, "is not what a cluster is formed by");
    state->cluster_id = formed->id;
    state->cluster_name = formed->name;
  }
  SLUICE_ASSIGN_OR_RETURN(const auto level, store.Get(kControllerMachine, kFeatureLevelKey));
  if (level.has_value() && (!absl::SimpleAtoi(*level, &state->feature_level) || state->feature_level < 1)) {
    return BadKey(kFeatureLevelKey, Cat("is \"", *level, "\""));
  }
  return absl::OkStatus();
}

}  // namespace

void ClusterDelta::Merge(ClusterDelta later) {
  for (auto& [id, topic] : later.deleted) {
    topics.erase(id);
    deleted[id] = std::move(topic);
  }
  topics.insert(later.topics.begin(), later.topics.end());
  nodes.insert(later.nodes.begin(), later.nodes.end());
  cluster = cluster || later.cluster;
}

ClusterDelta ClusterState::Apply(const ControllerChange& change, Offset offset) {
  return std::visit([this, offset](const auto& one) { return ApplyOne(*this, one, offset); }, change);
}

const TopicRecord* ClusterState::FindTopic(std::string_view name) const {
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : &topics.at(it->second);
}

const RegisteredNode* ClusterState::FindNode(NodeId id) const {
  const auto it = nodes.find(id);
  return it == nodes.end() ? nullptr : &it->second;
}

void AddStoreChanges(const ClusterState& state, const ClusterDelta& delta, storage::MetadataChanges* changes) {
  for (const auto& [id, topic] : delta.deleted) {
    changes->Delete(Cat(kTopicPrefix, id));
    changes->Put(Cat(kDroppingPrefix, id), Cat(topic.partitions));
  }
  for (const TopicId& id : delta.topics) changes->Put(Cat(kTopicPrefix, id), EncodeTopicRecord(state.topics.at(id)));
  for (const NodeId id : delta.nodes) changes->Put(Cat(kNodePrefix, id), EncodeRegisteredNode(state.nodes.at(id)));
  if (!delta.cluster) return;
  if (!state.cluster_id.IsNil()) {
    changes->Put(std::string(kClusterKey),
                 EncodeControllerChange(ClusterFormed{.id = state.cluster_id, .name = state.cluster_name}));
  }
  if (state.feature_level > 0) changes->Put(std::string(kFeatureLevelKey), Cat(state.feature_level));
}

void AddForgetDropped(const TopicId& id, storage::MetadataChanges* changes) {
  changes->Delete(Cat(kDroppingPrefix, id));
}

absl::StatusOr<LoadedClusterState> LoadClusterState(storage::MetadataStore& store) {
  LoadedClusterState loaded;
  SLUICE_ASSIGN_OR_RETURN(const int64_t applied, store.Applied(kControllerMachine));
  loaded.applied = Offset(applied);
  SLUICE_RETURN_IF_ERROR(LoadTopics(store, &loaded));
  SLUICE_RETURN_IF_ERROR(LoadCluster(store, &loaded.state));
  return loaded;
}

}  // namespace sluice::broker
