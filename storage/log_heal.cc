// Segments whose sync has failed. What such a file holds beyond its checkpoint is unknown and it is never synced again:
// it is written anew from the journal, which still holds everything from the checkpoint on, and takes the old one's
// place. Until then the log takes only control batches, which go to another segment and stay in memory, and writes
// nothing else, so that what is to be written is settled; after it the segment is whole and closed.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/log.h"
#include "storage/segment_rewrite.h"

namespace sluice::storage {
namespace {

constexpr absl::Duration kRetryFirst = absl::Seconds(1);
constexpr absl::Duration kRetryMost = absl::Seconds(60);

}  // namespace

void Log::OnSyncFailed(const SegmentPtr& segment, const absl::Status& status) {
  if (std::find(doubtful_.begin(), doubtful_.end(), segment) == doubtful_.end()) doubtful_.push_back(segment);
  heal_failures_ = 0;
  heal_retry_at_ = env_.clock->Monotonic();
  CountForLag(false);
  SetHealError(status);
  AnswerCheckpoints(heal_error_);
}

void Log::SetHealError(const absl::Status& status) {
  heal_error_ = absl::UnavailableError(
      absl::StrCat("partition ", replica_.ToString(), " takes no appends until a segment that could not be synced ",
                   "has been written anew; nothing acknowledged is lost: ", status.message()));
}

bool Log::IsDoubtful(const SegmentPtr& segment) const {
  return std::find(doubtful_.begin(), doubtful_.end(), segment) != doubtful_.end();
}

// True while nothing else may be done to segment files.
bool Log::PumpHeal() {
  // A truncation, reset or new log start may have taken one away, which also settles it.
  std::erase_if(doubtful_, [this](const SegmentPtr& segment) { return Runtime(segment->id) != segment; });
  if (doubtful_.empty()) {
    heal_ = nullptr;
    return false;
  }
  if (env_.clock->Monotonic() < heal_retry_at_) {
    AnswerCheckpoints(heal_error_);
    PumpAt(heal_retry_at_);
    return true;
  }
  // What the registry lists must be durable before a file is made after it; each answer of the journal comes back here.
  if (submitted_ > 0) return true;
  const SegmentPtr segment = doubtful_.front();
  const SegmentState& target = *state().Find(segment->id);
  if (heal_ == nullptr || !(heal_->target() == target)) {
    heal_ =
        std::make_shared<SegmentRewrite>(*env_.fs, SegmentRewrite::Job{.dir = dir_,
                                                                       .path = segment->path,
                                                                       .replica = replica_,
                                                                       .target = target,
                                                                       .synced = state().SyncedBytes(target),
                                                                       .files = env_.journal->FilesHolding(replica_)});
    heal_written_ = false;
  }
  if (heal_written_) {
    RunTask([rewrite = heal_] { return rewrite->Install(); },
            [this, segment, target](const absl::Status& status) { OnInstalled(segment, target, status); });
    return true;
  }
  auto more = std::make_shared<bool>(true);
  RunTask(
      [rewrite = heal_, more]() -> absl::Status {
        absl::StatusOr<bool> stepped = rewrite->Step();
        *more = stepped.value_or(true);
        return stepped.status();
      },
      [this, more, rewrite = heal_](const absl::Status& status) {
        if (!status.ok()) return OnHealFailed(status);
        if (heal_ == rewrite) heal_written_ = !*more;
      });
  return true;
}

void Log::OnHealFailed(const absl::Status& status) {
  heal_ = nullptr;
  SetHealError(status);
  const absl::Duration wait = kRetryFirst * (int64_t{1} << std::min(heal_failures_, 6));
  ++heal_failures_;
  heal_retry_at_ = env_.clock->Monotonic() + std::min(wait, kRetryMost);
}

void Log::OnInstalled(const SegmentPtr& segment, const SegmentState& target, const absl::Status& status) {
  heal_ = nullptr;
  if (!status.ok()) return OnHealFailed(status);
  std::erase(doubtful_, segment);
  heal_failures_ = 0;
  segment->file = nullptr;
  segment->created = segment->dir_synced = true;
  segment->accepted = segment->flushed = segment->synced = target.end_position;
  // A truncation that became durable while the new file was put in place has asked for a cut, which is still to come.
  segment->closed_at = std::min(segment->closed_at.value_or(target.end_position), target.end_position);
  segment->finished = *segment->closed_at == target.end_position;
  ++segment->rewrites;
  IndexLater(segment);
  if (active_ == segment) active_ = nullptr;
  CountTail();
  // The journal need not hold it any longer.
  if (doubtful_.empty()) checkpoints_waiting_.push_back([](const absl::Status&) {});
}

}  // namespace sluice::storage
