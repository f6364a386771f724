// Followers whose log cannot be continued begin anew (Raft paper section 7): what was before is the driver's to bring,
// the core says where the new log starts and who the members are.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "replication/core/leader_state.h"
#include "replication/core/raft.h"

namespace sluice::raft {

// ---- At the leader

void Raft::WantSnapshot(Progress& peer) {
  peer.BecomeSnapshot();
  dirty_ = true;
}

absl::Status Raft::SendSnapshot(const VoterId& to, Offset base_end, Bytes detail) {
  if (role_ != Role::kLeader) return absl::UnavailableError("not the leader");
  Progress* peer = lead_->Find(to);
  if (peer == nullptr || peer->state != Progress::State::kSnapshot) return absl::OkStatus();
  if (base_end > log_.end() || base_end.value() < 0) {
    return absl::InvalidArgumentError(Cat("a snapshot at ", base_end, ", the log ends at ", log_.end()));
  }
  // A restart forgets what is committed. What a state has applied was, in a term before this one, and a leader has all
  // that was: to wait until this term has committed would be to wait for the follower that waits for the snapshot.
  Commit(base_end);  // removes no peer: that is the next tick's
  if (LastCommittedConfiguration()->configuration.voters.empty()) {
    return absl::UnavailableError("which members are committed is not known yet");
  }
  InstallSnapshot snapshot;
  snapshot.base = {log_.EpochBefore(base_end).value_or(LeaderEpoch(0)), base_end};
  // The batch that holds the log start may begin before it, and has the log start's epoch.
  snapshot.next_epoch = log_.EpochAt(std::max(base_end, log_.start())).value_or(LeaderEpoch(0));
  snapshot.configuration = *LastCommittedConfiguration();
  snapshot.log_start = log_.start();
  snapshot.detail = std::move(detail);
  peer->snapshot = snapshot;
  peer->snapshot_ticks = 0;
  Send(to, std::move(snapshot));
  return absl::OkStatus();
}

void Raft::OnSnapshotFailed(const VoterId& to) {
  if (role_ != Role::kLeader) return;
  Progress* peer = lead_->Find(to);
  if (peer == nullptr || peer->state != Progress::State::kSnapshot) return;
  peer->BecomeProbe(peer->next);
  peer->paused = true;  // until it answers a heartbeat: not again at once
}

// ---- At the follower

absl::Status Raft::StepInstallSnapshot(const Message& message, InstallSnapshot& snapshot) {
  const LogPlace base = snapshot.base;
  const bool unknown = base.epoch.value() == 0 && snapshot.next_epoch.value() == 0 && base.end.value() != 0;
  if (unknown || base.end.value() < 0 || base.epoch.value() < 0 || base.epoch > message.term ||
      snapshot.next_epoch > message.term || snapshot.next_epoch.value() < 0 ||
      snapshot.configuration.configuration.voters.empty()) {
    return absl::InvalidArgumentError(Cat(message.from, ": a snapshot at epoch ", base.epoch, ", offset ", base.end,
                                          ", before epoch ", snapshot.next_epoch));
  }
  SLUICE_RETURN_IF_ERROR(FollowLeader(message));
  if (install_) return absl::OkStatus();  // one is under way; the leader asks again
  // Entries behind the base that are the leader's may have been acknowledged, so they must stay: the same epoch before
  // or behind the base means that the logs agree there. Where they do not, what stands here was never committed.
  const bool has_before = base.epoch.value() != 0 && log_.EpochBefore(base.end) == base.epoch;
  const bool has_next = snapshot.next_epoch.value() != 0 && log_.EpochAt(base.end) == snapshot.next_epoch;
  if (base.end <= committed_ || has_before || has_next) {
    if (base.end > committed_) {
      verified_end_ = std::max(verified_end_, base.end);
      Commit(base.end);
    }
    // What is known to be committed here may end inside a batch, where a log start is: nothing could be sent from
    // there.
    AcknowledgeAppend(message.from, base.end);
    return absl::OkStatus();
  }
  install_ = SnapshotInstall{message.from, base, snapshot.log_start, std::move(snapshot.detail)};
  // The batch before the base is of the next one's epoch or an earlier one.
  install_base_ = {base.epoch, base.epoch.value() != 0 ? base.epoch : snapshot.next_epoch};
  install_configuration_ = {base.end - 1, base.epoch, std::move(snapshot.configuration.configuration)};
  install_pending_ = true;
  // The new configuration is on disk before the log goes; the old ones stay with it until then.
  state_pending_ = true;
  NotePendingWrite();
  return absl::OkStatus();
}

void Raft::OnSnapshotInstalled(Offset base_end) {
  SLUICE_CHECK(install_ && install_->base.end == base_end) << "nothing is being installed at " << base_end;
  SLUICE_CHECK(append_pending_.empty() && base_end >= committed_)
      << "base " << base_end << ", committed " << committed_;
  log_.Reset(base_end, install_base_);
  for (Write& write : writes_) write.log_end = base_end;
  handed_out_end_ = durable_end_ = base_end;
  truncate_pending_.reset();
  configurations_ = {std::move(install_configuration_)};
  install_configuration_ = {};
  install_.reset();
  install_pending_ = false;
  Commit(base_end);
  state_pending_ = true;
  NotePendingWrite();
  // Whoever leads now is told how far this log goes; whether it fits is the next append's to find out.
  if (role_ == Role::kFollower && !leader_.IsNone()) {
    verified_end_ = base_end;
    AcknowledgeAppend(leader_, base_end);
  }
  MaybeEndDoubt();
}

void Raft::OnInstallFailed() {
  if (!install_) return;
  const Offset base_end = install_->base.end;
  install_.reset();
  install_configuration_ = {};
  install_pending_ = false;
  state_pending_ = true;
  NotePendingWrite();
  if (role_ == Role::kFollower && !leader_.IsNone()) Send(leader_, SnapshotFailed{base_end});
}

}  // namespace sluice::raft
