// Elections: pre-votes, votes, and who may have one (Raft paper sections 5.2 and 5.4.1, dissertation 9.6 and 4.2.3).
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/planted_bug.h"
#include "common/text.h"
#include "replication/core/raft.h"

namespace sluice::raft {

namespace {

constexpr int32_t kTermMax = INT32_MAX - 1;

bool UpToDate(const LogPlace& candidate, const LogPlace& ours) {
  if (candidate.epoch != ours.epoch) return candidate.epoch > ours.epoch;
  return candidate.end >= ours.end;
}

}  // namespace

void Raft::ResetElectionTimer() {
  election_elapsed_ = 0;
  const auto spread = static_cast<uint64_t>(std::max(1, options_.election_ticks));
  election_timeout_ = options_.election_ticks + static_cast<int>(random_.Next() % spread);
}

void Raft::TickElection() {
  if (++election_elapsed_ < election_timeout_) return;
  ResetElectionTimer();
  if (MayCampaign()) {
    StartPreVote();
  } else {
    SetRole(Role::kFollower, VoterId{});
  }
}

void Raft::OnLeaderLost() {
  if (role_ != Role::kFollower || leader_.IsNone()) return;
  SetRole(Role::kFollower, VoterId{});
  election_elapsed_ = 0;
  // Still by chance, so that the followers that saw the same break do not all ask at once.
  const auto spread = static_cast<uint64_t>(std::max(1, options_.election_ticks / 2));
  election_timeout_ = 1 + static_cast<int>(random_.Next() % spread);
}

// What a candidate says of its log. Where it does not know the last epoch (it has begun anew and got nothing since) it
// claims the least; others, where they do not know theirs, assume the most.
LogPlace Raft::ClaimedEnd() const {
  LogPlace last = log_.Last();
  if (last.end.value() > 0 && last.epoch.value() == 0) last.epoch = LeaderEpoch(1);
  return last;
}

// Also a voter whose removal is not known to be committed: it may be the only one that has the removal, and the others
// cannot outvote its longer log (dissertation section 4.2.2). It does not count its own vote then.
bool Raft::IsVoterInForce() const {
  const auto voter = [&](const ConfigurationAt& at) { return at.configuration.IsVoter(self_); };
  return std::any_of(LastCommittedConfiguration(), configurations_.end(), voter);
}

bool Raft::MayCampaign() const {
  return IsVoterInForce() && !configuration().voters.empty() && !install_ && !renounced_ && term().value() < kTermMax;
}

absl::Status Raft::Campaign() {
  if (role_ == Role::kLeader) return absl::FailedPreconditionError("it leads already");
  if (!MayCampaign())
    return absl::FailedPreconditionError(
        Cat(self_, " may not campaign: no voter, being installed, or leading no more"));
  ResetElectionTimer();
  StartPreVote();
  return absl::OkStatus();
}

// Asks whether an election could be won, without disturbing a group whose leader others hear.
void Raft::StartPreVote() {
  SetRole(Role::kPreCandidate, VoterId{});
  votes_.clear();
  own_vote_write_ = 0;
  campaign_ = random_.Next();
  for (const VoterId& voter : VotersInForce()) {
    if (voter != self_) Send(voter, VoteRequest{true, false, ClaimedEnd(), campaign_});
  }
  CountVote(self_, true, in_doubt());
}

void Raft::StartElection(bool transfer) {
  ResetElectionTimer();
  SetHardState({term() + 1, self_});
  verified_end_ = Offset(0);
  doubt_ends_at_.reset();
  role_changed_ = true;
  SetRole(Role::kCandidate, VoterId{});
  votes_.clear();
  // The requests wait for our own vote to be durable, and with it all that was appended before. Otherwise a candidate
  // that crashes could come back in an older term with a shorter log, campaign in the same term again, and count votes
  // that were given to the longer log that it has lost.
  own_vote_write_ = LatestWrite();
  campaign_ = random_.Next();
  for (const VoterId& voter : VotersInForce()) {
    if (voter != self_) SendOnceDurable(own_vote_write_, voter, VoteRequest{false, transfer, ClaimedEnd(), campaign_});
  }
}

void Raft::OnVoteDurable() {
  if (own_vote_write_ == 0 || own_vote_write_ > durable_write_) return;
  own_vote_write_ = 0;
  if (role_ == Role::kCandidate) CountVote(self_, true, in_doubt());
}

bool Raft::IsAskedForVote(const Message& answer) const {
  if (!std::holds_alternative<VoteResponse>(answer.body)) return false;
  if (role_ != Role::kPreCandidate && role_ != Role::kCandidate) return false;
  const std::vector<VoterId> in_force = VotersInForce();
  return std::find(in_force.begin(), in_force.end(), answer.from) != in_force.end();
}

// `voter` may be anyone; who counts is looked at anew with each vote, for members may have been learned to be
// committed.
void Raft::CountVote(const VoterId& voter, bool granted, bool in_doubt) {
  const auto same = [&](const VoteReceived& v) { return v.voter == voter; };
  if (std::any_of(votes_.begin(), votes_.end(), same)) return;
  votes_.push_back({voter, granted, in_doubt});
  const Configuration& members = configuration();
  size_t sure = 0, no = 0;
  for (const VoteReceived& v : votes_) {
    if (!members.IsVoter(v.voter)) continue;
    if (v.granted && !v.in_doubt) ++sure;
    if (!v.granted) ++no;
  }
  const std::vector<VoterId> in_force = VotersInForce();
  const bool all = std::all_of(in_force.begin(), in_force.end(), [&](const VoterId& id) {
    return std::any_of(votes_.begin(), votes_.end(), [&](const VoteReceived& v) { return v.voter == id && v.granted; });
  });
  // Every voter, in doubt or not: then whatever still exists of the log anywhere is at most what the candidate holds. A
  // candidate in doubt needs that, also so that nobody asks for votes in a later term who has one that it forgot. Those
  // of older members too, for what was forgotten may be that the last change was taken back, and what came instead.
  if ((!this->in_doubt() && sure >= members.Quorum()) || all) {
    const bool was_pre_vote = role_ == Role::kPreCandidate;
    votes_.clear();
    if (was_pre_vote) {
      StartElection(false);
    } else {
      BecomeLeader();
    }
  } else if (no > members.voters.size() - members.Quorum()) {
    votes_.clear();
    SetRole(Role::kFollower, VoterId{});  // the timer runs on
  }
}

bool Raft::HearsLeader() const {
  if (role_ == Role::kLeader) return true;
  return !leader_.IsNone() && election_elapsed_ < options_.election_ticks;
}

VoteResponse Raft::AnswerTo(const VoteRequest& request, bool granted) const {
  return {request.pre_vote, granted, doubt_, request.campaign, CommittedMembers()};
}

absl::Status Raft::StepVoteRequest(const Message& message, const VoteRequest& request) {
  const int32_t last_possible = message.term.value() - (request.pre_vote ? 0 : 1);
  const bool empty = request.last.end.value() == 0;
  if (request.last.end.value() < 0 || request.last.epoch.value() > last_possible ||
      (empty != (request.last.epoch.value() == 0))) {
    return absl::InvalidArgumentError(Cat(message.from, " asks for a vote in term ", message.term,
                                          " for a log that ends in epoch ", request.last.epoch, " at ",
                                          request.last.end));
  }
  const LogPlace ours = log_.LastAtMost();
  const bool comparable = ours.epoch.value() != 0 || ours.end.value() == 0;
  const bool up_to_date = (comparable && UpToDate(request.last, ours)) || Planted(PlantedBug::kVoteForShorterLog);
  const bool disturbs = HearsLeader() && !request.transfer;
  // A member that asks has not heard of this leader; where heartbeats are the driver's, it would not hear of it soon.
  if (role_ == Role::kLeader) PokeFollower(message.from);

  if (request.pre_vote) {
    // In the candidate's term, as it counts no older one; a refusal may tell of a newer.
    const bool granted = up_to_date && !disturbs;
    messages_.push_back({self_, message.from, std::max(term(), message.term), AnswerTo(request, granted)});
    return absl::OkStatus();
  }
  if (message.term > term()) return absl::OkStatus();  // not listened to while a leader is heard (dissertation 4.2.3)
  const bool free = hard_state_.voted_for.IsNone() && leader_.IsNone();
  const bool may = free || hard_state_.voted_for == message.from || Planted(PlantedBug::kVoteTwice);
  if (!may || !up_to_date || role_ == Role::kLeader) {
    Send(message.from, AnswerTo(request, false));
    return absl::OkStatus();
  }
  SetHardState({term(), message.from});
  election_elapsed_ = 0;
  const uint64_t write = Planted(PlantedBug::kAnswerVoteBeforeDurable) ? 0 : hard_state_write_;
  SendOnceDurable(write, message.from, AnswerTo(request, true));
  return absl::OkStatus();
}

// What is committed for one is so for all, with everything before it: logs that have the same entry are the same up to
// it. The entry need not be the change itself: where a log has begun anew, its members stand at the base.
void Raft::LearnCommittedMembers(const LogPlace& members) {
  if (log_.EpochBefore(members.end) != members.epoch) return;
  const auto beyond = [&](const ConfigurationAt& at) { return at.offset >= members.end; };
  const auto next = std::find_if(configurations_.begin(), configurations_.end(), beyond);
  if (next != configurations_.begin()) Commit(std::min(std::prev(next)->offset + 1, log_.end()));
}

absl::Status Raft::StepVoteResponse(const Message& message, const VoteResponse& response) {
  if (response.members.end.value() < 0) {
    return absl::InvalidArgumentError(Cat(message.from, " knows members at offset ", response.members.end));
  }
  const Role asking = response.pre_vote ? Role::kPreCandidate : Role::kCandidate;
  const bool current = role_ == asking && response.campaign == campaign_;
  if (!current) return absl::OkStatus();
  LearnCommittedMembers(response.members);
  if (!IsVoterInForce()) {
    BecomeFollower(term(), VoterId{});
    return absl::OkStatus();
  }
  CountVote(message.from, response.granted, response.doubt != kNoDoubt && !Planted(PlantedBug::kVoteInDoubt));
  return absl::OkStatus();
}

}  // namespace sluice::raft
