// A topic's settings: Kafka's names where the meaning is Kafka's (docs/configuration.md), parsed and checked once, and
// the rules of topic names.
//
// Pure functions. INVALID_ARGUMENT names the key and what was expected.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/api.h"

namespace sluice::broker {

enum class TimestampType { kCreateTime, kLogAppendTime };

struct TopicSettings {
  std::optional<absl::Duration> retention_age = absl::Hours(7 * 24);  ///< Absent: records never get too old.
  std::optional<int64_t> retention_bytes;                             ///< Absent: the log may grow without bound.
  int64_t segment_bytes = int64_t{64} << 20;
  absl::Duration segment_age = absl::Hours(7 * 24);
  int64_t message_bytes_max = int64_t{1} << 20;  ///< Of one batch, with its header.
  TimestampType timestamp_type = TimestampType::kCreateTime;

  bool operator==(const TopicSettings&) const = default;
};

/// `defaults` with what `config` sets.
absl::StatusOr<TopicSettings> ParseTopicSettings(const TopicConfig& config, const TopicSettings& defaults);

/// [A-Za-z0-9._-]{1,249}, not "." or "..". Names that begin with "__" are the broker's own: refused unless `internal`,
/// demanded when `internal`.
absl::Status CheckTopicName(std::string_view name, bool internal);
bool IsInternalTopic(std::string_view name);
/// Of the internal topics, those that Sluice's other programs make by the public API: the connector's state and runs.
/// Nobody else has business with the rest, which the broker makes itself.
bool IsProgramTopic(std::string_view name);

inline constexpr int32_t kPartitionsMax = 10'000;  ///< Of one topic.

/// `quorum` is what one replica gives: written and synced before the answer. `replicated` needs replicas to be in
/// memory of; with one it would be no promise at all, so it is refused.
absl::Status CheckDurability(std::string_view value);

}  // namespace sluice::broker
