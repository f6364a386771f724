#include "storage/journal.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "storage/journal_codec.h"
#include "storage/journal_files.h"
#include "storage/journal_pins.h"
#include "storage/journal_replay.h"

namespace sluice::storage {

namespace {

constexpr size_t kOpeningFrameBytes = size_t{1} << 20;
// A group is held back only when the one before carried at least this share of gather_bytes: where bytes flow, a larger
// group saves processor time; where they trickle, waiting would only cost latency.
constexpr int64_t kLoadedShare = 16;
constexpr absl::Duration kThrottleStep = absl::Milliseconds(1);
constexpr absl::Duration kFullDiskRetry = absl::Milliseconds(500);
// Between the steps of making a file ahead, while nobody waits for it.
constexpr absl::Duration kPreparePause = absl::Milliseconds(5);

class JournalImpl final : public Journal, public std::enable_shared_from_this<JournalImpl> {
 public:
  JournalImpl(FileSystem& fs, Options options, BlockingExecutor& io, Clock& clock)
      : options_(std::move(options)), io_(io), clock_(clock), files_(fs, options_) {}

  // The steps of Open.
  absl::Status PrepareDir() { return files_.PrepareDir(); }
  absl::Status Begin(FileSystem& fs, const ReplayedJournal& replayed);
  absl::Status Ready(uint64_t superseded_from);
  void PrepareSoon() {
    io_.Post([self = shared_from_this()] { self->Prepare(); });
  }

  void Submit(Entry entry) override;
  absl::Status Admit() const override;
  std::vector<ReplicaId> OldestFilePins() const override;
  std::vector<JournalFileInfo> FilesHolding(const ReplicaId& replica) const override;
  std::vector<JournalPin> PinsOf(const ReplicaId& replica) const override;
  void OnPressure(std::function<void()> callback) override { pressure_ = std::move(callback); }
  void Stop(absl::AnyInvocable<void()> done) override;
  void Abandon() override;
  JournalStats stats() const override;

 private:
  struct InFlight {
    Done done;
    absl::Status status;
  };

  void PostRound();  // round_due_ is set
  void Round();
  bool HoldBack();
  bool Throttle();
  void TakeQueued();
  size_t NextGroupBytes() const;
  absl::Status Rotate();
  absl::Status WriteOpening(uint64_t supersedes_from, uint64_t continues_after, const ReplayedJournal* carry,
                            FileSystem* fs);
  void EncodeGroup();
  absl::Status Take(const JournalRecord& record);
  void SyncGroup();
  void Finish(std::vector<InFlight> group);
  void Fail(const absl::Status& status);
  void StallOnFullDisk(const absl::Status& status);
  void Rest();
  void FinishStop();
  void Prepare();
  void PrepareStep(std::shared_ptr<JournalFileMaker> maker);
  void PrepareLater();
  void OnPrepared(const absl::Status& status);

  const Options options_;
  BlockingExecutor& io_;
  Clock& clock_;
  std::function<void()> pressure_;

  // Of the io executor.
  JournalState state_;
  JournalFiles files_;
  FrameBuilder frame_;
  std::deque<Entry> pending_;  // taken from queue_, not encoded yet
  std::vector<Entry> taken_;   // kept for its storage
  std::vector<InFlight> in_flight_;
  uint64_t records_applied_ = 0;
  int64_t group_bytes_last_ = 0;
  bool follows_a_group_ = false;  // this round comes right after a sync
  bool held_back_ = false;        // this round has waited already
  absl::Duration throttled_;      // how long this round has waited for what lags
  bool preparing_ = false;        // the next file is being made
  bool awaits_file_ = false;      // a round goes on once it is
  bool ends_ = false;             // nothing is left to do but what FinishStop waits for

  std::atomic<bool> prepare_fast_{false};      // read where the file is made
  std::atomic<bool> prepare_given_up_{false};  // the same

  mutable std::mutex pins_mutex_;
  JournalPins pins_;            // guarded by pins_mutex_; changed on the io executor only
  uint64_t oldest_pinned_ = 0;  // guarded by pins_mutex_

  mutable std::mutex mutex_;  // guards what follows
  std::vector<Entry> queue_;
  int64_t queued_bytes_ = 0;   // of queue_ and pending_
  int64_t waiting_bytes_ = 0;  // of queue_
  bool round_due_ = false;     // a round is posted, running, or waiting to gather
  bool gathering_ = false;     // it is waiting, and may be woken
  bool stopping_ = false;
  absl::AnyInvocable<void()> stopped_;
  absl::Status failed_;
  absl::Status stalled_;  // no space for the next file
  JournalStats stats_;
};

int64_t BytesOf(const Journal::Entry& entry) {
  size_t bytes = 0;
  for (const JournalRecord& record : entry.records) bytes += EncodedBytes(record);
  return static_cast<int64_t>(bytes);
}

// Opening ---------------------------------------------------------------------------------------------------------

absl::Status JournalImpl::Begin(FileSystem& fs, const ReplayedJournal& replayed) {
  state_ = replayed.state;
  pins_ = replayed.pins;
  records_applied_ = replayed.records;
  SLUICE_RETURN_IF_ERROR(files_.Adopt(replayed));
  SLUICE_RETURN_IF_ERROR(files_.StartFile(pins_));
  SLUICE_RETURN_IF_ERROR(WriteOpening(replayed.supersede_from, replayed.continues_after, &replayed, &fs));
  SLUICE_RETURN_IF_ERROR(files_.Sync());
  files_.MarkSynced();
  // Vouches for the opening: once the file it replaces may be recycled, a damaged opening must not look unfinished.
  frame_.Begin();
  SLUICE_RETURN_IF_ERROR(files_.WriteFrame(frame_.Finish(files_.NextHeader(0))));
  SLUICE_RETURN_IF_ERROR(files_.Sync());
  files_.MarkSynced();
  files_.MarkOpeningEnd();
  return files_.Mark();
}

// The log store has what it needs; what the new file replaces may go.
absl::Status JournalImpl::Ready(uint64_t superseded_from) {
  if (superseded_from != 0) files_.Supersede(superseded_from);
  SLUICE_RETURN_IF_ERROR(files_.RemoveSpares(pins_));
  oldest_pinned_ = files_.OldestPinned(pins_);
  stats_.used_bytes = files_.UsedBytes(pins_);
  stats_.files_created = files_.created();
  stats_.files_recycled = files_.recycled();
  return absl::OkStatus();
}

// Writes snapshots of all replicas and, when Open calls it, everything that only the superseded file still holds.
absl::Status JournalImpl::WriteOpening(uint64_t supersedes_from, uint64_t continues_after, const ReplayedJournal* carry,
                                       FileSystem* fs) {
  const auto write_if_large = [&]() -> absl::Status {
    if (frame_.size() < kOpeningFrameBytes) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(files_.WriteFrame(frame_.Finish(files_.NextHeader(journal_format::kFlagOpening))));
    frame_.Begin();
    return absl::OkStatus();
  };
  frame_.Begin();
  frame_.Add(OpeningRecord{options_.disk, supersedes_from, continues_after, state_.replicas().size(),
                           static_cast<uint64_t>(files_.made_bytes())});
  for (const auto& [id, replica] : state_.replicas()) {
    frame_.Add(ReplicaSnapshotRecord{id, replica});
    SLUICE_RETURN_IF_ERROR(write_if_large());
  }
  if (carry != nullptr) {
    const auto only_there = [&](const Survivor& survivor) { return survivor.file >= supersedes_from; };
    const auto carry_forward = [&](const AppendRecord& append) -> absl::Status {
      SLUICE_RETURN_IF_ERROR(Take(append));
      frame_.Add(JournalRecord(append));
      return write_if_large();
    };
    SLUICE_RETURN_IF_ERROR(ReadSurvivors(*fs, *carry, only_there, carry_forward));
  }
  const FrameHeader header = files_.NextHeader(journal_format::kFlagOpening | journal_format::kFlagOpeningEnd);
  SLUICE_RETURN_IF_ERROR(files_.WriteFrame(frame_.Finish(header)));
  files_.MarkOpeningEnd();
  return absl::OkStatus();
}

// Takes a record into the state and the pins, as replay will.
absl::Status JournalImpl::Take(const JournalRecord& record) {
  SLUICE_RETURN_IF_ERROR(state_.Apply(record));
  const ReplicaId& replica = ReplicaOf(record);
  const ReplicaState* state = state_.Find(replica);
  ++records_applied_;
  if (const auto* append = std::get_if<AppendRecord>(&record)) {
    pins_.OnAppend(*append, *state, files_.current(), records_applied_);
  } else {
    pins_.Trim(replica, state);
  }
  return absl::OkStatus();
}

// Any thread ------------------------------------------------------------------------------------------------------

void JournalImpl::Submit(Entry entry) {
  const int64_t bytes = BytesOf(entry);
  absl::Status refused;
  bool post = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    refused = failed_;
    if (refused.ok() && stopping_) refused = absl::CancelledError("the journal has been stopped");
    if (refused.ok()) {
      queue_.push_back(std::move(entry));
      queued_bytes_ += bytes;
      waiting_bytes_ += bytes;
      ++stats_.queued_entries;
      const bool enough = gathering_ && waiting_bytes_ >= options_.gather_bytes;
      post = !round_due_ || enough;
      round_due_ = true;
      if (enough) gathering_ = false;
    }
  }
  if (post) PostRound();
  if (!refused.ok()) {
    io_.Post([done = std::move(entry.done), refused]() mutable {
      if (done) done(refused);
    });
  }
}

absl::Status JournalImpl::Admit() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!failed_.ok()) return failed_;
  if (!stalled_.ok()) return stalled_;
  if (queued_bytes_ > options_.queued_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("journal: ", queued_bytes_, " bytes wait for the disk, at most ", options_.queued_bytes_max));
  }
  if (stats_.used_bytes > options_.total_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat("journal: its files take ", stats_.used_bytes, " bytes, at most ",
                                                     options_.total_bytes_max, ", until segments are synced"));
  }
  return absl::OkStatus();
}

std::vector<ReplicaId> JournalImpl::OldestFilePins() const {
  const std::lock_guard<std::mutex> lock(pins_mutex_);
  return oldest_pinned_ == 0 ? std::vector<ReplicaId>() : pins_.HoldersOf(oldest_pinned_);
}

std::vector<JournalFileInfo> JournalImpl::FilesHolding(const ReplicaId& replica) const {
  std::set<uint64_t> sequences;
  {
    const std::lock_guard<std::mutex> lock(pins_mutex_);
    for (const JournalPin& pin : pins_.Of(replica)) sequences.insert(pin.file);
  }
  std::vector<JournalFileInfo> files;
  for (const uint64_t sequence : sequences) {
    files.push_back({.sequence = sequence, .path = JournalFilePath(options_.dir, sequence)});
  }
  return files;
}

std::vector<JournalPin> JournalImpl::PinsOf(const ReplicaId& replica) const {
  const std::lock_guard<std::mutex> lock(pins_mutex_);
  return pins_.Of(replica);
}

JournalStats JournalImpl::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  JournalStats stats = stats_;
  stats.queued_bytes = queued_bytes_;
  return stats;
}

void JournalImpl::Abandon() {
  const auto queued = std::exchange(queue_, {});
  const auto pending = std::exchange(pending_, {});
  const auto in_flight = std::exchange(in_flight_, {});
}

void JournalImpl::Stop(absl::AnyInvocable<void()> done) {
  bool post = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    SLUICE_CHECK(!stopping_) << "journal stopped twice";
    stopping_ = true;
    stopped_ = std::move(done);
    post = !round_due_ || gathering_;
    round_due_ = true;
    gathering_ = false;
  }
  if (post) PostRound();
}

// The io executor -------------------------------------------------------------------------------------------------

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
  const auto bytes = static_cast<int64_t>(journal_format::kFrameHeaderBytes + NextGroupBytes());
  if (files_.IsFull(RoundUpToBlock(bytes))) {
    if (options_.prepare_io != nullptr && !files_.HasNext(pins_)) {
      awaits_file_ = true;
      prepare_fast_ = true;
      return Prepare();
    }
    absl::Status status = Rotate();
    if (absl::IsResourceExhausted(status)) return StallOnFullDisk(status);
    if (!status.ok()) return Fail(status);
  }
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
  {
    const std::lock_guard<std::mutex> lock(pins_mutex_);
    SLUICE_RETURN_IF_ERROR(files_.StartFile(pins_));
  }
  // From here on a full disk is no longer a reason to wait: the new file is there, prewritten.
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
  int64_t used = 0;
  {
    const std::lock_guard<std::mutex> lock(pins_mutex_);
    oldest_pinned_ = files_.OldestPinned(pins_);
    used = files_.UsedBytes(pins_);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stalled_ = absl::OkStatus();
    stats_.used_bytes = used;
    stats_.files_created = files_.created();
    stats_.files_recycled = files_.recycled();
  }
  if (pressure_ && used > options_.total_bytes_max / 2) pressure_();
  Prepare();
  return absl::OkStatus();
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
    oldest_pinned_ = files_.OldestPinned(pins_);
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
    if (absl::Status status = files_.Sync(); !status.ok()) return Fail(status);
    files_.MarkSynced();
    const absl::Duration took = clock_.Monotonic() - start;
    int64_t used = 0;
    {
      const std::lock_guard<std::mutex> lock(pins_mutex_);
      used = files_.UsedBytes(pins_);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    ++stats_.syncs;
    stats_.bytes += static_cast<uint64_t>(group_bytes_last_);
    stats_.used_bytes = used;
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
  if (!failed) files_.Mark().IgnoreError();
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
      const std::lock_guard<std::mutex> lock(self->mutex_);
      self->stalled_ = absl::OkStatus();
    });
  });
}

void JournalImpl::OnPrepared(const absl::Status& status) {
  preparing_ = false;
  prepare_fast_ = false;
  if (status.ok()) files_.AddSpare();
  if (ends_) return FinishStop();
  {
    // Without a next file appends are refused while there is still room in this one, for the checkpoints and log starts
    // that let files be used again.
    const std::lock_guard<std::mutex> lock(mutex_);
    stalled_ = absl::IsResourceExhausted(status) ? status : absl::OkStatus();
  }
  if (!std::exchange(awaits_file_, false)) {
    if (absl::IsResourceExhausted(status)) PrepareLater();
    return;
  }
  if (absl::IsResourceExhausted(status)) return StallOnFullDisk(status);
  if (!status.ok()) return Fail(status);
  Round();
}

void JournalImpl::StallOnFullDisk(const absl::Status& status) {
  bool stopping = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stalled_ = status;
    stopping = stopping_;
  }
  if (stopping || options_.timers == nullptr) {
    // Without a timer nobody could ever try again; and a stop does not wait for an operator to make room.
    return Fail(status);
  }
  options_.timers->PostAfter(kFullDiskRetry, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->PostRound();
  });
}

void JournalImpl::Fail(const absl::Status& status) {
  std::vector<Entry> queued;
  bool stopping = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failed_ = status;
    queued.swap(queue_);
    waiting_bytes_ = 0;
    queued_bytes_ = 0;
    stats_.queued_entries = 0;
    round_due_ = false;
    stopping = stopping_;
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
  if (options_.on_fatal) options_.on_fatal(status);
  if (stopping) FinishStop();
}

}  // namespace

absl::StatusOr<Journal::Opened> Journal::Open(FileSystem& fs, Options options, BlockingExecutor& io, Clock& clock,
                                              ReplayVisitor& visitor) {
  SLUICE_CHECK(options.random != nullptr) << "the journal needs a source of random numbers";
  SLUICE_CHECK(options.file_bytes >= kBlockBytes && options.file_bytes % kBlockBytes == 0)
      << "journal files of " << options.file_bytes << " bytes";
  const std::string dir = options.dir;
  const Uuid disk = options.disk;
  auto journal = std::make_shared<JournalImpl>(fs, std::move(options), io, clock);
  SLUICE_RETURN_IF_ERROR(journal->PrepareDir());
  SLUICE_ASSIGN_OR_RETURN(const ReplayedJournal replayed, ReplayJournal(fs, dir, disk));
  SLUICE_RETURN_IF_ERROR(journal->Begin(fs, replayed));
  SLUICE_RETURN_IF_ERROR(visitor.OnState(replayed.state));
  const auto all = [](const Survivor&) { return true; };
  SLUICE_RETURN_IF_ERROR(
      ReadSurvivors(fs, replayed, all, [&](const AppendRecord& append) { return visitor.OnAppend(append); }));
  SLUICE_RETURN_IF_ERROR(journal->Ready(replayed.supersede_from));
  journal->PrepareSoon();
  return Opened{std::move(journal), replayed.state, replayed.tail};
}

}  // namespace sluice::storage
