// What a failed call tells a program: an absl::Status whose code follows the table of docs/client.md, and, where a
// broker answered, an ErrorDetail carried inside the status (as a payload), so that it survives every StatusOr on its
// way up.
//
// Pure functions and value types; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sluice::client {

/// The reasons of sluice.v1.ErrorDetail, with the same numbers; one that a newer broker added reads as kUnknown.
enum class Reason : int32_t {
  kUnknown = 0,
  kUnknownTopic = 1,
  kTopicExists = 2,
  kInvalidArgument = 3,
  kCorruptBatch = 4,
  kOffsetOutOfRange = 5,
  kExpectedOffsetMismatch = 6,
  kNotLeader = 7,
  kNotAvailable = 8,
  kMessageTooLarge = 9,
  kQuota = 10,
  kDiskFull = 11,
  kStaleLeaderEpoch = 12,
  kOutcomeUnknown = 13,
  kSequenceBroken = 14,
  kCorruptLog = 15,
};

struct ErrorDetail {
  Reason reason = Reason::kUnknown;
  std::string message;
  /// Whether the same request may succeed later.
  bool retriable = false;
  /// host:port of the partition's leader; empty when not known.
  std::string leader;
  std::string topic;
  int32_t partition = 0;
  int64_t log_end_offset = 0;    // with kExpectedOffsetMismatch
  int64_t log_start_offset = 0;  // with kOffsetOutOfRange
  int64_t high_watermark = 0;    // with kOffsetOutOfRange
};

/// "EXPECTED_OFFSET_MISMATCH"; the names of the protocol.
std::string_view ReasonName(Reason reason);

/// A status with the code that belongs to the reason, and the detail inside.
absl::Status MakeError(const ErrorDetail& detail);
/// The same, from the bytes of a serialized sluice.v1.ErrorDetail; `fallback` when they are not one.
absl::Status MakeErrorFromWire(std::string_view serialized, const absl::Status& fallback);
/// The detail inside a status, where there is one.
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);

bool HasReason(const absl::Status& status, Reason reason);

/// Whether a write may or may not have happened: the broker said so, or the connection or the time ran out after the
/// request was sent. Such a write is never retried by the client itself.
bool IsOutcomeUnknown(const absl::Status& status);
/// Status code kUnknown, reason kOutcomeUnknown.
absl::Status OutcomeUnknown(std::string_view what, std::string_view topic, int32_t partition);

/// gRPC's refusal of a message that is larger than the broker takes: nobody has looked at the message.
struct OversizeRefusal {
  int64_t bytes = 0;      ///< Of the message.
  int64_t bytes_max = 0;  ///< That the broker takes.
};
std::optional<OversizeRefusal> GetOversizeRefusal(const absl::Status& status);
/// Reason kMessageTooLarge, which is certain, with what to do.
absl::Status TooLargeToSend(const OversizeRefusal& refusal, std::string_view topic, int32_t partition);

}  // namespace sluice::client
