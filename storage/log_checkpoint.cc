// Checkpoints: what is durable in the journal is written and synced in segment files, after which the journal may
// forget it; or, where it is little, it is written to the journal once more.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "storage/log.h"

namespace sluice::storage {
namespace {

constexpr size_t kIndexesKept = 4;
// An index file of a growing segment is written again once this much more is indexed.
constexpr int64_t kIndexBytes = 32 << 20;
// What a segment that cannot be synced may cost at each turn of the journal.
constexpr int64_t kCarryDoubtfulBytesMax = 4 << 20;

absl::Status WriteIndexFile(FileSystem& fs, const std::string& path, std::string_view contents) {
  // Neither synced nor renamed into place: an index that is torn or missing is built anew.
  absl::Status removed = fs.Remove(path);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  SLUICE_ASSIGN_OR_RETURN(const auto file, fs.Open(path, {.mode = OpenOptions::Mode::kCreateNew}));
  return file->WriteAt(0, contents);
}

}  // namespace

int64_t Log::uncheckpointed_bytes() const {
  int64_t bytes = 0;
  for (const SegmentState& segment : state().segments) bytes += segment.end_position - state().SyncedBytes(segment);
  return bytes;
}

bool Log::CarryForward(Done done) {
  const int64_t bytes_max = doubtful_.empty() ? options_.carry_bytes : kCarryDoubtfulBytesMax;
  int64_t missing = uncheckpointed_bytes();
  if (missing > bytes_max || !CheckOpen().ok()) return false;
  Journal::Entry entry;
  for (const Tail& each : tail_) {
    const int64_t synced = state().SyncedBytes(*state().Find(each.segment->id));
    if (each.end() <= synced) continue;
    missing -= each.end() - std::max(each.position, synced);
    entry.records.emplace_back(RecordOf(each.batch, each.segment->id, each.position));
  }
  if (missing != 0) return false;  // memory has not got all of it any more
  for (const JournalRecord& record : entry.records) Apply(record);
  if (done == nullptr) done = [](const absl::Status&) {};
  Submit(std::move(entry), std::move(done));
  return true;
}

absl::Status LogShared::SyncFolder(FileSystem& fs, const std::string& path, bool was_there) {
  if (was_there) {
    const std::lock_guard lock(mutex_);
    if (folders_synced_.contains(path)) return absl::OkStatus();
  }
  SLUICE_RETURN_IF_ERROR(fs.SyncDir(path));
  const std::lock_guard lock(mutex_);
  folders_synced_.insert(path);
  return absl::OkStatus();
}

void Log::Checkpoint(Done done, Indexes indexes) {
  if (absl::Status status = CheckOpen(); !status.ok()) return Answer(std::move(done), std::move(status));
  index_all_ = index_all_ || indexes == Indexes::kAll;
  if (index_all_ && active_ != nullptr) IndexLater(active_);
  checkpoints_waiting_.push_back(std::move(done));
  Pump();
}

void Log::AnswerCheckpoints(const absl::Status& status) {
  for (Done& done : std::exchange(checkpoints_running_, {})) Answer(std::move(done), status);
  for (Done& done : std::exchange(checkpoints_waiting_, {})) Answer(std::move(done), status);
  if (checkpoint_step_ != CheckpointStep::kSubmitted) checkpoint_step_ = CheckpointStep::kIdle;
  to_sync_.clear();
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
      if (PumpTail()) return true;
      for (const auto& [id, segment] : segments_) {
        if (segment->synced < segment->flushed) to_sync_.emplace_back(segment, segment->flushed);
      }
      written_unsynced_ = 0;
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
        [fs = env_.fs, shared = env_.shared, was_there = folder_was_there_, dir = dir_]() -> absl::Status {
          // <data>/topics/<topic>/<partition>: each name stands in the folder above it.
          std::string above = dir;
          for (int i = 0; i < 3; ++i) {
            above.resize(above.rfind('/'));
            SLUICE_RETURN_IF_ERROR(shared->SyncFolder(*fs, above, was_there));
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
    std::vector<SegmentPtr> named;
    for (const auto& [id, each] : segments_) {
      if (each->created || each->finished) named.push_back(each);
    }
    RunTask([fs = env_.fs, dir = dir_] { return fs->SyncDir(dir); },
            [this, named = std::move(named)](absl::Status status) {
              if (!status.ok()) return OnFolderSyncFailed(status);
              for (const SegmentPtr& each : named) each->dir_synced = true;
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
        IndexLater(segment);
      });
  return true;
}

void Log::OnFolderSyncFailed(const absl::Status& status) {
  // Names are journaled by the file systems that this runs on: one that could not commit them takes no more of them, so
  // that a later success speaks the truth, other than with a file's pages.
  AnswerCheckpoints(status);
}

void Log::IndexLater(const SegmentPtr& segment) {
  if (std::find(to_index_.begin(), to_index_.end(), segment) == to_index_.end()) to_index_.push_back(segment);
}

bool Log::WriteIndexNext() {
  while (!to_index_.empty()) {
    const SegmentPtr segment = std::move(to_index_.front());
    to_index_.pop_front();
    if (Runtime(segment->id) != segment || segment->index == nullptr) continue;
    const int64_t grown = segment->index->covered() - segment->index_written;
    // What is not in the file yet is found by a walk from its last entry: that need not be short while it grows. A
    // segment with one entry is read from its start anyway.
    const bool wanted = grown >= kIndexBytes || (grown > 0 && (segment != active_ || index_all_));
    if (wanted && segment->index->entries().size() > 1) {
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
