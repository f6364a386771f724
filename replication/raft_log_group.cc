// The group as such: its members and who leads it.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "replication/raft_log.h"
#include "replication/raft_log_internal.h"

namespace sluice::replication {

// ---- Members

void RaftLog::ChangeMembers(const raft::Configuration& next, Callback<absl::StatusOr<Committed>> done) {
  using Result = absl::StatusOr<Committed>;
  if (ended()) return AnswerLater<Result>(std::move(done), NotServed());
  if (absl::Status room = log_->Admit(0, storage::Log::Urgency::kEssential); !room.ok()) {
    return AnswerLater<Result>(std::move(done), room);
  }
  raft_->NoteTime(NowMs());  // the entry's; a group that is quiet has no ticks
  auto place = raft_->ProposeMembership(next);
  if (!place.ok()) return AnswerLater<Result>(std::move(done), place.status());
  ScheduleTurn();
  AddProposal(*place, std::move(done));
}

absl::Status RaftLog::CheckChangesMembers() const {
  if (ended()) return NotServed();
  if (raft_->transferring()) return Moving();
  if (raft_->role() != raft::Role::kLeader) {
    return absl::UnavailableError("this replica does not lead the partition");
  }
  return absl::OkStatus();
}

void RaftLog::AddLearner(const VoterId& id, Callback<absl::StatusOr<Committed>> done) {
  absl::Status allowed = CheckChangesMembers();
  raft::Configuration next = raft_->configuration();
  if (allowed.ok() && next.Contains(id)) {
    allowed = absl::AlreadyExistsError(absl::StrCat(id.ToString(), " is a member of the group already"));
  }
  if (!allowed.ok()) return AnswerLater<absl::StatusOr<Committed>>(std::move(done), allowed);
  next.learners.push_back(id);
  ChangeMembers(next, std::move(done));
}

void RaftLog::Promote(const VoterId& id, Callback<absl::StatusOr<Committed>> done) {
  absl::Status allowed = CheckChangesMembers();
  raft::Configuration next = raft_->configuration();
  if (allowed.ok() && next.IsVoter(id)) {
    allowed = absl::AlreadyExistsError(absl::StrCat(id.ToString(), " is a voter of the group already"));
  } else if (allowed.ok() && !next.IsLearner(id)) {
    allowed = absl::NotFoundError(absl::StrCat(id.ToString(), " is not a member of the group"));
  } else if (allowed.ok()) {
    // A voter that lags is counted in the quorum and cannot be part of it: the group would wait for it.
    const GroupStatus status = group_status();
    const MemberStatus& member = *status.Find(id);
    if (!member.in_sync) {
      allowed = absl::FailedPreconditionError(
          absl::StrCat("learner ", id.ToString(), " has not caught up: ",
                       member.active ? absl::StrCat(member.lag_offsets, " offsets behind") : "it does not answer"));
    }
  }
  if (!allowed.ok()) return AnswerLater<absl::StatusOr<Committed>>(std::move(done), allowed);
  std::erase(next.learners, id);
  next.voters.push_back(id);
  ChangeMembers(next, std::move(done));
}

void RaftLog::RemoveMember(const VoterId& id, Callback<absl::StatusOr<Committed>> done) {
  absl::Status allowed = CheckChangesMembers();
  raft::Configuration next = raft_->configuration();
  if (allowed.ok() && !next.Contains(id)) {
    allowed = absl::NotFoundError(absl::StrCat(id.ToString(), " is not a member of the group"));
  }
  if (!allowed.ok()) return AnswerLater<absl::StatusOr<Committed>>(std::move(done), allowed);
  std::erase(next.learners, id);
  std::erase(next.voters, id);
  ChangeMembers(next, std::move(done));
}

// ---- Who leads

absl::Status RaftLog::TransferLeadership(const VoterId& to) {
  if (ended()) return NotServed();
  ScheduleTurn();
  return raft_->TransferLeadership(to);
}

absl::Status RaftLog::Campaign() {
  if (ended()) return NotServed();
  if (!damage_.ok()) return absl::FailedPreconditionError(damage_.message());
  ScheduleTurn();
  return raft_->Campaign();
}

bool RaftLog::IsLeader() const {
  return !ended() && raft_->Serving() && data_end_known_ && !raft_->transferring();
}

std::optional<NodeId> RaftLog::leader() const {
  if (!ended() && raft_->transferring()) return raft_->transfer_to().node;
  return KnownLeader();
}

std::optional<NodeId> RaftLog::KnownLeader() const {
  if (ended() || raft_->leader().IsNone()) return std::nullopt;
  if (raft_->leader() == raft_->self() && !(raft_->Serving() && data_end_known_)) return std::nullopt;
  return raft_->leader().node;
}

bool RaftLog::AwaitsLeader() const {
  return !ended() && (raft_->transferring() || !KnownLeader().has_value());
}

absl::Status RaftLog::Moving() const {
  return absl::UnavailableError(
      absl::StrCat("leadership of the partition is moving to node ", raft_->transfer_to().node.value()));
}

void RaftLog::TellLeader() {
  if (ended() || seams_.on_leader_change == nullptr || !*seams_.on_leader_change) return;
  const std::optional<NodeId> now = KnownLeader();
  const LeaderEpoch epoch = raft_->term();
  if (now == told_leader_ && (!now || epoch == told_epoch_)) return;
  told_leader_ = now;
  told_epoch_ = epoch;
  (*seams_.on_leader_change)(group_, now, epoch);
}

// ---- Facts

GroupStatus RaftLog::group_status() const {
  GroupStatus status;
  status.group = group_;
  status.role = raft_->role();
  status.epoch = raft_->term();
  status.leader = leader();
  status.bounds = bounds();
  status.members_changing = raft_->configurations().back().offset >= raft_->committed();
  status.in_doubt = raft_->in_doubt();
  status.size_bytes = log_->size_bytes();
  const std::vector<raft::FollowerStatus> followers = raft_->followers();
  const auto add = [&](const VoterId& id, bool voter) {
    MemberStatus member;
    member.id = id;
    member.voter = voter;
    member.leads = id == raft_->leader();
    const auto at = std::find_if(followers.begin(), followers.end(), [&](const auto& f) { return f.id == id; });
    if (id == raft_->self()) {
      member.active = !ended();
      member.in_doubt = status.in_doubt;
      member.match = raft_->durable_end();
    } else if (at != followers.end()) {
      member.active = at->active;
      member.in_doubt = at->in_doubt;
      member.state = at->state;
      member.match = at->match;
    }
    if (status.leads()) {
      member.in_sync = member.active && !member.in_doubt && member.match >= high_watermark_;
      member.lag_offsets = std::max<int64_t>(0, raft_->log_end() - member.match);
    }
    status.members.push_back(member);
  };
  for (const VoterId& id : raft_->configuration().voters) add(id, true);
  for (const VoterId& id : raft_->configuration().learners) add(id, false);
  return status;
}

RaftLogStats RaftLog::stats() const {
  RaftLogStats stats = counts_;
  stats.role = raft_->role();
  stats.term = raft_->term();
  stats.leader = leader();
  stats.voters = static_cast<int>(raft_->configuration().voters.size());
  stats.in_doubt = raft_->in_doubt();
  stats.damaged = !read_damage_.ok() || !failure_.ok();
  stats.messages_dropped = inbox_dropped_;
  if (raft_->role() != raft::Role::kLeader) return stats;
  for (const raft::FollowerStatus& follower : raft_->followers()) {
    if (!follower.voter) continue;
    if (!follower.active || follower.match < high_watermark_) ++stats.voters_behind;
    stats.lag_offsets = std::max(stats.lag_offsets, raft_->log_end() - follower.match);
  }
  return stats;
}

}  // namespace sluice::replication
