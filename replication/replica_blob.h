// What a replica keeps of replication beside its log, its vote and its term: the core's state, and the log-start
// advances that its log holds and that it has not applied. One blob, which the journal carries as RaftConfig
// (docs/formats.md, "State of a replica").
//
// An advance is written down before the batch that carries it, in the same order in which the journal keeps both. So
// after a crash the blob may name entries that the log does not hold, and never the other way round: an advance that
// the log holds is not forgotten. Log starts only go up, and applying one again changes nothing, so nothing is written
// when one was applied.
//
// Threads: value types. Errors: DataLoss for bytes that are no such blob.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bytes.h"
#include "common/types.h"

namespace sluice::replication {

/// To be applied once everything below `end` is committed and still what it was.
struct PendingAdvance {
  Offset end;         ///< After the entry; where `epoch` is 0, the log start itself.
  LeaderEpoch epoch;  ///< Of the entry; 0: came with a snapshot, and is committed.
  Offset log_start;
  bool operator==(const PendingAdvance&) const = default;
};

struct ReplicaBlob {
  Bytes core;                            ///< raft::ReplicaRaftState; empty: none yet.
  std::vector<PendingAdvance> advances;  ///< In the log's order.

  /// No bytes at all are an empty blob: a replica that was never part of a group, such as one of version 0.1.
  static absl::StatusOr<ReplicaBlob> Decode(const Bytes& bytes);
  std::string Encode() const;
  bool operator==(const ReplicaBlob&) const = default;
};

}  // namespace sluice::replication
