// The machine's frame: what comes in, what waits for the disk, what goes out. Elections, replication, following and
// snapshots each have a file of their own.
#include "replication/core/raft.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "common/check.h"
#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "replication/core/leader_state.h"

namespace sluice::raft {

namespace {

// Epochs have 31 bits, and one must be left to go to.
constexpr int32_t kTermMax = INT32_MAX - 1;
// No cluster holds so many elections while one member looks away; a peer that says so is broken, and believing it would
// spend the terms that there are.
constexpr int32_t kTermJumpMax = 1 << 20;

bool IsAnswer(const MessageBody& body) {
  return std::holds_alternative<VoteResponse>(body) || std::holds_alternative<AppendResponse>(body) ||
         std::holds_alternative<HeartbeatResponse>(body) || std::holds_alternative<SnapshotFailed>(body);
}

bool IsFromLeader(const MessageBody& body) {
  return std::holds_alternative<AppendRequest>(body) || std::holds_alternative<Heartbeat>(body) ||
         std::holds_alternative<InstallSnapshot>(body) || std::holds_alternative<TimeoutNow>(body);
}

}  // namespace

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "unknown";
}

Raft::Raft(const Options& options, Random& random, RestoredState state, EpochHistory log)
    : options_(options),
      random_(random),
      self_(state.self),
      hard_state_(state.hard_state),
      log_(std::move(log)),
      committed_(std::clamp(state.committed, log_.start(), log_.end())),
      durable_end_(log_.end()),
      handed_out_end_(log_.end()) {}

Raft::~Raft() = default;

absl::StatusOr<std::unique_ptr<Raft>> Raft::Restore(const Options& options, Random& random, RestoredState state) {
  if (state.self.IsNone()) return absl::InvalidArgumentError("a replica without a name");
  ReplicaRaftState stored;
  if (!state.raft_state.empty()) {
    SLUICE_ASSIGN_OR_RETURN(stored, ReplicaRaftState::Decode(state.raft_state.view()));
  }
  BaseEpoch base;
  for (const ReplicaRaftState::Base& known : {stored.base, stored.installing}) {
    if (known.start == state.log_start) base = known.epoch;
  }
  SLUICE_ASSIGN_OR_RETURN(EpochHistory log, EpochHistory::Make(state.log_start, state.log_end, base, state.epochs));
  const LeaderEpoch term = state.hard_state.term;
  if (term.value() < 0 || term.value() > kTermMax || log.Last().epoch > term) {
    return absl::DataLossError(Cat("the log ends in epoch ", log.Last().epoch, ", the stored term is ", term,
                                   "; the term cannot be the lower"));
  }
  const bool lost = state.doubtful || stored.in_doubt || state.committed > state.log_end;
  // What is left of a log that lost its end may even be an earlier state of it: then only a leader can tell how much of
  // it is committed.
  if (lost) state.committed = Offset(0);
  std::unique_ptr<Raft> raft(new Raft(options, random, state, std::move(log)));
  SLUICE_RETURN_IF_ERROR(raft->RestoreConfigurations(state, stored));
  // A sole voter has nobody to ask, unless there was another one, who may not know yet that it is none any more.
  const bool alone = raft->VotersInForce() == std::vector<VoterId>{state.self};
  if (lost && !alone && !Planted(PlantedBug::kVoteInDoubt)) {
    while (raft->doubt_ == kNoDoubt) raft->doubt_ = random.Next();
    // The next start may find nothing wrong with the journal any more; the doubt must outlive it.
    raft->state_pending_ = true;
    raft->NotePendingWrite();
  }
  raft->ResetElectionTimer();
  return raft;
}

// ---- What comes in

absl::Status Raft::CheckEnvelope(const Message& message) const {
  if (message.to != self_) {
    return absl::InvalidArgumentError(Cat("a message for ", message.to, " came to ", self_));
  }
  if (message.from.IsNone() || message.from == self_) {
    return absl::InvalidArgumentError(Cat("a message to ", self_, " from ", message.from));
  }
  const auto* vote = std::get_if<VoteRequest>(&message.body);
  const bool any_term = (vote != nullptr && vote->pre_vote) || std::holds_alternative<VoteResponse>(message.body);
  if (message.term.value() < (any_term ? 0 : 1) || message.term.value() > kTermMax) {
    return absl::OutOfRangeError(Cat(message.from, " sends term ", message.term, ", which cannot be"));
  }
  return absl::OkStatus();
}

bool Raft::IsAbsurd(LeaderEpoch term) const {
  const bool joining = this->term().value() == 0 && configuration().empty();
  return !joining && term.value() > static_cast<int64_t>(this->term().value()) + kTermJumpMax;
}

// One voter may be out of its mind, or come back with a vote that its disk has changed. Most of them are not, or
// nothing could be trusted: the term that most have reached is true, however far it is, and a replica that was away
// meanwhile would else stay away for ever. Only one that hears no leader listens; what it was told before it last heard
// one is forgotten, as whoever said so may be well again while another one is not.
absl::Status Raft::TakeAbsurdTerm(const Message& message) {
  const Configuration& members = configuration();
  if (!HearsLeader() && members.IsVoter(message.from)) {
    LeaderEpoch& known = absurd_terms_[message.from];
    known = std::max(known, message.term);
  }
  std::vector<LeaderEpoch> terms;
  for (const auto& [voter, term] : absurd_terms_) {
    if (members.IsVoter(voter)) terms.push_back(term);
  }
  const size_t needed = members.Quorum();  // of two voters the other alone is not believed
  if (terms.size() >= needed) {
    std::sort(terms.begin(), terms.end(), std::greater<>());
    if (IsAbsurd(terms[needed - 1])) BecomeFollower(terms[needed - 1], VoterId{});
  }
  if (!IsAbsurd(message.term)) return absl::OkStatus();
  return absl::OutOfRangeError(
      Cat(message.from, " sends term ", message.term, ", absurdly far beyond the term here, ", term()));
}

absl::Status Raft::Step(Message message) {
  SLUICE_RETURN_IF_ERROR(CheckEnvelope(message));
  if (IsAbsurd(message.term)) SLUICE_RETURN_IF_ERROR(TakeAbsurdTerm(message));
  // A removed member has no say, and what it answers to an earlier leader must not dethrone this one.
  const bool stranger = IsAnswer(message.body) && !configuration().Contains(message.from) &&
                        (lead_ == nullptr || lead_->Find(message.from) == nullptr);
  if (stranger && !IsAskedForVote(message)) return absl::OkStatus();
  dirty_ = true;
  if (message.term < term()) {
    AnswerStale(message);
    return absl::OkStatus();
  }
  if (message.term > term()) {
    const auto* vote = std::get_if<VoteRequest>(&message.body);
    const bool keeps_term = vote != nullptr && (vote->pre_vote || (HearsLeader() && !vote->transfer));
    if (!keeps_term) BecomeFollower(message.term, IsFromLeader(message.body) ? message.from : VoterId{});
  }
  return StepCurrent(message);
}

absl::Status Raft::StepCurrent(Message& message) {
  if (auto* m = std::get_if<AppendRequest>(&message.body)) return StepAppend(message, *m);
  if (auto* m = std::get_if<AppendResponse>(&message.body)) return StepAppendResponse(message, *m);
  if (auto* m = std::get_if<Heartbeat>(&message.body)) return StepHeartbeat(message, *m);
  if (auto* m = std::get_if<HeartbeatResponse>(&message.body)) return StepHeartbeatResponse(message, *m);
  if (auto* m = std::get_if<VoteRequest>(&message.body)) return StepVoteRequest(message, *m);
  if (auto* m = std::get_if<VoteResponse>(&message.body)) return StepVoteResponse(message, *m);
  if (auto* m = std::get_if<InstallSnapshot>(&message.body)) return StepInstallSnapshot(message, *m);
  if (std::holds_alternative<SnapshotFailed>(message.body)) {
    if (role_ == Role::kLeader) OnSnapshotFailed(message.from);
    return absl::OkStatus();
  }
  SLUICE_RETURN_IF_ERROR(FollowLeader(message));  // TimeoutNow
  // One in doubt may have been a candidate in the next term already, or led in it: it asks the others first.
  if (MayCampaign() && !in_doubt()) {
    StartElection(true);
  } else if (renounced_ || in_doubt()) {
    Send(message.from, Standing());  // what told the leader so was lost
  }
  return absl::OkStatus();
}

// Tells a peer that was away which term it is, so that a leader of an old term steps down, and a candidate with an old
// term can catch up and be elected.
void Raft::AnswerStale(const Message& message) {
  if (const auto* vote = std::get_if<VoteRequest>(&message.body)) {
    Send(message.from, AnswerTo(*vote, false));
  } else if (IsFromLeader(message.body)) {
    Send(message.from, Standing());
  }
}

void Raft::Tick(int64_t now_ms) {
  now_ms_ = now_ms;
  if (role_ == Role::kLeader) {
    TickLeader();
  } else {
    TickElection();
  }
}

// ---- State

void Raft::SetHardState(HardState next) {
  SLUICE_CHECK(next.term >= hard_state_.term) << "term " << next.term << " after " << hard_state_.term;
  if (next == hard_state_) return;
  if (next.term > hard_state_.term) absurd_terms_.clear();
  hard_state_ = next;
  hard_state_pending_ = true;
  NotePendingWrite();
  hard_state_write_ = LatestWrite();
}

void Raft::SetRole(Role role, const VoterId& leader) {
  if (role == role_ && leader == leader_) return;
  role_ = role;
  leader_ = leader;
  role_changed_ = dirty_ = true;
}

void Raft::BecomeFollower(LeaderEpoch term, const VoterId& leader) {
  if (role_ == Role::kLeader) LeaveLeadership();
  if (role_ != Role::kFollower) ResetElectionTimer();
  // What another leader verified or promised says nothing of this one's log.
  if (term > hard_state_.term || leader != leader_ || role_ != Role::kFollower) {
    verified_end_ = Offset(0);
    doubt_ends_at_.reset();
  }
  if (term > hard_state_.term) {
    SetHardState({term, VoterId{}});
    role_changed_ = true;
  }
  votes_ = {};
  own_vote_write_ = 0;
  SetRole(Role::kFollower, leader);
}

void Raft::AppendToLog(record::Batch batch) {
  SLUICE_CHECK(batch.base_offset() == log_.end())
      << "a batch at " << batch.base_offset() << ", the log ends at " << log_.end();
  log_.Append(batch.epoch(), batch.next_offset());
  append_pending_.push_back(std::move(batch));
  NotePendingWrite();
}

void Raft::TruncateLog(Offset new_end) {
  SLUICE_CHECK(new_end >= committed_) << "truncation to " << new_end << ", committed to " << committed_;
  log_.Truncate(new_end);
  while (!append_pending_.empty() && append_pending_.back().base_offset() >= new_end) append_pending_.pop_back();
  if (handed_out_end_ > new_end) {
    handed_out_end_ = new_end;
    truncate_pending_ = new_end;
  }
  // The same offsets may soon be written again: what an earlier write made durable of them counts no more.
  for (Write& write : writes_) write.log_end = std::min(write.log_end, new_end);
  durable_end_ = std::min(durable_end_, new_end);
  verified_end_ = std::min(verified_end_, new_end);
  RollBackConfigurations(new_end);
  NotePendingWrite();
}

void Raft::Commit(Offset end) {
  if (end <= committed_) return;
  SLUICE_CHECK(end <= log_.end()) << "commit to " << end << ", the log ends at " << log_.end();
  committed_ = end;
  dirty_ = true;
  ForgetOldConfigurations();
}

void Raft::OnLogStart(Offset log_start) {
  SLUICE_CHECK(log_start <= committed_) << "log start " << log_start << ", committed to " << committed_;
  if (log_start <= log_.start()) return;
  log_.SetStart(log_start);
  state_pending_ = true;  // goes with the next write: until then only the epoch before the log start is not known,
  if (log_.empty()) NotePendingWrite();  // which matters where no batch tells an epoch any more
}

// ---- What waits for the disk

void Raft::NotePendingWrite() {
  write_pending_ = dirty_ = true;
}

void Raft::Send(const VoterId& to, MessageBody body) {
  SLUICE_CHECK(!to.IsNone() && to != self_) << "a message to " << to;
  messages_.push_back({self_, to, term(), std::move(body)});
  dirty_ = true;
}

void Raft::SendOnceDurable(uint64_t number, const VoterId& to, MessageBody body) {
  if (number <= durable_write_) return Send(to, std::move(body));
  held_.push_back({number, {self_, to, term(), std::move(body)}});
}

void Raft::ReleaseHeld() {
  std::vector<Held> later;
  for (Held& held : held_) {
    if (held.number > durable_write_) {
      later.push_back(std::move(held));
    } else if (held.message.term == term()) {  // what was promised in an older term helps nobody now
      messages_.push_back(std::move(held.message));
    }
  }
  held_ = std::move(later);
}

void Raft::OnDurable(uint64_t number) {
  SLUICE_CHECK(number <= last_write_) << "write " << number << " is durable, only " << last_write_
                                      << " were handed out";
  if (number <= durable_write_) return;
  durable_write_ = number;
  size_t done = 0;
  for (; done < writes_.size() && writes_[done].number <= number; ++done) durable_end_ = writes_[done].log_end;
  writes_.erase(writes_.begin(), writes_.begin() + static_cast<std::ptrdiff_t>(done));
  ForgetOldConfigurations();
  if (writes_.empty()) std::vector<Write>().swap(writes_);
  ReleaseHeld();
  dirty_ = true;
  OnVoteDurable();
  MaybeEndDoubt();
  if (role_ == Role::kLeader) MaybeCommit();
}

// ---- What goes out

Bytes Raft::EncodeState() const {
  ReplicaRaftState state{{log_.start(), log_.base()}, {}, in_doubt(), configurations_};
  if (install_) {
    // Counts from the moment that the log begins anew; until then the log that is there does not hold its entry.
    state.installing = {install_->base.end, install_base_};
    auto& list = state.configurations;
    const auto key = [](const ConfigurationAt& at) { return std::pair(at.offset, at.epoch); };
    const auto place = std::find_if(list.begin(), list.end(),
                                    [&](const ConfigurationAt& at) { return key(at) >= key(install_configuration_); });
    if (place == list.end() || key(*place) != key(install_configuration_)) list.insert(place, install_configuration_);
  }
  return Bytes::Adopt(state.Encode());
}

Ready Raft::TakeReady() {
  if (role_ == Role::kLeader) FlushAppends();
  Ready ready;
  if (write_pending_) {
    ready.must_persist = true;
    ++last_write_;
    if (std::exchange(hard_state_pending_, false)) ready.hard_state = hard_state_;
    ready.truncate_to = std::exchange(truncate_pending_, std::nullopt);
    if (std::exchange(state_pending_, false)) ready.raft_state = EncodeState();
    ready.append = std::exchange(append_pending_, {});
    writes_.push_back({last_write_, log_.end()});
    handed_out_end_ = log_.end();
    write_pending_ = false;
  }
  ready.number = last_write_;
  ready.messages = std::exchange(messages_, {});
  ready.committed = committed_;
  ready.durable_end = durable_end_;
  ready.read_results = std::exchange(read_results_, {});
  ready.log_reads = std::exchange(log_reads_, {});
  ready.snapshots_wanted = std::exchange(snapshots_wanted_, {});
  if (std::exchange(install_pending_, false)) ready.install = install_;
  if (std::exchange(role_changed_, false)) ready.role_change = RoleChange{role_, term(), leader_};
  dirty_ = false;
  return ready;
}

size_t Raft::memory_bytes() const {
  size_t bytes = sizeof(Raft) + log_.epochs().capacity() * sizeof(EpochStart) +
                 configurations_.capacity() * sizeof(ConfigurationAt) + writes_.capacity() * sizeof(Write) +
                 held_.capacity() * sizeof(Held) + append_pending_.capacity() * sizeof(record::Batch) +
                 votes_.capacity() * sizeof(VoteReceived) + messages_.capacity() * sizeof(Message);
  for (const ConfigurationAt& at : configurations_) {
    bytes += (at.configuration.voters.capacity() + at.configuration.learners.capacity()) * sizeof(VoterId);
  }
  if (lead_ == nullptr) return bytes;
  bytes += sizeof(LeaderState) + lead_->peers.capacity() * sizeof(Progress) + lead_->window.capacity_bytes() +
           lead_->reads.capacity() * sizeof(LeaderState::PendingRead);
  for (const Progress& peer : lead_->peers) bytes += peer.in_flight.capacity_bytes();
  return bytes;
}

}  // namespace sluice::raft
