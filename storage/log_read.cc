// Reads of a log: from memory where the batches still are, otherwise from segment files on the cold-read executor.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "storage/log.h"

namespace sluice::storage {

Log::SegmentPtr Log::Runtime(SegmentId id) const {
  auto at = segments_.find(id);
  return at == segments_.end() ? nullptr : at->second;
}

SegmentView Log::ViewOf(const SegmentState& segment) const {
  SegmentView view{.path = SegmentPath(dir_, segment.id),
                   .id = segment.id,
                   .end_position = segment.end_position,
                   .next_offset = segment.next_offset};
  // What is in memory is perhaps not in the file yet.
  if (!tail_.empty() && tail_.front().segment->id == segment.id) {
    view.end_position = tail_.front().position;
    view.next_offset = tail_.front().batch.base_offset();
  }
  return view;
}

void Log::Read(Offset offset, Offset limit, int64_t bytes_max,
               Callback<absl::StatusOr<std::vector<record::Batch>>> done) {
  const auto answer = [this, &done](absl::StatusOr<std::vector<record::Batch>> result) {
    home_.Post([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
  };
  if (offset < log_start() || offset > log_end()) {
    return answer(absl::OutOfRangeError(absl::StrCat("offset ", offset.value(), " is out of range: partition ",
                                                     replica_.ToString(), " has ", log_start().value(), " to ",
                                                     log_end().value())));
  }
  std::vector<record::Batch> batches;
  if (offset == log_end() || offset >= limit) return answer(std::move(batches));
  if (tail_.empty() || offset < tail_.front().batch.base_offset()) {
    return ReadFile(offset, limit, bytes_max, std::move(done));
  }
  auto from = std::lower_bound(tail_.begin(), tail_.end(), offset,
                               [](const Tail& t, Offset wanted) { return t.batch.last_offset() < wanted; });
  int64_t bytes = 0;
  for (; from != tail_.end() && from->batch.base_offset() < limit; ++from) {
    const int64_t size = static_cast<int64_t>(from->batch.size_bytes());
    if (!batches.empty() && bytes + size > bytes_max) break;
    bytes += size;
    batches.push_back(from->batch);
  }
  answer(std::move(batches));
}

void Log::ReadFile(Offset offset, Offset limit, int64_t bytes_max,
                   Callback<absl::StatusOr<std::vector<record::Batch>>> done) {
  const std::vector<SegmentState>& all = state().segments;
  auto after = std::find_if(all.begin(), all.end(), [&](const SegmentState& s) { return s.id.base > offset; });
  SLUICE_CHECK(after != all.begin()) << replica_ << ": no segment holds offset " << offset;
  const SegmentView view = ViewOf(*(after - 1));
  const SegmentPtr segment = Runtime(view.id);
  std::optional<IndexEntry> from;
  if (segment->index != nullptr) from = segment->index->Lookup(offset, view.id.base);

  struct Result {
    std::vector<record::Batch> batches;
    std::optional<SparseIndex> loaded;
  };
  auto work = [fs = env_.fs, dir = dir_, view, from, offset, limit, bytes_max,
               interval = options_.index_interval_bytes]() mutable -> absl::StatusOr<Result> {
    SLUICE_ASSIGN_OR_RETURN(const auto file, fs->Open(view.path, {}));
    Result result;
    if (!from) {
      SLUICE_ASSIGN_OR_RETURN(result.loaded, LoadIndex(*fs, *file, view, dir, interval));
      from = result.loaded->Lookup(offset, view.id.base);
    }
    SLUICE_ASSIGN_OR_RETURN(result.batches, ReadBatches(*file, view, *from, offset, limit, bytes_max));
    return result;
  };
  RunCold<Result>(std::move(work), [this, offset, limit, bytes_max, segment, generation = generation_,
                                    rewrites = segment->rewrites,
                                    done = std::move(done)](absl::StatusOr<Result> result) mutable {
    if (Runtime(segment->id) != segment || generation != generation_) {
      // A truncation or deletion took the file away meanwhile: ask again what there is now.
      return Read(offset, limit, bytes_max, std::move(done));
    }
    if (!result.ok() && segment->rewrites != rewrites) return Read(offset, limit, bytes_max, std::move(done));
    if (!result.ok() && IsDoubtful(segment)) {
      // Perhaps what the failed sync has lost; the journal has it, and soon the file does again.
      return done(absl::UnavailableError(absl::StrCat(heal_error_.message(), "; so now ", result.status().message())));
    }
    if (!result.ok()) {
      if (absl::IsNotFound(result.status())) {
        return done(absl::DataLossError(absl::StrCat(
            segment->path, ": the file is missing; expected the batch of offset ", offset.value(), " in it")));
      }
      return done(result.status());
    }
    if (result->loaded) KeepIndex(segment->id, *std::move(result->loaded));
    done(std::move(result->batches));
  });
}

void Log::KeepIndex(SegmentId id, SparseIndex index) {
  const SegmentPtr segment = Runtime(id);
  if (segment == nullptr || segment->index != nullptr) return;
  segment->index = std::make_unique<SparseIndex>(std::move(index));
  BoundIndexes(segment);
}

void Log::SeekTimestamp(int64_t timestamp_ms, Callback<absl::StatusOr<Offset>> done) {
  const std::vector<SegmentState>& all = state().segments;
  auto at =
      std::find_if(all.begin(), all.end(), [&](const SegmentState& s) { return s.max_timestamp_ms >= timestamp_ms; });
  const auto answer = [this, &done](Offset offset) {
    home_.Post([done = std::move(done), offset]() mutable { done(offset); });
  };
  if (at == all.end()) return answer(log_end());
  const SegmentView view = ViewOf(*at);
  const SegmentPtr segment = Runtime(view.id);
  if (segment->index != nullptr) {
    return answer(std::max(log_start(), segment->index->LookupTimestamp(timestamp_ms, view.id.base).offset));
  }
  RunCold<SparseIndex>(
      [fs = env_.fs, dir = dir_, view, interval = options_.index_interval_bytes]() -> absl::StatusOr<SparseIndex> {
        SLUICE_ASSIGN_OR_RETURN(const auto file, fs->Open(view.path, {}));
        return LoadIndex(*fs, *file, view, dir, interval);
      },
      [this, timestamp_ms, segment, generation = generation_,
       done = std::move(done)](absl::StatusOr<SparseIndex> index) mutable {
        if (Runtime(segment->id) != segment || generation != generation_) {
          return SeekTimestamp(timestamp_ms, std::move(done));
        }
        if (!index.ok()) return done(index.status());
        const Offset found = index->LookupTimestamp(timestamp_ms, segment->id.base).offset;
        KeepIndex(segment->id, *std::move(index));
        done(std::max(log_start(), found));
      });
}

void Log::FindDataEnd(Callback<absl::StatusOr<std::optional<Offset>>> done) {
  if (const Offset known = state().data_end; known != ReplicaState::kDataEndUnknown) {
    const std::optional<Offset> end = known > Offset(0) ? std::optional(known) : std::nullopt;
    home_.Post([done = std::move(done), end]() mutable { done(end); });
    return;
  }
  for (auto at = tail_.rbegin(); at != tail_.rend(); ++at) {
    if (at->batch.is_control()) continue;
    home_.Post([done = std::move(done), end = at->batch.next_offset()]() mutable { done(end); });
    return;
  }
  std::vector<SegmentView> views;
  for (const SegmentState& segment : state().segments) {
    if (!tail_.empty() && segment.id.base >= tail_.front().batch.base_offset()) break;
    views.push_back(ViewOf(segment));
  }
  RunCold<std::optional<Offset>>(
      [fs = env_.fs, dir = dir_, views = std::move(views),
       interval = options_.index_interval_bytes]() -> absl::StatusOr<std::optional<Offset>> {
        for (auto view = views.rbegin(); view != views.rend(); ++view) {
          SLUICE_ASSIGN_OR_RETURN(const auto file, fs->Open(view->path, {}));
          SLUICE_ASSIGN_OR_RETURN(const SparseIndex index, LoadIndex(*fs, *file, *view, dir, interval));
          SLUICE_ASSIGN_OR_RETURN(const auto found, FindLastData(*file, *view, index));
          if (found) return found;
        }
        return std::nullopt;
      },
      std::move(done));
}

std::vector<ClosedSegment> Log::closed_segments() const {
  std::vector<ClosedSegment> closed;
  for (const SegmentState& segment : state().segments) {
    const SegmentPtr runtime = Runtime(segment.id);
    if (runtime->finished && runtime->flushed == segment.end_position && !IsDoubtful(runtime)) {
      closed.push_back({runtime->path, segment});
    }
  }
  return closed;
}

void Log::Scrub(Done done) {
  RunCold<bool>(
      [fs = env_.fs, closed = closed_segments()]() -> absl::StatusOr<bool> {
        for (const auto& [path, expected] : closed) {
          const SegmentView view{.path = path,
                                 .id = expected.id,
                                 .end_position = expected.end_position,
                                 .next_offset = expected.next_offset};
          auto file = fs->Open(path, {});
          // One that retention has taken meanwhile is nothing to compare.
          if (absl::IsNotFound(file.status())) continue;
          if (!file.ok()) return std::move(file).status();
          SLUICE_ASSIGN_OR_RETURN(const SegmentSummary found, SummarizeSegment(**file, view, view.end_position));
          if (found.crc32c != expected.crc32c) {
            return absl::DataLossError(absl::StrCat(path, ": bytes 0 to ", expected.end_position, " have checksum ",
                                                    found.crc32c, ", the registry expects ", expected.crc32c));
          }
        }
        return true;
      },
      [this, generation = generation_, done = std::move(done)](absl::StatusOr<bool> result) mutable {
        if (!result.ok() && generation != generation_) return Scrub(std::move(done));
        done(result.status());
      });
}

}  // namespace sluice::storage
