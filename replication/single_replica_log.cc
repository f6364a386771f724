#include "replication/single_replica_log.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/record/control.h"
#include "replication/timestamp_search.h"

namespace sluice::replication {
namespace {

absl::Status Stopped() {
  return absl::UnavailableError("the partition is not served here now");
}

}  // namespace

SingleReplicaLog::SingleReplicaLog(std::shared_ptr<storage::Log> log, NodeId node, Clock& clock)
    : log_(std::move(log)), home_(log_->home()), clock_(clock), node_(node), log_start_(log_->log_start()) {}

void SingleReplicaLog::Open(std::shared_ptr<storage::Log> log, NodeId node, Clock& clock,
                            Callback<absl::StatusOr<std::shared_ptr<SingleReplicaLog>>> done) {
  std::shared_ptr<SingleReplicaLog> self(new SingleReplicaLog(std::move(log), node, clock));
  const LeaderEpoch before = std::max(self->log_->hard_state().term, self->log_->last_epoch());
  if (before.value() == std::numeric_limits<int32_t>::max()) {
    self->home_.Post([done = std::move(done)]() mutable {
      done(absl::DataLossError("the leader epoch has reached its largest value"));
    });
    return;
  }
  self->epoch_ = before + 1;
  self->log_->FindDataEnd([self, done = std::move(done)](absl::StatusOr<std::optional<Offset>> data_end) mutable {
    if (!data_end.ok()) return done(data_end.status());
    self->data_end_ = *data_end;
    self->Lead([self, done = std::move(done)](absl::Status status) mutable {
      if (!status.ok()) return done(std::move(status));
      done(std::move(self));
    });
  });
}

void SingleReplicaLog::Lead(Callback<absl::Status> done) {
  // The journal keeps order, so the term is durable no later than the entry that is appended in it.
  auto term_saved = std::make_shared<absl::Status>();
  log_->SaveHardState({.term = epoch_, .voted_for = {.node = node_, .incarnation = log_->incarnation()}},
                      [term_saved](absl::Status status) { *term_saved = std::move(status); });
  record::Batch first = record::MakeControlBatch(record::LeaderChange{node_}, NowMs()).Assign(log_->log_end(), epoch_);
  const Offset end = first.next_offset();
  log_->Append(
      {std::move(first)},
      [self = shared_from_this(), end, term_saved, done = std::move(done)](absl::Status status) mutable {
        if (status.ok()) status = *term_saved;
        if (status.ok()) {
          self->stopped_ = false;
          self->OnCommitted(end, false);
        }
        done(std::move(status));
      },
      storage::Log::Urgency::kEssential);
}

int64_t SingleReplicaLog::NowMs() const {
  return absl::ToUnixMillis(clock_.Wall());
}

template <class T>
void SingleReplicaLog::Answer(Callback<T> done, T result) {
  home_.Post([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

template <class T>
Callback<absl::StatusOr<T>> SingleReplicaLog::Track(Callback<absl::StatusOr<T>> done, absl::Status on_stop) {
  const uint64_t id = next_pending_++;
  auto slot = std::make_shared<Callback<absl::StatusOr<T>>>(std::move(done));
  // What it answers may own this log: only the call under way keeps it.
  pending_.emplace(id, [this, weak = std::weak_ptr(slot), on_stop = std::move(on_stop)]() mutable {
    auto left = weak.lock();
    if (left == nullptr) return;
    home_.Post([left = std::move(left), on_stop = std::move(on_stop)]() mutable { (*left)(std::move(on_stop)); });
  });
  return [self = shared_from_this(), id, slot](absl::StatusOr<T> result) {
    // Without an entry, Stop has answered already.
    if (self->pending_.erase(id) > 0) (*slot)(std::move(result));
  };
}

void SingleReplicaLog::Stop() {
  if (stopped_) return;
  stopped_ = true;
  for (auto& [id, answer] : std::exchange(pending_, {})) answer();
  home_.Post([self = shared_from_this()] { self->WakeWaiters(); });
}

void SingleReplicaLog::Propose(record::PendingBatch batch, std::optional<Offset> expected_base_offset,
                               Callback<absl::StatusOr<Committed>> done) {
  using Result = absl::StatusOr<Committed>;
  if (stopped_) return Answer<Result>(std::move(done), Stopped());
  const Offset base = log_->log_end();
  if (expected_base_offset && *expected_base_offset != base) {
    return Answer<Result>(std::move(done), absl::FailedPreconditionError(
                                               absl::StrCat("expected base offset ", expected_base_offset->value(),
                                                            ", but the log ends at ", base.value())));
  }
  record::Batch placed = std::move(batch).Assign(base, epoch_);
  const Committed place{placed.base_offset(), placed.last_offset(), epoch_};
  const bool data = !placed.is_control();
  auto tracked =
      Track<Committed>(std::move(done), absl::UnknownError("the partition stopped before the outcome was known"));
  log_->Append({std::move(placed)},
               [self = shared_from_this(), place, data, tracked = std::move(tracked)](absl::Status status) mutable {
                 if (!status.ok()) return tracked(std::move(status));
                 self->OnCommitted(place.last_offset + 1, data);
                 tracked(place);
               });
}

void SingleReplicaLog::OnCommitted(Offset end, bool data) {
  high_watermark_ = std::max(high_watermark_, end);
  if (data) data_end_ = std::max(data_end_.value_or(end), end);
  WakeWaiters();
}

void SingleReplicaLog::Read(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) {
  using Result = absl::StatusOr<ReadResult>;
  if (stopped_) return Answer<Result>(std::move(done), Stopped());
  if (request.offset < log_start_ || request.offset > high_watermark_) {
    return Answer<Result>(std::move(done), absl::OutOfRangeError(absl::StrCat(
                                               "offset ", request.offset.value(), " is out of range: readable are ",
                                               log_start_.value(), " to ", high_watermark_.value())));
  }
  ReadStored(request, Track<ReadResult>(std::move(done), Stopped()));
}

void SingleReplicaLog::ReadStored(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) {
  log_->Read(request.offset, high_watermark_, request.bytes_max,
             [self = shared_from_this(), request,
              done = std::move(done)](absl::StatusOr<std::vector<record::Batch>> batches) mutable {
               if (absl::IsOutOfRange(batches.status()) && self->advancing_ > 0 && !self->stopped_) {
                 // Below a log start that nobody may know of before it is durable; then it is the reason.
                 self->behind_advance_.push_back(
                     [self, request, done = std::move(done)]() mutable { self->Read(request, std::move(done)); });
                 return;
               }
               if (!batches.ok()) return done(batches.status());
               ReadResult result{
                   .batches = *std::move(batches), .next_offset = request.offset, .bounds = self->bounds()};
               if (!result.batches.empty()) result.next_offset = result.batches.back().next_offset();
               done(std::move(result));
             });
}

ReplicatedLog::WaitId SingleReplicaLog::WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake) {
  const WaitId id = next_wait_++;
  waiters_.emplace(std::make_pair(offset, id), std::move(wake));
  wait_offsets_.emplace(id, offset);
  if (stopped_ || offset < high_watermark_) {
    home_.Post([self = shared_from_this()] { self->WakeWaiters(); });
  }
  return id;
}

void SingleReplicaLog::CancelWait(WaitId id) {
  auto at = wait_offsets_.find(id);
  if (at == wait_offsets_.end()) return;
  waiters_.erase({at->second, id});
  wait_offsets_.erase(at);
}

void SingleReplicaLog::WakeWaiters() {
  // One by one: a waiter may cancel another, or wait anew.
  while (!waiters_.empty() && (stopped_ || waiters_.begin()->first.first < high_watermark_)) {
    auto first = waiters_.extract(waiters_.begin());
    wait_offsets_.erase(first.key().second);
    first.mapped()();
  }
}

void SingleReplicaLog::AdvanceLogStart(Offset offset, Callback<absl::StatusOr<Offset>> done) {
  using Result = absl::StatusOr<Offset>;
  if (stopped_) return Answer<Result>(std::move(done), Stopped());
  if (offset > high_watermark_) {
    return Answer<Result>(
        std::move(done), absl::OutOfRangeError(absl::StrCat("offset ", offset.value(), " is beyond the high watermark ",
                                                            high_watermark_.value())));
  }
  if (offset <= log_start_) return Answer<Result>(std::move(done), log_start_);
  record::Batch entry =
      record::MakeControlBatch(record::LogStartAdvance{offset}, NowMs()).Assign(log_->log_end(), epoch_);
  const Offset end = entry.next_offset();
  auto tracked =
      Track<Offset>(std::move(done), absl::UnknownError("the partition stopped before the outcome was known"));
  // Both must be durable: the entry, and the new start behind it in the journal; one sync takes both. The second
  // answers at once where an earlier call has the log start as high already, which may not be durable before the entry
  // is.
  struct Advance {
    absl::Status first_error;
    int left = 2;
    Callback<Result> done;
  };
  ++advancing_;
  auto advance = std::make_shared<Advance>(Advance{.first_error = {}, .done = std::move(tracked)});
  const auto finish = [self = shared_from_this(), advance, offset](const absl::Status& status) {
    advance->first_error.Update(status);
    if (--advance->left > 0) return;
    if (advance->first_error.ok()) self->log_start_ = std::max(self->log_start_, offset);
    if (--self->advancing_ == 0) {
      for (auto& read : std::exchange(self->behind_advance_, {})) read();
    }
    if (!advance->first_error.ok()) return advance->done(advance->first_error);
    advance->done(self->log_start_);
  };
  log_->Append(
      {std::move(entry)},
      [self = shared_from_this(), end, finish](const absl::Status& status) {
        if (status.ok()) self->OnCommitted(end, false);
        finish(status);
      },
      storage::Log::Urgency::kEssential);
  // When the entry was refused nothing moves.
  log_->SetLogStart(log_->log_end() == end ? offset : log_->log_start(), finish);
}

void SingleReplicaLog::FindTimestamp(int64_t timestamp_ms,
                                     Callback<absl::StatusOr<std::optional<TimestampOffset>>> done) {
  if (stopped_) return Answer<absl::StatusOr<std::optional<TimestampOffset>>>(std::move(done), Stopped());
  SearchTimestamp(
      log_, timestamp_ms,
      [self = shared_from_this()]() -> std::optional<LogBounds> {
        return self->stopped_ ? std::nullopt : std::optional(self->bounds());
      },
      Track<std::optional<TimestampOffset>>(std::move(done), Stopped()));
}

void SingleReplicaLog::ReadBarrier(Callback<absl::Status> done) {
  Answer<absl::Status>(std::move(done), stopped_ ? Stopped() : absl::OkStatus());
}

LogBounds SingleReplicaLog::bounds() const {
  return {.log_start = log_start_, .high_watermark = high_watermark_, .log_end = log_->log_end()};
}

Offset SingleReplicaLog::last_data_offset_end() const {
  return std::max(data_end_.value_or(log_start_), log_start_);
}

void SingleReplicaLog::ApplyRetention(const storage::RetentionPolicy& policy, Callback<absl::StatusOr<Offset>> done) {
  const std::vector<storage::SegmentInfo> segments = log_->segments();
  const storage::RetentionDecision decision =
      storage::DecideRetention(segments, policy, NowMs(), log_start_, high_watermark_, last_data_offset_end());
  if (decision.closes_active) log_->CloseActiveSegment();
  AdvanceLogStart(decision.log_start, std::move(done));
}

}  // namespace sluice::replication
