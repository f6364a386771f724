// Control batches: what replication itself writes into the log (attribute bit 5). One offset space with the data, never
// shown to consumers. A control batch is not compressed and has one record: key = int16 version, int16 type; value =
// int16 version, then what the type says (docs/formats.md). Kafka's own types are below 256; these are ours.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "common/record/batch.h"
#include "common/types.h"

namespace sluice::record {

enum class ControlType : int16_t { kLeaderChange = 256, kLogStartAdvance = 257, kMembership = 258 };

/// A leader's first entry in its epoch.
struct LeaderChange {
  NodeId leader;
  bool operator==(const LeaderChange&) const = default;
};

/// Everything before `log_start` is gone; may lie inside a batch.
struct LogStartAdvance {
  Offset log_start;
  bool operator==(const LogStartAdvance&) const = default;
};

/// A Raft configuration; its encoding belongs to replication.
struct Membership {
  std::string configuration;
  bool operator==(const Membership&) const = default;
};

using ControlRecord = std::variant<LeaderChange, LogStartAdvance, Membership>;

PendingBatch MakeControlBatch(const ControlRecord& record, int64_t timestamp_ms);

/// DATA_LOSS when it is not a control batch, or one of a version or type that this program does not know.
absl::StatusOr<ControlRecord> DecodeControlBatch(const BatchView& batch);

}  // namespace sluice::record
