#include "storage/scrubber.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/status_macros.h"
#include "storage/segment.h"

namespace sluice::storage {
namespace {

constexpr int64_t kChunkBytes = 256 << 10;
constexpr absl::Duration kFirstAfter = absl::Minutes(1);
constexpr absl::Duration kPauseMost = absl::Hours(1);

absl::StatusOr<std::string> ReadChunk(FileSystem& fs, const ClosedSegment& segment, int64_t at) {
  SLUICE_ASSIGN_OR_RETURN(const auto file, fs.Open(segment.path, {}));
  std::string chunk(static_cast<size_t>(std::min(kChunkBytes, segment.state.end_position - at)), '\0');
  SLUICE_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(at, absl::MakeSpan(chunk)));
  if (got == chunk.size()) return chunk;
  return absl::DataLossError(absl::StrCat(segment.path, ": at byte ", at + static_cast<int64_t>(got),
                                          ": the file ends; expected ", segment.state.end_position, " bytes"));
}

/// Which batch it is that makes the checksum differ.
absl::Status FindDamage(FileSystem& fs, const ClosedSegment& segment, uint32_t found) {
  const SegmentView view{.path = segment.path,
                         .id = segment.state.id,
                         .end_position = segment.state.end_position,
                         .next_offset = segment.state.next_offset};
  SLUICE_ASSIGN_OR_RETURN(const auto file, fs.Open(segment.path, {}));
  SLUICE_ASSIGN_OR_RETURN(const SegmentSummary again, SummarizeSegment(*file, view, view.end_position));
  if (again.crc32c == segment.state.crc32c) return absl::OkStatus();  // that read went wrong, not the disk
  return absl::DataLossError(absl::StrCat(segment.path, ": at byte 0: up to byte ", view.end_position,
                                          " the checksum is ", found, ", the registry expects ", segment.state.crc32c,
                                          "; each batch for itself is sound"));
}

}  // namespace

void Scrubber::Start() {
  if (options_.period > absl::ZeroDuration()) After(kFirstAfter, &Scrubber::BeginRound);
}

void Scrubber::After(absl::Duration wait, void (Scrubber::*then)()) {
  seams_.home->PostAfter(wait, [weak = weak_from_this(), then] {
    const auto self = weak.lock();
    if (self != nullptr && !self->stopped_) ((*self).*then)();
  });
}

void Scrubber::BeginRound() {
  std::vector<std::shared_ptr<Log>> logs = seams_.logs();
  // The part of the period that has passed by the wall clock is the part of the logs that comes last.
  const int64_t period_s = std::max<int64_t>(1, absl::ToInt64Seconds(options_.period));
  const int64_t now_s = std::max<int64_t>(0, absl::ToUnixSeconds(seams_.clock->Wall())) % period_s;
  if (!logs.empty()) {
    const auto first = static_cast<ptrdiff_t>(static_cast<double>(logs.size()) * static_cast<double>(now_s) /
                                              static_cast<double>(period_s));
    std::rotate(logs.begin(), logs.begin() + first, logs.end());
  }
  round_bytes_ = 0;
  damaged_listed_.clear();
  busy_ = true;
  Collect({logs.begin(), logs.end()});
}

// Asks one log after the other, on its own executor, for what is to be read.
void Scrubber::Collect(std::deque<std::shared_ptr<Log>> logs) {
  if (EndsHere()) return;
  if (logs.empty()) {
    damaged_ = std::exchange(damaged_listed_, {});
    CountDamage();
    busy_ = false;
    return Pause();
  }
  std::shared_ptr<Log> log = std::move(logs.front());
  logs.pop_front();
  Executor& home = log->home();
  home.Post([self = shared_from_this(), log = std::move(log), logs = std::move(logs)]() mutable {
    std::vector<ClosedSegment> segments = log->closed_segments();
    Executor& here = *self->seams_.home;
    here.Post([self = std::move(self), log = std::move(log), logs = std::move(logs),
               segments = std::move(segments)]() mutable {
      for (ClosedSegment& segment : segments) {
        self->round_bytes_ += segment.state.end_position;
        const std::pair key(log->replica(), segment.state.id);
        if (self->damaged_.contains(key)) self->damaged_listed_.insert(key);
        self->work_.push_back({.log = log, .replica = log->replica(), .segment = std::move(segment)});
      }
      self->Collect(std::move(logs));
    });
  });
}

void Scrubber::Pause() {
  if (work_.empty()) {
    // Nothing is closed yet, or all has been read.
    if (round_bytes_ > 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++stats_.rounds;
    }
    return After(std::min(kPauseMost, options_.period), &Scrubber::BeginRound);
  }
  const double bytes = static_cast<double>(std::min(kChunkBytes, work_.front().segment.state.end_position));
  const absl::Duration even = options_.period * (bytes / static_cast<double>(std::max<int64_t>(1, round_bytes_)));
  const absl::Duration least = absl::Seconds(bytes / static_cast<double>(options_.bytes_per_second_max));
  After(std::max(least, std::min(even, kPauseMost)), &Scrubber::ReadNext);
}

void Scrubber::ReadNext() {
  busy_ = true;
  const Work& work = work_.front();
  seams_.reads->Post([self = shared_from_this(), segment = work.segment, at = work.at]() mutable {
    absl::StatusOr<std::string> chunk = ReadChunk(*self->seams_.fs, segment, at);
    Executor& home = *self->seams_.home;
    home.Post([self = std::move(self), chunk = std::move(chunk)]() mutable { self->OnRead(std::move(chunk)); });
  });
}

void Scrubber::OnRead(absl::StatusOr<std::string> chunk) {
  if (EndsHere()) return;
  if (!chunk.ok()) return Judge(chunk.status());
  Work& work = work_.front();
  work.crc32c = Crc32c(*chunk, work.crc32c);
  work.at += static_cast<int64_t>(chunk->size());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.bytes += static_cast<int64_t>(chunk->size());
  }
  if (work.at < work.segment.state.end_position) {
    busy_ = false;
    return Pause();
  }
  if (work.crc32c == work.segment.state.crc32c) {
    NoteDamage(false);
    return EndSegment();
  }
  seams_.reads->Post([self = shared_from_this(), segment = work.segment, found = work.crc32c]() mutable {
    absl::Status damage = FindDamage(*self->seams_.fs, segment, found);
    Executor& home = *self->seams_.home;
    home.Post([self = std::move(self), damage = std::move(damage)]() mutable { self->Judge(std::move(damage)); });
  });
}

void Scrubber::Judge(absl::Status found) {
  if (EndsHere()) return;
  if (found.ok()) {
    NoteDamage(false);
    return EndSegment();
  }
  const std::shared_ptr<Log> log = work_.front().log.lock();
  if (log == nullptr) return EndSegment();
  log->home().Post([self = shared_from_this(), log, segment = work_.front().segment,
                    found = std::move(found)]() mutable {
    // Retention, a truncation or a rewrite may have come between.
    const std::vector<ClosedSegment> now = log->closed_segments();
    const bool still = std::any_of(now.begin(), now.end(), [&](const ClosedSegment& one) { return one == segment; });
    Executor& home = *self->seams_.home;
    home.Post([self = std::move(self), log, still, found = std::move(found)]() mutable {
      if (self->EndsHere()) return;
      const bool damaged = absl::IsDataLoss(found) || absl::IsNotFound(found);
      if (still) {
        const std::lock_guard<std::mutex> lock(self->mutex_);
        ++(damaged ? self->stats_.damaged : self->stats_.unreadable);
      }
      if (damaged || !still) self->NoteDamage(still);
      if (still && self->options_.on_damage) self->options_.on_damage(log->replica(), found);
      self->EndSegment();
    });
  });
}

/// Of the segment at hand.
void Scrubber::NoteDamage(bool damaged) {
  const Work& work = work_.front();
  const std::pair key(work.replica, work.segment.state.id);
  if (damaged) {
    damaged_.insert(key);
  } else if (damaged_.erase(key) == 0) {
    return;
  }
  CountDamage();
}

void Scrubber::CountDamage() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.damaged_now = static_cast<int64_t>(damaged_.size());
}

void Scrubber::EndSegment() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++stats_.segments;
  }
  work_.pop_front();
  busy_ = false;
  Pause();
}

bool Scrubber::EndsHere() {
  if (!stopped_) return false;
  busy_ = false;
  if (stop_done_) std::exchange(stop_done_, nullptr)();
  return true;
}

void Scrubber::Stop(absl::AnyInvocable<void()> done) {
  stopped_ = true;
  work_.clear();
  if (!busy_) return done();
  stop_done_ = std::move(done);
}

ScrubStats Scrubber::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

}  // namespace sluice::storage
