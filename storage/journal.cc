#include "storage/journal.h"

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "storage/journal_impl.h"

namespace sluice::storage {
namespace {

constexpr size_t kOpeningFrameBytes = size_t{1} << 20;

}  // namespace

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
  if (!replayed.tail.file.empty()) {
    // What was read may be on no disk yet, where the process before was killed between a write and its sync; and from
    // here on files are written over that are not needed because of it.
    SLUICE_ASSIGN_OR_RETURN(const auto last, fs.Open(replayed.tail.file, {.mode = OpenOptions::Mode::kReadWrite}));
    SLUICE_RETURN_IF_ERROR(last->Sync());
  }
  SLUICE_RETURN_IF_ERROR(files_.Adopt(replayed));
  SLUICE_RETURN_IF_ERROR(files_.StartFile(pins_, 0));
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
  NoteUsed();
  return absl::OkStatus();
}

// The opening of a file as frames that are full, of which `flush` takes one after the other, and one that is begun.
absl::Status JournalImpl::EncodeOpening(const OpeningRecord& opening, FlushFrame flush) {
  frame_.Begin();
  frame_.Add(opening);
  for (const auto& [id, replica] : state_.replicas()) {
    frame_.Add(ReplicaSnapshotRecord{id, replica});
    if (frame_.size() < kOpeningFrameBytes) continue;
    SLUICE_RETURN_IF_ERROR(flush());
    frame_.Begin();
  }
  return absl::OkStatus();
}

// What WriteOpening writes at a rotation.
int64_t JournalImpl::OpeningBytes() {
  int64_t bytes = 0;
  const auto count = [&] {
    bytes += RoundUpToBlock(static_cast<int64_t>(frame_.size()));
    return absl::OkStatus();
  };
  EncodeOpening(OpeningRecord{}, count).IgnoreError();
  return bytes + RoundUpToBlock(static_cast<int64_t>(frame_.size()));
}

// Writes snapshots of all replicas and, when Open calls it, everything that only the superseded file still holds.
absl::Status JournalImpl::WriteOpening(uint64_t supersedes_from, uint64_t continues_after, const ReplayedJournal* carry,
                                       FileSystem* fs) {
  const auto flush = [&] { return files_.WriteFrame(frame_.Finish(files_.NextHeader(journal_format::kFlagOpening))); };
  SLUICE_RETURN_IF_ERROR(EncodeOpening({options_.disk, supersedes_from, continues_after, state_.replicas().size(),
                                        static_cast<uint64_t>(files_.made_bytes())},
                                       flush));
  if (carry != nullptr) {
    const auto only_there = [&](const Survivor& survivor) { return survivor.file >= supersedes_from; };
    const auto carry_forward = [&](const AppendRecord& append) -> absl::Status {
      SLUICE_RETURN_IF_ERROR(Take(append));
      frame_.Add(JournalRecord(append));
      if (frame_.size() < kOpeningFrameBytes) return absl::OkStatus();
      SLUICE_RETURN_IF_ERROR(flush());
      frame_.Begin();
      return absl::OkStatus();
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

// Any thread ------------------------------------------------------------------------------------------------------

void JournalImpl::Submit(Entry entry) {
  const int64_t bytes = BytesOf(entry);
  std::unique_lock<std::mutex> lock(mutex_);
  absl::Status refused = failed_;
  if (refused.ok() && stopping_) refused = absl::CancelledError("the journal has been stopped");
  if (!refused.ok()) {
    lock.unlock();
    io_.Post([done = std::move(entry.done), refused = std::move(refused)]() mutable {
      if (done) done(std::move(refused));
    });
    return;
  }
  queue_.push_back(std::move(entry));
  queued_bytes_ += bytes;
  waiting_bytes_ += bytes;
  ++stats_.queued_entries;
  const bool enough = gathering_ && waiting_bytes_ >= options_.gather_bytes;
  const bool post = !round_due_ || enough;
  round_due_ = true;
  if (enough) gathering_ = false;
  lock.unlock();
  if (post) PostRound();
}

absl::Status JournalImpl::AdmitBeyondBound() const {
  const std::lock_guard lock(mutex_);
  return AdmitBeyondBoundLocked();
}

absl::Status JournalImpl::AdmitBeyondBoundLocked() const {
  if (!failed_.ok()) return failed_;
  if (!lacks_file_.ok()) return lacks_file_;
  if (!lacks_room_.ok()) return lacks_room_;
  if (queued_bytes_ > options_.queued_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("journal: ", queued_bytes_, " bytes wait for the disk, at most ", options_.queued_bytes_max));
  }
  return absl::OkStatus();
}

absl::Status JournalImpl::Admit() const {
  const std::lock_guard lock(mutex_);
  if (absl::Status status = AdmitBeyondBoundLocked(); !status.ok()) return status;
  if (awaits_segments_) {
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
  files.reserve(sequences.size());
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
  const auto stopped = std::exchange(stopped_, nullptr);
}

void JournalImpl::FailOnFullDisk() {
  const std::lock_guard<std::mutex> lock(mutex_);
  waits_for_room_ = false;
}

void JournalImpl::Stop(absl::AnyInvocable<void()> done) {
  bool post = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    SLUICE_CHECK(!stopping_) << "journal stopped twice";
    stopping_ = true;
    waits_for_room_ = false;
    stopped_ = std::move(done);
    post = !round_due_ || gathering_;
    round_due_ = true;
    gathering_ = false;
  }
  if (post) PostRound();
}

}  // namespace sluice::storage
