// RaftLog: one replica of one Raft group behind ReplicatedLog: the core (replication/core), storage's log as its disk,
// the peers' transport as its wire.
//
// How it runs. Whatever happens (a proposal, a message, a tick, a finished write) is told to the core and schedules one
// turn; the turn takes all the core's Readys and carries them out: messages leave at once, writes go to the journal in
// the core's order, what is committed is answered. Many events share a turn, and nothing waits for a sync but what
// needs it.
//
// Always holds:
//  - high_watermark() is committed, and in this replica's storage; a proposal is answered with success only below it;
//  - a proposal fails only where nothing of it was appended, or another entry is committed in its place; one that lost
//    its leader stays pending until either is known, or Options::unknown_after has passed: then it is Unknown;
//  - the log start moves only by what is committed, or, where the log feeds a state machine (state_machine.h), over
//    what that has saved; after a crash it goes on where it was (replica_blob.h);
//  - writes reach storage in the order in which the core handed them out, and the core hears that they are durable in
//    that order.
// A replica that meets damage in its own log (DataLoss) gives up leadership and asks for no votes until it is opened
// again; it votes and follows on. damage() says why. Where the other voters are no majority, and what is damaged is
// wanted by a client, not by the group, it goes on leading; read_damage() says so.
//
// Threads: Deliver from any; everything else, also the destruction, on the log's home executor, as ReplicatedLog says.
// What is given in Seams outlives it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/executor.h"
#include "common/log.h"
#include "replication/byte_budget.h"
#include "replication/core/raft.h"
#include "replication/group_status.h"
#include "replication/replica_blob.h"
#include "replication/replicated_log.h"
#include "replication/state_machine.h"
#include "replication/transport.h"
#include "storage/log.h"
#include "storage/retention.h"

namespace sluice::replication {

/// Messages that wait for their groups' turns, of all groups of a node. Threads: any.
struct InboxBound {
  int64_t bytes_max = int64_t{64} << 20;
  std::atomic<int64_t> bytes{0};
};

struct RaftLogOptions {
  raft::Options raft;
  /// How long a proposal that lost its leader waits for certainty.
  absl::Duration unknown_after = absl::Seconds(10);
  /// A share of the recovery budget that no acknowledgement gave back is taken for lost after this long.
  absl::Duration recovery_lease_max = absl::Seconds(2);
  /// Writes that storage does not take now (a segment is being repaired) wait; beyond this followers take no more.
  int64_t stalled_bytes_max = int64_t{8} << 20;
};

/// A replica knows another leader now, or none, or the same in a later epoch; of itself it is told only once it serves.
/// On the group's shard, inside a turn: it must not call the log.
using LeaderObserver = std::function<void(const ReplicaId& group, std::optional<NodeId> leader, LeaderEpoch epoch)>;

/// What the groups of a shard share.
struct RaftLogSeams {
  PeerTransport* transport = nullptr;
  Clock* clock = nullptr;
  Random* random = nullptr;  ///< The shard's own.
  ByteBudget* recovery = nullptr;
  InboxBound* inbox = nullptr;
  const RaftLogOptions* options = nullptr;
  const LeaderObserver* on_leader_change = nullptr;  ///< Null or empty: nobody asks.
  /// A log that slept has something to do. On its shard, inside a turn.
  const std::function<void(const ReplicaId& group)>* on_wake = nullptr;
  const Logger* log = nullptr;
  std::shared_ptr<const void> keep;  ///< Owns what of this lives no longer than the groups.
};

struct RaftLogStats {
  raft::Role role = raft::Role::kFollower;
  LeaderEpoch term;
  std::optional<NodeId> leader;
  int voters = 0;
  int voters_behind = 0;    ///< At the leader: silent, or not at the high watermark.
  int64_t lag_offsets = 0;  ///< At the leader: of the voter that is farthest behind, from log_end.
  bool in_doubt = false;
  bool damaged = false;
  uint64_t elections_won = 0;
  uint64_t messages_refused = 0;  ///< Malformed, or against the protocol.
  uint64_t messages_dropped = 0;  ///< For want of room in the inbox.
  uint64_t appends_refused = 0;   ///< A leader's batches that disk or memory had no room for.
  uint64_t snapshots_sent = 0;
  uint64_t snapshots_installed = 0;
  uint64_t commits = 0;  ///< Proposals answered with success.
  uint64_t unknown_outcomes = 0;
  absl::Duration commit_total;
  absl::Duration commit_max;
};

class RaftLog final : public ReplicatedLog, public std::enable_shared_from_this<RaftLog> {
 public:
  struct Start {
    NodeId node;
    /// Of a replica that has no Raft state yet: its group's members, which must name it by its storage's incarnation;
    /// or nobody, for one that joins a group. Written down before it takes part, and not looked at again afterwards.
    raft::Configuration initial;
    /// The journal's end was cut, and not vouched for (storage::JournalTail::vouched).
    bool doubtful = false;
    /// What stands before the log start is in a StateMachine, which is attached soon.
    bool feeds_state = false;
    /// Another RaftLog stood on this storage log before, in this process, and its writes may still be under way.
    bool reopened = false;
  };

  /// A follower as the disk has it; a sole voter campaigns at once. Answers on the log's home, where this is called.
  /// Errors: DataLoss for a Raft state that cannot be; otherwise what the storage says.
  static void Open(std::shared_ptr<storage::Log> log, const RaftLogSeams& seams, Start start,
                   Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done);
  ~RaftLog() override;

  /// Answers what is pending with Unavailable (reads) or Unknown (proposals), wakes waiters; takes part in nothing any
  /// more. The storage log is not stopped.
  void Stop();
  /// Forgets all that is under way, unanswered, as when the process is killed: what waits here may own this log. For
  /// simulators.
  void Abandon();

  // ---- ReplicatedLog

  void Propose(record::PendingBatch batch, std::optional<Offset> expected_base_offset,
               Callback<absl::StatusOr<Committed>> done) override;
  void Read(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) override;
  /// As Read, at any replica: what this one knows to be committed, which may be less than others do. For state
  /// machines.
  void ReadCommitted(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done);
  WaitId WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake) override;
  void CancelWait(WaitId id) override;
  void AdvanceLogStart(Offset offset, Callback<absl::StatusOr<Offset>> done) override;
  void FindTimestamp(int64_t timestamp_ms, Callback<absl::StatusOr<std::optional<TimestampOffset>>> done) override;
  void ReadBarrier(Callback<absl::Status> done) override;

  LogBounds bounds() const override;
  LeaderEpoch leader_epoch() const override { return raft_->term(); }
  /// Leads, has committed an entry of its own term, and is not handing over.
  bool IsLeader() const override;
  /// While leadership moves, the one it moves to.
  std::optional<NodeId> leader() const override;
  Offset last_data_offset_end() const override;
  int64_t size_bytes() const override { return log_->size_bytes(); }

  /// Deletes what `policy` says is too old or too much; answers the log start.
  void ApplyRetention(const storage::RetentionPolicy& policy, Callback<absl::StatusOr<Offset>> done);

  /// Who keeps the state that this log feeds (Start::feeds_state); borrowed until it is taken away with nullptr. What
  /// it was installing then is never heard of again.
  void AttachStateMachine(StateMachine* machine);
  /// Moves this replica's log start up over whole segments that end at or below `saved`, which the state machine has
  /// durably, while at least `bytes_kept` stay: followers that are a little late need no snapshot.
  void Compact(Offset saved, int64_t bytes_kept);

  // ---- The group

  /// Answers once IsLeader(): at once where it does already. Otherwise with the error that ends it: failure(), or
  /// Unavailable when it was stopped.
  void WhenLeading(Callback<absl::Status> done);
  /// Whether nobody is known to lead, or leadership is being handed over, or whoever has it has yet to commit something
  /// of its own: a state that lasts for moments where a majority is there.
  bool AwaitsLeader() const;
  /// Runs `wake` once it awaits no leader any more, or ends.
  void WhenLeaderSettled(absl::AnyInvocable<void()> wake);
  // Changes of members, one at a time; each answers once it is committed, and then it is in use for good. Errors: as
  // Raft::ProposeMembership, and as Propose.

  /// By one step, to exactly these.
  void ChangeMembers(const raft::Configuration& next, Callback<absl::StatusOr<Committed>> done);
  /// AlreadyExists for a member. How far it has come: group_status.
  void AddLearner(const VoterId& id, Callback<absl::StatusOr<Committed>> done);
  /// Makes a learner a voter. FailedPrecondition while it has not caught up, AlreadyExists for a voter, NotFound for
  /// who is no member.
  void Promote(const VoterId& id, Callback<absl::StatusOr<Committed>> done);
  /// Also this replica, which then hands over and leads no more. NotFound for who is no member.
  void RemoveMember(const VoterId& id, Callback<absl::StatusOr<Committed>> done);

  /// As Raft::TransferLeadership; whether it worked shows in leader(). Proposals that are under way are answered as
  /// ever, new ones with Unavailable.
  absl::Status TransferLeadership(const VoterId& to);
  /// As Raft::Campaign.
  absl::Status Campaign();

  // ---- What the node tells it

  /// Takes a peer's message into the inbox. Any thread.
  void Deliver(raft::Message message);
  /// `times`: as many ticks as have passed.
  void Tick(int times = 1);
  /// Whether it may be left without ticks (Raft::Quiet).
  bool Quiet() const;
  /// From now on it has no ticks; its next turn, whatever brings it, tells Seams::on_wake.
  void Sleep() { asleep_ = true; }
  void Wake();
  void OnPeerState(NodeId peer, PeerState state);
  /// With Options::explicit_heartbeats false: the follower's, or the leader's, node lives and is of one mind with this
  /// one.
  void OnFollowerAlive(const VoterId& follower, LeaderEpoch term);
  void OnLeaderAlive(LeaderEpoch term);
  /// The follower's node does not follow as it should: say again what it must know.
  void OnFollowerLost(const VoterId& follower);

  // ---- Facts

  const raft::Raft& raft() const { return *raft_; }
  storage::Log& storage_log() { return *log_; }
  const ReplicaId& group() const { return group_; }
  /// Why this replica does not lead; OK while nothing is wrong.
  const absl::Status& damage() const { return damage_; }
  /// What it could not read of its log, whatever became of that; OK while it could read all.
  const absl::Status& read_damage() const { return read_damage_; }
  /// Why nothing works any more; OK while it does.
  const absl::Status& failure() const { return failure_; }
  RaftLogStats stats() const;
  GroupStatus group_status() const;

 private:
  using Answer = absl::AnyInvocable<void()>;

  struct SaveState {
    Bytes blob;
  };
  struct Truncate {
    Offset new_end;
  };
  struct Append {
    std::vector<record::Batch> batches;
  };
  struct Reset {
    Offset base_end;
  };
  struct Op {
    uint64_t write = 0;  ///< The Ready's number.
    std::variant<raft::HardState, Truncate, SaveState, Append, Reset> what;
  };
  /// A Ready's writes that are not all durable.
  struct Write {
    uint64_t number;
    int left;
  };
  struct Proposal {
    Offset base;
    LeaderEpoch epoch;
    absl::Duration began;
    std::optional<absl::Duration> deadline;  ///< Once leadership was lost.
    Callback<absl::StatusOr<Committed>> done;
  };
  struct RecoveryShare {
    VoterId to;
    Offset end;
    absl::Duration since;
    ByteBudget::Lease lease;
  };

  RaftLog(std::shared_ptr<storage::Log> log, const RaftLogSeams& seams, ReplicaBlob blob);
  static void Restore(std::shared_ptr<storage::Log> log, const RaftLogSeams& seams, const Start& start,
                      Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done);

  // raft_log.cc: turns
  void ScheduleTurn();
  void RunTurn();
  void StepInbox();
  void StepMessage(raft::Message message);
  void CarryOut(raft::Ready ready);
  void OnRoleChange(const raft::RoleChange& change);
  void SendAll(std::vector<raft::Message> messages);
  /// Whether all that storage has is the core's, too: not while a truncation is on its way there.
  bool StorageFollowsCore() const;
  /// What follows from how far the log is committed; answers are run by the caller of the turn.
  void Settle();
  void RunAnswers();
  void Halt(const absl::Status& why);
  void EndEverything(const absl::Status& proposals, const absl::Status& reads);
  void SetDamaged(const absl::Status& why, bool gives_way);
  /// A failed read of the own log.
  void OnReadFailed(const absl::Status& status);
  void OnLeaderReadFailed(const absl::Status& status);
  absl::Duration Now() const { return seams_.clock->Monotonic(); }
  int64_t NowMs() const;
  bool ended() const { return stopped_ || !failure_.ok(); }
  absl::Status NotServed() const;

  // raft_log_group.cc
  absl::Status CheckChangesMembers() const;
  absl::Status Moving() const;
  /// Without regard to a transfer under way.
  std::optional<NodeId> KnownLeader() const;
  void TellLeader();

  template <class T>
  void AnswerLater(Callback<T> done, T result);
  template <class T>
  Callback<absl::StatusOr<T>> Track(Callback<absl::StatusOr<T>> done);

  // raft_log_write.cc
  void QueueWrites(raft::Ready& ready);
  void NoteAdvances(const std::vector<record::Batch>& batches, bool* found);
  void PumpWrites();
  void Submit(Op op);
  void OnOpDone(uint64_t write, absl::Status status);
  /// Of all writes at the front that have nothing left.
  void TellDurable();
  /// What the old log asked for is contained in the leader's log start, which may lie inside its first batch.
  void TakeOverAdvances(const raft::SnapshotInstall& install);
  void OnResetDone(Offset base_end);
  Bytes EncodeBlob() const;

  // raft_log_propose.cc
  absl::StatusOr<raft::Proposed> TryPropose(record::PendingBatch batch, storage::Log::Urgency urgency);
  void AddProposal(const raft::Proposed& place, Callback<absl::StatusOr<Committed>> done);
  void ResolveProposals();
  void FailOvertaken();
  void ExpireProposals();

  // raft_log_start.cc
  void ApplyAdvances();
  void MoveLogStart(Offset log_start);
  void WhenLogStartDurable(Offset offset, Callback<absl::StatusOr<Offset>> done);
  void ServeSnapshot(const VoterId& to);
  void SendSnapshot(const VoterId& to, Offset base_end, Bytes detail);
  void OfferState(const VoterId& to);
  void InstallState();
  void OnStateInstalled(Offset base_end, const absl::Status& status);

  // raft_log_read.cc
  void ServeLogRead(const raft::LogRead& read);
  void FinishLogRead(const raft::LogRead& read, ByteBudget::Lease lease,
                     absl::StatusOr<std::vector<record::Batch>> batches);
  void GiveBackShares();
  void TakeReadResults(const std::vector<raft::ReadIndexResult>& results);
  void FindDataEnd();
  /// Those whose offset is committed, or all.
  void WakeWaiters(bool all);

  const std::shared_ptr<storage::Log> log_;
  const RaftLogSeams seams_;
  Executor& home_;
  const ReplicaId group_;
  std::unique_ptr<raft::Raft> raft_;

  bool turn_scheduled_ = false;
  bool asleep_ = false;
  bool stopped_ = false;
  absl::Status failure_;
  absl::Status damage_;
  absl::Status read_damage_;

  std::mutex inbox_mutex_;
  std::vector<raft::Message> inbox_;  ///< Guarded by inbox_mutex_.
  bool inbox_scheduled_ = false;      ///< Guarded by inbox_mutex_.
  bool inbox_closed_ = false;         ///< Guarded by inbox_mutex_.
  std::atomic<uint64_t> inbox_dropped_{0};

  // Writes
  std::deque<Op> ops_;                    ///< Not given to storage yet.
  std::deque<Write> writes_;              ///< In order.
  int64_t ops_bytes_ = 0;                 ///< Of batches in ops_.
  int64_t proposed_bytes_ = 0;            ///< Taken by the core and not in ops_ yet.
  Bytes core_state_;                      ///< As the core last handed it out.
  std::vector<PendingAdvance> advances_;  ///< In the log, not applied; by end.

  // The state that this log feeds
  bool feeds_state_ = false;
  StateMachine* machine_ = nullptr;                    ///< Null also before it is attached.
  std::optional<raft::SnapshotInstall> state_wanted_;  ///< The core waits for it.
  bool state_coming_ = false;                          ///< machine_ brings it.

  // What is committed
  Offset high_watermark_;
  Offset log_start_;  ///< As clients see it.
  Offset log_start_durable_;
  std::vector<std::pair<Offset, Callback<absl::StatusOr<Offset>>>> log_start_waiters_;
  std::multimap<Offset, Proposal> proposals_;  ///< By last offset.
  bool proposals_orphaned_ = false;            ///< Some may have lost their leader.
  std::vector<Answer> answers_;                ///< Of this turn.

  std::vector<Callback<absl::Status>> leading_waiters_;
  std::vector<Answer> settled_waiters_;

  // As the observer was last told.
  std::optional<NodeId> told_leader_;
  LeaderEpoch told_epoch_;

  // While leading
  bool data_end_known_ = false;
  std::optional<Offset>
      data_end_;  ///< Of the last data batch, committed or not at first; from then on of committed ones.
  std::vector<RecoveryShare> shares_;

  // Readers
  WaitId next_wait_ = 1;
  std::map<std::pair<Offset, WaitId>, absl::AnyInvocable<void()>> waiters_;
  std::map<WaitId, Offset> wait_offsets_;
  uint64_t next_pending_ = 1;
  std::map<uint64_t, absl::AnyInvocable<void(absl::Status)>> pending_;  ///< Reads under way; what ends them.
  uint64_t next_barrier_ = 1;
  std::map<uint64_t, Callback<absl::Status>> barriers_;        ///< Waiting for the core.
  std::multimap<Offset, Callback<absl::Status>> barriers_at_;  ///< Waiting for the high watermark.

  RaftLogStats counts_;
};

}  // namespace sluice::replication
