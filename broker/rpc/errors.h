// What an Error of the broker becomes on the wire: the message `ErrorDetail`, and a gRPC status that carries it in the
// trailing metadata. Pure functions.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "broker/api.h"
#include "sluice/v1/common.pb.h"

namespace sluice::broker::rpc {

/// Name of the trailing metadata that holds a serialized ErrorDetail.
inline constexpr char kErrorMetadata[] = "sluice-error-bin";

void ToProto(const Error& error, v1::ErrorDetail* detail);

/// As the gRPC guide has it: the code for machines that know nothing of Sluice, the detail for those that do.
grpc::StatusCode ToCode(Reason reason);

inline Error MakeError(Reason reason, std::string message, bool retriable = false) {
  Error error;
  error.reason = reason;
  error.message = std::move(message);
  error.retriable = retriable;
  return error;
}

}  // namespace sluice::broker::rpc
