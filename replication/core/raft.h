// Raft: one replica of one group as a pure state machine. No I/O, no clock, no thread: a driver (replication/) feeds it
// messages, ticks and completions, and carries out what TakeReady hands back. Entries are record batches; the Raft
// index is the offset of a batch's last record, the Raft term is its leader epoch.
//
// How to drive it: call what happened (Step, Tick, Propose, OnDurable, ...), then, while HasReady(), TakeReady() and
// carry it out. Many events may go before one TakeReady: proposals then share messages. Several Readys may be under way
// at once; nothing here waits for one before the next.
//
// What it does not hold: the log. It keeps the epoch history (epoch_history.h) and, while it leads, the recent batches
// that some follower still lacks. For older ones it asks the driver (Ready::log_reads).
//
// Durability. Whatever must be on disk before something is said is written first: a Ready with must_persist gets the
// next number, the driver journals it, and calls OnDurable(number) once it and all before it are durable (the journal
// keeps order, so one call may cover several). Messages in a Ready are to be sent at once; those that wait for a write
// are kept here, and come out of the first TakeReady after OnDurable. So:
//  - a vote, given or asked for, leaves only after its term and vote are durable;
//  - a follower acknowledges batches only once they are durable, and so does the leader count itself;
//  - a leader's batches go to followers at once, while its own disk writes them.
// Logs are compared for votes with everything that is appended, durable or not. That is safe because the journal keeps
// order: when the vote is durable, so is everything that was appended before it.
//
// Commit. Offsets below committed() are committed and never truncated. A proposal succeeded when committed() has passed
// its last offset and EpochAt(last offset) is still its epoch; when another epoch stands there it failed; until then
// nobody knows.
//
// Doubt. A replica whose journal ended in damage that may have been acknowledged (RestoredState::doubtful) has perhaps
// forgotten batches, a term or a vote. It is counted for nothing until its leader has committed something that was
// proposed when it knew of the doubt (for the leader's own: of its term), and the replica durably holds that leader's
// log as it was then. A leader commits what a quorum holds of which none is in doubt, itself included; or where too few
// are in no doubt for that, what every voter holds, by each configuration that may be in force. Either way too few are
// left to elect somebody without it by a vote that was forgotten. An idle group writes something for it. Until then its
// vote counts only where every voter agrees (then nothing that still exists anywhere can be missing), by each
// configuration that may be in force, and so does every vote for it; its answers to a read round count not at all. Nor
// does it take over at a leader's word: of the next term it may have been a candidate already, or the leader. A sole
// voter that remembers no other is never in doubt: it has nobody to ask.
//
// Membership. One change at a time, in use from its append, rolled back by truncation. A replica that is asked for its
// vote gives it also as a learner: the asker may know of a promotion that has not reached it; whose votes count is the
// asker's configuration to say.
//
// Threads: one at a time; the partition's shard. Errors: what a peer did wrong is a Status that names it, and changes
// nothing; broken rules of the driver are CHECKs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/executor.h"
#include "common/record/batch.h"
#include "common/types.h"
#include "replication/core/configuration.h"
#include "replication/core/epoch_history.h"
#include "replication/core/message.h"

namespace sluice::raft {

/// Shared by the groups of a node; outlives them.
struct Options {
  /// Without a word from the leader for at least this long (and less than twice, by chance) a follower campaigns; a
  /// leader that has not heard from a quorum for this long steps down. In ticks.
  int election_ticks = 10;
  int heartbeat_ticks = 1;
  /// False: the driver tells nodes of each other's life (OnFollowerAlive, OnLeaderAlive), and only followers that are
  /// not settled get heartbeats from here.
  bool explicit_heartbeats = true;
  int64_t message_bytes_max = 1 << 20;   ///< Batches of one append; one batch may be larger.
  int64_t inflight_bytes_max = 8 << 20;  ///< Sent to one follower and not acknowledged.
  int inflight_messages_max = 64;
  int64_t window_bytes_max = 4 << 20;  ///< Recent batches kept in memory by a leader, for one group.
};

/// What must be durable before a replica keeps its word.
struct HardState {
  LeaderEpoch term;
  VoterId voted_for;
  bool operator==(const HardState&) const = default;
};

struct RestoredState {
  VoterId self;
  HardState hard_state;
  Offset log_start;
  Offset log_end;
  std::vector<EpochStart> epochs;  ///< As the storage's log tells them.
  Bytes raft_state;                ///< The last Ready::raft_state that was written; empty: none yet.
  /// In use where the blob has none: the members that the group is created with, or none for a replica that joins.
  Configuration initial;
  /// Of this log as the disk has it, known to be committed; 0 where nothing is. Not what a state machine has applied of
  /// a batch that the disk may not have, nor what a snapshot brought whose log has not begun: another batch may stand
  /// there yet. Beyond log_end: as doubtful.
  Offset committed;
  /// The journal ended in damage that may have been acknowledged. Remembered in Ready::raft_state until it is resolved,
  /// so the first Ready is to be written before anything else happens.
  bool doubtful = false;
};

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };
std::string_view RoleName(Role role);

/// Asks the driver for batches of the log, from exactly `from` on (the start of a batch), up to `bytes_max` but at
/// least one. The driver answers OnRead(token, ...). They may lie above durable_end.
struct LogRead {
  uint64_t token = 0;
  VoterId to;
  Offset from;
  int64_t bytes_max = 0;
};

/// A read index's answer: reads that see everything below `index` are linearizable. Nullopt: leadership was lost.
struct ReadIndexResult {
  uint64_t context = 0;
  std::optional<Offset> index;
};

/// Follower `to` needs a snapshot. The driver answers SendSnapshot(to, ...), now or later, or OnSnapshotFailed(to).
struct SnapshotWanted {
  VoterId to;
};

/// This replica is to throw its log away. The driver journals this Ready's raft_state, brings the state machine to
/// base.end where there is one, resets the log to base.end, and once all is durable calls OnSnapshotInstalled; or
/// OnInstallFailed. A crash between any two of these leaves a replica that knows what its log holds.
struct SnapshotInstall {
  VoterId from;
  LogPlace base;
  Offset log_start;
  Bytes detail;
};

struct RoleChange {
  Role role = Role::kFollower;
  LeaderEpoch term;
  VoterId leader;  ///< None where it is not known.
};

struct Ready {
  /// Of the last write handed out so far: of this Ready, when must_persist. Ascends by one with each write.
  uint64_t number = 0;
  bool must_persist = false;

  // To be journaled in this order, where present (rarely, nothing is). Answered by OnDurable(number).
  std::optional<HardState> hard_state;
  std::optional<Offset> truncate_to;  ///< The end of a batch.
  std::optional<Bytes> raft_state;
  std::vector<record::Batch> append;  ///< At log_end after the truncation.

  std::vector<Message> messages;  ///< To be sent now, whatever is being written; in this order per receiver.
  /// Everything below is committed. May lie beyond durable_end: then a quorum has it and this disk not yet.
  Offset committed;
  Offset durable_end;
  std::vector<ReadIndexResult> read_results;
  std::vector<LogRead> log_reads;
  std::vector<SnapshotWanted> snapshots_wanted;
  std::optional<SnapshotInstall> install;
  std::optional<RoleChange> role_change;
};

/// Where a proposal stands until a truncation or its commit.
struct Proposed {
  Offset base_offset;
  Offset last_offset;
  LeaderEpoch epoch;
};

/// What a leader knows of a follower; for metrics and for placement.
struct FollowerStatus {
  VoterId id;
  bool voter = false;
  std::string_view state;  ///< "probe", "replicate", "snapshot".
  Offset match;            ///< Durable there.
  Offset next;             ///< To be sent next.
  bool active = false;     ///< Heard of lately.
  bool in_doubt = false;
  bool cannot_lead = false;  ///< It has renounced leadership.
};

struct LeaderState;  // leader_state.h
struct Progress;

class Raft {
 public:
  /// A follower as the disk has it. InvalidArgument or DataLoss, with the reason, for a state that cannot be. `options`
  /// and `random` outlive it.
  static absl::StatusOr<std::unique_ptr<Raft>> Restore(const Options& options, Random& random, RestoredState state);
  ~Raft();
  Raft(const Raft&) = delete;
  Raft& operator=(const Raft&) = delete;

  // ---- Events

  /// Takes a peer's message. What has merely been overtaken is OK and ignored. InvalidArgument for what no correct peer
  /// says; FailedPrecondition for what would undo committed batches; OutOfRange for an absurd term, a million and
  /// more beyond the one here, that not most voters have reached. After an error nothing has changed but, at most, that
  /// a newer term was taken in.
  absl::Status Step(Message message);
  /// One tick of the driver's timer. `now_ms` is only the timestamp of control batches made here.
  void Tick(int64_t now_ms);
  /// The writes of Ready `number`, and of all before it, are durable.
  void OnDurable(uint64_t number);
  /// Answers a LogRead. An error is tried again later.
  void OnRead(uint64_t token, absl::StatusOr<std::vector<record::Batch>> batches);
  /// Messages to it may have been lost. Where the driver tells of life: its node says that it does not follow this
  /// leader.
  void OnUnreachable(const VoterId& voter);
  /// The storage's log start moves up, at most to committed(). Where nothing is left of the log, the driver journals
  /// the Ready that follows before it moves the storage's: a replica that comes back with an empty log and does not
  /// know the epoch before it cannot vote until it is sent a batch.
  void OnLogStart(Offset log_start);
  /// The connection to the leader broke: do not wait the whole time-out to ask for an election.
  void OnLeaderLost();

  // ---- Of a leader; Unavailable elsewhere

  /// Appends `batch` (taken only when OK) at log_end() in the present epoch. Unavailable also while leadership is being
  /// handed over; InvalidArgument for control batches that only the core writes.
  absl::StatusOr<Proposed> Propose(record::PendingBatch&& batch);
  /// Changes the members by one step. FailedPrecondition while another change is uncommitted, nothing of this term is
  /// committed yet, or too few of the new voters are in no doubt to commit it; InvalidArgument where it is not one
  /// step; otherwise as Propose.
  absl::StatusOr<Proposed> ProposeMembership(const Configuration& next);
  /// A result for `context` comes with a later Ready; not before something of this term is committed.
  absl::Status ReadIndex(uint64_t context);
  /// Hands leadership to a voter once it has the whole log. Proposals are refused meanwhile; given up after an election
  /// time-out, or when that voter says that it has renounced; both show only in that this replica still leads.
  /// Unavailable also for a voter that is in doubt, or not heard of for an election time-out; FailedPrecondition for
  /// one that is known to have renounced.
  absl::Status TransferLeadership(const VoterId& to);
  bool transferring() const;
  /// None while nothing is handed over.
  VoterId transfer_to() const;
  /// Gives up leadership at once.
  void StepDown();
  /// Leads no more and asks for no votes from now on, such as when this replica cannot read its log. It votes and
  /// follows on: what it has acknowledged it has, and where its vote is needed another one can lead. Its leader hears
  /// of it, and hands leadership to others only.
  void Renounce();

  // ---- Elections

  /// Asks for an election now (pre-vote first). FailedPrecondition for a leader, for who is no voter, during an
  /// install, and for who has renounced.
  absl::Status Campaign();

  // ---- Snapshots

  /// At the leader: tells `to`, which needs one, to begin at `base_end`: the start of a batch, not below log_start
  /// unless in its batch, and committed, as the driver knows by itself: its state has applied what is before. `detail`
  /// is passed on as it is. OK and nothing sent when it is not needed any more.
  absl::Status SendSnapshot(const VoterId& to, Offset base_end, Bytes detail);
  void OnSnapshotFailed(const VoterId& to);
  /// At the follower: Ready::install has been carried out, durably.
  void OnSnapshotInstalled(Offset base_end);
  void OnInstallFailed();

  // ---- Heartbeats by the driver (explicit_heartbeats false)

  /// Nothing is under way, nobody lacks anything, and ticks would do nothing but count how long nobody was heard of.
  /// The driver may leave them out for as long as it knows that the leader's node, or every follower's, lives.
  bool Quiet() const;
  /// As Tick's `now_ms`, where ticks are left out.
  void NoteTime(int64_t now_ms) { now_ms_ = now_ms; }

  /// Whether `voter` has everything, knows what is committed, and nothing is to be asked of it.
  bool Settled(const VoterId& voter) const;
  /// The voter's node answered, and still follows this leader in `term`.
  void OnFollowerAlive(const VoterId& voter, LeaderEpoch term);
  /// The node of leader() still leads in `term`.
  void OnLeaderAlive(LeaderEpoch term);

  // ---- What to carry out

  /// Cheap. May be true where TakeReady then has nothing to do.
  bool HasReady() const { return dirty_; }
  Ready TakeReady();

  // ---- Facts

  const VoterId& self() const { return self_; }
  Role role() const { return role_; }
  LeaderEpoch term() const { return hard_state_.term; }
  const VoterId& leader() const { return leader_; }
  const HardState& hard_state() const { return hard_state_; }
  Offset log_start() const { return log_.start(); }
  Offset log_end() const { return log_.end(); }
  Offset committed() const { return committed_; }
  /// What this replica's own disk has.
  Offset durable_end() const { return durable_end_; }
  std::optional<LeaderEpoch> EpochAt(Offset offset) const { return log_.EpochAt(offset); }
  const EpochHistory& history() const { return log_; }
  /// In use: the last one in the log.
  const Configuration& configuration() const { return configurations_.back().configuration; }
  const std::vector<ConfigurationAt>& configurations() const { return configurations_; }
  /// A leader that has committed an entry of its term: only then are reads served and its commit is up to date.
  bool Serving() const;
  bool in_doubt() const { return doubt_ != kNoDoubt; }
  bool installing() const { return install_.has_value(); }
  std::vector<FollowerStatus> followers() const;
  /// Roughly, with what it points to; without batches' bytes.
  size_t memory_bytes() const;

 private:
  /// A write that has been handed out: how far the log reached with it.
  struct Write {
    uint64_t number;
    Offset log_end;
  };
  /// A message that waits for a write.
  struct Held {
    uint64_t number;
    Message message;
  };

  Raft(const Options& options, Random& random, RestoredState state, EpochHistory log);
  absl::Status RestoreConfigurations(const RestoredState& state, const ReplicaRaftState& stored);

  // raft.cc
  absl::Status CheckEnvelope(const Message& message) const;
  bool IsAbsurd(LeaderEpoch term) const;
  /// Takes it in once most voters have said so; OutOfRange while the message's is still absurd.
  absl::Status TakeAbsurdTerm(const Message& message);
  absl::Status StepCurrent(Message& message);
  void AnswerStale(const Message& message);
  void SetHardState(HardState next);
  void SetRole(Role role, const VoterId& leader);
  void BecomeFollower(LeaderEpoch term, const VoterId& leader);
  void Send(const VoterId& to, MessageBody body);
  /// Sent once writes up to `number` are durable.
  void SendOnceDurable(uint64_t number, const VoterId& to, MessageBody body);
  /// The number of the write that holds everything changed so far.
  uint64_t LatestWrite() const { return write_pending_ ? last_write_ + 1 : last_write_; }
  void NotePendingWrite();
  void ReleaseHeld();
  /// Takes in one more batch; it must continue the log.
  void AppendToLog(record::Batch batch);
  void TruncateLog(Offset new_end);
  void Commit(Offset end);
  Bytes EncodeState() const;

  // raft_configuration.cc
  absl::Status TakeConfiguration(const record::Batch& batch);
  void RollBackConfigurations(Offset new_end);
  void ForgetOldConfigurations();
  std::vector<ConfigurationAt>::const_iterator LastCommittedConfiguration() const;
  /// Of every configuration that something may still be committed with, or was, as far as this replica knows. Where
  /// every voter must agree, it is these.
  std::vector<VoterId> VotersInForce() const;
  /// As VoteResponse::members.
  LogPlace CommittedMembers() const;
  void SetPeers();

  // raft_election.cc
  void ResetElectionTimer();
  void TickElection();
  bool IsVoterInForce() const;
  bool MayCampaign() const;
  LogPlace ClaimedEnd() const;
  void StartPreVote();
  void StartElection(bool transfer);
  bool IsAskedForVote(const Message& answer) const;
  VoteResponse AnswerTo(const VoteRequest& request, bool granted) const;
  void LearnCommittedMembers(const LogPlace& members);
  void CountVote(const VoterId& voter, bool granted, bool in_doubt);
  void OnElectionWon();
  absl::Status StepVoteRequest(const Message& message, const VoteRequest& request);
  absl::Status StepVoteResponse(const Message& message, const VoteResponse& response);
  bool HearsLeader() const;
  void OnVoteDurable();

  // raft_follower.cc
  absl::Status StepAppend(const Message& message, AppendRequest& request);
  absl::Status CheckTiling(const Message& message, const AppendRequest& request) const;
  absl::Status FollowLeader(const Message& message);
  void RejectAppend(const Message& message, const LogPlace& previous);
  /// How this replica stands, for a leader.
  HeartbeatResponse Standing(uint64_t read_seq = 0) const;
  absl::Status TakeBatches(AppendRequest& request, Offset* end);
  void AcknowledgeAppend(const VoterId& leader, Offset end);
  absl::Status StepHeartbeat(const Message& message, const Heartbeat& heartbeat);
  void CommitVerified(Offset leader_committed);
  void MaybeEndDoubt();

  // raft_snapshot.cc
  absl::Status StepInstallSnapshot(const Message& message, InstallSnapshot& snapshot);

  // raft_leader.cc
  void BecomeLeader();
  void LeaveLeadership();
  void TickLeader();
  void CheckQuorum();
  /// Too few voters are in no doubt to commit anything.
  bool NeedsAll() const;
  Offset AgreedEnd() const;
  void MaybeCommit();
  size_t VotersInDoubt(const Configuration& members) const;
  void MaybeEndDoubts();
  void ProposeForDoubts();
  Proposed AppendAsLeader(record::PendingBatch&& batch);
  absl::Status CheckProposal() const;
  void ContinueTransfer();
  void HandOverAfterRemoval();

  // raft_replication.cc
  absl::Status StepAppendResponse(const Message& message, const AppendResponse& response);
  absl::Status StepHeartbeatResponse(const Message& message, const HeartbeatResponse& response);
  void OnAnswer(Progress& peer, uint64_t doubt, bool cannot_lead);
  absl::Status OnRejected(Progress& peer, const AppendResponse& response);
  void FlushAppends();
  void FlushTo(Progress& peer);
  bool SendAppend(Progress& peer);
  void SendBatches(Progress& peer, LeaderEpoch previous_epoch, std::vector<record::Batch> batches);
  void SendHeartbeat(Progress& peer, bool answer);
  void PokeFollower(const VoterId& id);
  void WantSnapshot(Progress& peer);
  bool Settled(const Progress& peer) const;
  void TrimWindow();

  // raft_read_index.cc
  void StartReadRound();
  void MaybeFinishReadRound();
  void FailReads();

  const Options& options_;
  Random& random_;
  const VoterId self_;
  HardState hard_state_;
  Role role_ = Role::kFollower;
  bool dirty_ = true;
  bool role_changed_ = false;
  bool renounced_ = false;
  VoterId leader_;

  EpochHistory log_;
  Offset committed_;
  Offset durable_end_;
  /// The log agrees with the present leader's up to here. Only that much of the leader's commit is taken over.
  Offset verified_end_;
  std::vector<ConfigurationAt> configurations_;  ///< As ReplicaRaftState; never empty.

  // Doubt
  uint64_t doubt_ = kNoDoubt;
  std::optional<Offset> doubt_ends_at_;  ///< Of the leader of this term.

  std::map<VoterId, LeaderEpoch> absurd_terms_;  ///< Heard in this term without a leader; each voter's highest.

  // Time, in ticks
  int election_elapsed_ = 0;
  int election_timeout_ = 0;
  int64_t now_ms_ = 0;

  // Votes received in the present campaign, by voter.
  struct VoteReceived {
    VoterId voter;
    bool granted;
    bool in_doubt;
  };
  std::vector<VoteReceived> votes_;
  uint64_t campaign_ = 0;        ///< The last one's; random, so that no other life of this replica had it.
  uint64_t own_vote_write_ = 0;  ///< The write that makes the vote for ourselves durable; 0: none awaited.
  bool transfer_campaign_ = false;

  // What the next Ready will write
  bool write_pending_ = false;
  bool hard_state_pending_ = false;
  bool state_pending_ = false;
  std::optional<Offset> truncate_pending_;
  std::vector<record::Batch> append_pending_;

  // Writes handed out
  uint64_t last_write_ = 0;
  uint64_t durable_write_ = 0;
  uint64_t hard_state_write_ = 0;  ///< The write that holds the hard state.
  Offset handed_out_end_;          ///< Log end as of last_write_.
  std::vector<Write> writes_;      ///< Not durable yet.
  std::vector<Held> held_;

  // What the next Ready will say
  std::vector<Message> messages_;
  std::vector<ReadIndexResult> read_results_;
  std::vector<LogRead> log_reads_;
  uint64_t next_log_read_ = 0;
  std::vector<SnapshotWanted> snapshots_wanted_;
  std::optional<SnapshotInstall> install_;
  ConfigurationAt install_configuration_;
  BaseEpoch install_base_;
  bool install_pending_ = false;  ///< install_ is yet to be handed out.

  std::unique_ptr<LeaderState> lead_;  ///< While leader.
};

}  // namespace sluice::raft
