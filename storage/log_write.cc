// The segment writer: what is durable in the journal goes to segment files, closed files are cut to size, checkpoints
// sync. Pump decides what is next; one task at a time is on the segment executor, so that a file is never used by two.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "storage/log.h"

namespace sluice::storage {
namespace {

constexpr int64_t kWriteBytesMax = 1 << 20;
constexpr int64_t kTailBytesKept = 16 << 10;
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

}  // namespace

void Log::RunTask(absl::AnyInvocable<absl::Status()> work, Done then) {
  task_running_ = true;
  ++under_way_;
  env_.segment_io->Post([self = shared_from_this(), work = std::move(work), then = std::move(then)]() mutable {
    absl::Status status = work();
    Executor& home = self->home_;
    home.Post([self = std::move(self), status = std::move(status), then = std::move(then)]() mutable {
      self->task_running_ = false;
      then(std::move(status));
      self->Pump();
      self->EndOne();
    });
  });
}

void Log::Pump() {
  if (task_running_ || stopped_) return;
  if (PumpRemoval() || PumpHeal()) return;
  if (!write_error_.ok() && env_.clock->Monotonic() < retry_at_) {
    // Nothing more to do until then; a checkpoint that waits is answered with the error.
    AnswerCheckpoints(write_error_);
    return PumpAt(retry_at_);
  }
  write_error_ = absl::OkStatus();  // tried again from here; a failure sets it again
  if (PumpFinish() || PumpCheckpoint()) return;
  PumpWrite();
}

void Log::PumpAt(absl::Duration when) {
  if (std::exchange(retry_timer_, true)) return;  // it pumps before, and then asks again
  home_.PostAfter(when - env_.clock->Monotonic(), [weak = weak_from_this()] {
    if (auto self = weak.lock()) {
      self->retry_timer_ = false;
      self->Pump();
    }
  });
}

void Log::OnWriteFailed(absl::Status status) {
  CountForLag(false);
  write_error_ = std::move(status);
  retry_at_ = env_.clock->Monotonic() + kRetryAfter;
}

bool Log::PumpRemoval() {
  if (removals_.empty()) return false;
  SegmentPtr segment = std::move(removals_.front());
  removals_.pop_front();
  RunTask(
      [fs = env_.fs, segment] {
        segment->file.reset();
        (void)fs->Remove(segment->index_path);
        // What cannot be removed now is not in the registry, and goes when the store is opened the next time.
        (void)fs->Remove(segment->path);
        return absl::OkStatus();
      },
      [](absl::Status) {});
  return true;
}

bool Log::PumpFinish() {
  while (!unfinished_.empty()) {
    SegmentPtr segment = unfinished_.front();
    // One that a later change took away may still come here: its truncation became durable after that was asked for.
    if (segment->finished || Runtime(segment->id) != segment) {
      unfinished_.pop_front();
      continue;
    }
    if (segment->accepted < *segment->closed_at) return false;  // its last batches are still to be written
    RunTask(
        [fs = env_.fs, segment, size = *segment->closed_at]() -> absl::Status {
          if (segment->file != nullptr) return segment->file->Finish(size);
          SLUICE_ASSIGN_OR_RETURN(const auto file, fs->Open(segment->path, {.mode = OpenOptions::Mode::kReadWrite}));
          return file->Truncate(size);
        },
        [this, segment, size = *segment->closed_at](absl::Status status) {
          if (!status.ok()) return OnWriteFailed(std::move(status));
          segment->accepted = segment->flushed = *segment->closed_at;
          segment->synced = std::min(segment->synced, segment->flushed);
          segment->finished = size == *segment->closed_at;
          if (segment->finished && segment->synced == size) segment->file.reset();
          if (segment->finished) IndexLater(segment);
          CountTail();
        });
    return true;
  }
  return false;
}

bool Log::WriteWanted() const {
  if (tail_accepted_ >= tail_.size()) return false;
  const Tail& next = tail_[tail_accepted_];
  if (next.batch.next_offset() > durable_end_) return false;
  if (flush_asked_ || checkpoint_step_ == CheckpointStep::kWriting || next.segment != active_) return true;
  // Not when the cache as a whole is: what is in it already stands in files and can go, and does not make room by
  // small writes here, each of which grows a file and makes the journal's syncs wait.
  if (env_.shared->writes_wanted()) return true;
  int64_t bytes = 0;
  for (size_t i = tail_accepted_; i < tail_.size() && tail_[i].batch.next_offset() <= durable_end_; ++i) {
    bytes += static_cast<int64_t>(tail_[i].batch.size_bytes());
    if (bytes >= options_.write_bytes) return true;
  }
  return false;
}

bool Log::PumpTail() {
  if (active_ == nullptr || !active_->created || active_->flushed >= active_->accepted) return false;
  RunTask([segment = active_] { return segment->file->FlushTail(); },
          [this, segment = active_](absl::Status status) {
            if (!status.ok()) return OnWriteFailed(std::move(status));
            segment->flushed = segment->file->flushed();
            CountTail();
          });
  return true;
}

bool Log::PumpWrite() {
  if (!WriteWanted()) {
    flush_asked_ = false;
    // A batch that ends in a partly filled block stays in memory whole: the last ones of many logs may be more than all
    // of it. Small ones stay, for as long as they do they can be carried forward without a sync; checkpoints write
    // them.
    return env_.shared->writes_wanted() && behind_bytes_ > kTailBytesKept && PumpTail();
  }
  SegmentPtr segment = tail_[tail_accepted_].segment;
  if (!segment->created) {
    RunTask(
        [fs = env_.fs, dir = dir_, segment]() -> absl::Status {
          auto file = SegmentFile::Create(*fs, segment->path);
          if (absl::IsNotFound(file.status())) {
            SLUICE_RETURN_IF_ERROR(fs->CreateDirs(dir));
            file = SegmentFile::Create(*fs, segment->path);
          }
          if (!file.ok()) return std::move(file).status();
          segment->file = *std::move(file);
          return absl::OkStatus();
        },
        [this, segment](absl::Status status) {
          if (!status.ok()) return OnWriteFailed(std::move(status));
          segment->created = true;
        });
    return true;
  }
  std::vector<Bytes> parts;
  int64_t bytes = 0;
  for (size_t i = tail_accepted_; i < tail_.size() && bytes < kWriteBytesMax; ++i) {
    const Tail& next = tail_[i];
    if (next.segment != segment || next.batch.next_offset() > durable_end_) break;
    parts.push_back(next.batch.bytes());
    bytes += static_cast<int64_t>(next.batch.size_bytes());
  }
  SLUICE_CHECK(tail_[tail_accepted_].position == segment->accepted)
      << segment->path << ": " << tail_[tail_accepted_].position << " after " << segment->accepted;
  RunTask([segment, parts = std::move(parts)] { return segment->file->Append(parts); },
          [this, segment](absl::Status status) {
            if (!status.ok()) return OnWriteFailed(std::move(status));
            written_unsynced_ += segment->file->flushed() - segment->flushed;
            segment->accepted = segment->file->end();
            segment->flushed = segment->file->flushed();
            CountTail();
            const bool idle = checkpoint_step_ == CheckpointStep::kIdle && checkpoints_waiting_.empty();
            if (idle && written_unsynced_ >= options_.sync_bytes) {
              checkpoints_waiting_.push_back([](const absl::Status&) {});
            }
          });
  return true;
}

void Log::CountTail() {
  const auto count = [this](size_t from, int64_t Segment::*reached) {
    while (from < tail_.size() && (*tail_[from].segment).*reached >= tail_[from].end()) ++from;
    return from;
  };
  tail_accepted_ = count(tail_accepted_, &Segment::accepted);
  CountBehind();
  CountForLag(write_error_.ok() && doubtful_.empty());
  for (const size_t flushed = count(tail_flushed_, &Segment::flushed); tail_flushed_ < flushed; ++tail_flushed_) {
    if (tail_flushed_ < tail_durable_) AddBehind(-static_cast<int64_t>(tail_[tail_flushed_].batch.size_bytes()));
  }
  tail_durable_ = std::max(tail_durable_, tail_flushed_);
  EvictTail(env_.shared->cache_bytes_max / 2);
}

void Log::CountBehind() {
  while (tail_durable_ < tail_.size() && tail_[tail_durable_].batch.next_offset() <= durable_end_) {
    AddBehind(static_cast<int64_t>(tail_[tail_durable_++].batch.size_bytes()));
  }
}

void Log::AddBehind(int64_t bytes) {
  behind_bytes_ += bytes;
  if (counts_for_lag_) env_.shared->behind_bytes += bytes;
}

void Log::CountForLag(bool counts) {
  if (std::exchange(counts_for_lag_, counts) == counts) return;
  env_.shared->behind_bytes += counts ? behind_bytes_ : -behind_bytes_;
}

void Log::EvictTail(int64_t cache_bytes_max) {
  // What a doubtful file holds is better read from memory as long as it is there.
  if (!doubtful_.empty()) return;
  while (tail_flushed_ > 0 && env_.shared->cache_bytes > cache_bytes_max) PopTail();
}

void Log::FlushSoon() {
  flush_asked_ = true;
  Pump();
}

void Log::DropCache() {
  EvictTail(0);
}

}  // namespace sluice::storage
