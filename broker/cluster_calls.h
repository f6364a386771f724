// The payloads of calls between nodes about the cluster (sluice.internal.v1), as plain structs. The protobuf messages
// behind them are seen only in the .cc.
//
// Threads: pure functions. Errors: InvalidArgument for bytes that are none of these.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "broker/cluster_snapshot.h"
#include "broker/controller_record.h"
#include "common/types.h"

namespace sluice::broker {

/// PeerCall::kind.
inline constexpr uint32_t kRegisterCall = 1;
inline constexpr uint32_t kHeartbeatCall = 2;
inline constexpr uint32_t kSnapshotPieceCall = 3;

/// "I join", "I am back", or just "who are you".
struct RegisterRequest {
  /// Changes nothing in group 0. Of `node` only its number, disk and peer address are looked at, if there are any: it
  /// is there by now.
  bool ask_only = false;
  Uuid cluster_id;           ///< Nil: it belongs to none yet.
  std::string cluster_name;  ///< As configured; empty: any.
  /// Its incarnation: only of the node that forms the cluster; otherwise nil, and the leader draws it.
  NodeRecord node;
  Offset known_epoch{-1};  ///< Of the last registration that the node knows of itself.
  /// The node's last epoch that this process knows of: what another process has registered later it does not replace.
  /// 0: it knows of none.
  Offset replaces = {};
};

/// Where a node is found by other nodes, as far as somebody knows.
struct PeerWhere {
  std::string address;
  Offset epoch{-1};    ///< Of its last registration that is known.
  bool since = false;  ///< It has said so since; otherwise that is where it registered.
  bool operator==(const PeerWhere&) const = default;
};

struct Registration {
  Uuid incarnation;  ///< Of the node's replica of group 0.
  Offset epoch;
  std::map<NodeId, PeerWhere> nodes;  ///< As in the answer that it came with.
  bool operator==(const Registration&) const = default;
};

/// Another process than the asking one, registered under the same number.
struct OtherProcess {
  Offset epoch;  ///< Later than the one that was to be replaced.
  std::string peer_address;
  bool operator==(const OtherProcess&) const = default;
};

struct RegisterAnswer {
  Uuid cluster_id;
  std::string cluster_name;
  NodeId leader;               ///< 0: not known.
  std::string leader_address;  ///< For nodes; empty: not known.
  std::optional<Registration> registered;
  std::string refused;  ///< Why; empty: it was not.
  /// Where the answerer is, and all the others that it knows.
  std::map<NodeId, PeerWhere> nodes;
  std::optional<OtherProcess> other = std::nullopt;  ///< Then nothing was registered.
};

struct Heartbeat {
  NodeId node;
  Offset epoch;
  Offset applied;  ///< One past the last offset of group 0 that the node has applied and saved.
  int64_t disk_free_bytes = 0;
  bool draining = false;
  bool cannot_write = false;  ///< Its disk is full: it is not to lead group 0.
  bool operator==(const Heartbeat&) const = default;
};

struct HeartbeatAnswer {
  Offset applied;            ///< By the leader.
  std::vector<NodeId> full;  ///< Whose disks are full, by their last heartbeats.
  bool operator==(const HeartbeatAnswer&) const = default;
};

/// Of a snapshot that was offered. The answer is the piece's bytes, at least one.
struct SnapshotPieceRequest {
  SnapshotName name;
  uint64_t position = 0;
  uint32_t bytes_max = 0;
};

std::string EncodeRegisterRequest(const RegisterRequest& request);
absl::StatusOr<RegisterRequest> DecodeRegisterRequest(std::string_view bytes);
std::string EncodeRegisterAnswer(const RegisterAnswer& answer);
absl::StatusOr<RegisterAnswer> DecodeRegisterAnswer(std::string_view bytes);
std::string EncodeHeartbeat(const Heartbeat& heartbeat);
absl::StatusOr<Heartbeat> DecodeHeartbeat(std::string_view bytes);
std::string EncodeHeartbeatAnswer(const HeartbeatAnswer& answer);
absl::StatusOr<HeartbeatAnswer> DecodeHeartbeatAnswer(std::string_view bytes);
std::string EncodeSnapshotPieceRequest(const SnapshotPieceRequest& request);
absl::StatusOr<SnapshotPieceRequest> DecodeSnapshotPieceRequest(std::string_view bytes);

}  // namespace sluice::broker
