// A leader: proposals, what is committed, the quorum behind it, and how it goes (Raft paper sections 5.3, 5.4.2 and 6,
// dissertation 3.10, 4.2.2 and 6.2).
#include <algorithm>
#include <functional>
#include <utility>

#include "common/check.h"
#include "common/planted_bug.h"
#include "common/record/control.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "replication/core/leader_state.h"
#include "replication/core/raft.h"

namespace sluice::raft {

void Raft::BecomeLeader() {
  lead_ = std::make_unique<LeaderState>();
  SetRole(Role::kLeader, self_);
  votes_ = {};
  lead_->term_start = log_.end();
  SetPeers();
  // Commits what earlier leaders left, and tells every reader of the log who leads from here on.
  AppendAsLeader(record::MakeControlBatch(record::LeaderChange{self_.node}, now_ms_));
}

void Raft::LeaveLeadership() {
  FailReads();
  lead_.reset();
  ResetElectionTimer();
}

void Raft::StepDown() {
  if (role_ == Role::kLeader) BecomeFollower(term(), VoterId{});
}

void Raft::Renounce() {
  renounced_ = true;
  // No vote is to be spent on who would not lead.
  std::erase_if(held_, [](const Held& held) { return std::holds_alternative<VoteRequest>(held.message.body); });
  std::erase_if(messages_, [](const Message& message) { return std::holds_alternative<VoteRequest>(message.body); });
  for (Held& held : held_) {
    if (auto* answer = std::get_if<AppendResponse>(&held.message.body)) answer->cannot_lead = true;
  }
  if (role_ != Role::kFollower) return BecomeFollower(term(), VoterId{});
  if (!leader_.IsNone()) Send(leader_, Standing());
}

bool Raft::Serving() const {
  if (role_ != Role::kLeader) return false;
  return committed_ > lead_->term_start || Planted(PlantedBug::kServeBeforeOwnCommit);
}

// ---- Proposals

absl::Status Raft::CheckProposal() const {
  if (role_ != Role::kLeader) return absl::UnavailableError("not the leader");
  if (transferring()) return absl::UnavailableError("leadership is being handed over");
  return absl::OkStatus();
}

Proposed Raft::AppendAsLeader(record::PendingBatch&& batch) {
  const record::Batch placed = std::move(batch).Assign(log_.end(), term());
  AppendToLog(placed);
  if (lead_->peers.empty()) {
    lead_->window.DropBefore(log_.end());  // nobody needs it, and it must not have a gap
  } else {
    lead_->window.Push(placed, options_.window_bytes_max);
  }
  return {placed.base_offset(), placed.last_offset(), placed.epoch()};
}

absl::StatusOr<Proposed> Raft::Propose(record::PendingBatch&& batch) {
  SLUICE_RETURN_IF_ERROR(CheckProposal());
  if (batch.view().is_control()) {
    SLUICE_ASSIGN_OR_RETURN(const record::ControlRecord control, record::DecodeControlBatch(batch.view()));
    if (!std::holds_alternative<record::LogStartAdvance>(control)) {
      return absl::InvalidArgumentError("leader changes and memberships are written by the Raft core alone");
    }
  }
  const Proposed placed = AppendAsLeader(std::move(batch));
  if (Planted(PlantedBug::kLeaderCountsBeforeDurable)) MaybeCommit();
  return placed;
}

absl::StatusOr<Proposed> Raft::ProposeMembership(const Configuration& next) {
  SLUICE_RETURN_IF_ERROR(CheckProposal());
  if (configurations_.back().offset >= committed_ && !Planted(PlantedBug::kTwoMembershipChanges)) {
    return absl::FailedPreconditionError(
        Cat("the change of members at offset ", configurations_.back().offset, " is not committed yet"));
  }
  // Else two leaders could each commit with a configuration that the other does not know (the flaw that was found in
  // single-server changes after the dissertation).
  if (!Serving() && !Planted(PlantedBug::kMembershipBeforeOwnCommit)) {
    return absl::FailedPreconditionError("nothing of this leader's term is committed yet");
  }
  SLUICE_ASSIGN_OR_RETURN(const Configuration checked, Configuration::Make(next.voters, next.learners));
  SLUICE_RETURN_IF_ERROR(configuration().CheckStep(checked));
  const size_t doubtful = VotersInDoubt(checked);
  if (checked.voters.size() - doubtful < checked.Quorum()) {
    return absl::FailedPreconditionError(
        Cat(doubtful, " of these ", checked.voters.size(),
            " voters are in doubt of what they had, and the others too few to commit"));
  }
  const Proposed placed = AppendAsLeader(record::MakeControlBatch(record::Membership{checked.Encode()}, now_ms_));
  configurations_.push_back({placed.last_offset, placed.epoch, checked});
  state_pending_ = true;
  SetPeers();
  MaybeCommit();  // fewer voters may already be enough, also for a read round
  if (role_ == Role::kLeader) {
    MaybeFinishReadRound();
  }
  return placed;
}

// ---- Commit

// This replica too.
size_t Raft::VotersInDoubt(const Configuration& members) const {
  const auto in_doubt = [&](const Progress& peer) { return peer.doubt != kNoDoubt && members.IsVoter(peer.id); };
  const auto peers = std::count_if(lead_->peers.begin(), lead_->peers.end(), in_doubt);
  return static_cast<size_t>(peers) + (this->in_doubt() && members.IsVoter(self_) ? 1 : 0);
}

bool Raft::NeedsAll() const {
  const Configuration& members = configuration();
  return members.voters.size() - VotersInDoubt(members) < members.Quorum();
}

// How far the voters have our log, as far as it takes to commit. One in doubt may have given somebody a vote that it
// forgot, who has less, and would be elected with it by those who have not got this either: so it takes a quorum
// without it, this replica included. Or all voters, by each configuration that may be in force: then nobody is left to
// elect him.
Offset Raft::AgreedEnd() const {
  const Configuration& members = configuration();
  const Offset own = Planted(PlantedBug::kLeaderCountsBeforeDurable) ? log_.end() : durable_end_;
  const bool doubts_count = Planted(PlantedBug::kVoteInDoubt);
  std::vector<Offset> ends;
  ends.reserve(members.voters.size());
  if (members.IsVoter(self_)) ends.push_back(in_doubt() && !doubts_count ? Offset(0) : own);
  for (const Progress& peer : lead_->peers) {
    if (peer.voter) ends.push_back(peer.doubt == kNoDoubt || doubts_count ? peer.match : Offset(0));
  }
  const size_t quorum = members.Quorum();
  std::nth_element(ends.begin(), ends.begin() + static_cast<std::ptrdiff_t>(quorum - 1), ends.end(),
                   std::greater<Offset>());
  const Offset agreed = ends[quorum - 1];
  if (!NeedsAll()) return agreed;
  Offset all = own;
  for (const VoterId& voter : VotersInForce()) {
    if (voter == self_) continue;
    const Progress* const peer = lead_->Find(voter);
    all = std::min(all, peer != nullptr ? peer->match : Offset(0));
  }
  return std::max(agreed, all);
}

void Raft::MaybeCommit() {
  const Offset end = AgreedEnd();
  if (end <= committed_) return;
  // Only what this term appended is committed by counting; what is before it goes along (section 5.4.2, figure 8).
  if (log_.EpochBefore(end) != term() && !Planted(PlantedBug::kCommitOldTermByCounting)) return;
  const bool was_serving = Serving();
  Commit(end);
  MaybeEndDoubts();
  if (!configuration().IsVoter(self_) && configurations_.back().offset < committed_) return HandOverAfterRemoval();
  if (!was_serving && !lead_->reads.empty()) StartReadRound();
}

// What one in doubt may have forgotten is a vote in a later term, with which a candidate may yet be elected. Not once
// something is committed that was proposed when the doubt was known: the candidate lacks it, and so it lacks the votes
// of all that have it (AgreedEnd). Then all that the one in doubt ever acknowledged to anyone is in our log, or gone
// for good.
void Raft::MaybeEndDoubts() {
  const auto is_over = [&](Offset since) { return committed_ > since || Planted(PlantedBug::kEndDoubtAtOnce); };
  if (in_doubt() && is_over(lead_->term_start)) {
    doubt_ = kNoDoubt;
    state_pending_ = true;
    NotePendingWrite();
  }
  for (Progress& peer : lead_->peers) {
    if (peer.doubt == kNoDoubt || peer.confirmed_end || !is_over(peer.doubt_since)) continue;
    peer.confirmed_end = log_.end();
    SendHeartbeat(peer, true);
  }
}

// A group that is idle writes something for it.
void Raft::ProposeForDoubts() {
  const auto waits = [&](const Progress& peer) {
    return peer.doubt != kNoDoubt && !peer.confirmed_end && peer.doubt_since == log_.end();
  };
  if (transferring() || std::none_of(lead_->peers.begin(), lead_->peers.end(), waits)) return;
  AppendAsLeader(record::MakeControlBatch(record::LeaderChange{self_.node}, now_ms_));
}

// The change that made this replica no voter is committed: its work is done (dissertation section 4.2.2).
void Raft::HandOverAfterRemoval() {
  FlushAppends();
  const Progress* best = nullptr;
  for (Progress& peer : lead_->peers) {
    if (peer.sent_committed < committed_) SendHeartbeat(peer, false);
    const bool fit = peer.voter && peer.doubt == kNoDoubt && !peer.cannot_lead && peer.match == log_.end();
    if (fit && (best == nullptr || peer.silent_ticks < best->silent_ticks)) best = &peer;
  }
  if (best != nullptr) Send(best->id, TimeoutNow{});
  BecomeFollower(term(), VoterId{});
}

// ---- Time

void Raft::TickLeader() {
  const Configuration& members = configuration();
  const size_t others = members.voters.size() + members.learners.size() - (members.Contains(self_) ? 1 : 0);
  // What is known to be committed of members, or who is in doubt, may have changed.
  if (configurations_.size() > 1 || lead_->peers.size() != others) SetPeers();
  for (Progress& peer : lead_->peers) ++peer.silent_ticks;
  CheckQuorum();
  if (role_ != Role::kLeader) return;
  if (transferring() && ++lead_->transfer_elapsed >= options_.election_ticks) lead_->transfer_to = VoterId{};
  ProposeForDoubts();
  for (Progress& peer : lead_->peers) {
    if (!peer.snapshot || ++peer.snapshot_ticks < options_.election_ticks) continue;
    peer.snapshot_ticks = 0;
    Send(peer.id, *peer.snapshot);  // it, or its answer, may have been lost
  }
  if (++lead_->heartbeat_elapsed < options_.heartbeat_ticks) return;
  lead_->heartbeat_elapsed = 0;
  for (Progress& peer : lead_->peers) {
    if (options_.explicit_heartbeats || !Settled(peer)) SendHeartbeat(peer, true);
    if (peer.in_flight.empty()) peer.in_flight.Release();
  }
  TrimWindow();
  lead_->window.Release();
}

// A leader that a quorum does not answer may have been replaced: it steps down, so that nobody waits for it in vain.
void Raft::CheckQuorum() {
  const Configuration& members = configuration();
  size_t heard = members.IsVoter(self_) ? 1 : 0;
  for (const Progress& peer : lead_->peers) {
    if (peer.voter && peer.silent_ticks <= options_.election_ticks) ++heard;
  }
  if (heard < members.Quorum()) BecomeFollower(term(), VoterId{});
}

void Raft::OnFollowerAlive(const VoterId& voter, LeaderEpoch term_there) {
  if (role_ != Role::kLeader || term_there != term()) return;
  if (Progress* peer = lead_->Find(voter); peer != nullptr) peer->silent_ticks = 0;
}

void Raft::OnLeaderAlive(LeaderEpoch term_there) {
  if (role_ == Role::kFollower && !leader_.IsNone() && term_there == term()) election_elapsed_ = 0;
}

// ---- Transfer

bool Raft::transferring() const {
  return role_ == Role::kLeader && !lead_->transfer_to.IsNone();
}

VoterId Raft::transfer_to() const {
  return role_ == Role::kLeader ? lead_->transfer_to : VoterId{};
}

absl::Status Raft::TransferLeadership(const VoterId& to) {
  if (role_ != Role::kLeader) return absl::UnavailableError("not the leader");
  if (to == self_) return absl::InvalidArgumentError("it leads already");
  const Progress* peer = lead_->Find(to);
  if (peer == nullptr || !peer->voter) return absl::InvalidArgumentError(Cat(to, " is no voter"));
  if (peer->doubt != kNoDoubt) return absl::UnavailableError(Cat(to, " does not know what of its log is left"));
  if (peer->cannot_lead) return absl::FailedPreconditionError(Cat(to, " cannot read its log, and leads no more"));
  // Appends wait while leadership moves: not for one that will not take it.
  if (peer->silent_ticks > options_.election_ticks) return absl::UnavailableError(Cat(to, " is not heard of"));
  if (lead_->transfer_to == to) return absl::OkStatus();
  lead_->transfer_to = to;
  lead_->transfer_elapsed = 0;
  lead_->timeout_now_sent = false;
  dirty_ = true;
  ContinueTransfer();
  return absl::OkStatus();
}

void Raft::ContinueTransfer() {
  if (!transferring() || lead_->timeout_now_sent) return;
  const Progress* peer = lead_->Find(lead_->transfer_to);
  if (peer == nullptr || peer->match != log_.end()) return;
  lead_->timeout_now_sent = true;
  Send(peer->id, TimeoutNow{});
}

// ---- Facts

std::vector<FollowerStatus> Raft::followers() const {
  std::vector<FollowerStatus> all;
  if (role_ != Role::kLeader) return all;
  for (const Progress& p : lead_->peers) {
    const std::string_view state = p.state == Progress::State::kProbe       ? "probe"
                                   : p.state == Progress::State::kReplicate ? "replicate"
                                                                            : "snapshot";
    all.push_back({p.id, p.voter, state, p.match, p.next, p.silent_ticks <= options_.election_ticks,
                   p.doubt != kNoDoubt, p.cannot_lead});
  }
  return all;
}

}  // namespace sluice::raft
