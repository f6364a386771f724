#include "broker/error.h"

#include "absl/strings/ascii.h"
#include "common/text.h"

namespace sluice::broker {

std::string_view ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kUnknown:
      return "UNKNOWN";
    case Reason::kUnknownTopic:
      return "UNKNOWN_TOPIC";
    case Reason::kTopicExists:
      return "TOPIC_EXISTS";
    case Reason::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case Reason::kCorruptBatch:
      return "CORRUPT_BATCH";
    case Reason::kOffsetOutOfRange:
      return "OFFSET_OUT_OF_RANGE";
    case Reason::kExpectedOffsetMismatch:
      return "EXPECTED_OFFSET_MISMATCH";
    case Reason::kNotLeader:
      return "NOT_LEADER";
    case Reason::kNotAvailable:
      return "NOT_AVAILABLE";
    case Reason::kMessageTooLarge:
      return "MESSAGE_TOO_LARGE";
    case Reason::kQuota:
      return "QUOTA";
    case Reason::kDiskFull:
      return "DISK_FULL";
    case Reason::kStaleLeaderEpoch:
      return "STALE_LEADER_EPOCH";
    case Reason::kOutcomeUnknown:
      return "OUTCOME_UNKNOWN";
    case Reason::kSequenceBroken:
      return "SEQUENCE_BROKEN";
    case Reason::kCorruptLog:
      return "CORRUPT_LOG";
  }
  return "UNKNOWN";
}

bool IsRetriable(Reason reason) {
  switch (reason) {
    case Reason::kNotLeader:
    case Reason::kNotAvailable:
    case Reason::kQuota:
    case Reason::kDiskFull:
    case Reason::kStaleLeaderEpoch:
      return true;
    default:
      return false;
  }
}

Error MakeError(Reason reason, std::string message, std::string_view topic, PartitionId partition) {
  Error error;
  error.reason = reason;
  error.message = std::move(message);
  error.retriable = IsRetriable(reason);
  error.topic = topic;
  error.partition = partition;
  return error;
}

Reason ExhaustedReason(const absl::Status& status) {
  // What POSIX, RocksDB and the log store call it. Messages name paths, too.
  std::string message(Message(status));
  absl::AsciiStrToLower(&message);
  for (const char* full : {"no space", "free space", "disk quota exceeded"}) {
    if (message.find(full) != std::string::npos) return Reason::kDiskFull;
  }
  return Reason::kQuota;
}

Error ProposeError(const absl::Status& status, const replication::ReplicatedLog& log, std::string_view topic,
                   PartitionId partition) {
  std::string message(Message(status));
  switch (status.code()) {
    case absl::StatusCode::kFailedPrecondition: {
      Error error = MakeError(Reason::kExpectedOffsetMismatch, std::move(message), topic, partition);
      // As far as it can be read, as in answers to ListOffsets.
      error.log_end = log.bounds().high_watermark;
      return error;
    }
    case absl::StatusCode::kUnavailable:
      return MakeError(log.IsLeader() ? Reason::kNotAvailable : Reason::kNotLeader, std::move(message), topic,
                       partition);
    case absl::StatusCode::kResourceExhausted:
      return MakeError(ExhaustedReason(status), std::move(message), topic, partition);
    default:
      return MakeError(Reason::kOutcomeUnknown, Cat("the append's outcome is not known: ", status.ToString()), topic,
                       partition);
  }
}

Error ReadError(const absl::Status& status, const replication::LogBounds& bounds, std::string_view topic,
                PartitionId partition) {
  std::string message(Message(status));
  switch (status.code()) {
    case absl::StatusCode::kOutOfRange: {
      Error error = MakeError(Reason::kOffsetOutOfRange, std::move(message), topic, partition);
      error.log_start = bounds.log_start;
      error.high_watermark = bounds.high_watermark;
      return error;
    }
    case absl::StatusCode::kUnavailable:
      return MakeError(Reason::kNotAvailable, std::move(message), topic, partition);
    case absl::StatusCode::kDataLoss:
      return MakeError(Reason::kCorruptLog, std::move(message), topic, partition);
    case absl::StatusCode::kResourceExhausted:
      return MakeError(ExhaustedReason(status), std::move(message), topic, partition);
    case absl::StatusCode::kInvalidArgument:
      return MakeError(Reason::kInvalidArgument, std::move(message), topic, partition);
    default:
      return MakeError(Reason::kUnknown, status.ToString(), topic, partition);
  }
}

}  // namespace sluice::broker
