#include "storage/checkpointer.h"

#include <algorithm>
#include <utility>

#include "storage/disk_reserve.h"

namespace sluice::storage {
namespace {

// Of logs that a start or a stop checkpoints. Segments are synced one after the other all the same; what is saved is
// that each waits for a sync of the journal. Not more: where a disk is so slow that a stop does not reach all of them,
// it had better be through with some.
constexpr size_t kTogetherMax = 4;
// A tail up to this size costs less to write from the journal at the next start than to sync now.
constexpr int64_t kLastCarryBytesMax = 4096;

}  // namespace

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
  CheckpointRecovered();
  GoRound();
  // The journal says so where it begins a file; one group may use up what was left since then.
  pressed_ = pressed_ || JournalPresses();
  if (pressed_ && work_.empty() && recovered_.empty()) FreeOldestFile();
  Arm();
}

// Once no more of them are attached: until then the node starts, and needs the disk itself.
void Checkpointer::CheckpointRecovered() {
  if (std::exchange(recovered_before_, recovered_.size()) != recovered_.size()) return;
  for (const ReplicaId& replica : std::exchange(recovered_, {})) {
    if (auto log = store_.Find(replica)) work_.push_back({std::move(log), nullptr, Kind::kRecovered});
  }
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
    if (self->work_.empty() && self->running_ == 0) self->FreeOldestFile();
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

void Checkpointer::OnRecovered(const ReplicaId& replica) {
  home_.Post([self = shared_from_this(), replica] { self->recovered_.push_back(replica); });
}

void Checkpointer::RunNext() {
  while (!work_.empty()) {
    const Work& next = work_.front();
    const bool together = next.kind == Kind::kRecovered || next.kind == Kind::kLast;
    if (running_ >= (together ? kTogetherMax : 1)) return;
    Work work = std::move(work_.front());
    work_.pop_front();
    // Where the journal takes nothing, on a full disk, a stop does not wait for it.
    if (work.kind == Kind::kLast && !store_.journal_->Admit().ok()) continue;
    if (work.log != nullptr || work.kind == Kind::kCarryDamaged) {
      ++running_;
      Run(std::move(work));
      continue;
    }
    const absl::Status status = std::exchange(first_error_, absl::OkStatus());
    if (work.done != nullptr) work.done(status);
  }
  if (stopped_ && running_ == 0) EndStop();
}

void Checkpointer::OnFinished(const absl::Status& status) {
  --running_;
  if (!status.ok() && first_error_.ok()) first_error_ = status;
  // One after the other while the journal presses; after an error the next tick tries again.
  if (!stopped_ && running_ == 0 && work_.empty() && pressed_ && status.ok()) return FreeOldestFile();
  RunNext();
}

void Checkpointer::Run(Work work) {
  const bool last = work_.empty();
  auto finished = [self = shared_from_this()](absl::Status status) {
    self->home_.Post([self, status = std::move(status)] { self->OnFinished(status); });
  };
  if (work.kind == Kind::kCarryDamaged) return store_.CarryDamaged(work.replica, std::move(finished));
  // Small tails of many logs may together be more than the journal holds: carried forward, they would never let it go.
  const bool carry = work.kind == Kind::kFreeJournal &&
                     store_.journal_->stats().used_bytes <= store_.options_.journal.total_bytes_max / 4 * 3;
  Executor& home = work.log->home();
  home.Post([log = std::move(work.log), kind = work.kind, carry, last, finished = std::move(finished)]() mutable {
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
    // The last one also writes the index of a segment that earlier ones have synced.
    if (bytes == 0 && kind != Kind::kLast) return finished(absl::OkStatus());
    // Lets the older files of the journal go, which then need not be read.
    if (kind == Kind::kLast && bytes > 0 && bytes <= kLastCarryBytesMax && log->CarryForward(finished)) return;
    log->Checkpoint(std::move(finished), kind == Kind::kLast ? Log::Indexes::kAll : Log::Indexes::kGrown);
  });
}

void Checkpointer::Stop(absl::AnyInvocable<void()> done) {
  stopped_ = true;
  home_.Cancel(timer_);
  for (Work& work : std::exchange(work_, {})) {
    if (work.log == nullptr && work.done != nullptr) work.done(absl::UnavailableError("the log store stops"));
  }
  stop_done_ = std::move(done);
  for (std::shared_ptr<Log>& log : store_.Logs()) work_.push_back({std::move(log), nullptr, Kind::kLast});
  timer_ = home_.PostAfter(store_.options_.stop_checkpoints_max, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->EndStop();
  });
  RunNext();
}

// What is under way then ends with its log.
void Checkpointer::EndStop() {
  for (Work& work : std::exchange(work_, {})) {
    if (work.log == nullptr && work.done != nullptr) work.done(absl::UnavailableError("the log store stops"));
  }
  if (stop_done_ == nullptr) return;
  home_.Cancel(timer_);
  std::exchange(stop_done_, nullptr)();
}

}  // namespace sluice::storage
