// ClusterState: what group 0's records add up to. Pure: no I/O, no clock, no thread; every node that has applied the
// same records has an equal state.
//
// Always holds: the state is a function of the records applied, in order; a record that does not fit the state (a topic
// that is gone, an epoch that has passed, another disk) changes nothing, so applying one again changes nothing either;
// by_name and topics name the same topics.
// Threads: a value type; everything here is used by one thread at a time, but for what Load says.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "broker/controller_record.h"
#include "common/types.h"
#include "storage/meta/metadata_store.h"

namespace sluice::broker {

/// What one or more applied changes have touched.
struct ClusterDelta {
  std::set<TopicId> topics = {};                ///< Made or changed; in the state.
  std::map<TopicId, TopicRecord> deleted = {};  ///< As they were last; not in the state.
  std::set<NodeId> nodes = {};                  ///< Registered, fenced, unfenced.
  bool cluster = false;                         ///< Identity or feature level.

  bool empty() const { return topics.empty() && deleted.empty() && nodes.empty() && !cluster; }
  /// What this and then `later` have touched.
  void Merge(ClusterDelta later);
  bool operator==(const ClusterDelta&) const = default;
};

struct ClusterState {
  std::map<TopicId, TopicRecord> topics;
  std::map<std::string, TopicId, std::less<>> by_name;
  std::map<NodeId, RegisteredNode> nodes;
  Uuid cluster_id;  ///< Nil until ClusterFormed: a single node's folder of 0.1.
  std::string cluster_name;
  int32_t feature_level = 0;

  /// Applies the change that stands at `offset` of group 0's log.
  ClusterDelta Apply(const ControllerChange& change, Offset offset);

  const TopicRecord* FindTopic(std::string_view name) const;
  const RegisteredNode* FindNode(NodeId id) const;
  bool operator==(const ClusterState&) const = default;
};

/// What differs between two states of one cluster.
ClusterDelta Difference(const ClusterState& from, const ClusterState& to);

/// Deleted topics whose replicas may still be on this node's disk, and how many partitions they had. This node's own
/// matter, kept beside the state: a topic's deletion marks it in the same write.
using DroppingMarks = std::map<TopicId, int32_t>;

/// The metadata store's machine of the controller.
inline constexpr std::string_view kControllerMachine = "controller";

/// Adds to `changes` what brings the store's keys up to `state`, of what `delta` has touched, and the marks of what it
/// has deleted. Deterministic.
void AddStoreChanges(const ClusterState& state, const ClusterDelta& delta, storage::MetadataChanges* changes);
/// Takes a topic's mark away.
void AddForgetDropped(const TopicId& id, storage::MetadataChanges* changes);

struct LoadedClusterState {
  Offset applied;  ///< One past the last offset of group 0's log that is in it.
  ClusterState state;
  DroppingMarks dropping;
};
/// What the keys say, in any order. DataLoss, naming the key, for what cannot be read; also, where `all_known`, for a
/// key that this program does not know.
absl::Status ReadStateEntries(const std::vector<storage::MetadataEntry>& entries, bool all_known, ClusterState* state,
                              DroppingMarks* dropping);
/// Blocks. DataLoss, naming the key, for what cannot be read.
absl::StatusOr<LoadedClusterState> LoadClusterState(storage::MetadataStore& store);

}  // namespace sluice::broker
