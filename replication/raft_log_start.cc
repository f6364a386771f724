// Where the log starts: advances that are committed entries, and snapshots for followers that are behind the start.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/planted_bug.h"
#include "common/record/control.h"
#include "replication/raft_log.h"
#include "replication/raft_log_internal.h"

namespace sluice::replication {

// ---- Advances

void RaftLog::AdvanceLogStart(Offset offset, Callback<absl::StatusOr<Offset>> done) {
  using Result = absl::StatusOr<Offset>;
  if (ended()) return AnswerLater<Result>(std::move(done), NotServed());
  if (raft_->transferring()) return AnswerLater<Result>(std::move(done), Moving());
  if (!IsLeader()) {
    return AnswerLater<Result>(std::move(done), absl::UnavailableError("this replica does not lead the partition"));
  }
  if (offset > high_watermark_) {
    return AnswerLater<Result>(
        std::move(done), absl::OutOfRangeError(absl::StrCat("offset ", offset.value(), " is beyond the high watermark ",
                                                            high_watermark_.value())));
  }
  if (offset <= log_start_) return WhenLogStartDurable(offset, std::move(done));
  auto place =
      TryPropose(record::MakeControlBatch(record::LogStartAdvance{offset}, NowMs()), storage::Log::Urgency::kEssential);
  if (!place.ok()) return AnswerLater<Result>(std::move(done), place.status());
  // Not `self`: this log keeps the proposal, and would keep itself.
  AddProposal(*place, [this, offset, done = std::move(done)](absl::StatusOr<Committed> committed) mutable {
    if (!committed.ok()) return done(committed.status());
    WhenLogStartDurable(offset, std::move(done));
  });
}

void RaftLog::WhenLogStartDurable(Offset offset, Callback<absl::StatusOr<Offset>> done) {
  if (ended()) {
    return AnswerLater<absl::StatusOr<Offset>>(
        std::move(done), absl::UnknownError("the partition stopped before the log start was on disk"));
  }
  if (log_start_durable_ >= offset) return AnswerLater<absl::StatusOr<Offset>>(std::move(done), log_start_durable_);
  log_start_waiters_.emplace_back(offset, std::move(done));
}

void RaftLog::ApplyAdvances() {
  Offset log_start = log_start_;
  std::erase_if(advances_, [&](const PendingAdvance& advance) {
    if (advance.end > high_watermark_) return false;
    log_start = std::max(log_start, advance.log_start);
    return true;
  });
  if (log_start > log_start_) MoveLogStart(log_start);
}

void RaftLog::MoveLogStart(Offset log_start) {
  // From its commit on every later leader has it too, so readers may know before this disk does.
  log_start_ = log_start;
  if (Planted(PlantedBug::kForgetLogStart)) {
    log_start_durable_ = log_start;
    for (auto& [offset, done] : std::exchange(log_start_waiters_, {})) WhenLogStartDurable(offset, std::move(done));
    raft_->OnLogStart(log_start);
    return ScheduleTurn();
  }
  log_->SetLogStart(log_start, [self = shared_from_this(), log_start](const absl::Status& status) {
    if (self->ended()) return;
    if (!status.ok()) return self->Halt(status);
    self->log_start_durable_ = std::max(self->log_start_durable_, log_start);
    auto waiters = std::exchange(self->log_start_waiters_, {});
    for (auto& [offset, done] : waiters) self->WhenLogStartDurable(offset, std::move(done));
  });
  raft_->OnLogStart(log_start);
  ScheduleTurn();
}

void RaftLog::ApplyRetention(const storage::RetentionPolicy& policy, Callback<absl::StatusOr<Offset>> done) {
  const std::vector<storage::SegmentInfo> segments = log_->segments();
  const storage::RetentionDecision decision =
      storage::DecideRetention(segments, policy, NowMs(), log_start_, high_watermark_, last_data_offset_end());
  if (decision.closes_active) log_->CloseActiveSegment();
  AdvanceLogStart(decision.log_start, std::move(done));
}

// ---- Snapshots of a log without a state machine: "begin where mine begins"

void RaftLog::ServeSnapshot(const VoterId& to) {
  if (feeds_state_) return OfferState(to);
  const Offset start = log_->log_start();
  if (start >= log_->log_end()) return SendSnapshot(to, start, {});
  // The start may lie inside a batch; the follower begins with that batch.
  log_->Read(start, log_->log_end(), 1,
             [self = shared_from_this(), to](absl::StatusOr<std::vector<record::Batch>> batches) {
               if (self->ended()) return;
               if (batches.ok() && !batches->empty()) return self->SendSnapshot(to, batches->front().base_offset(), {});
               self->OnLeaderReadFailed(batches.status());
               self->raft_->OnSnapshotFailed(to);
               self->ScheduleTurn();
             });
}

void RaftLog::SendSnapshot(const VoterId& to, Offset base_end, Bytes detail) {
  if (absl::Status sent = raft_->SendSnapshot(to, base_end, std::move(detail)); sent.ok()) {
    ++counts_.snapshots_sent;
  } else {
    if (raft_->role() == raft::Role::kLeader) raft_->OnSnapshotFailed(to);
    seams_.log->Debug("a snapshot was not sent",
                      {{"replica", group_.ToString()}, {"to", to.node.value()}, {"why", sent}});
  }
  ScheduleTurn();
}

// The reset is durable, and so is all that this write had before it.
void RaftLog::OnResetDone(Offset base_end) {
  ++counts_.snapshots_installed;
  log_start_durable_ = std::max(log_start_durable_, base_end);
  raft_->OnSnapshotInstalled(base_end);
  ScheduleTurn();
}

// ---- Snapshots of a log that feeds a state machine

void RaftLog::AttachStateMachine(StateMachine* machine) {
  machine_ = machine;
  state_coming_ = false;
  InstallState();
}

void RaftLog::Compact(Offset saved, int64_t bytes_kept) {
  if (ended() || !feeds_state_ || state_wanted_.has_value() || log_->size_bytes() <= bytes_kept) return;
  const Offset most = std::min(saved, high_watermark_);
  const storage::RetentionDecision decision = storage::DecideRetention(
      log_->segments(), {.retention_ms = -1, .retention_bytes = bytes_kept}, NowMs(), log_start_, most, most);
  if (decision.log_start > log_start_) MoveLogStart(decision.log_start);
}

void RaftLog::OfferState(const VoterId& to) {
  auto offer = machine_ != nullptr
                   ? machine_->OfferSnapshot()
                   : absl::StatusOr<StateMachine::Offer>(absl::UnavailableError("the state is not there yet"));
  if (offer.ok()) return SendSnapshot(to, offer->base_end, std::move(offer->detail));
  seams_.log->Debug("no snapshot is offered",
                    {{"replica", group_.ToString()}, {"to", to.node.value()}, {"why", offer.status()}});
  raft_->OnSnapshotFailed(to);
  ScheduleTurn();
}

void RaftLog::InstallState() {
  if (ended() || machine_ == nullptr || !state_wanted_.has_value() || std::exchange(state_coming_, true)) return;
  const raft::SnapshotInstall install = *state_wanted_;
  if (Planted(PlantedBug::kResetBeforeState)) OnStateInstalled(install.base.end, absl::OkStatus());
  machine_->InstallSnapshot(install.from.node, install.base.end, install.detail,
                            [weak = weak_from_this(), base_end = install.base.end](const absl::Status& status) {
                              if (const auto self = weak.lock()) self->OnStateInstalled(base_end, status);
                            });
}

// From here on a restart finds the state at least at base_end, whether the log has begun anew or not.
void RaftLog::OnStateInstalled(Offset base_end, const absl::Status& status) {
  if (ended() || !state_wanted_.has_value() || state_wanted_->base.end != base_end) return;
  const raft::SnapshotInstall install = *std::exchange(state_wanted_, std::nullopt);
  state_coming_ = false;
  if (status.ok()) {
    TakeOverAdvances(install);
    // Of no write of the core's: it waits for OnSnapshotInstalled.
    ops_.push_back({.write = 0, .what = SaveState{EncodeBlob()}});
    ops_.push_back({.write = 0, .what = Reset{base_end}});
  } else {
    seams_.log->Info("a snapshot was not installed; it is asked for again",
                     {{"replica", group_.ToString()}, {"from", install.from.node.value()}, {"why", status}});
    raft_->OnInstallFailed();
  }
  ScheduleTurn();
}

}  // namespace sluice::replication
