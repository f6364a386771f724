#include "replication/raft_log.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "replication/raft_log_internal.h"

namespace sluice::replication {
namespace {

int64_t BatchBytes(const raft::Message& message) {
  const auto* append = std::get_if<raft::AppendRequest>(&message.body);
  if (append == nullptr) return 0;
  int64_t bytes = 0;
  for (const record::Batch& batch : append->batches) bytes += static_cast<int64_t>(batch.size_bytes());
  return bytes;
}

int64_t InboxBytes(const raft::Message& message) {
  return static_cast<int64_t>(sizeof(raft::Message)) + BatchBytes(message);
}

/// A leader's first entry, or a log start that frees space, must not be kept out by a full disk.
bool OnlyControl(const raft::AppendRequest& append) {
  return std::all_of(append.batches.begin(), append.batches.end(),
                     [](const auto& batch) { return batch.is_control(); });
}

}  // namespace

// ---- Begin and end

RaftLog::RaftLog(std::shared_ptr<storage::Log> log, const RaftLogSeams& seams, ReplicaBlob blob)
    : log_(std::move(log)),
      seams_(seams),
      home_(log_->home()),
      group_(log_->replica()),
      core_state_(std::move(blob.core)),
      advances_(std::move(blob.advances)),
      high_watermark_(log_->log_start()),
      log_start_(log_->log_start()),
      log_start_durable_(log_->log_start()) {}

RaftLog::~RaftLog() {
  for (const raft::Message& message : inbox_) seams_.inbox->bytes -= InboxBytes(message);
}

void RaftLog::Open(std::shared_ptr<storage::Log> log, const RaftLogSeams& seams, Start start,
                   Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done) {
  Bytes blob = log->raft_config();
  const bool first = blob.empty() && !start.initial.empty();
  if (first) {
    // The members are on disk before the first vote is: a later start may have nobody to ask who they were.
    const raft::ConfigurationAt members{.offset = Offset(-1), .epoch = LeaderEpoch(0), .configuration = start.initial};
    raft::ReplicaRaftState state;
    state.configurations.push_back(members);
    blob = Bytes::Adopt(ReplicaBlob{.core = Bytes::Adopt(state.Encode()), .advances = {}}.Encode());
  }
  storage::Log& storage = *log;
  const bool reopened = start.reopened;
  auto restore = [log = std::move(log), seams, start = std::move(start),
                  done = std::move(done)](absl::Status ready) mutable {
    if (!ready.ok()) return done(ready);
    Restore(std::move(log), seams, start, std::move(done));
  };
  // The core takes what it is restored from for durable; the journal keeps order, so this comes behind all of it.
  if (first || reopened) return storage.SaveRaftConfig(std::move(blob), std::move(restore));
  storage.home().Post([restore = std::move(restore)]() mutable { restore(absl::OkStatus()); });
}

void RaftLog::Restore(std::shared_ptr<storage::Log> log, const RaftLogSeams& seams, const Start& start,
                      Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done) {
  auto blob = ReplicaBlob::Decode(log->raft_config());
  if (!blob.ok()) return done(blob.status());
  raft::RestoredState state{.self = {start.node, log->incarnation()},
                            .hard_state = {log->hard_state().term, log->hard_state().voted_for},
                            .log_start = log->log_start(),
                            .log_end = log->log_end(),
                            .epochs = {},
                            .raft_state = blob->core,
                            .initial = start.initial,
                            .committed = log->log_start(),
                            .doubtful = start.doubtful};
  for (const storage::EpochStart& epoch : log->epoch_history()) state.epochs.push_back({epoch.epoch, epoch.start});
  std::shared_ptr<RaftLog> self(new RaftLog(std::move(log), seams, *std::move(blob)));
  self->feeds_state_ = start.feeds_state;
  auto raft = raft::Raft::Restore(seams.options->raft, *seams.random, std::move(state));
  if (!raft.ok()) return done(raft.status());
  self->raft_ = *std::move(raft);
  // Those whose entry never reached the disk, or was truncated, are as if they had never been.
  std::erase_if(self->advances_, [&self](const PendingAdvance& advance) {
    if (advance.log_start <= self->log_start_) return true;
    return advance.epoch != LeaderEpoch(0) && self->raft_->EpochAt(advance.end - 1) != advance.epoch;
  });
  const raft::Configuration& members = self->raft_->configuration();
  if (members.voters.size() == 1 && members.IsVoter(self->raft_->self())) (void)self->raft_->Campaign();
  self->ScheduleTurn();
  done(std::move(self));
}

void RaftLog::Stop() {
  if (std::exchange(stopped_, true)) return;
  EndEverything(absl::UnknownError("the partition stopped before the outcome was known"), NotServed());
}

void RaftLog::Abandon() {
  stopped_ = true;
  // What is let go may let go of this log, and may look at it once more.
  const std::shared_ptr<RaftLog> self = shared_from_this();
  const auto proposals = std::exchange(proposals_, {});
  const auto answers = std::exchange(answers_, {});
  const auto log_start_waiters = std::exchange(log_start_waiters_, {});
  const auto leading_waiters = std::exchange(leading_waiters_, {});
  const auto settled_waiters = std::exchange(settled_waiters_, {});
  const auto waiters = std::exchange(waiters_, {});
  const auto pending = std::exchange(pending_, {});
  const auto barriers = std::exchange(barriers_, {});
  const auto barriers_at = std::exchange(barriers_at_, {});
  wait_offsets_.clear();
}

void RaftLog::Halt(const absl::Status& why) {
  if (ended()) return;
  failure_ = why;
  seams_.log->Error("a replica stops", {{"replica", group_.ToString()}, {"why", why}});
  EndEverything(absl::UnknownError(absl::StrCat("the outcome is not known: ", why.message())), NotServed());
}

void RaftLog::EndEverything(const absl::Status& proposals, const absl::Status& reads) {
  {
    std::lock_guard lock(inbox_mutex_);
    inbox_closed_ = true;
    for (const raft::Message& message : std::exchange(inbox_, {})) seams_.inbox->bytes -= InboxBytes(message);
  }
  ops_.clear();
  shares_.clear();
  std::vector<Answer> ends = std::exchange(answers_, {});
  for (auto& [last, proposal] : std::exchange(proposals_, {})) {
    ends.push_back([done = std::move(proposal.done), proposals]() mutable { done(proposals); });
  }
  for (auto& [offset, done] : std::exchange(log_start_waiters_, {})) {
    ends.push_back([done = std::move(done), proposals]() mutable { done(proposals); });
  }
  for (auto& [id, end] : std::exchange(pending_, {})) {
    ends.push_back([end = std::move(end), reads]() mutable { end(reads); });
  }
  for (Callback<absl::Status>& done : std::exchange(leading_waiters_, {})) {
    ends.push_back([done = std::move(done), why = failure_.ok() ? reads : failure_]() mutable { done(why); });
  }
  for (Answer& wake : std::exchange(settled_waiters_, {})) ends.push_back(std::move(wake));
  for (auto& [context, done] : std::exchange(barriers_, {})) {
    ends.push_back([done = std::move(done), reads]() mutable { done(reads); });
  }
  for (auto& [index, done] : std::exchange(barriers_at_, {})) {
    ends.push_back([done = std::move(done), reads]() mutable { done(reads); });
  }
  for (Answer& end : ends) home_.Post(std::move(end));
  home_.Post([self = shared_from_this()] { self->WakeWaiters(true); });
}

absl::Status RaftLog::NotServed() const {
  if (!failure_.ok()) return absl::UnavailableError(failure_.message());
  return absl::UnavailableError("the partition is not served here now");
}

int64_t RaftLog::NowMs() const {
  return absl::ToUnixMillis(seams_.clock->Wall());
}

// ---- Events

void RaftLog::Deliver(raft::Message message) {
  const int64_t bytes = InboxBytes(message);
  std::lock_guard lock(inbox_mutex_);
  if (inbox_closed_) return;
  // One that is larger than the bound must get in some time.
  const int64_t before = seams_.inbox->bytes.fetch_add(bytes);
  if (before > 0 && before + bytes > seams_.inbox->bytes_max) {
    seams_.inbox->bytes -= bytes;
    ++inbox_dropped_;
    return;
  }
  inbox_.push_back(std::move(message));
  if (std::exchange(inbox_scheduled_, true)) return;
  home_.Post([self = shared_from_this()] { self->RunTurn(); });
}

void RaftLog::StepInbox() {
  std::vector<raft::Message> messages;
  {
    std::lock_guard lock(inbox_mutex_);
    messages.swap(inbox_);
    inbox_scheduled_ = false;
  }
  for (raft::Message& message : messages) {
    seams_.inbox->bytes -= InboxBytes(message);
    StepMessage(std::move(message));
  }
}

void RaftLog::StepMessage(raft::Message message) {
  if (const auto* append = std::get_if<raft::AppendRequest>(&message.body);
      append != nullptr && !append->batches.empty()) {
    // What finds no room is lost on the way: the leader sends it again, and this log keeps its place.
    const auto urgency = OnlyControl(*append) ? storage::Log::Urgency::kEssential : storage::Log::Urgency::kNormal;
    const absl::Status room = log_->Admit(BatchBytes(message) + ops_bytes_ + proposed_bytes_, urgency);
    if (absl::IsResourceExhausted(room) || ops_bytes_ > seams_.options->stalled_bytes_max) {
      ++counts_.appends_refused;
      log_->FlushSoon();
      return;
    }
    proposed_bytes_ += BatchBytes(message);
  }
  const NodeId from = message.from.node;
  if (absl::Status stepped = raft_->Step(std::move(message)); !stepped.ok()) {
    ++counts_.messages_refused;
    seams_.log->Debug("a peer's message was refused",
                      {{"replica", group_.ToString()}, {"peer", from.value()}, {"why", stepped}});
  }
}

void RaftLog::Tick(int times) {
  if (ended()) return;
  const int64_t now_ms = NowMs();
  for (int i = 0; i < times; ++i) raft_->Tick(now_ms);
  ExpireProposals();
  RunTurn();
}

void RaftLog::OnPeerState(NodeId peer, PeerState state) {
  if (ended() || state != PeerState::kBroken) return;
  if (raft_->role() == raft::Role::kLeader) {
    const raft::Configuration members = raft_->configuration();
    for (const auto* list : {&members.voters, &members.learners}) {
      for (const VoterId& member : *list) {
        if (member.node != peer || member == raft_->self()) continue;
        raft_->OnUnreachable(member);
        ScheduleTurn();
      }
    }
  } else if (raft_->leader().node == peer) {
    raft_->OnLeaderLost();
    ScheduleTurn();
  }
}

bool RaftLog::Quiet() const {
  return !ended() && !turn_scheduled_ && proposals_.empty() && ops_.empty() && writes_.empty() && shares_.empty() &&
         barriers_.empty() && barriers_at_.empty() && advances_.empty() && answers_.empty() && raft_->Quiet();
}

void RaftLog::Wake() {
  if (!std::exchange(asleep_, false)) return;
  raft_->NoteTime(NowMs());
  if (seams_.on_wake != nullptr && *seams_.on_wake) (*seams_.on_wake)(group_);
}

void RaftLog::OnFollowerAlive(const VoterId& follower, LeaderEpoch term) {
  if (!ended()) raft_->OnFollowerAlive(follower, term);
}

void RaftLog::OnLeaderAlive(LeaderEpoch term) {
  if (!ended()) raft_->OnLeaderAlive(term);
}

void RaftLog::OnFollowerLost(const VoterId& follower) {
  if (ended()) return;
  raft_->OnUnreachable(follower);
  ScheduleTurn();
}

void RaftLog::WhenLeading(Callback<absl::Status> done) {
  if (ended()) return AnswerLater<absl::Status>(std::move(done), failure_.ok() ? NotServed() : failure_);
  leading_waiters_.push_back(std::move(done));
  ScheduleTurn();
}

void RaftLog::WhenLeaderSettled(absl::AnyInvocable<void()> wake) {
  if (ended()) return home_.Post(std::move(wake));
  settled_waiters_.push_back(std::move(wake));
  ScheduleTurn();
}

// ---- Turns

void RaftLog::ScheduleTurn() {
  if (std::exchange(turn_scheduled_, true)) return;
  home_.Post([self = shared_from_this()] {
    self->turn_scheduled_ = false;
    self->RunTurn();
  });
}

void RaftLog::RunTurn() {
  if (ended()) return;
  Wake();
  StepInbox();
  while (raft_->HasReady() && !ended()) CarryOut(raft_->TakeReady());
  proposed_bytes_ = 0;
  PumpWrites();
  if (ended()) return;
  Settle();
  RunAnswers();
  TellLeader();
}

void RaftLog::CarryOut(raft::Ready ready) {
  SendAll(std::move(ready.messages));
  QueueWrites(ready);
  if (ready.role_change.has_value()) OnRoleChange(*ready.role_change);
  TakeReadResults(ready.read_results);
  for (const raft::LogRead& read : ready.log_reads) ServeLogRead(read);
  for (const raft::SnapshotWanted& wanted : ready.snapshots_wanted) ServeSnapshot(wanted.to);
}

void RaftLog::SendAll(std::vector<raft::Message> messages) {
  std::set<VoterId> unreachable;
  for (raft::Message& message : messages) {
    const VoterId to = message.to;
    const bool has_batches = BatchBytes(message) > 0;
    if (!seams_.transport->Send(group_, std::move(message)) && has_batches) unreachable.insert(to);
  }
  for (const VoterId& to : unreachable) raft_->OnUnreachable(to);
}

void RaftLog::OnRoleChange(const raft::RoleChange& change) {
  data_end_known_ = false;
  if (change.role == raft::Role::kLeader) {
    ++counts_.elections_won;
    seams_.log->Debug("leads", {{"replica", group_.ToString()}, {"epoch", change.term.value()}});
    FindDataEnd();
    return;
  }
  shares_.clear();
  proposals_orphaned_ = !proposals_.empty();
  for (auto& [last, proposal] : proposals_) {
    if (!proposal.deadline) proposal.deadline = Now() + seams_.options->unknown_after;
  }
  for (auto& [index, done] : std::exchange(barriers_at_, {})) {
    answers_.push_back([done = std::move(done)]() mutable {
      done(absl::UnavailableError("leadership was lost before the read was confirmed"));
    });
  }
  // Whoever waits for more here would wait at the wrong node.
  answers_.push_back([this] { WakeWaiters(true); });
}

// Two logs that have the same epoch at an offset are the same up to there (Raft paper section 5.3, Log Matching).
bool RaftLog::StorageFollowsCore() const {
  const Offset stored = log_->log_end();
  return stored == log_->log_start() || raft_->EpochAt(stored - 1) == log_->last_epoch();
}

void RaftLog::Settle() {
  const Offset before = high_watermark_;
  // Storage may still have what the core has cut off already and replaced; read as committed, it would be another's.
  if (StorageFollowsCore()) {
    high_watermark_ = std::max(high_watermark_, std::min(raft_->committed(), log_->log_end()));
  }
  ResolveProposals();
  ApplyAdvances();
  while (!barriers_at_.empty() && barriers_at_.begin()->first <= high_watermark_) {
    auto barrier = barriers_at_.extract(barriers_at_.begin());
    answers_.push_back([done = std::move(barrier.mapped())]() mutable { done(absl::OkStatus()); });
  }
  if (!leading_waiters_.empty() && IsLeader()) {
    for (Callback<absl::Status>& done : std::exchange(leading_waiters_, {})) {
      answers_.push_back([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    }
  }
  if (!settled_waiters_.empty() && !AwaitsLeader()) {
    for (Answer& wake : std::exchange(settled_waiters_, {})) answers_.push_back(std::move(wake));
  }
  if (!shares_.empty()) GiveBackShares();
  if (high_watermark_ > before && !waiters_.empty()) {
    answers_.push_back([this] { WakeWaiters(false); });
  }
}

void RaftLog::RunAnswers() {
  // Turns are tasks of their own, so this is inside nobody's call.
  for (Answer& answer : std::exchange(answers_, {})) answer();
}

// ---- Damage

// With a majority elsewhere others can serve what a client wants to read; else what can be read is served here, and
// what cannot says so.
void RaftLog::OnReadFailed(const absl::Status& status) {
  const raft::Configuration& members = raft_->configuration();
  if (absl::IsDataLoss(status)) SetDamaged(status, members.voters.size() > members.Quorum());
}

// Whoever has it, another one is to lead: rather no leader than one that takes what it cannot finish, or give on.
void RaftLog::OnLeaderReadFailed(const absl::Status& status) {
  if (absl::IsDataLoss(status)) SetDamaged(status, raft_->configuration().voters.size() > 1);
}

void RaftLog::SetDamaged(const absl::Status& why, bool gives_way) {
  const bool news = read_damage_.ok() || (gives_way && damage_.ok());
  if (!news || ended()) return;
  read_damage_ = why;
  seams_.log->Error(gives_way ? "a replica cannot read its log; it leads no more"
                              : "a replica cannot read its log; what can be read is served",
                    {{"replica", group_.ToString()}, {"why", why}});
  if (gives_way) {
    damage_ = why;
    raft_->Renounce();
  }
  ScheduleTurn();  // also for who counts, who looks at groups that are awake
}

// ---- Facts

LogBounds RaftLog::bounds() const {
  return {.log_start = log_start_, .high_watermark = high_watermark_, .log_end = raft_->log_end()};
}

Offset RaftLog::last_data_offset_end() const {
  return std::max(data_end_.value_or(log_start_), log_start_);
}

}  // namespace sluice::replication
