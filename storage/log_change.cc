// What takes batches or segments away from a log: truncation, reset, a new log start.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "storage/log.h"

namespace sluice::storage {

void Log::Truncate(Offset new_end, Done done) {
  if (holding_) {
    held_.push_back([this, new_end, done = std::move(done)]() mutable { Truncate(new_end, std::move(done)); });
    return;
  }
  if (absl::Status status = CheckOpen(); !status.ok()) return Answer(std::move(done), std::move(status));
  if (new_end == log_end()) return Answer(std::move(done), absl::OkStatus());
  if (new_end < log_start() || new_end > log_end()) {
    return Answer(std::move(done),
                  absl::OutOfRangeError(absl::StrCat("cannot truncate to offset ", new_end.value(), ": the log holds ",
                                                     log_start().value(), " to ", log_end().value())));
  }
  // The last segment that begins before new_end keeps something; when none does, the first one goes whole.
  const std::vector<SegmentState>& all = state().segments;
  auto after = std::find_if(all.begin(), all.end(), [&](const SegmentState& s) { return s.id.base >= new_end; });
  if (after == all.begin()) {
    return ApplyTruncate({.replica = replica_, .keep = all.front().id, .next_offset = new_end}, std::move(done));
  }
  const SegmentState& keep = *(after - 1);
  TruncateRecord record{.replica = replica_,
                        .keep = keep.id,
                        .position = keep.end_position,
                        .crc32c = keep.crc32c,
                        .next_offset = new_end,
                        .max_timestamp_ms = keep.max_timestamp_ms};
  if (keep.next_offset == new_end) return ApplyTruncate(record, std::move(done));
  if (!tail_.empty() && tail_.front().batch.base_offset() <= new_end) {
    auto at = std::lower_bound(tail_.begin(), tail_.end(), new_end,
                               [](const Tail& t, Offset wanted) { return t.batch.base_offset() < wanted; });
    if (at == tail_.end() || at->batch.base_offset() != new_end) {
      return Answer(std::move(done), absl::InvalidArgumentError(
                                         absl::StrCat("offset ", new_end.value(), " is not the first of a batch")));
    }
    record.position = at->position;
    record.crc32c = at->crc_before;
    record.max_timestamp_ms = at->max_timestamp_before;
    return ApplyTruncate(record, std::move(done));
  }
  FindTruncation(record, keep, std::move(done));
}

void Log::FindTruncation(TruncateRecord record, const SegmentState& keep, Done done) {
  // What is kept of the segment stands in its file alone: its length and checksum are read from there.
  holding_ = true;
  struct Found {
    int64_t position;
    SegmentSummary kept;
  };
  RunCold<Found>(
      [fs = env_.fs, view = ViewOf(keep), new_end = record.next_offset]() -> absl::StatusOr<Found> {
        SLUICE_ASSIGN_OR_RETURN(const auto file, fs->Open(view.path, {}));
        SLUICE_ASSIGN_OR_RETURN(const int64_t position,
                                FindBatchStart(*file, view, IndexEntry{view.id.base, 0, 0}, new_end));
        SLUICE_ASSIGN_OR_RETURN(SegmentSummary kept, SummarizeSegment(*file, view, position));
        return Found{position, kept};
      },
      [this, record, segment = Runtime(keep.id), rewrites = Runtime(keep.id)->rewrites,
       done = std::move(done)](absl::StatusOr<Found> found) mutable {
        holding_ = false;
        if (!found.ok() && segment->rewrites != rewrites) {
          Truncate(record.next_offset, std::move(done));  // it has been written anew meanwhile
        } else if (!found.ok() && IsDoubtful(segment)) {
          done(heal_error_);
        } else if (found.ok()) {
          record.position = found->position;
          record.crc32c = found->kept.crc32c;
          record.max_timestamp_ms = found->kept.max_timestamp_ms;
          ApplyTruncate(record, std::move(done));
        } else {
          done(found.status());
        }
        while (!held_.empty() && !holding_) {
          auto call = std::move(held_.front());
          held_.pop_front();
          call();
        }
      });
}

void Log::ApplyTruncate(TruncateRecord record, Done done) {
  ++generation_;
  durable_end_ = std::min(durable_end_, record.next_offset);
  DropTailFrom(record.next_offset);
  active_ = nullptr;
  Apply(record);
  std::vector<SegmentPtr> gone = TakeUnlisted();
  SegmentPtr kept = record.position > 0 ? Runtime(record.keep) : nullptr;
  if (kept != nullptr && kept->index != nullptr) kept->index->TrimTo(record.position);
  Submit(record, [this, gone = std::move(gone), kept, position = record.position,
                  done = std::move(done)](absl::Status status) mutable {
    if (!status.ok()) return done(absl::UnknownError(status.message()));
    // Only now may files be touched.
    if (kept != nullptr) {
      kept->closed_at = std::min(position, kept->closed_at.value_or(position));
      kept->finished = false;
      kept->index_written = std::min(kept->index_written, position);
      unfinished_.push_back(kept);
    }
    removals_.insert(removals_.end(), gone.begin(), gone.end());
    done(absl::OkStatus());
    Pump();
  });
}

void Log::Reset(Offset offset, Done done) {
  if (holding_) {
    held_.push_back([this, offset, done = std::move(done)]() mutable { Reset(offset, std::move(done)); });
    return;
  }
  absl::Status status = CheckOpen();
  if (status.ok() && offset < Offset(0)) status = absl::OutOfRangeError("cannot reset to a negative offset");
  if (!status.ok()) return Answer(std::move(done), std::move(status));
  ++generation_;
  const ResetRecord record{replica_, offset};
  DropTailFrom(Offset(0));
  active_ = nullptr;
  Apply(record);
  durable_end_ = offset;
  RemoveOnceDurable(record, std::move(done));
}

void Log::SetLogStart(Offset offset, Done done) {
  if (holding_) {
    held_.push_back([this, offset, done = std::move(done)]() mutable { SetLogStart(offset, std::move(done)); });
    return;
  }
  absl::Status status = CheckOpen();
  if (status.ok() && offset > log_end()) {
    status = absl::OutOfRangeError(
        absl::StrCat("log start ", offset.value(), " would lie beyond the log's end ", log_end().value()));
  }
  if (!status.ok() || offset <= log_start()) return Answer(std::move(done), std::move(status));
  const LogStartRecord record{replica_, offset};
  Apply(record);
  RemoveOnceDurable(record, std::move(done));
}

void Log::RemoveOnceDurable(JournalRecord record, Done done) {
  std::vector<SegmentPtr> gone = TakeUnlisted();
  Submit(std::move(record), [this, gone = std::move(gone), done = std::move(done)](absl::Status status) mutable {
    if (!status.ok()) return done(absl::UnknownError(status.message()));
    removals_.insert(removals_.end(), gone.begin(), gone.end());
    done(absl::OkStatus());
    Pump();
  });
}

std::vector<Log::SegmentPtr> Log::TakeUnlisted() {
  std::vector<SegmentPtr> gone;
  for (auto at = segments_.begin(); at != segments_.end();) {
    if (state().Find(at->first) != nullptr) {
      ++at;
      continue;
    }
    std::erase(unfinished_, at->second);
    std::erase(indexes_loaded_, at->second);
    gone.push_back(std::move(at->second));
    at = segments_.erase(at);
  }
  // A new log start takes segments from the front; their batches need not be written any more.
  while (!tail_.empty() && std::find(gone.begin(), gone.end(), tail_.front().segment) != gone.end()) PopTail();
  return gone;
}

void Log::PopTail() {
  const int64_t bytes = static_cast<int64_t>(tail_.front().batch.size_bytes());
  tail_.pop_front();
  tail_bytes_ -= bytes;
  env_.shared->cache_bytes -= bytes;
  if (tail_flushed_ == 0 && tail_durable_ > 0) AddBehind(-bytes);
  if (tail_accepted_ > 0) --tail_accepted_;
  if (tail_flushed_ > 0) --tail_flushed_;
  if (tail_durable_ > 0) --tail_durable_;
}

void Log::DropTailFrom(Offset from) {
  while (!tail_.empty() && tail_.back().batch.base_offset() >= from) {
    const int64_t bytes = static_cast<int64_t>(tail_.back().batch.size_bytes());
    tail_.pop_back();
    tail_bytes_ -= bytes;
    env_.shared->cache_bytes -= bytes;
    if (tail_.size() >= tail_flushed_ && tail_.size() < tail_durable_) AddBehind(-bytes);
  }
  tail_durable_ = std::min(tail_durable_, tail_.size());
  tail_accepted_ = std::min(tail_accepted_, tail_.size());
  tail_flushed_ = std::min(tail_flushed_, tail_.size());
}

}  // namespace sluice::storage
