// The messages between nodes, taken apart and put together (docs/formats.md, "Messages between nodes"): a small
// envelope of protobuf, and behind it the batches as they are. A batch is sent from where it lies, and copied once when
// it arrives, from gRPC's slices into memory of its own, from where the journal can write it.
//
// Nothing that arrives is believed: the envelope has a checksum, every batch another over all its bytes, and no memory
// is taken for more than what arrived. Only what the values mean is left to those whom they are for.
//
// Pure functions; no part of it knows gRPC. Errors: DATA_LOSS where a checksum is wrong, INVALID_ARGUMENT for the rest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bytes.h"
#include "common/types.h"
#include "replication/transport.h"

namespace sluice::broker::rpc {

/// What these nodes speak. A change that an older node would misread is a new version.
inline constexpr uint32_t kPeerVersionMin = 1;
inline constexpr uint32_t kPeerVersionMax = 1;

/// An envelope takes tens of times its size in memory while it is read.
inline constexpr size_t kPeerEnvelopeBytesMax = size_t{1} << 20;
/// What a message has beside its envelope and its batches, at most.
inline constexpr size_t kPeerFramingBytesMax = 32;

enum class PeerLane : uint8_t { kGroups = 1, kLiveness = 2 };

struct PeerHello {
  uint32_t version_min = kPeerVersionMin;
  uint32_t version_max = kPeerVersionMax;
  Uuid cluster;
  NodeId node;              ///< Who says it.
  NodeId to;                ///< To whom it is meant.
  Uuid disk;                ///< The sender's data folder.
  Uuid session;             ///< The sender's process.
  uint64_t connection = 0;  ///< Of that process; later ones are larger.
  PeerLane lane = PeerLane::kGroups;
  bool operator==(const PeerHello&) const = default;
};

/// OK when `theirs` may speak to the node that says `mine`; otherwise FAILED_PRECONDITION with what is wrong.
absl::Status CheckPeerHello(const PeerHello& mine, const PeerHello& theirs);

/// A part of a message, encoded as soon as it is to be sent: then its size is known, and parts are joined by putting
/// one behind the other.
struct PeerPart {
  std::string envelope;
  std::vector<Bytes> batches;
  size_t batch_bytes = 0;
  size_t size_bytes() const { return envelope.size() + batch_bytes; }
};

PeerPart EncodePeerPart(const ReplicaId& group, const raft::Message& message);
PeerPart EncodePeerPart(const replication::LivenessMessage& message);
/// A whole message as pieces that follow each other; batches are shared, but for small ones. The envelopes together are
/// at most kPeerEnvelopeBytesMax.
std::vector<Bytes> JoinPeerParts(std::span<const PeerPart> parts);
std::string EncodePeerHello(const PeerHello& hello);

struct PeerGroupMessage {
  ReplicaId group;
  raft::Message message;
};

struct ReceivedPeerMessage {
  std::vector<PeerGroupMessage> messages;
  std::vector<replication::LivenessMessage> liveness;
  /// Messages left out because a batch of theirs is not what was sent, and what was wrong with the first.
  int64_t damaged = 0;
  absl::Status damage;
};

/// A message of a stream that `from` opened to `to`. A failure means that the stream is of no more use.
absl::StatusOr<ReceivedPeerMessage> DecodePeerMessage(std::span<const std::string_view> slices, NodeId from, NodeId to);
/// The first message of a stream, or its answer.
absl::StatusOr<PeerHello> DecodePeerHello(std::span<const std::string_view> slices);

}  // namespace sluice::broker::rpc
