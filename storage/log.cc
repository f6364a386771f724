#include "storage/log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace sluice::storage {
namespace {

/// Control batches tell nothing about the age of data, and no search by time finds them.
int64_t TimestampOf(const record::Batch& batch) {
  return batch.is_control() ? record::kNoTimestamp : batch.max_timestamp_ms();
}

}  // namespace

Log::Log(LogEnvironment environment, Executor& home, ReplicaId replica, std::string dir, ReplicaState state,
         LogOptions options)
    : env_(std::move(environment)),
      home_(home),
      replica_(replica),
      dir_(std::move(dir)),
      options_(options),
      folder_was_there_(!state.segments.empty()) {
  // What is here is closed: the first append opens a segment of its own, so that no file is ever taken up again.
  for (const SegmentState& segment : state.segments) {
    auto known = std::make_shared<Segment>();
    known->id = segment.id;
    known->path = SegmentPath(dir_, segment.id);
    known->index_path = IndexPath(dir_, segment.id);
    known->accepted = known->flushed = segment.end_position;
    known->synced = state.SyncedBytes(segment);
    known->closed_at = segment.end_position;
    known->finished = true;
    segments_.emplace(segment.id, std::move(known));
  }
  durable_end_ = state.next_offset;
  registry_.Restore(replica_, std::move(state));
}

Log::~Log() {
  env_.shared->cache_bytes -= tail_bytes_;
  CountForLag(false);
}

void Log::Answer(Done done, absl::Status status) {
  home_.Post([done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
}

void Log::Apply(const JournalRecord& record) {
  const absl::Status status = registry_.Apply(record);
  SLUICE_CHECK(status.ok()) << replica_ << ": " << std::string(status.message());
}

void Log::Submit(JournalRecord record, Done durable) {
  Journal::Entry entry;
  entry.records.push_back(std::move(record));
  Submit(std::move(entry), std::move(durable));
}

void Log::Submit(Journal::Entry entry, Done durable) {
  ++under_way_;
  ++submitted_;
  entry.done = [self = shared_from_this(), durable = std::move(durable)](absl::Status status) mutable {
    Executor& home = self->home_;
    home.Post([self = std::move(self), durable = std::move(durable), status = std::move(status)]() mutable {
      --self->submitted_;
      if (!status.ok()) self->Fail(status, "the journal failed");
      durable(std::move(status));
      if (!self->doubtful_.empty()) self->Pump();
      self->EndOne();
    });
  };
  env_.journal->Submit(std::move(entry));
}

void Log::Fail(const absl::Status& status, const char* what) {
  if (!failure_.ok()) return;
  failure_ = absl::UnavailableError(absl::StrCat("partition ", replica_.ToString(), " takes no appends: ", what, ": ",
                                                 status.message(),
                                                 "; nothing acknowledged is lost, restart the node to go on"));
  AnswerCheckpoints(failure_);
}

void Log::EndOne() {
  --under_way_;
  if (under_way_ == 0 && stopped_) {
    for (Done& done : std::exchange(stop_done_, {})) Answer(std::move(done), absl::OkStatus());
  }
}

void Log::Stop(Done done) {
  stopped_ = true;
  stop_done_.push_back(std::move(done));
  AnswerCheckpoints(absl::UnavailableError("the log stops"));
  ++under_way_;
  EndOne();
}

absl::Status Log::CheckOpen() const {
  if (stopped_) return absl::UnavailableError(absl::StrCat("partition ", replica_.ToString(), " is stopping"));
  return failure_;
}

absl::Status Log::Admit(int64_t bytes, Urgency urgency) const {
  SLUICE_RETURN_IF_ERROR(CheckOpen());
  // Control batches go to a segment of their own meanwhile: a leader can start, and retention free space.
  if (!doubtful_.empty() && urgency == Urgency::kNormal) return heal_error_;
  if (holding_) {
    return absl::UnavailableError(absl::StrCat("partition ", replica_.ToString(), " is being truncated"));
  }
  if (urgency == Urgency::kEssential) return absl::OkStatus();
  // What is kept free below the watermark is for the controller's own log, the one of no topic: it is small, and
  // without it no topic could be deleted to make room.
  if (env_.shared->disk_full && !replica_.topic.IsNil()) {
    return absl::ResourceExhaustedError("the disk is full: free space is below storage.disk_low_watermark");
  }
  if (!write_error_.ok()) {
    const std::string message = absl::StrCat("segment files cannot be written: ", write_error_.message());
    return absl::IsResourceExhausted(write_error_) ? absl::ResourceExhaustedError(message)
                                                   : absl::UnavailableError(message);
  }
  const int64_t used = env_.shared->cache_bytes;
  if (used > 0 && used + bytes > env_.shared->cache_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat("storage.cache_bytes is used up: ", used, " of ",
                                                     env_.shared->cache_bytes_max,
                                                     " bytes wait to be written to segment files"));
  }
  return env_.journal->Admit();
}

absl::Status Log::CheckFits(const std::vector<record::Batch>& batches) const {
  Offset expected = log_end();
  LeaderEpoch epoch = last_epoch();
  for (const record::Batch& batch : batches) {
    if (batch.base_offset() != expected || batch.epoch() < epoch) {
      return absl::FailedPreconditionError(absl::StrCat("partition ", replica_.ToString(), ": a batch at offset ",
                                                        batch.base_offset().value(), " of epoch ",
                                                        batch.epoch().value(), " does not continue a log that ends at ",
                                                        expected.value(), " in epoch ", epoch.value()));
    }
    expected = batch.next_offset();
    epoch = batch.epoch();
  }
  return absl::OkStatus();
}

std::pair<Log::SegmentPtr, int64_t> Log::PlaceFor(const record::Batch& batch) {
  if (active_ != nullptr) {
    const int64_t end = state().Find(active_->id)->end_position;
    const bool fits = active_->id.epoch == batch.epoch() &&
                      end + static_cast<int64_t>(batch.size_bytes()) <= options_.segment_bytes &&
                      env_.clock->Monotonic() - active_->opened_at <= options_.segment_age;
    if (fits && !close_active_ && !IsDoubtful(active_)) return {active_, end};
    active_->closed_at = end;
    unfinished_.push_back(active_);
  }
  close_active_ = false;
  active_ = std::make_shared<Segment>();
  active_->id = {batch.base_offset(), batch.epoch()};
  active_->path = SegmentPath(dir_, active_->id);
  active_->index_path = IndexPath(dir_, active_->id);
  active_->index = std::make_unique<SparseIndex>(options_.index_interval_bytes);
  active_->opened_at = env_.clock->Monotonic();
  segments_.insert_or_assign(active_->id, active_);
  return {active_, 0};
}

AppendRecord Log::RecordOf(const record::Batch& batch, SegmentId segment, int64_t position) const {
  return {.replica = replica_,
          .segment = segment,
          .position = position,
          .bytes = batch.bytes(),
          .crc32c = batch.whole_crc32c(),
          .next_offset = batch.next_offset(),
          .max_timestamp_ms = TimestampOf(batch),
          .holds = batch.is_control() ? AppendHolds::kControlOnly : AppendHolds::kData};
}

void Log::Append(std::vector<record::Batch> batches, Done done, Urgency urgency) {
  if (holding_) {
    held_.push_back([this, batches = std::move(batches), done = std::move(done), urgency]() mutable {
      Append(std::move(batches), std::move(done), urgency);
    });
    return;
  }
  int64_t bytes = 0;
  for (const record::Batch& batch : batches) bytes += static_cast<int64_t>(batch.size_bytes());
  absl::Status status = Admit(bytes, urgency);
  if (status.ok()) status = CheckFits(batches);
  if (!status.ok() || batches.empty()) {
    if (absl::IsResourceExhausted(status)) FlushSoon();
    return Answer(std::move(done), std::move(status));
  }
  Journal::Entry entry;
  for (record::Batch& batch : batches) {
    auto [segment, position] = PlaceFor(batch);
    const SegmentState* before = state().Find(segment->id);
    Tail tail{.batch = batch, .segment = segment, .position = position};
    if (before != nullptr) {
      tail.crc_before = before->crc32c;
      tail.max_timestamp_before = before->max_timestamp_ms;
    }
    if (batch.size_bytes() >= MutableBytes::kAlignedFrom) {
      append_place_->Seen(reinterpret_cast<uintptr_t>(batch.bytes().data()) % kBlockBytes, position);
    }
    segment->index->Add(batch.base_offset(), position, static_cast<int64_t>(batch.size_bytes()), TimestampOf(batch));
    entry.records.emplace_back(RecordOf(batch, segment->id, position));
    Apply(entry.records.back());
    tail_.push_back(std::move(tail));
  }
  tail_bytes_ += bytes;
  env_.shared->cache_bytes += bytes;
  Submit(std::move(entry),
         [this, end = log_end(), generation = generation_, done = std::move(done)](absl::Status appended) mutable {
           if (!appended.ok()) {
             done(absl::UnknownError(absl::StrCat("the journal failed before it answered: ", appended.message())));
             return;
           }
           // An append that a truncation overtook was durable for a moment, but says nothing about what stands there
           // now.
           if (generation == generation_) durable_end_ = std::max(durable_end_, end);
           CountBehind();
           done(absl::OkStatus());
           Pump();
         });
}

void Log::SaveHardState(HardState hard_state, Done done) {
  if (holding_) {
    held_.push_back(
        [this, hard_state, done = std::move(done)]() mutable { SaveHardState(hard_state, std::move(done)); });
    return;
  }
  HardStateRecord record{replica_, hard_state};
  absl::Status status = CheckOpen();
  if (status.ok()) status = registry_.Apply(record);
  if (!status.ok()) return Answer(std::move(done), std::move(status));
  Submit(record, std::move(done));
}

void Log::SaveRaftConfig(Bytes config, Done done) {
  if (holding_) {
    held_.push_back([this, config = std::move(config), done = std::move(done)]() mutable {
      SaveRaftConfig(std::move(config), std::move(done));
    });
    return;
  }
  if (absl::Status status = CheckOpen(); !status.ok()) return Answer(std::move(done), std::move(status));
  RaftConfigRecord record{replica_, std::move(config)};
  Apply(record);
  Submit(std::move(record), std::move(done));
}

LeaderEpoch Log::last_epoch() const {
  return state().segments.empty() ? LeaderEpoch(0) : state().segments.back().id.epoch;
}

std::vector<EpochStart> Log::epoch_history() const {
  std::vector<EpochStart> history;
  for (const SegmentState& segment : state().segments) {
    if (history.empty() || history.back().epoch != segment.id.epoch) {
      history.push_back({segment.id.epoch, segment.id.base});
    }
  }
  return history;
}

int64_t Log::size_bytes() const {
  int64_t bytes = 0;
  for (const SegmentState& segment : state().segments) bytes += segment.end_position;
  return bytes;
}

std::vector<SegmentInfo> Log::segments() const {
  std::vector<SegmentInfo> all;
  for (const SegmentState& segment : state().segments) {
    all.push_back({.id = segment.id,
                   .next_offset = segment.next_offset,
                   .size_bytes = segment.end_position,
                   .max_timestamp_ms = segment.max_timestamp_ms,
                   .active = active_ != nullptr && active_->id == segment.id});
  }
  return all;
}

}  // namespace sluice::storage
