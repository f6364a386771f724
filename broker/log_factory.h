// How the broker comes by its logs: replicas of Raft groups on the node's shared journal and segments
// (raft_log_factory.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/api.h"
#include "common/executor.h"
#include "common/types.h"
#include "replication/raft_log.h"

namespace sluice::broker {

/// When a log starts a new segment.
struct LogSettings {
  int64_t segment_bytes = int64_t{64} << 20;
  absl::Duration segment_age = absl::Hours(7 * 24);
};

/// What a log may forget; absent bounds keep everything.
struct RetentionPolicy {
  std::optional<absl::Duration> age;
  std::optional<int64_t> bytes;
};

/// A replica to be opened.
struct ReplicaSpec {
  ReplicaId replica;
  LogSettings settings = {};
  /// Under which it is made where it is not on disk. Nil: under one of its own, and as its group's only member; so are
  /// the logs of version 0.1, and group 0 of a cluster that begins.
  Uuid incarnation = {};
  /// Looked at only where the replica has no Raft state yet: its group's first members, itself among them; nobody for
  /// one that joins a group.
  raft::Configuration members = {};
  /// No earlier process of this node can have had this replica, so nothing of it was lost with the journal's end.
  bool never_before = false;
  bool feeds_state = false;  ///< What stands before its log start is in a replication::StateMachine, to be attached.
};

/// One open log. Everything of it is used on the shard it was opened for, its destruction too.
class PartitionLog {
 public:
  virtual ~PartitionLog() = default;
  virtual replication::RaftLog& log() = 0;
  virtual void Configure(const LogSettings& settings) = 0;
  /// Moves the log start up as far as the policy lets it, in whole segments, so that disk space is freed and not every
  /// tick writes an entry; answers the log start.
  virtual void ApplyRetention(const RetentionPolicy& policy, Callback<absl::StatusOr<Offset>> done) = 0;
  /// Answers all that is pending as ReplicatedLog says, then runs `done` on the shard. Once.
  virtual void Stop(absl::AnyInvocable<void()> done) = 0;
};

class LogFactory {
 public:
  virtual ~LogFactory() = default;
  /// The replicas that are on disk, in order. Known from opening the factory; does not block.
  virtual std::vector<ReplicaId> Replicas() const = 0;
  /// Opens a replica's log, made when it is not there, and answers on `shard`: where the replica is its group's only
  /// voter, once it takes proposals; otherwise as soon as it takes part.
  virtual void Open(ReplicaSpec spec, Executor& shard,
                    Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) = 0;
  /// Hands what this node leads over to other voters, a few groups at a time; answers on `executor` once nothing that
  /// others could lead is led here, or `within` has passed.
  virtual void LeaveLeadership(absl::Duration within, Executor& executor, Callback<absl::Status> done) = 0;
  /// Forgets a replica for good, durably, and frees its files; answers on `executor`. Its log, if it was open, was
  /// stopped and destroyed. OK when there is none.
  virtual void Drop(const ReplicaId& replica, Executor& executor, Callback<absl::Status> done) = 0;
};

}  // namespace sluice::broker
