// What the core wants on disk, in its order, and when it is there.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/record/control.h"
#include "replication/raft_log.h"

namespace sluice::replication {

Bytes RaftLog::EncodeBlob() const {
  return Bytes::Adopt(ReplicaBlob{.core = core_state_, .advances = advances_}.Encode());
}

void RaftLog::NoteAdvances(const std::vector<record::Batch>& batches, bool* found) {
  for (const record::Batch& batch : batches) {
    if (!batch.is_control()) continue;
    const auto control = record::DecodeControlBatch(batch.view());
    if (!control.ok()) continue;  // a kind of a later version; replication does not need it
    const auto* advance = std::get_if<record::LogStartAdvance>(&*control);
    // One beyond its own entry is nobody's doing but a broken peer's; a log start must not pass what is committed.
    if (advance == nullptr || advance->log_start < Offset(0) || advance->log_start > batch.base_offset()) continue;
    advances_.push_back({.end = batch.next_offset(), .epoch = batch.epoch(), .log_start = advance->log_start});
    *found = true;
  }
}

void RaftLog::QueueWrites(raft::Ready& ready) {
  if (!ready.must_persist) return;
  Write write{ready.number, 0};
  const auto queue = [&](auto what) {
    ops_.push_back({.write = write.number, .what = std::move(what)});
    ++write.left;
  };
  if (ready.hard_state) queue(*ready.hard_state);
  if (ready.truncate_to) {
    std::erase_if(advances_, [&](const PendingAdvance& advance) {
      return advance.epoch != LeaderEpoch(0) && advance.end > *ready.truncate_to;
    });
    queue(Truncate{*ready.truncate_to});
  }
  bool save = ready.raft_state.has_value();
  if (save) core_state_ = *std::move(ready.raft_state);
  const bool begins_anew = ready.install.has_value() && !feeds_state_;
  if (begins_anew) {
    TakeOverAdvances(*ready.install);
    save = true;
  }
  NoteAdvances(ready.append, &save);
  if (save) queue(SaveState{EncodeBlob()});
  if (!ready.append.empty()) {
    for (const record::Batch& batch : ready.append) ops_bytes_ += static_cast<int64_t>(batch.size_bytes());
    queue(Append{std::move(ready.append)});
  }
  if (begins_anew) queue(Reset{ready.install->base.end});
  writes_.push_back(write);
  TellDurable();  // the core may change its mind before it hands out: a write of nothing
  if (ready.install.has_value() && feeds_state_) {
    state_wanted_ = *std::move(ready.install);
    InstallState();
  }
}

void RaftLog::TakeOverAdvances(const raft::SnapshotInstall& install) {
  advances_.clear();
  if (install.log_start > install.base.end) {
    advances_.push_back({.end = install.log_start, .epoch = LeaderEpoch(0), .log_start = install.log_start});
  }
}

void RaftLog::PumpWrites() {
  while (!ops_.empty() && !ended()) {
    if (!log_->failure().ok()) return Halt(log_->failure());
    // While storage repairs a segment, or looks for a truncation's place, it takes no appends; then all behind waits,
    // for the next finished write or the next tick.
    if (std::holds_alternative<Append>(ops_.front().what) && !log_->Admit(0, storage::Log::Urgency::kEssential).ok()) {
      return;
    }
    Op op = std::move(ops_.front());
    ops_.pop_front();
    Submit(std::move(op));
  }
}

void RaftLog::Submit(Op op) {
  auto done = [self = shared_from_this(), write = op.write](absl::Status status) {
    self->OnOpDone(write, std::move(status));
  };
  if (const auto* hard_state = std::get_if<raft::HardState>(&op.what)) {
    log_->SaveHardState({.term = hard_state->term, .voted_for = hard_state->voted_for}, std::move(done));
  } else if (const auto* truncate = std::get_if<Truncate>(&op.what)) {
    log_->Truncate(truncate->new_end, std::move(done));
  } else if (auto* state = std::get_if<SaveState>(&op.what)) {
    log_->SaveRaftConfig(std::move(state->blob), std::move(done));
  } else if (auto* append = std::get_if<Append>(&op.what)) {
    for (const record::Batch& batch : append->batches) ops_bytes_ -= static_cast<int64_t>(batch.size_bytes());
    // Admitted when it was proposed or received; from then on the core counts on it.
    log_->Append(std::move(append->batches), std::move(done), storage::Log::Urgency::kEssential);
  } else {
    const Offset base_end = std::get<Reset>(op.what).base_end;
    log_->Reset(base_end, [self = shared_from_this(), done = std::move(done), base_end](absl::Status status) mutable {
      const bool reset = status.ok();
      done(std::move(status));
      if (reset && !self->ended()) self->OnResetDone(base_end);
    });
    // From here on there is nothing below it to be read.
    high_watermark_ = std::max(high_watermark_, base_end);
    log_start_ = std::max(log_start_, base_end);
  }
}

void RaftLog::OnOpDone(uint64_t write, absl::Status status) {
  if (ended()) return;
  if (!status.ok()) {
    // Unknown: the journal failed, and the process stops. Otherwise storage stopped, or did not take what the core had
    // every right to write; either way this replica's memory is ahead of its disk.
    return Halt(absl::UnavailableError(absl::StrCat("replica ", group_.ToString(), ": ", status.message())));
  }
  for (Write& each : writes_) {
    if (each.number == write) --each.left;
  }
  TellDurable();
  ScheduleTurn();
}

void RaftLog::TellDurable() {
  uint64_t durable = 0;
  while (!writes_.empty() && writes_.front().left == 0) {
    durable = writes_.front().number;
    writes_.pop_front();
  }
  if (durable > 0) raft_->OnDurable(durable);
}

}  // namespace sluice::replication
