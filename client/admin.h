// Admin: topics, offsets and the cluster, as blocking calls.
//
// Threads: any, except the client's own executor (the callbacks of producers and consumers), where a blocking call
// would wait for itself. Errors: error.h; NOT_FOUND for an unknown topic, UNAVAILABLE when no broker could be reached,
// DEADLINE_EXCEEDED when one did not answer within the client's timeout (or why it was asked again, where it was). A
// change that ended so may have been made.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/types.h"

namespace sluice::client {

struct TopicPartition {
  std::string topic;
  PartitionId partition;
  auto operator<=>(const TopicPartition&) const = default;
};

struct TopicSpec {
  std::string name;
  int32_t partitions = 0;  // 0: the broker's default
  int32_t replicas = 0;    // 0: the broker's default
  std::map<std::string, std::string> config;
  bool internal = false;  // for Sluice's own programs: the name has to begin with "__"
};

struct TopicInfo {
  std::string name;
  TopicId id;
  int32_t partitions = 0;
  int32_t replicas = 0;
  std::map<std::string, std::string> config;  // only what was set
  int64_t created_ms = 0;
};

struct PartitionInfo {
  PartitionId partition;
  NodeId leader_node;  // 0: none
  std::string leader;  // host:port, empty: none
  LeaderEpoch leader_epoch;
  std::vector<NodeId> replicas;
  Offset log_start;
  Offset high_watermark;
  int64_t size_bytes = 0;
  std::string error = {};  // why it is not served: damage, mostly, until a restart; else empty
};

struct TopicDescription {
  TopicInfo topic;
  std::vector<PartitionInfo> partitions;  // in order
};

/// What to ask of a partition's offsets.
struct OffsetQuery {
  enum class Kind {
    kLatest,      // the high watermark
    kEarliest,    // the log start
    kTimestamp,   // the first record at or after `timestamp_ms`
    kLatestData,  // one past the last data batch: where the newest record can be found
  };
  std::string topic;
  PartitionId partition;
  Kind kind = Kind::kLatest;
  int64_t timestamp_ms = 0;
};

struct OffsetAnswer {
  std::optional<Offset> offset;  // none: by timestamp, when no record is that late
  int64_t timestamp_ms = -1;     // of that record; -1 when not asked by time
  LeaderEpoch leader_epoch;
  /// One past everything in the log, control batches too: what a compare-and-append has to expect.
  Offset log_end;
};

/// Where a partition's log is to begin.
struct RecordsToDelete {
  TopicPartition partition;
  std::optional<Offset> before;  // none: all that is committed
};

struct NodeInfo {
  NodeId id;
  std::string address;  // host:port for clients
  std::string rack;
  std::string version;
  int64_t started_ms = 0;
  int64_t disk_free_bytes = 0;
  int64_t disk_used_bytes = 0;
  bool alive = false;     // neither this nor fenced: nobody knows, as the controller has no leader
  bool fenced = false;    // registered, but not heard of: gets no new replicas
  bool draining = false;  // stopping: gives its leaderships away
  int32_t feature_min = 0;
  int32_t feature_max = 0;
  std::string peer_address;       // host:port for other nodes; empty where it takes none
  bool controller_voter = false;  // the others follow the controller's group without a vote
};

struct ClusterInfo {
  std::string cluster_id;
  std::string cluster_name;
  NodeId controller;  // 0: none
  std::vector<NodeInfo> nodes;
  int32_t topics = 0;
  int32_t partitions = 0;
  int32_t under_replicated_partitions = 0;  // fewer replicas in sync than there should be
  int32_t leaderless_partitions = 0;        // nobody known takes writes now
  int32_t offline_partitions = 0;           // cannot be served before a node comes back or is repaired
  int32_t feature_level = 0;                // that the cluster works at
};

/// One replica, as its partition's leader sees it.
struct ReplicaStatus {
  NodeId node;
  bool learner = false;  // follows without a vote
  bool in_sync = false;  // false while there is no leader to tell
  int64_t lag = -1;      // offsets from its end to the leader's; -1: not known
};

struct PartitionStatus {
  std::string topic;
  PartitionId partition;
  NodeId leader_node;  // 0: none known
  std::string leader;  // host:port
  LeaderEpoch leader_epoch;
  NodeId preferred_leader;
  std::vector<ReplicaStatus> replicas;  // by their place in the assignment
  Offset log_start;
  Offset high_watermark;
  int64_t size_bytes = 0;  // at the leader
  std::string error = {};  // the same
};

/// All that is set must hold.
struct PartitionFilter {
  std::string topic = {};  // empty: all topics, internal ones too
  NodeId node = {};        // 0: all; otherwise those with a replica there
  bool under_replicated = false;
  bool leaderless = false;
};

struct ElectedLeader {
  NodeId leader_node;
  std::string leader;  // host:port
  LeaderEpoch leader_epoch;
};

class Admin {
 public:
  virtual ~Admin() = default;

  virtual absl::StatusOr<TopicInfo> CreateTopic(const TopicSpec& spec) = 0;
  /// By name. `internal` also lists those that begin with "__".
  virtual absl::StatusOr<std::vector<TopicInfo>> ListTopics(bool internal = false) = 0;
  virtual absl::StatusOr<TopicDescription> DescribeTopic(const std::string& name) = 0;
  virtual absl::StatusOr<TopicInfo> AlterTopic(const std::string& name, const std::map<std::string, std::string>& set,
                                               const std::vector<std::string>& unset) = 0;
  /// `partitions` is the new total.
  virtual absl::StatusOr<TopicInfo> AddPartitions(const std::string& name, int32_t partitions) = 0;
  virtual absl::Status DeleteTopic(const std::string& name) = 0;

  /// One answer a query, in order, each from its partition's leader, which is followed where it changes meanwhile. The
  /// first failing query fails the call.
  virtual absl::StatusOr<std::vector<OffsetAnswer>> ListOffsets(absl::Span<const OffsetQuery> queries) = 0;
  absl::StatusOr<OffsetAnswer> ListOffset(const OffsetQuery& query) {
    absl::StatusOr<std::vector<OffsetAnswer>> answers = ListOffsets({&query, 1});
    if (!answers.ok()) return answers.status();
    return answers->front();
  }
  /// Makes records below `before` unreadable; the new log starts, in order. Asked of leaders as ListOffsets. When it
  /// fails, some of the partitions may have lost their records all the same.
  virtual absl::StatusOr<std::vector<Offset>> DeleteRecords(absl::Span<const RecordsToDelete> partitions) = 0;
  absl::StatusOr<Offset> DeleteRecords(const TopicPartition& partition, std::optional<Offset> before) {
    const RecordsToDelete one{partition, before};
    absl::StatusOr<std::vector<Offset>> starts = DeleteRecords({&one, 1});
    if (!starts.ok()) return starts.status();
    return starts->front();
  }

  virtual absl::StatusOr<ClusterInfo> DescribeCluster() = 0;
  /// By topic and partition; NOT_FOUND where the filter names a topic that there is not.
  virtual absl::StatusOr<std::vector<PartitionStatus>> ListPartitions(const PartitionFilter& filter = {}) = 0;
  /// Hands a partition's leadership to a node (0: the preferred leader), and answers who leads then. INVALID_ARGUMENT
  /// for a node without a replica, UNAVAILABLE where it did not come to lead.
  virtual absl::StatusOr<ElectedLeader> ElectLeader(const TopicPartition& partition, NodeId node = {}) = 0;
};

}  // namespace sluice::client
