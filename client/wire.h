// Protobuf messages to and from Bytes. Internal to the client; included from .cc files only.
#pragma once

#include <google/protobuf/message_lite.h>

#include <climits>

#include "absl/status/statusor.h"
#include "client/error.h"
#include "common/bytes.h"
#include "common/text.h"

namespace sluice::v1 {
class ErrorDetail;
}

namespace sluice::client {

inline Bytes Serialize(const google::protobuf::MessageLite& message) {
  return Bytes::Adopt(message.SerializeAsString());
}

template <class Message>
absl::StatusOr<Message> ParseAs(const Bytes& bytes) {
  Message message;
  if (bytes.size() > INT_MAX || !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InternalError(
        Cat("the broker's answer is not a ", message.GetTypeName(), " (", bytes.size(), " bytes)"));
  }
  return message;
}

/// The status of an item's error, with topic and partition in its message where the broker left them out.
absl::Status ItemError(const v1::ErrorDetail& error);  // error.cc

}  // namespace sluice::client
