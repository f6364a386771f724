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
constexpr absl::Duration kRetryAfter = absl::Seconds(1);
constexpr size_t kIndexesKept = 4;

absl::Status WriteIndexFile(FileSystem& fs, const std::string& path, std::string_view contents) {
  // Neither synced nor renamed into place: an index that is torn or missing is built anew.
  const absl::Status removed = fs.Remove(path);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  SLUICE_ASSIGN_OR_RETURN(const auto file, fs.Open(path, {.mode = OpenOptions::Mode::kCreateNew}));
  return file->WriteAt(0, contents);
}

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
  if (env_.shared->cache_bytes > env_.shared->cache_bytes_max / 2) return true;
  int64_t bytes = 0;
  for (size_t i = tail_accepted_; i < tail_.size() && tail_[i].batch.next_offset() <= durable_end_; ++i) {
    bytes += static_cast<int64_t>(tail_[i].batch.size_bytes());
    if (bytes >= options_.write_bytes) return true;
  }
  return false;
}

bool Log::PumpWrite() {
  if (!WriteWanted()) {
    flush_asked_ = false;
    return false;
  }
  SegmentPtr segment = tail_[tail_accepted_].segment;
  if (!segment->created) {
    RunTask(
        [fs = env_.fs, dir = dir_, segment]() -> absl::Status {
          SLUICE_RETURN_IF_ERROR(fs->CreateDirs(dir));
          SLUICE_ASSIGN_OR_RETURN(segment->file, SegmentFile::Create(*fs, segment->path));
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
            segment->accepted = segment->file->end();
            segment->flushed = segment->file->flushed();
            CountTail();
          });
  return true;
}

void Log::CountTail() {
  const auto count = [this](size_t from, int64_t Segment::*reached) {
    while (from < tail_.size() && (*tail_[from].segment).*reached >= tail_[from].end()) ++from;
    return from;
  };
  tail_accepted_ = count(tail_accepted_, &Segment::accepted);
  tail_flushed_ = count(tail_flushed_, &Segment::flushed);
  EvictTail(env_.shared->cache_bytes_max / 2);
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

// ---- Checkpoints

bool Log::dirty() const {
  for (const SegmentState& segment : state().segments) {
    if (Runtime(segment.id)->synced < segment.end_position) return true;
  }
  return false;
}

void Log::Checkpoint(Done done) {
  if (absl::Status status = CheckOpen(); !status.ok()) return Answer(std::move(done), std::move(status));
  checkpoints_waiting_.push_back(std::move(done));
  Pump();
}

void Log::AnswerCheckpoints(const absl::Status& status) {
  for (Done& done : std::exchange(checkpoints_running_, {})) Answer(std::move(done), status);
  for (Done& done : std::exchange(checkpoints_waiting_, {})) Answer(std::move(done), status);
  if (checkpoint_step_ != CheckpointStep::kSubmitted) checkpoint_step_ = CheckpointStep::kIdle;
  to_sync_.clear();
  to_index_.clear();
}

bool Log::PumpCheckpoint() {
  switch (checkpoint_step_) {
    case CheckpointStep::kIdle:
      if (checkpoints_waiting_.empty()) return false;
      checkpoints_running_ = std::exchange(checkpoints_waiting_, {});
      checkpoint_target_ = durable_end_;
      checkpoint_step_ = CheckpointStep::kWriting;
      [[fallthrough]];
    case CheckpointStep::kWriting: {
      // Up to what was durable when it began: a partition under load must not keep it from ending.
      const bool written =
          tail_accepted_ >= tail_.size() || tail_[tail_accepted_].batch.base_offset() >= checkpoint_target_;
      if (!written) return false;  // PumpWrite goes on
      checkpoint_step_ = CheckpointStep::kTail;
      [[fallthrough]];
    }
    case CheckpointStep::kTail:
      // The partly filled block is written padded, so that a quiet partition does not hold back the journal.
      if (active_ != nullptr && active_->created && active_->flushed < active_->accepted) {
        RunTask([segment = active_] { return segment->file->FlushTail(); },
                [this, segment = active_](absl::Status status) {
                  if (!status.ok()) return OnWriteFailed(std::move(status));
                  segment->flushed = segment->file->flushed();
                  CountTail();
                });
        return true;
      }
      for (const auto& [id, segment] : segments_) {
        if (segment->synced < segment->flushed) to_sync_.emplace_back(segment, segment->flushed);
      }
      checkpoint_step_ = CheckpointStep::kSyncing;
      [[fallthrough]];
    case CheckpointStep::kSyncing:
      if (SyncNext()) return true;
      checkpoint_step_ = CheckpointStep::kIndexing;
      [[fallthrough]];
    case CheckpointStep::kIndexing:
      if (WriteIndexNext()) return true;
      SubmitCheckpoint();
      return false;
    case CheckpointStep::kSubmitted:
      return false;
  }
  return false;
}

bool Log::SyncNext() {
  while (!to_sync_.empty() && Runtime(to_sync_.front().first->id) != to_sync_.front().first) to_sync_.pop_front();
  if (to_sync_.empty()) return false;
  const SegmentPtr segment = to_sync_.front().first;
  if (!dirs_synced_) {
    RunTask(
        [fs = env_.fs, dir = dir_]() -> absl::Status {
          // <data>/topics/<topic>/<partition>: each name stands in the folder above it.
          std::string above = dir;
          for (int i = 0; i < 3; ++i) {
            above.resize(above.rfind('/'));
            SLUICE_RETURN_IF_ERROR(fs->SyncDir(above));
          }
          return absl::OkStatus();
        },
        [this](absl::Status status) {
          if (!status.ok()) return OnFolderSyncFailed(status);
          dirs_synced_ = true;
        });
    return true;
  }
  if (!segment->dir_synced) {
    RunTask([fs = env_.fs, dir = dir_] { return fs->SyncDir(dir); },
            [this, segment](absl::Status status) {
              if (!status.ok()) return OnFolderSyncFailed(status);
              segment->dir_synced = true;
            });
    return true;
  }
  const int64_t goal = to_sync_.front().second;
  to_sync_.pop_front();
  RunTask(
      [fs = env_.fs, segment]() -> absl::Status {
        if (segment->file != nullptr) return segment->file->Sync();
        SLUICE_ASSIGN_OR_RETURN(const auto file, fs->Open(segment->path, {.mode = OpenOptions::Mode::kReadWrite}));
        return file->Sync();
      },
      [this, segment, goal](absl::Status status) {
        if (Runtime(segment->id) != segment) return;  // it has gone meanwhile
        if (!status.ok()) return OnSyncFailed(segment, status);
        segment->synced = std::min(goal, segment->closed_at.value_or(goal));
        if (segment->finished && segment->synced == *segment->closed_at) segment->file.reset();
        to_index_.push_back(segment);
      });
  return true;
}

void Log::OnFolderSyncFailed(const absl::Status& status) {
  // Names are journaled by the file systems that this runs on: one that could not commit them takes no more of them, so
  // that a later success speaks the truth, other than with a file's pages.
  AnswerCheckpoints(status);
}

bool Log::WriteIndexNext() {
  while (!to_index_.empty()) {
    const SegmentPtr segment = std::move(to_index_.front());
    to_index_.pop_front();
    if (Runtime(segment->id) != segment || segment->index == nullptr) continue;
    const bool grew = segment->index->covered() > segment->index_written;
    // A segment with one entry is read from its start anyway.
    if (grew && segment->index->entries().size() > 1) {
      RunTask([fs = env_.fs, path = segment->index_path,
               file = segment->index->Encode(segment->id)] { return WriteIndexFile(*fs, path, file); },
              [this, segment, covered = segment->index->covered()](absl::Status status) {
                if (status.ok()) segment->index_written = covered;
                BoundIndexes(segment);
              });
      return true;
    }
    BoundIndexes(segment);
  }
  return false;
}

void Log::BoundIndexes(const SegmentPtr& used) {
  if (used == active_ || used->index == nullptr) return;
  std::erase(indexes_loaded_, used);
  indexes_loaded_.push_back(used);
  while (indexes_loaded_.size() > kIndexesKept) {
    indexes_loaded_.front()->index.reset();
    indexes_loaded_.pop_front();
  }
}

void Log::SubmitCheckpoint() {
  SegmentPosition reached;
  for (const SegmentState& segment : state().segments) {
    const int64_t synced = std::min(Runtime(segment.id)->synced, segment.end_position);
    if (synced > 0) reached = {segment.id, synced};
    if (synced < segment.end_position) break;
  }
  checkpoint_step_ = CheckpointStep::kSubmitted;
  const auto answer = [this](const absl::Status& status) {
    checkpoint_step_ = CheckpointStep::kIdle;
    for (Done& done : std::exchange(checkpoints_running_, {})) Answer(std::move(done), status);
  };
  if (reached <= state().checkpoint || !failure_.ok()) return answer(failure_);
  const CheckpointRecord record{replica_, reached.segment, reached.position};
  Apply(record);
  Submit(record, [this, answer](absl::Status status) {
    answer(status);
    Pump();
  });
}

}  // namespace sluice::storage
