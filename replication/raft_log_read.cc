// Reads: clients', followers', and what tells that they are up to date.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/planted_bug.h"
#include "replication/raft_log.h"
#include "replication/raft_log_internal.h"
#include "replication/timestamp_search.h"

namespace sluice::replication {

// ---- Clients

void RaftLog::Read(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) {
  using Result = absl::StatusOr<ReadResult>;
  if (ended()) return AnswerLater<Result>(std::move(done), NotServed());
  if (!raft_->Serving()) {
    return AnswerLater<Result>(std::move(done), absl::UnavailableError("this replica does not serve reads now"));
  }
  ReadCommitted(request, std::move(done));
}

void RaftLog::ReadCommitted(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) {
  using Result = absl::StatusOr<ReadResult>;
  if (ended()) return AnswerLater<Result>(std::move(done), NotServed());
  const bool above = Planted(PlantedBug::kServeAboveCommit) ||
                     (Planted(PlantedBug::kControllerAppliesUncommitted) && group_.topic.IsNil());
  const Offset readable = above ? log_->log_end() : high_watermark_;
  if (request.offset < log_start_ || request.offset > readable) {
    return AnswerLater<Result>(
        std::move(done),
        absl::OutOfRangeError(absl::StrCat("offset ", request.offset.value(), " is out of range: readable are ",
                                           log_start_.value(), " to ", high_watermark_.value())));
  }
  log_->Read(request.offset, readable, request.bytes_max,
             [self = shared_from_this(), request,
              done = Track<ReadResult>(std::move(done))](absl::StatusOr<std::vector<record::Batch>> batches) mutable {
               if (!batches.ok()) {
                 self->OnReadFailed(batches.status());
                 return done(batches.status());
               }
               ReadResult result{
                   .batches = *std::move(batches), .next_offset = request.offset, .bounds = self->bounds()};
               if (!result.batches.empty()) result.next_offset = result.batches.back().next_offset();
               done(std::move(result));
             });
}

void RaftLog::FindTimestamp(int64_t timestamp_ms, Callback<absl::StatusOr<std::optional<TimestampOffset>>> done) {
  using Result = absl::StatusOr<std::optional<TimestampOffset>>;
  if (ended()) return AnswerLater<Result>(std::move(done), NotServed());
  if (!raft_->Serving()) {
    return AnswerLater<Result>(std::move(done), absl::UnavailableError("this replica does not serve reads now"));
  }
  SearchTimestamp(
      log_, timestamp_ms,
      [self = shared_from_this()]() -> std::optional<LogBounds> {
        return self->ended() ? std::nullopt : std::optional(self->bounds());
      },
      [self = shared_from_this(), done = Track<std::optional<TimestampOffset>>(std::move(done))](Result found) mutable {
        self->OnReadFailed(found.status());
        done(std::move(found));
      });
}

void RaftLog::ReadBarrier(Callback<absl::Status> done) {
  if (ended()) return AnswerLater<absl::Status>(std::move(done), NotServed());
  if (Planted(PlantedBug::kStaleLeaderAnswers)) return AnswerLater<absl::Status>(std::move(done), absl::OkStatus());
  const uint64_t context = next_barrier_++;
  if (absl::Status asked = raft_->ReadIndex(context); !asked.ok()) {
    return AnswerLater<absl::Status>(std::move(done), absl::UnavailableError(asked.message()));
  }
  barriers_.emplace(context, std::move(done));
  ScheduleTurn();
}

void RaftLog::TakeReadResults(const std::vector<raft::ReadIndexResult>& results) {
  for (const raft::ReadIndexResult& result : results) {
    auto barrier = barriers_.extract(result.context);
    if (barrier.empty()) continue;
    if (result.index) {
      barriers_at_.emplace(*result.index, std::move(barrier.mapped()));
      continue;
    }
    answers_.push_back([done = std::move(barrier.mapped())]() mutable {
      done(absl::UnavailableError("leadership was lost before the read was confirmed"));
    });
  }
}

// ---- Waiting for more

ReplicatedLog::WaitId RaftLog::WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake) {
  const WaitId id = next_wait_++;
  waiters_.emplace(std::make_pair(offset, id), std::move(wake));
  wait_offsets_.emplace(id, offset);
  if (ended() || offset < high_watermark_) {
    home_.Post([self = shared_from_this()] { self->WakeWaiters(false); });
  }
  return id;
}

void RaftLog::CancelWait(WaitId id) {
  auto at = wait_offsets_.find(id);
  if (at == wait_offsets_.end()) return;
  waiters_.erase({at->second, id});
  wait_offsets_.erase(at);
}

void RaftLog::WakeWaiters(bool all) {
  // One by one: a waiter may cancel another, or wait anew; one that does is not woken again.
  const WaitId newest = next_wait_;
  while (!waiters_.empty()) {
    auto at = waiters_.begin();
    if (ended() || at->first.first >= high_watermark_) {
      if (!all && !ended()) return;
      while (at != waiters_.end() && at->first.second >= newest) ++at;
      if (at == waiters_.end()) return;
    }
    auto first = waiters_.extract(at);
    wait_offsets_.erase(first.key().second);
    first.mapped()();
  }
}

// ---- The end of the data, for a leader

void RaftLog::FindDataEnd() {
  // All that is in the log now is committed before this leader serves.
  log_->FindDataEnd([self = shared_from_this(), term = raft_->term()](absl::StatusOr<std::optional<Offset>> end) {
    if (self->ended() || self->raft_->role() != raft::Role::kLeader || self->raft_->term() != term) return;
    if (!end.ok()) {
      // A sole voter has nobody to leave it to.
      if (self->raft_->configuration().voters.size() <= 1) return self->Halt(end.status());
      self->OnLeaderReadFailed(end.status());
      self->raft_->StepDown();  // also of an error that may pass
      return self->ScheduleTurn();
    }
    self->data_end_ = *end;
    self->data_end_known_ = true;
    self->ScheduleTurn();  // which tells that it serves
  });
}

// ---- Followers that need what the core does not hold any more

void RaftLog::ServeLogRead(const raft::LogRead& read) {
  seams_.recovery->Ask(read.bytes_max, home_, [weak = weak_from_this(), read](ByteBudget::Lease lease) mutable {
    const auto self = weak.lock();
    if (self == nullptr || self->ended()) return;
    // From where the log may be read: its start may lie inside the batch that is wanted.
    const Offset from = std::max(read.from, self->log_->log_start());
    const int64_t bytes_max = lease.bytes();
    self->log_->Read(
        from, self->log_->log_end(), bytes_max,
        [self, read, lease = std::move(lease)](absl::StatusOr<std::vector<record::Batch>> batches) mutable {
          self->FinishLogRead(read, std::move(lease), std::move(batches));
        });
  });
}

void RaftLog::FinishLogRead(const raft::LogRead& read, ByteBudget::Lease lease,
                            absl::StatusOr<std::vector<record::Batch>> batches) {
  if (ended()) return;
  OnLeaderReadFailed(batches.status());
  if (batches.ok() && (batches->empty() || batches->front().base_offset() != read.from)) {
    batches = absl::OutOfRangeError(absl::StrCat("no batch begins at offset ", read.from.value()));
  }
  if (batches.ok()) {
    int64_t bytes = 0;
    for (const record::Batch& batch : *batches) bytes += static_cast<int64_t>(batch.size_bytes());
    lease.Shrink(bytes);
    shares_.push_back({.to = read.to, .end = batches->back().next_offset(), .since = Now(), .lease = std::move(lease)});
  }
  raft_->OnRead(read.token, std::move(batches));
  ScheduleTurn();
}

// A share ends when its batches are acknowledged. It ends as well when the leader has gone back before them, as after a
// loss, or when it did not want them any more: then they are read again, for a share of their own.
void RaftLog::GiveBackShares() {
  const std::vector<raft::FollowerStatus> followers = raft_->followers();
  std::erase_if(shares_, [&](const RecoveryShare& share) {
    const auto at = std::find_if(followers.begin(), followers.end(),
                                 [&](const raft::FollowerStatus& follower) { return follower.id == share.to; });
    return at == followers.end() || at->match >= share.end || at->next < share.end ||
           Now() - share.since > seams_.options->recovery_lease_max;
  });
}

}  // namespace sluice::replication
