// The messages of calls between nodes (peer_calls.h; docs/formats.md, "Messages between nodes"). Checksums over all of
// them; nothing that arrives is believed.
//
// Pure functions; no part of it knows gRPC. Errors: DATA_LOSS where a checksum is wrong, INVALID_ARGUMENT for the rest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "broker/rpc/peer_message.h"
#include "common/types.h"

namespace sluice::broker::rpc {

/// What a message has beside its payload, at most.
inline constexpr size_t kPeerCallFramingBytesMax = 8192;

/// Who asks whom. Any of it but the versions may be missing: 0 or nil.
struct PeerCallHello {
  uint32_t version_min = kPeerVersionMin;
  uint32_t version_max = kPeerVersionMax;
  Uuid cluster;
  NodeId node;
  NodeId to;
  Uuid disk;
  Uuid session;
  bool operator==(const PeerCallHello&) const = default;
};

/// OK when `theirs` may ask the node that `mine` describes; ALREADY_EXISTS when it is another process of that node,
/// with a copy of its folder; otherwise FAILED_PRECONDITION with what is wrong.
absl::Status CheckPeerCaller(const PeerCallHello& mine, const PeerCallHello& theirs);

struct PeerQuestion {
  PeerCallHello caller;
  uint32_t kind = 0;
  std::string request;
};

std::string EncodePeerQuestion(const PeerCallHello& caller, uint32_t kind, std::string_view request);
absl::StatusOr<PeerQuestion> DecodePeerQuestion(std::string_view message);
std::string EncodePeerAnswer(std::string_view answer);
absl::StatusOr<std::string> DecodePeerAnswer(std::string_view message);

}  // namespace sluice::broker::rpc
