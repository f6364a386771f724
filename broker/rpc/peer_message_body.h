// What stands in the envelope of a peers' message: Raft's messages without their batches, and liveness, as protobuf.
// For peer_message.cc, which puts the envelope and the batches around it.
//
// Threads: pure functions. Errors: InvalidArgument for what is no such message.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "broker/rpc/peer_message.h"
#include "common/types.h"
#include "replication/core/message.h"
#include "sluice/internal/v1/peer.pb.h"

namespace sluice::broker::rpc {

absl::Status MalformedPeerMessage(std::string_view what);
/// `what` is its name for the error.
absl::Status ReadPeerUuid(const std::string& raw, std::string_view what, Uuid* to);

/// The batches of an append are told by their sizes and checksums only.
void WriteGroupMessage(const ReplicaId& group, const raft::Message& message, internal::v1::GroupMessage* to);
/// Between these nodes; an append has no batches yet.
absl::StatusOr<PeerGroupMessage> ReadGroupMessage(const internal::v1::GroupMessage& from, NodeId from_node,
                                                  NodeId to_node);

void WriteLiveness(const replication::LivenessMessage& message, internal::v1::Liveness* to);
absl::StatusOr<replication::LivenessMessage> ReadLiveness(const internal::v1::Liveness& from);

}  // namespace sluice::broker::rpc
