#include "client/error.h"

#include <cinttypes>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "client/wire.h"
#include "common/text.h"
#include "sluice/v1/common.pb.h"

namespace sluice::client {
namespace {

constexpr char kDetailUrl[] = "type.googleapis.com/sluice.v1.ErrorDetail";

absl::StatusCode CodeOf(Reason reason) {
  switch (reason) {
    case Reason::kUnknownTopic:
      return absl::StatusCode::kNotFound;
    case Reason::kTopicExists:
      return absl::StatusCode::kAlreadyExists;
    case Reason::kInvalidArgument:
    case Reason::kCorruptBatch:
    case Reason::kMessageTooLarge:
      return absl::StatusCode::kInvalidArgument;
    case Reason::kOffsetOutOfRange:
      return absl::StatusCode::kOutOfRange;
    case Reason::kExpectedOffsetMismatch:
    case Reason::kSequenceBroken:
      return absl::StatusCode::kAborted;
    case Reason::kNotLeader:
    case Reason::kNotAvailable:
      return absl::StatusCode::kUnavailable;
    case Reason::kQuota:
    case Reason::kDiskFull:
      return absl::StatusCode::kResourceExhausted;
    case Reason::kStaleLeaderEpoch:
      return absl::StatusCode::kFailedPrecondition;
    case Reason::kCorruptLog:
      return absl::StatusCode::kDataLoss;
    case Reason::kOutcomeUnknown:
    case Reason::kUnknown:
      return absl::StatusCode::kUnknown;
  }
  return absl::StatusCode::kUnknown;
}

Reason ReasonFromNumber(int number) {
  if (number < 0 || number > static_cast<int>(Reason::kCorruptLog)) return Reason::kUnknown;
  return static_cast<Reason>(number);
}

ErrorDetail FromProto(const v1::ErrorDetail& proto) {
  ErrorDetail detail;
  detail.reason = ReasonFromNumber(proto.reason());
  detail.message = proto.message();
  detail.retriable = proto.retriable();
  detail.leader = proto.leader();
  detail.topic = proto.topic();
  detail.partition = proto.partition();
  detail.log_end_offset = proto.log_end_offset();
  detail.log_start_offset = proto.log_start_offset();
  detail.high_watermark = proto.high_watermark();
  return detail;
}

v1::ErrorDetail ToProto(const ErrorDetail& detail) {
  v1::ErrorDetail proto;
  proto.set_reason(static_cast<v1::ErrorDetail::Reason>(detail.reason));
  proto.set_message(detail.message);
  proto.set_retriable(detail.retriable);
  proto.set_leader(detail.leader);
  proto.set_topic(detail.topic);
  proto.set_partition(detail.partition);
  proto.set_log_end_offset(detail.log_end_offset);
  proto.set_log_start_offset(detail.log_start_offset);
  proto.set_high_watermark(detail.high_watermark);
  return proto;
}

}  // namespace

std::string_view ReasonName(Reason reason) {
  return v1::ErrorDetail::Reason_Name(static_cast<v1::ErrorDetail::Reason>(reason));
}

absl::Status MakeError(const ErrorDetail& detail) {
  absl::Status status(CodeOf(detail.reason),
                      detail.message.empty() ? std::string(ReasonName(detail.reason)) : detail.message);
  status.SetPayload(kDetailUrl, absl::Cord(ToProto(detail).SerializeAsString()));
  return status;
}

absl::Status MakeErrorFromWire(std::string_view serialized, const absl::Status& fallback) {
  v1::ErrorDetail proto;
  if (!proto.ParseFromArray(serialized.data(), static_cast<int>(serialized.size()))) return fallback;
  ErrorDetail detail = FromProto(proto);
  if (detail.message.empty()) detail.message = std::string(fallback.message());
  // A reason that this program does not know: the call's own code says more than "unknown".
  if (detail.reason == Reason::kUnknown && !fallback.ok()) {
    absl::Status status(fallback.code(), detail.message);
    status.SetPayload(kDetailUrl, absl::Cord(ToProto(detail).SerializeAsString()));
    return status;
  }
  return MakeError(detail);
}

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  absl::optional<absl::Cord> payload = status.GetPayload(kDetailUrl);
  if (!payload.has_value()) return std::nullopt;
  v1::ErrorDetail proto;
  if (!proto.ParseFromString(std::string(*payload))) return std::nullopt;
  return FromProto(proto);
}

bool HasReason(const absl::Status& status, Reason reason) {
  std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->reason == reason;
}

bool IsOutcomeUnknown(const absl::Status& status) {
  return HasReason(status, Reason::kOutcomeUnknown);
}

absl::Status OutcomeUnknown(std::string_view what, std::string_view topic, int32_t partition) {
  ErrorDetail detail;
  detail.reason = Reason::kOutcomeUnknown;
  detail.message = Cat("it is unknown whether the write to ", topic, "/", partition, " happened: ", what);
  detail.topic = std::string(topic);
  detail.partition = partition;
  return MakeError(detail);
}

std::optional<OversizeRefusal> GetOversizeRefusal(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status) || GetErrorDetail(status).has_value()) return std::nullopt;
  // "Received message larger than max (20000091 vs. 16842752)"; gRPC gives the sizes nowhere else.
  const std::string text = absl::AsciiStrToLower(status.message());
  const size_t at = text.find("message larger than max (");
  if (at == std::string::npos) return std::nullopt;
  OversizeRefusal refusal;
  if (std::sscanf(text.c_str() + at, "message larger than max (%" SCNd64 " vs. %" SCNd64 ")", &refusal.bytes,
                  &refusal.bytes_max) != 2) {
    return std::nullopt;
  }
  return refusal;
}

absl::Status TooLargeToSend(const OversizeRefusal& refusal, std::string_view topic, int32_t partition) {
  ErrorDetail detail;
  detail.reason = Reason::kMessageTooLarge;
  detail.message =
      Cat("not written: the message of ", refusal.bytes, " bytes is larger than the broker takes, ", refusal.bytes_max,
          ": send smaller records, or raise limits.message_bytes of the brokers, and "
          "max.message.bytes of the topic");
  detail.topic = std::string(topic);
  detail.partition = partition;
  return MakeError(detail);
}

absl::Status ItemError(const v1::ErrorDetail& error) {
  return MakeErrorFromWire(error.SerializeAsString(), absl::UnknownError("the broker gave no reason"));
}

}  // namespace sluice::client
