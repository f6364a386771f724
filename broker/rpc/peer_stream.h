// What both ends of the peers' streams and calls share.
#pragma once

#include <grpc/grpc.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sluice::broker::rpc {

inline constexpr char kPeerStreamMethod[] = "/sluice.internal.v1.Peer/Exchange";
inline constexpr char kPeerCallMethod[] = "/sluice.internal.v1.Peer/Call";
/// Of the metadata of a call, where a status's message stands: at most 4 KiB, three characters for a byte.
inline constexpr int kPeerMetadataBytesMax = 32 << 10;
/// A first message may not be larger.
inline constexpr size_t kPeerHelloBytesMax = 4096;

/// The slices of a message, and views of them.
class Slices {
 public:
  explicit Slices(const grpc::ByteBuffer& message) {
    if (!message.Dump(&slices_).ok()) return;
    views_.reserve(slices_.size());
    for (const grpc::Slice& slice : slices_) {
      views_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  const std::vector<std::string_view>& views() const { return views_; }

 private:
  std::vector<grpc::Slice> slices_;
  std::vector<std::string_view> views_;
};

inline absl::Status FromGrpc(const grpc::Status& status) {
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}
inline grpc::Status ToGrpc(const absl::Status& status) {
  constexpr size_t kMessageBytesMax = 4096;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message().substr(0, kMessageBytesMax))};
}

inline gpr_timespec After(absl::Duration delay) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(absl::ToInt64Nanoseconds(delay), GPR_TIMESPAN));
}
inline int PeerMs(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

}  // namespace sluice::broker::rpc
