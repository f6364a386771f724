#include "storage/checkpointer.h"

#include <algorithm>
#include <utility>

#include "storage/disk_reserve.h"

namespace sluice::storage {

Checkpointer::Checkpointer(LogStore& store) : store_(store), home_(*store.executors_.home) {
  last_round_ = store_.clock_.Monotonic();
}

void Checkpointer::Start() {
  // The journal presses when it begins a file. What it was opened with may be over its bound already: then nothing is
  // written, no file is begun, and it would never say so.
  pressed_ = JournalPresses();
  home_.Post([self = shared_from_this()] { self->Arm(); });
}

void Checkpointer::Arm() {
  if (stopped_) return;
  timer_ = home_.PostAfter(store_.options_.tick, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->Tick();
  });
}

void Checkpointer::Tick() {
  if (stopped_) return;
  WatchSpace();
  WatchMemory();
  GoRound();
  if (pressed_ && work_.empty()) FreeOldestFile();
  Arm();
}

void Checkpointer::GoRound() {
  const absl::Duration now = store_.clock_.Monotonic();
  const absl::Duration interval = store_.options_.checkpoint_interval;
  if (round_.empty() && now - last_round_ >= interval) {
    last_round_ = now;
    for (const auto& log : store_.Logs()) round_.push_back(log->replica());
    const auto ticks = std::max<int64_t>(1, interval / store_.options_.tick);
    round_share_ = (round_.size() + static_cast<size_t>(ticks) - 1) / static_cast<size_t>(ticks);
  }
  for (size_t i = 0; i < round_share_ && !round_.empty(); ++i) {
    if (auto log = store_.Find(round_.front())) work_.push_back({std::move(log), nullptr, Kind::kCheckpointIfMuch});
    round_.pop_front();
  }
  RunNext();
}

void Checkpointer::WatchSpace() {
  if (std::exchange(space_asked_, true)) return;
  // The store outlives what it has under way: Stop waits for nothing here, so the pieces are held, not the store.
  store_.executors_.cold_reads->Post([self = shared_from_this(), fs = &store_.fs_, shared = store_.shared_,
                                      reserve = store_.reserve_, dir = store_.options_.data_dir,
                                      low = store_.options_.disk_low_watermark_bytes,
                                      high = store_.options_.disk_high_watermark_bytes]() mutable {
    const auto free_bytes = fs->FreeBytes(dir);
    if (free_bytes.ok() && *free_bytes < low) shared->disk_full = true;
    if (free_bytes.ok() && *free_bytes >= std::max(low, high)) shared->disk_full = false;
    if (free_bytes.ok()) reserve->Keep(*free_bytes - std::max(low, high));
    Executor& home = self->home_;
    home.Post([self = std::move(self)] { self->space_asked_ = false; });
  });
}

void Checkpointer::WatchMemory() {
  const LogShared& shared = *store_.shared_;
  const bool full = shared.cache_bytes > shared.cache_bytes_max / 4 * 3;
  // Many logs may each have too little to begin a write, and yet together so much that the journal would soon wait for
  // them.
  if (!full && !shared.writes_wanted()) return;
  for (const std::shared_ptr<Log>& log : store_.Logs()) {
    log->home().Post([log, full] {
      log->FlushSoon();
      if (full) log->DropCache();
    });
  }
  // The last, partly filled blocks of small tails are written by checkpoints only.
  if ((full || shared.segments_lag()) && work_.empty()) CheckpointAll(nullptr);
}

void Checkpointer::Press() {
  home_.Post([self = shared_from_this()] {
    self->pressed_ = true;
    if (self->work_.empty() && !self->running_) self->FreeOldestFile();
  });
}

bool Checkpointer::JournalPresses() const {
  return store_.journal_->stats().used_bytes > store_.options_.journal.total_bytes_max / 2;
}

void Checkpointer::FreeOldestFile() {
  if (stopped_) return;
  pressed_ = JournalPresses();
  std::vector<ReplicaId> pins = store_.journal_->OldestFilePins();
  if (pins == pins_tried_) return pins_tried_.clear();  // the next tick tries again
  pins_tried_ = pins;
  for (const ReplicaId& replica : pins) {
    if (auto log = store_.Find(replica)) {
      work_.push_back({std::move(log), nullptr, Kind::kFreeJournal});
    } else if (store_.MayCarryDamaged(replica)) {
      work_.push_back({nullptr, nullptr, Kind::kCarryDamaged, replica});
    }
  }
  RunNext();
}

void Checkpointer::CheckpointAll(Log::Done done) {
  for (std::shared_ptr<Log>& log : store_.Logs()) work_.push_back({std::move(log), nullptr, Kind::kCheckpoint});
  work_.push_back({nullptr, std::move(done), Kind::kCheckpoint});
  RunNext();
}

void Checkpointer::RunNext() {
  if (running_) return;
  while (!work_.empty() && work_.front().log == nullptr && work_.front().kind != Kind::kCarryDamaged) {
    Log::Done done = std::move(work_.front().done);
    work_.pop_front();
    const absl::Status status = std::exchange(first_error_, absl::OkStatus());
    if (done != nullptr) done(status);
  }
  if (work_.empty()) return;
  const std::shared_ptr<Log> log = std::move(work_.front().log);
  const Kind kind = work_.front().kind;
  const ReplicaId replica = work_.front().replica;
  work_.pop_front();
  const bool last = work_.empty();
  running_ = true;
  auto finished = [self = shared_from_this()](absl::Status status) {
    self->home_.Post([self, status = std::move(status)] {
      self->running_ = false;
      if (!status.ok() && self->first_error_.ok()) self->first_error_ = status;
      if (self->stopped_ && self->stop_done_ != nullptr) return std::exchange(self->stop_done_, nullptr)();
      // One after the other while the journal presses; after an error the next tick tries again.
      if (self->work_.empty() && self->pressed_ && status.ok()) return self->FreeOldestFile();
      self->RunNext();
    });
  };
  if (kind == Kind::kCarryDamaged) return store_.CarryDamaged(replica, std::move(finished));
  // Small tails of many logs may together be more than the journal holds: carried forward, they would never let it go.
  const bool carry = kind == Kind::kFreeJournal &&
                     store_.journal_->stats().used_bytes <= store_.options_.journal.total_bytes_max / 4 * 3;
  log->home().Post([log, kind, carry, last, finished = std::move(finished)]() mutable {
    // The journal answers in order: to wait for the last one is to wait for all, with one sync.
    if (carry && log->CarryForward(last ? Log::Done(finished) : nullptr)) {
      if (!last) finished(absl::OkStatus());
      return;
    }
    const int64_t bytes = log->uncheckpointed_bytes();
    if (kind == Kind::kCheckpointIfMuch && bytes <= log->options().carry_bytes) {
      // Written, so that it costs no memory, but not synced.
      if (bytes > 0) log->FlushSoon();
      return finished(absl::OkStatus());
    }
    if (bytes == 0) return finished(absl::OkStatus());
    log->Checkpoint(std::move(finished));
  });
}

void Checkpointer::Stop(absl::AnyInvocable<void()> done) {
  stopped_ = true;
  home_.Cancel(timer_);
  for (Work& work : std::exchange(work_, {})) {
    if (work.log == nullptr && work.done != nullptr) work.done(absl::UnavailableError("the log store stops"));
  }
  if (running_) {
    stop_done_ = std::move(done);
  } else {
    done();
  }
}

}  // namespace sluice::storage
