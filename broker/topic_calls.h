// The payloads of calls between nodes about topics and partitions (sluice.internal.v1), as plain structs. The protobuf
// messages behind them are seen only in the .cc.
//
// Threads: pure functions. Errors: InvalidArgument for bytes that are none of these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "broker/api.h"
#include "broker/topic_change.h"
#include "common/types.h"

namespace sluice::broker {

/// PeerCall::kind of these calls. Those below are the cluster's own (registration, heartbeats).
inline constexpr uint32_t kTopicCallsBegin = 16;
inline constexpr uint32_t kTopicChangeCall = 16;
inline constexpr uint32_t kPartitionStatusCall = 17;
inline constexpr uint32_t kElectLeaderCall = 18;
inline constexpr uint32_t kNodeStatusCall = 19;  ///< The request is empty.

std::string EncodeTopicChange(const TopicChange& change);
absl::StatusOr<TopicChange> DecodeTopicChange(std::string_view bytes);
std::string EncodeTopicChanged(const Result<TopicChanged>& changed);
absl::StatusOr<Result<TopicChanged>> DecodeTopicChanged(std::string_view bytes);

/// What a node knows of its own replica of a partition.
struct ReplicaReport {
  ReplicaId replica;
  bool leads = false;
  PartitionStatus status;  ///< Without names and addresses; `replicas` only where it leads.
};
std::string EncodePartitionStatusRequest(const std::vector<ReplicaId>& replicas);
absl::StatusOr<std::vector<ReplicaId>> DecodePartitionStatusRequest(std::string_view bytes);
std::string EncodePartitionStatusAnswer(const std::vector<ReplicaReport>& reports);
absl::StatusOr<std::vector<ReplicaReport>> DecodePartitionStatusAnswer(std::string_view bytes);

/// What only a node itself knows of itself.
struct NodeStatus {
  int64_t started_ms = 0;
  int64_t disk_free_bytes = 0;
  int64_t disk_used_bytes = 0;  ///< By its replicas, whoever leads them.
  bool draining = false;
  bool operator==(const NodeStatus&) const = default;
};
std::string EncodeNodeStatus(const NodeStatus& status);
absl::StatusOr<NodeStatus> DecodeNodeStatus(std::string_view bytes);

struct ElectLeaderCall {
  ReplicaId replica;
  NodeId to;
};
std::string EncodeElectLeaderCall(const ElectLeaderCall& call);
absl::StatusOr<ElectLeaderCall> DecodeElectLeaderCall(std::string_view bytes);
std::string EncodeElectLeaderAnswer(const Result<Done>& answer);
absl::StatusOr<Result<Done>> DecodeElectLeaderAnswer(std::string_view bytes);

}  // namespace sluice::broker
