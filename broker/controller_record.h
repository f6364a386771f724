// What group 0's log and the metadata store say about topics, as plain structs. The protobuf messages behind them
// (sluice.state.v1) are seen only in the .cc.
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

struct TopicRecord {
  TopicId id;
  std::string name;
  int32_t partitions = 0;
  int32_t replicas = 0;
  TopicConfig config;
  int64_t created_ms = 0;
  std::vector<NodeId> nodes;  ///< One a partition: the node that holds its only replica.
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
  int32_t partitions = 0;     ///< The new total.
  std::vector<NodeId> nodes;  ///< Of the added ones.
  bool operator==(const PartitionsAdded&) const = default;
};
using ControllerChange = std::variant<TopicCreated, TopicDeleted, TopicAltered, PartitionsAdded>;

std::string EncodeControllerChange(const ControllerChange& change);
/// DataLoss when it is damaged, or a kind of change that this program does not know.
absl::StatusOr<ControllerChange> DecodeControllerChange(std::string_view bytes);

std::string EncodeTopicRecord(const TopicRecord& topic);
absl::StatusOr<TopicRecord> DecodeTopicRecord(std::string_view bytes);

}  // namespace sluice::broker
