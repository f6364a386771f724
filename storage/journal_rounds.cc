// The journal's io executor: a round takes what is queued, encodes it into a frame, writes it and syncs it; and the
// next file is made ahead, so that going on to it is a rename.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "storage/journal_impl.h"

namespace sluice::storage {
namespace {

// A group is held back only when the one before carried at least this share of gather_bytes: where bytes flow, a larger
// group saves processor time; where they trickle, waiting would only cost latency.
constexpr int64_t kLoadedShare = 16;
constexpr absl::Duration kThrottleStep = absl::Milliseconds(1);
constexpr absl::Duration kFullDiskRetry = absl::Milliseconds(500);
// Between the steps of making a file ahead, while nobody waits for it.
constexpr absl::Duration kPreparePause = absl::Milliseconds(5);

}  // namespace

void JournalImpl::PostRound() {
  io_.Post([self = shared_from_this()] { self->Round(); });
}

// One group: gather, encode, write. The sync is a task of its own.
void JournalImpl::Round() {
  if (Throttle() || HoldBack()) return;
  held_back_ = false;
  throttled_ = absl::ZeroDuration();
  TakeQueued();
  if (pending_.empty()) return Rest();
  const int64_t bytes = RoundUpToBlock(static_cast<int64_t>(journal_format::kFrameHeaderBytes + NextGroupBytes()));
  if (files_.IsFull(bytes)) {
    if (options_.prepare_io != nullptr && !files_.HasNext(pins_)) {
      awaits_file_ = true;
      prepare_fast_ = true;
      return Prepare();
    }
    absl::Status status = Rotate();
    NoteFull(&lacks_file_, status);
    if (absl::IsResourceExhausted(status)) return StallOnFullDisk(status);
    if (!status.ok()) return Fail(status);
    Prepare();
  }
  // An entry may be larger than a file. Before it is taken: what is half written can only be given up.
  absl::Status reserved = files_.Reserve(bytes);
  NoteFull(&lacks_room_, reserved);
  if (absl::IsResourceExhausted(reserved)) return StallOnFullDisk(reserved);
  if (!reserved.ok()) return Fail(reserved);
  EncodeGroup();
  if (!frame_.empty()) {
    const FrameHeader header = files_.NextHeader(0);
    if (absl::Status status = files_.WriteFrame(frame_.Finish(header)); !status.ok()) return Fail(status);
    frame_.Release();
    group_bytes_last_ = static_cast<int64_t>(frame_.size());
  } else {
    group_bytes_last_ = 0;  // every entry of the group was refused or empty
  }
  io_.Post([self = shared_from_this()] { self->SyncGroup(); });
}

// Lets what is behind the journal catch up; true when a later round was arranged.
bool JournalImpl::Throttle() {
  if (options_.timers == nullptr || !options_.lags || throttled_ >= JournalOptions::kThrottleMax) return false;
  if (!options_.lags()) return false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return false;
  }
  throttled_ += kThrottleStep;
  options_.timers->PostAfter(kThrottleStep, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->PostRound();
  });
  return true;
}

// Under load, waits up to gather_max for the group to grow; true when a later round was arranged.
bool JournalImpl::HoldBack() {
  const bool loaded = follows_a_group_ && group_bytes_last_ >= options_.gather_bytes / kLoadedShare;
  follows_a_group_ = false;
  if (!loaded || held_back_ || options_.timers == nullptr || !pending_.empty()) return false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queue_.empty() || stopping_ || waiting_bytes_ >= options_.gather_bytes) return false;
    gathering_ = true;
  }
  held_back_ = true;
  options_.timers->PostAfter(options_.gather_max, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    {
      const std::lock_guard<std::mutex> lock(self->mutex_);
      if (!self->gathering_) return;  // enough came before
      self->gathering_ = false;
    }
    self->PostRound();
  });
  return true;
}

void JournalImpl::TakeQueued() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    taken_.swap(queue_);
    waiting_bytes_ = 0;
  }
  for (Entry& entry : taken_) pending_.push_back(std::move(entry));
  taken_.clear();
}

size_t JournalImpl::NextGroupBytes() const {
  size_t bytes = 0;
  for (const Entry& entry : pending_) {
    bytes += static_cast<size_t>(BytesOf(entry));
    if (bytes >= static_cast<size_t>(options_.group_bytes_max)) break;
  }
  return bytes;
}

absl::Status JournalImpl::Rotate() {
  // Everything written so far is synced, so what the pins have let go of may be reused.
  const uint64_t frame_before = files_.last_frame();
  const int64_t opening_bytes = OpeningBytes();
  {
    const std::lock_guard<std::mutex> lock(pins_mutex_);
    SLUICE_RETURN_IF_ERROR(files_.StartFile(pins_, opening_bytes));
  }
  // From here on a full disk is no longer a reason to wait: the new file is there, and so is the room for its opening.
  const auto open = [&]() -> absl::Status {
    SLUICE_RETURN_IF_ERROR(WriteOpening(0, frame_before, nullptr, nullptr));
    SLUICE_RETURN_IF_ERROR(files_.Sync());
    files_.MarkSynced();
    SLUICE_RETURN_IF_ERROR(files_.Mark());
    return files_.RemoveSpares(pins_);
  };
  if (absl::Status status = open(); !status.ok()) {
    return absl::DataLossError(absl::StrCat("journal: opening a file: ", std::string(status.message())));
  }
  const int64_t used = NoteUsed();
  if (pressure_ && used > options_.total_bytes_max / 2) pressure_();
  return absl::OkStatus();
}

int64_t JournalImpl::NoteUsed() {
  int64_t used = 0;
  bool older = false;
  {
    const std::lock_guard<std::mutex> lock(pins_mutex_);
    oldest_pinned_ = files_.OldestPinned(pins_);
    older = oldest_pinned_ != 0;
    used = files_.UsedBytes(pins_);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.used_bytes = used;
  stats_.files_created = files_.created();
  stats_.files_recycled = files_.recycled();
  awaits_segments_ = older && used > options_.total_bytes_max;
  return used;
}

void JournalImpl::EncodeGroup() {
  frame_.Begin();
  int64_t bytes = 0;
  int64_t entries = 0;
  uint64_t records = 0;
  {
    const std::lock_guard<std::mutex> lock(pins_mutex_);
    while (!pending_.empty() && (entries == 0 || bytes < options_.group_bytes_max)) {
      Entry entry = std::move(pending_.front());
      pending_.pop_front();
      bytes += BytesOf(entry);
      ++entries;
      absl::Status status;
      for (const JournalRecord& record : entry.records) {
        if (EncodedBytes(record) > journal_format::kPayloadBytesMax) {
          status = absl::InvalidArgumentError(absl::StrCat("a journal record of ", EncodedBytes(record), " bytes"));
        } else {
          status = Take(record);
        }
        if (!status.ok()) break;
        frame_.Add(record);
        ++records;
      }
      in_flight_.push_back({std::move(entry.done), std::move(status)});
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  queued_bytes_ -= bytes;
  stats_.queued_entries -= entries;
  stats_.entries += static_cast<uint64_t>(entries);
  stats_.records += records;
}

void JournalImpl::SyncGroup() {
  if (!frame_.empty()) {
    const absl::Duration start = clock_.Monotonic();
    if (absl::Status status = Planted(PlantedBug::kSkipJournalSync) ? absl::OkStatus() : files_.Sync(); !status.ok()) {
      return Fail(status);
    }
    files_.MarkSynced();
    const absl::Duration took = clock_.Monotonic() - start;
    NoteUsed();
    const std::lock_guard<std::mutex> lock(mutex_);
    ++stats_.syncs;
    stats_.bytes += static_cast<uint64_t>(group_bytes_last_);
    stats_.sync_last = took;
    stats_.sync_total += took;
    stats_.sync_max = std::max(stats_.sync_max, took);
  }
  Finish(std::exchange(in_flight_, {}));
  follows_a_group_ = true;
  Round();
}

void JournalImpl::Finish(std::vector<InFlight> group) {
  for (InFlight& one : group) {
    if (one.done) one.done(std::move(one.status));
  }
  group.clear();
  if (in_flight_.empty()) in_flight_ = std::move(group);  // keeps the storage
}

// Nothing to do: sleeps until the next Submit, or ends.
void JournalImpl::Rest() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!queue_.empty()) {  // came in since TakeQueued
      io_.Post([self = shared_from_this()] { self->Round(); });
      return;
    }
    round_due_ = false;
    if (!stopping_ || !stopped_) return;
  }
  FinishStop();
}

void JournalImpl::FinishStop() {
  ends_ = true;
  prepare_given_up_ = true;
  if (preparing_) return;  // OnPrepared comes back here
  absl::AnyInvocable<void()> stopped;
  bool failed = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped = std::exchange(stopped_, nullptr);
    failed = !failed_.ok();
  }
  // So that the next start knows exactly what must be there. Without it the start knows a little less.
  if (!failed) {
    files_.NoteNeeded(pins_);
    files_.Mark().IgnoreError();
  }
  files_.Close();
  if (stopped) stopped();
}

// The next file -----------------------------------------------------------------------------------------------------

// Makes the next file ahead, unless there is one, so that a rotation is a rename.
void JournalImpl::Prepare() {
  if (preparing_ || ends_ || options_.prepare_io == nullptr || files_.HasNext(pins_)) return;
  preparing_ = true;
  PrepareStep(files_.MakeSpare());
}

// Each step is a task of its own, so that others on that executor have their turn.
void JournalImpl::PrepareStep(std::shared_ptr<JournalFileMaker> maker) {
  options_.prepare_io->Post([self = shared_from_this(), maker = std::move(maker)]() mutable {
    absl::StatusOr<bool> more = absl::CancelledError("the journal stops");
    if (self->prepare_given_up_) {
      maker->Abandon();
    } else {
      more = maker->Step();
    }
    JournalImpl& journal = *self;
    if (!more.ok() || !*more) {
      journal.io_.Post([self = std::move(self), status = more.status()] { self->OnPrepared(status); });
    } else if (journal.prepare_fast_ || journal.options_.timers == nullptr) {
      journal.PrepareStep(std::move(maker));
    } else {
      journal.options_.timers->PostAfter(
          kPreparePause, [self = std::move(self), maker = std::move(maker)]() mutable { self->PrepareStep(maker); });
    }
  });
}

void JournalImpl::PrepareLater() {
  if (options_.timers == nullptr) return;  // the rotation tries again
  options_.timers->PostAfter(kFullDiskRetry, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    JournalImpl& journal = *self;
    journal.io_.Post([self] {
      if (self->ends_ || self->preparing_) return;
      if (!self->files_.HasNext(self->pins_)) return self->Prepare();
      self->NoteFull(&self->lacks_file_, absl::OkStatus());
    });
  });
}

void JournalImpl::OnPrepared(const absl::Status& status) {
  preparing_ = false;
  prepare_fast_ = false;
  if (status.ok()) files_.AddSpare();
  if (ends_) return FinishStop();
  NoteFull(&lacks_file_, status);
  if (!std::exchange(awaits_file_, false)) {
    if (absl::IsResourceExhausted(status)) PrepareLater();
    return;
  }
  if (absl::IsResourceExhausted(status)) return StallOnFullDisk(status);
  if (!status.ok()) return Fail(status);
  Round();
}

// Keeps for Admit what a full disk stands in the way of, or that it no longer does.
void JournalImpl::NoteFull(absl::Status* lack, const absl::Status& status) {
  const bool full = absl::IsResourceExhausted(status);
  if (!full && lack->ok()) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  *lack = full ? status : absl::OkStatus();
}

void JournalImpl::StallOnFullDisk(const absl::Status& status) {
  bool waits = true;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waits = waits_for_room_;
  }
  if (options_.timers == nullptr) return Fail(status);  // nobody could ever try again
  // A stop does not wait for an operator to make room. All that was written is synced, so nothing is wrong but that.
  if (!waits) {
    FailEntries(status);
    return Rest();
  }
  options_.timers->PostAfter(kFullDiskRetry, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->PostRound();
  });
}

void JournalImpl::Fail(const absl::Status& status) {
  FailEntries(status);
  if (options_.on_fatal) options_.on_fatal(status);
  Rest();
}

void JournalImpl::FailEntries(const absl::Status& status) {
  std::vector<Entry> queued;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failed_ = status;
    queued.swap(queue_);
    waiting_bytes_ = 0;
    queued_bytes_ = 0;
    stats_.queued_entries = 0;
  }
  for (InFlight& one : in_flight_) one.status = status;
  Finish(std::exchange(in_flight_, {}));
  for (Entry& entry : pending_) {
    if (entry.done) entry.done(status);
  }
  pending_.clear();
  for (Entry& entry : queued) {
    if (entry.done) entry.done(status);
  }
}

}  // namespace sluice::storage
