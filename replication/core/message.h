// What replicas of one group say to each other. Values: the transport decides how they travel (broker/rpc encodes
// them).
//
// Every message names its sender, its receiver and the sender's term. All of it comes from a peer, and is judged by
// Raft::Step before it is believed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/bytes.h"
#include "common/record/batch.h"
#include "common/types.h"
#include "replication/core/configuration.h"
#include "replication/core/epoch_history.h"

namespace sluice::raft {

/// Not a number of a replica in doubt. See Raft, "Doubt".
inline constexpr uint64_t kNoDoubt = 0;

/// Asks for a vote. A pre-vote asks whether a vote would be given in the next term; it changes nothing at the receiver.
struct VoteRequest {
  bool pre_vote = false;
  bool transfer = false;  ///< The leader asked for this election; receivers do not wait for it to fall silent.
  LogPlace last;          ///< The end of the candidate's log.
  uint64_t campaign = 0;  ///< Drawn for each; echoed.
};

struct VoteResponse {
  bool pre_vote = false;
  bool granted = false;
  uint64_t doubt = kNoDoubt;  ///< Counts only where every voter agrees.
  /// Of the request. Who forgot the term of a campaign may ask in that term again, with another log: votes for the one
  /// are none for the other.
  uint64_t campaign = 0;
  /// After the last change of members that the voter knows to be committed; 0: none since the group began. A candidate
  /// that has it too learns that it need not ask those before it.
  LogPlace members{};
};

/// Batches that follow `previous`; none to ask whether the logs agree there.
struct AppendRequest {
  LogPlace previous;
  Offset committed;  ///< Of the leader; may lie beyond these batches.
  std::vector<record::Batch> batches;
};

struct AppendResponse {
  bool rejected = false;
  /// Taken: everything before it is durable here and agrees with the leader's log. Rejected: `previous.end` of the
  /// request.
  Offset end;
  /// Rejected only: where the largest epoch here at or below `previous.epoch` ends. Epoch 0: everything here is of
  /// later epochs, but all before hint.end is committed.
  LogPlace hint;
  Offset log_end;    ///< Of the follower, durable or not: for whoever reads messages, nothing is decided by it.
  Offset committed;  ///< As the follower knows it.
  uint64_t doubt = kNoDoubt;
  bool cannot_lead = false;  ///< The follower has renounced leadership (Raft::Renounce).
};

/// The leader lives.
struct Heartbeat {
  Offset committed;
  bool answer = true;     ///< False: only to tell of `committed`.
  uint64_t read_seq = 0;  ///< Echoed; confirms that the leader still led when it asked.
  /// With `doubt` of the receiver: something that was proposed since is committed, and the doubt ends once the receiver
  /// holds the log up to here.
  Offset confirmed_end;
  uint64_t doubt = kNoDoubt;
};

struct HeartbeatResponse {
  uint64_t read_seq = 0;
  Offset log_end;  ///< As in AppendResponse.
  Offset committed;
  uint64_t doubt = kNoDoubt;
  bool cannot_lead = false;  ///< As in AppendResponse.
  /// As in VoteResponse. A leader takes a change of members in its own log for committed once one follower says so:
  /// like all that members say of what is committed, it is believed.
  LogPlace members{};
};

/// The follower's log cannot be continued: it is to begin anew at `base.end`.
struct InstallSnapshot {
  /// Committed; the new log starts here. Epoch 0 where the leader does not know it any more.
  LogPlace base;
  /// Of the batch that follows the base in the leader's log; 0: none does. A follower that has the same epoch there (or
  /// before the base) has that log already and keeps it.
  LeaderEpoch next_epoch;
  ConfigurationAt configuration;  ///< The last one that the leader knows to be committed.
  Offset log_start;               ///< Of the leader; at or above base.end where it lies inside a batch.
  Bytes detail;                   ///< The driver's: which state machine snapshot goes with it, and where it is.
};

/// Installed is said by an AppendResponse; this says that it failed.
struct SnapshotFailed {
  Offset base_end;
};

/// Campaign now, without a pre-vote: the leader hands over.
struct TimeoutNow {};

using MessageBody = std::variant<VoteRequest, VoteResponse, AppendRequest, AppendResponse, Heartbeat, HeartbeatResponse,
                                 InstallSnapshot, SnapshotFailed, TimeoutNow>;

struct Message {
  VoterId from;
  VoterId to;
  LeaderEpoch term;
  MessageBody body;
};

/// One line for people and golden scripts: "1>2 t3 Append after 2@17, 2 batches to 25, committed 17". Voters by node.
std::string Describe(const Message& message);

}  // namespace sluice::raft
