#include "broker/rpc/errors.h"

#include <algorithm>

#include "broker/rpc/wire.h"

namespace sluice::broker::rpc {

void ToProto(const Error& error, v1::ErrorDetail* detail) {
  detail->set_reason(static_cast<v1::ErrorDetail::Reason>(error.reason));
  // Messages may quote what a client or a disk gave us; a protobuf string must be UTF-8.
  if (IsUtf8(error.message)) {
    detail->set_message(error.message);
  } else {
    std::string ascii = error.message;
    std::replace_if(
        ascii.begin(), ascii.end(), [](char c) { return (c & 0x80) != 0; }, '?');
    detail->set_message(ascii);
  }
  detail->set_retriable(error.retriable);
  detail->set_leader(error.leader);
  if (IsUtf8(error.topic)) detail->set_topic(error.topic);
  detail->set_partition(error.partition.value());
  if (error.reason == Reason::kExpectedOffsetMismatch) detail->set_log_end_offset(error.log_end.value());
  if (error.reason == Reason::kOffsetOutOfRange) {
    detail->set_log_start_offset(error.log_start.value());
    detail->set_high_watermark(error.high_watermark.value());
  }
}

grpc::StatusCode ToCode(Reason reason) {
  switch (reason) {
    case Reason::kUnknown:
    case Reason::kOutcomeUnknown:
      return grpc::StatusCode::UNKNOWN;
    case Reason::kUnknownTopic:
      return grpc::StatusCode::NOT_FOUND;
    case Reason::kTopicExists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case Reason::kInvalidArgument:
    case Reason::kCorruptBatch:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case Reason::kOffsetOutOfRange:
      return grpc::StatusCode::OUT_OF_RANGE;
    case Reason::kExpectedOffsetMismatch:
    case Reason::kStaleLeaderEpoch:
    case Reason::kSequenceBroken:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case Reason::kNotLeader:
    case Reason::kNotAvailable:
      return grpc::StatusCode::UNAVAILABLE;
    case Reason::kMessageTooLarge:
    case Reason::kQuota:
    case Reason::kDiskFull:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case Reason::kCorruptLog:
      return grpc::StatusCode::DATA_LOSS;
  }
  return grpc::StatusCode::UNKNOWN;
}

}  // namespace sluice::broker::rpc
