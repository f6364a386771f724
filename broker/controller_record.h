// What group 0's log and the metadata store say of topics, nodes and the cluster, as plain structs. The protobuf
// messages behind them (sluice.state.v1) are seen only in the .cc.
//
// Always holds for what was decoded: a topic has one assignment a partition, each with at least one replica and no node
// twice. What 0.1 wrote (one node a partition) is read as one replica without an incarnation, and where that is all
// there is to say it is written as 0.1 did.
// Threads: value types and pure functions. Errors: DataLoss for bytes that are none of ours.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "broker/api.h"
#include "common/types.h"

namespace sluice::broker {

/// One replica of a partition. A nil incarnation: a log that its node began alone.
struct ReplicaAssignment {
  NodeId node;
  Uuid incarnation;
  bool operator==(const ReplicaAssignment&) const = default;
};
/// The replicas of one partition; the first is the preferred leader.
using PartitionAssignment = std::vector<ReplicaAssignment>;
inline constexpr size_t kReplicasMax = 15;  ///< Of one partition.

struct TopicRecord {
  TopicId id;
  std::string name;
  int32_t partitions = 0;
  int32_t replicas = 0;
  TopicConfig config = {};
  int64_t created_ms = 0;
  std::vector<PartitionAssignment> assignments = {};  ///< One a partition.
  bool operator==(const TopicRecord&) const = default;
};

struct TopicCreated {
  TopicRecord topic;
  bool operator==(const TopicCreated&) const = default;
};
struct TopicDeleted {
  TopicId id;
  bool operator==(const TopicDeleted&) const = default;
};
struct TopicAltered {
  TopicId id;
  TopicConfig config;  ///< The whole new set.
  bool operator==(const TopicAltered&) const = default;
};
struct PartitionsAdded {
  TopicId id;
  int32_t partitions = 0;                        ///< The new total.
  std::vector<PartitionAssignment> assignments;  ///< Of the added ones.
  bool operator==(const PartitionsAdded&) const = default;
};

struct ClusterFormed {
  Uuid id;
  std::string name;  ///< May be empty.
  bool operator==(const ClusterFormed&) const = default;
};

/// What a node says of itself.
struct NodeRecord {
  NodeId id;
  Uuid disk = {};                 ///< The data folder's disk id.
  Uuid incarnation = {};          ///< Of its replica of group 0.
  std::string grpc_address = {};  ///< host:port for clients.
  std::string peer_address = {};  ///< host:port for the other nodes.
  std::string rack = {};
  std::string version = {};  ///< Of the program, for people.
  int32_t feature_min = 0;   ///< The feature levels that the program can work at.
  int32_t feature_max = 0;
  Uuid process = {};  ///< Drawn at its start; nil: by a program that draws none.
  bool operator==(const NodeRecord&) const = default;
};
/// Its offset is the node's broker epoch (KIP-631).
struct NodeRegistered {
  NodeRecord node;
  bool operator==(const NodeRegistered&) const = default;
};
struct NodeFenced {
  NodeId id;
  Offset epoch;  ///< No effect where it is not the node's any more.
  bool operator==(const NodeFenced&) const = default;
};
struct NodeUnfenced {
  NodeId id;
  Offset epoch;  ///< As in NodeFenced.
  bool operator==(const NodeUnfenced&) const = default;
};
struct FeatureLevelRaised {
  int32_t level = 0;
  bool operator==(const FeatureLevelRaised&) const = default;
};

using ControllerChange = std::variant<TopicCreated, TopicDeleted, TopicAltered, PartitionsAdded, ClusterFormed,
                                      NodeRegistered, NodeFenced, NodeUnfenced, FeatureLevelRaised>;

/// The feature levels that this program can work at. 0: a single node, records as 0.1 wrote them. 1: several nodes.
inline constexpr int32_t kFeatureLevelMin = 0;
inline constexpr int32_t kFeatureLevelMax = 1;
/// The level from which on the change may be proposed. What forms a cluster, adds a node and raises the level itself
/// may always be.
int32_t FeatureLevelOf(const ControllerChange& change);

std::string EncodeControllerChange(const ControllerChange& change);
/// DataLoss when it is damaged, or a kind of change that this program does not know.
absl::StatusOr<ControllerChange> DecodeControllerChange(std::string_view bytes);

std::string EncodeTopicRecord(const TopicRecord& topic);
absl::StatusOr<TopicRecord> DecodeTopicRecord(std::string_view bytes);

/// A node as the cluster knows it.
struct RegisteredNode {
  NodeRecord node;
  Offset epoch;         ///< Of its last registration.
  bool fenced = false;  ///< Silent, or not caught up yet: gets no new replicas.
  bool operator==(const RegisteredNode&) const = default;
};
std::string EncodeRegisteredNode(const RegisteredNode& node);
absl::StatusOr<RegisteredNode> DecodeRegisteredNode(std::string_view bytes);

}  // namespace sluice::broker
