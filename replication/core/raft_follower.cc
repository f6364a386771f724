// A follower: takes the leader's batches, and its word of what is committed (Raft paper section 5.3).
#include <algorithm>
#include <utility>

#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "replication/core/membership.h"
#include "replication/core/raft.h"

namespace sluice::raft {

absl::Status Raft::FollowLeader(const Message& message) {
  const bool two = role_ == Role::kLeader || (!leader_.IsNone() && leader_ != message.from);
  if (two) {
    return absl::InvalidArgumentError(
        Cat(message.from, " leads term ", message.term, ", in which ", leader_, " leads already"));
  }
  if (role_ != Role::kFollower || leader_.IsNone()) BecomeFollower(term(), message.from);
  election_elapsed_ = 0;
  absurd_terms_.clear();
  return absl::OkStatus();
}

// What no correct leader sends, whatever stands here.
absl::Status Raft::CheckTiling(const Message& message, const AppendRequest& request) const {
  const auto bad = [&](const auto&... what) { return absl::InvalidArgumentError(Cat(message.from, ": ", what...)); };
  const LogPlace& previous = request.previous;
  if (previous.end.value() < 0 || request.committed.value() < 0 || previous.epoch.value() < 0 ||
      previous.epoch > message.term) {
    return bad("an append after epoch ", previous.epoch, " at ", previous.end, ", committed ", request.committed);
  }
  Offset end = previous.end;
  LeaderEpoch epoch = previous.epoch;
  for (const record::Batch& batch : request.batches) {
    if (batch.size_bytes() == 0 || batch.base_offset() != end || batch.epoch() < epoch ||
        batch.epoch() > message.term || batch.epoch().value() <= 0) {
      return bad("a batch of epoch ", batch.epoch(), " at ", batch.base_offset(), " after epoch ", epoch, " at ", end);
    }
    if (auto membership = MembershipIn(batch); !membership.ok()) {
      return bad("the control batch at ", batch.base_offset(), ": ", sluice::Message(membership.status()));
    }
    end = batch.next_offset();
    epoch = batch.epoch();
  }
  return absl::OkStatus();
}

absl::Status Raft::StepAppend(const Message& message, AppendRequest& request) {
  SLUICE_RETURN_IF_ERROR(CheckTiling(message, request));
  SLUICE_RETURN_IF_ERROR(FollowLeader(message));
  if (install_) return absl::OkStatus();  // the log is about to go
  const LogPlace& previous = request.previous;
  const std::optional<LeaderEpoch> ours = log_.EpochBefore(previous.end);
  const bool agrees = ours == previous.epoch;
  if (previous.end <= committed_) {
    // Every leader has all that is committed (Leader Completeness), so the logs agree here, also where this replica
    // does not know the epoch any more. Epoch 0 says that the leader does not.
    if (ours && previous.epoch.value() != 0 && !agrees) {
      return absl::FailedPreconditionError(Cat(message.from, " has epoch ", previous.epoch, " before offset ",
                                               previous.end, ", where epoch ", *ours, " is committed here"));
    }
  } else if (previous.end > log_.end() || (!agrees && !Planted(PlantedBug::kIgnorePreviousCheck))) {
    RejectAppend(message, previous);
    return absl::OkStatus();
  }
  Offset end = previous.end;
  SLUICE_RETURN_IF_ERROR(TakeBatches(request, &end));
  verified_end_ = std::max(verified_end_, end);
  CommitVerified(request.committed);
  AcknowledgeAppend(message.from, end);
  MaybeEndDoubt();
  return absl::OkStatus();
}

// Skips what is here already, cuts off what differs, and appends the rest. `end` moves to where the logs then agree.
absl::Status Raft::TakeBatches(AppendRequest& request, Offset* end) {
  const auto here = [&](const record::Batch& batch) {
    if (batch.next_offset() <= log_.start()) return true;
    return log_.EpochAt(batch.last_offset()) == batch.epoch();
  };
  auto next = std::find_if_not(request.batches.begin(), request.batches.end(), here);
  if (next != request.batches.end() && next->base_offset() < log_.end()) {
    const Offset base = next->base_offset();
    if (base < committed_) {
      return absl::FailedPreconditionError(
          Cat("a batch of epoch ", next->epoch(), " at ", base, " would replace what is committed up to ", committed_));
    }
    if (log_.EpochAt(base) == next->epoch()) {
      return absl::InvalidArgumentError(Cat("a batch of epoch ", next->epoch(), " from ", base, " to ",
                                            next->last_offset(), " does not end where the one here does"));
    }
    if (!Planted(PlantedBug::kForgetTruncation)) {
      TruncateLog(base);
    } else {
      next = std::find_if(next, request.batches.end(), [&](const auto& b) { return b.base_offset() == log_.end(); });
    }
  }
  for (; next != request.batches.end(); ++next) {
    const record::Batch batch = *next;
    AppendToLog(std::move(*next));
    SLUICE_RETURN_IF_ERROR(TakeConfiguration(batch));
  }
  if (!request.batches.empty()) *end = std::min(request.batches.back().next_offset(), log_.end());
  return absl::OkStatus();
}

void Raft::AcknowledgeAppend(const VoterId& leader, Offset end) {
  AppendResponse answer;
  answer.end = end;
  answer.log_end = log_.end();
  answer.committed = committed_;
  answer.doubt = doubt_;
  answer.cannot_lead = renounced_;
  // What is on disk already waits at most for the term.
  uint64_t write = durable_end_ >= end ? hard_state_write_ : LatestWrite();
  if (Planted(PlantedBug::kAnswerAppendBeforeDurable)) write = 0;
  // Answers that wait for the same write say the same; the last one says it best.
  if (!held_.empty() && held_.back().number == write && write > durable_write_) {
    const Message& last = held_.back().message;
    const auto* before = std::get_if<AppendResponse>(&last.body);
    if (before != nullptr && last.to == leader && last.term == term() && !before->rejected && before->end <= end) {
      held_.pop_back();
    }
  }
  SendOnceDurable(write, leader, answer);
}

void Raft::RejectAppend(const Message& message, const LogPlace& previous) {
  AppendResponse answer;
  answer.rejected = true;
  answer.end = previous.end;
  answer.log_end = log_.end();
  answer.committed = committed_;
  answer.doubt = doubt_;
  answer.cannot_lead = renounced_;
  answer.hint = log_.EndOf(previous.epoch).value_or(LogPlace{});
  if (answer.hint.end < committed_) answer.hint = {LeaderEpoch(0), committed_};
  Send(message.from, answer);
}

absl::Status Raft::StepHeartbeat(const Message& message, const Heartbeat& heartbeat) {
  if (heartbeat.committed.value() < 0 || heartbeat.confirmed_end.value() < 0) {
    return absl::InvalidArgumentError(Cat(message.from, ": a heartbeat with committed ", heartbeat.committed));
  }
  SLUICE_RETURN_IF_ERROR(FollowLeader(message));
  CommitVerified(heartbeat.committed);
  if (in_doubt() && heartbeat.doubt == doubt_) doubt_ends_at_ = heartbeat.confirmed_end;
  // Its leader may not have heard yet that it is in doubt, and take it for what it was before.
  if (heartbeat.answer || in_doubt()) Send(message.from, Standing(heartbeat.read_seq));
  MaybeEndDoubt();
  return absl::OkStatus();
}

HeartbeatResponse Raft::Standing(uint64_t read_seq) const {
  return {read_seq, log_.end(), committed_, doubt_, renounced_, CommittedMembers()};
}

void Raft::CommitVerified(Offset leader_committed) {
  const Offset known = Planted(PlantedBug::kCommitBeyondVerified) ? log_.end() : verified_end_;
  Commit(std::min(leader_committed, known));
}

void Raft::MaybeEndDoubt() {
  if (!in_doubt() || !doubt_ends_at_ || role_ != Role::kFollower) return;
  if (verified_end_ < *doubt_ends_at_ || durable_end_ < *doubt_ends_at_ || hard_state_write_ > durable_write_) return;
  doubt_ = kNoDoubt;
  // At once, however quiet the group is: after a restart it would be in doubt again, and the group one voter short.
  state_pending_ = true;
  NotePendingWrite();
  doubt_ends_at_.reset();
  // Those that wait leave after this one, and would say that it is in doubt anew.
  for (Held& held : held_) {
    if (auto* answer = std::get_if<AppendResponse>(&held.message.body)) answer->doubt = kNoDoubt;
  }
  if (!leader_.IsNone()) Send(leader_, Standing());
}

}  // namespace sluice::raft
