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
  const std::string old_address = known.node.peer_address;
  known.node = node;
  known.node.incarnation = incarnation;
  if (Planted(PlantedBug::kKeepOldAddress)) known.node.peer_address = old_address;
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

absl::Status ReadTopic(const storage::MetadataEntry& entry, ClusterState* state) {
  SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdOfKey(entry.key, kTopicPrefix));
  auto topic = DecodeTopicRecord(entry.value);
  if (!topic.ok()) return BadKey(entry.key, Message(topic.status()));
  if (topic->id != id || !state->by_name.emplace(topic->name, id).second) {
    return BadKey(entry.key, "is another topic, or one whose name is taken");
  }
  state->topics[id] = *std::move(topic);
  return absl::OkStatus();
}

absl::Status ReadDropping(const storage::MetadataEntry& entry, DroppingMarks* dropping) {
  SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdOfKey(entry.key, kDroppingPrefix));
  int32_t partitions = 0;
  if (!absl::SimpleAtoi(entry.value, &partitions) || partitions < 1) {
    return BadKey(entry.key, Cat("is \"", entry.value, "\""));
  }
  (*dropping)[id] = partitions;
  return absl::OkStatus();
}

absl::Status ReadNode(const storage::MetadataEntry& entry, ClusterState* state) {
  auto node = DecodeRegisteredNode(entry.value);
  if (!node.ok()) return BadKey(entry.key, Message(node.status()));
  if (entry.key != Cat(kNodePrefix, node->node.id)) return BadKey(entry.key, "is another node");
  const NodeId id = node->node.id;
  state->nodes[id] = *std::move(node);
  return absl::OkStatus();
}

absl::Status ReadCluster(const storage::MetadataEntry& entry, ClusterState* state) {
  auto change = DecodeControllerChange(entry.value);
  const auto* formed = change.ok() ? std::get_if<ClusterFormed>(&*change) : nullptr;
  if (formed == nullptr) return BadKey(kClusterKey, "is not what a cluster is formed by");
  state->cluster_id = formed->id;
  state->cluster_name = formed->name;
  return absl::OkStatus();
}

absl::Status ReadFeatureLevel(const storage::MetadataEntry& entry, ClusterState* state) {
  if (absl::SimpleAtoi(entry.value, &state->feature_level) && state->feature_level >= 1) return absl::OkStatus();
  return BadKey(kFeatureLevelKey, Cat("is \"", entry.value, "\""));
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

ClusterDelta Difference(const ClusterState& from, const ClusterState& to) {
  ClusterDelta delta;
  for (const auto& [id, topic] : from.topics) {
    if (!to.topics.contains(id)) delta.deleted[id] = topic;
  }
  for (const auto& [id, topic] : to.topics) {
    const auto before = from.topics.find(id);
    if (before == from.topics.end() || !(before->second == topic)) delta.topics.insert(id);
  }
  for (const auto& [id, node] : to.nodes) {
    const RegisteredNode* before = from.FindNode(id);
    if (before == nullptr || !(*before == node)) delta.nodes.insert(id);
  }
  delta.cluster = from.cluster_id != to.cluster_id || from.cluster_name != to.cluster_name ||
                  from.feature_level != to.feature_level;
  return delta;
}

absl::Status ReadStateEntries(const std::vector<storage::MetadataEntry>& entries, bool all_known, ClusterState* state,
                              DroppingMarks* dropping) {
  for (const storage::MetadataEntry& entry : entries) {
    if (entry.key.starts_with(kTopicPrefix)) {
      SLUICE_RETURN_IF_ERROR(ReadTopic(entry, state));
    } else if (entry.key.starts_with(kDroppingPrefix)) {
      SLUICE_RETURN_IF_ERROR(ReadDropping(entry, dropping));
    } else if (entry.key.starts_with(kNodePrefix)) {
      SLUICE_RETURN_IF_ERROR(ReadNode(entry, state));
    } else if (entry.key == kClusterKey) {
      SLUICE_RETURN_IF_ERROR(ReadCluster(entry, state));
    } else if (entry.key == kFeatureLevelKey) {
      SLUICE_RETURN_IF_ERROR(ReadFeatureLevel(entry, state));
    } else if (all_known) {
      return BadKey(entry.key, "is of a kind that this version does not know");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedClusterState> LoadClusterState(storage::MetadataStore& store) {
  LoadedClusterState loaded;
  SLUICE_ASSIGN_OR_RETURN(const int64_t applied, store.Applied(kControllerMachine));
  loaded.applied = Offset(applied);
  SLUICE_ASSIGN_OR_RETURN(const auto entries, store.Scan(kControllerMachine, ""));
  SLUICE_RETURN_IF_ERROR(ReadStateEntries(entries, false, &loaded.state, &loaded.dropping));
  return loaded;
}

}  // namespace sluice::broker
