#include "storage/meta/log_store.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "storage/meta/log_store_codec.h"
#include "storage/meta/log_store_format.h"

namespace sluice::storage {
namespace {

using meta_log::State;

constexpr std::string_view kLogPrefix = "meta.log.";
constexpr std::string_view kSnapshotPrefix = "meta.snapshot.";
/// A snapshot frame beyond this is refused before memory is taken.
constexpr int64_t kFileBytesMax = int64_t{meta_log::kPayloadBytesMax} + 2 * kBlockBytes;

std::optional<int64_t> NumberOf(std::string_view name, std::string_view prefix) {
  int64_t number = 0;
  if (!name.starts_with(prefix)) return std::nullopt;
  if (!absl::SimpleAtoi(std::string(name.substr(prefix.size())), &number) || number < 0) return std::nullopt;
  return number;
}

class LogMetadataStore : public MetadataStore {
 public:
  LogMetadataStore(FileSystem& fs, std::string dir, LogMetadataOptions options)
      : fs_(fs), dir_(std::move(dir)), options_(options) {}

  absl::Status Open();

  absl::Status Apply(std::string_view machine, int64_t applied, const MetadataChanges& changes) override {
    SLUICE_RETURN_IF_ERROR(CheckMetadataChanges(machine, applied, changes));
    std::lock_guard lock(mutex_);
    SLUICE_RETURN_IF_ERROR(failed_);
    const auto it = state_.find(machine);
    const int64_t before = it == state_.end() ? 0 : it->second.applied;
    if (applied < before) {
      return absl::FailedPreconditionError(
          Cat("applied index of ", machine, " would go back from ", before, " to ", applied));
    }
    const std::string payload = meta_log::EncodeChange(machine, applied, changes);
    SLUICE_RETURN_IF_ERROR(AppendFrame(payload));
    failed_ = meta_log::ApplyPayload(payload, &state_);  // what we just encoded: cannot fail
    SLUICE_RETURN_IF_ERROR(failed_);
    if (log_end_ > options_.log_bytes_max && log_end_ > 2 * snapshot_bytes_) Rotate();
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Applied(std::string_view machine) override {
    std::lock_guard lock(mutex_);
    const auto it = state_.find(machine);
    return it == state_.end() ? 0 : it->second.applied;
  }

  absl::StatusOr<std::optional<std::string>> Get(std::string_view machine, std::string_view key) override {
    std::lock_guard lock(mutex_);
    const auto it = state_.find(machine);
    if (it == state_.end()) return std::optional<std::string>();
    const auto entry = it->second.entries.find(key);
    if (entry == it->second.entries.end()) return std::optional<std::string>();
    return std::optional<std::string>(entry->second);
  }

  absl::StatusOr<std::vector<MetadataEntry>> Scan(std::string_view machine, std::string_view prefix) override {
    std::lock_guard lock(mutex_);
    std::vector<MetadataEntry> found;
    const auto it = state_.find(machine);
    if (it == state_.end()) return found;
    const auto& entries = it->second.entries;
    for (auto e = entries.lower_bound(prefix); e != entries.end() && e->first.starts_with(prefix); ++e) {
      found.push_back({e->first, e->second});
    }
    return found;
  }

 private:
  std::string LogPath(int64_t number) const { return Cat(dir_, "/", kLogPrefix, number); }
  std::string SnapshotPath(int64_t number) const { return Cat(dir_, "/", kSnapshotPrefix, number); }

  absl::Status LoadSnapshot();
  absl::Status ReplayLog();
  absl::Status CutTail(std::string_view bytes);
  absl::Status CreateLog();
  absl::Status AppendFrame(std::string_view payload);
  void Rotate();
  absl::Status TryRotate();
  void RemoveOlder(const std::vector<std::string>& names);

  FileSystem& fs_;
  const std::string dir_;
  const LogMetadataOptions options_;

  std::mutex mutex_;  // all below
  State state_;
  int64_t number_ = 0;  // of the log written to
  int64_t snapshot_bytes_ = 0;
  std::unique_ptr<File> log_;
  int64_t log_end_ = 0;    // where the next frame goes
  uint64_t sequence_ = 0;  // of the last frame
  absl::Status failed_;    // once set, for ever: what is on disk is no longer known
};

absl::Status LogMetadataStore::Open() {
  std::lock_guard lock(mutex_);
  SLUICE_RETURN_IF_ERROR(fs_.CreateDirs(dir_));
  const size_t slash = dir_.rfind('/');
  SLUICE_RETURN_IF_ERROR(fs_.SyncDir(slash == std::string::npos ? "." : dir_.substr(0, std::max<size_t>(slash, 1))));
  SLUICE_RETURN_IF_ERROR(fs_.SyncDir(dir_));  // names are read that may not be durable either
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(dir_));
  std::set<int64_t> logs;
  for (const auto& name : names) {
    if (auto n = NumberOf(name, kSnapshotPrefix)) number_ = std::max(number_, *n);
    if (auto n = NumberOf(name, kLogPrefix)) logs.insert(*n);
  }
  if (number_ > 0) SLUICE_RETURN_IF_ERROR(LoadSnapshot());
  if (logs.contains(number_)) {
    SLUICE_RETURN_IF_ERROR(ReplayLog());
  } else if (logs.contains(number_ - 1) || (number_ == 0 && logs.empty())) {
    SLUICE_RETURN_IF_ERROR(CreateLog());  // new store, or a crash between a snapshot and its log
  } else {
    return absl::DataLossError(Cat("metadata store: ", LogPath(number_), " is missing"));
  }
  if (!logs.empty() && *logs.rbegin() > number_) {
    return absl::DataLossError(Cat("metadata store: ", SnapshotPath(*logs.rbegin()), " is missing"));
  }
  // What was replayed may have been written by a process that was killed, or whose sync failed: readable, and on no
  // disk. It is written anew before anything follows it, as RocksDB does with what it recovers.
  if (log_end_ > 0) SLUICE_RETURN_IF_ERROR(TryRotate());
  RemoveOlder(names);
  return absl::OkStatus();
}

absl::Status LogMetadataStore::LoadSnapshot() {
  const std::string path = SnapshotPath(number_);
  SLUICE_ASSIGN_OR_RETURN(const std::string bytes, ReadWholeFile(fs_, path, kFileBytesMax));
  const auto frame = meta_log::ParseFrame(bytes);
  if (!frame || frame->sequence != 0 || frame->size_bytes != bytes.size()) {
    return absl::DataLossError(Cat("metadata store: ", path, " at 0: the snapshot's checksum does not hold"));
  }
  if (absl::Status applied = meta_log::ApplyPayload(frame->payload, &state_); !applied.ok()) {
    return absl::DataLossError(Cat("metadata store: ", path, ": ", Message(applied)));
  }
  snapshot_bytes_ = static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status LogMetadataStore::ReplayLog() {
  const std::string path = LogPath(number_);
  SLUICE_ASSIGN_OR_RETURN(log_, fs_.Open(path, {.mode = OpenOptions::Mode::kReadWrite}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, log_->Size());
  std::string bytes(static_cast<size_t>(size), '\0');
  SLUICE_ASSIGN_OR_RETURN(const size_t count, log_->ReadAt(0, absl::MakeSpan(bytes)));
  bytes.resize(count);
  const std::string_view all = bytes;
  while (static_cast<size_t>(log_end_) < all.size()) {
    const auto frame = meta_log::ParseFrame(all.substr(static_cast<size_t>(log_end_)));
    if (!frame || frame->sequence != sequence_ + 1) break;
    if (absl::Status applied = meta_log::ApplyPayload(frame->payload, &state_); !applied.ok()) {
      return absl::DataLossError(Cat("metadata store: ", path, " at ", log_end_, ": ", Message(applied)));
    }
    sequence_ = frame->sequence;
    log_end_ += static_cast<int64_t>((frame->size_bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
  }
  return CutTail(all);
}

// Each frame is synced before the next is written, so behind a torn one there is nothing sound.
absl::Status LogMetadataStore::CutTail(std::string_view bytes) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size <= log_end_) return absl::OkStatus();
  for (int64_t at = log_end_; at < size; at += kBlockBytes) {
    const auto frame = meta_log::ParseFrame(bytes.substr(static_cast<size_t>(at)));
    if (frame && frame->sequence > sequence_) {
      return absl::DataLossError(Cat("metadata store: ", LogPath(number_), " at ", log_end_, ": change ", sequence_ + 1,
                                     " is damaged, but change ", frame->sequence, " at ", at, " is sound"));
    }
  }
  // Synced before anything is written there again, so that no old block can come back behind a new frame.
  SLUICE_RETURN_IF_ERROR(log_->Truncate(log_end_));
  return log_->Sync();
}

absl::Status LogMetadataStore::CreateLog() {
  const std::string path = LogPath(number_);
  SLUICE_ASSIGN_OR_RETURN(log_, fs_.Open(path, {.mode = OpenOptions::Mode::kCreateNew}));
  log_end_ = 0;
  sequence_ = 0;
  SLUICE_RETURN_IF_ERROR(log_->Sync());
  return fs_.SyncDir(dir_);
}

absl::Status LogMetadataStore::AppendFrame(std::string_view payload) {
  const std::string frame = meta_log::EncodeFrame(sequence_ + 1, payload);
  if (absl::Status written = log_->WriteAt(log_end_, frame); !written.ok()) {
    // What a full disk left of the frame must not stand behind the next one.
    if (!absl::IsResourceExhausted(written) || !log_->Truncate(log_end_).ok()) failed_ = written;
    return written;
  }
  if (absl::Status synced = log_->Sync(); !synced.ok()) {
    failed_ = synced;
    return synced;
  }
  log_end_ += static_cast<int64_t>(frame.size());
  ++sequence_;
  return absl::OkStatus();
}

absl::Status LogMetadataStore::TryRotate() {
  const std::string snapshot = meta_log::EncodeFrame(0, meta_log::EncodeState(state_));
  SLUICE_RETURN_IF_ERROR(WriteWholeFile(fs_, SnapshotPath(number_ + 1), snapshot));
  SLUICE_ASSIGN_OR_RETURN(auto log, fs_.Open(LogPath(number_ + 1), {.mode = OpenOptions::Mode::kCreateNew}));
  SLUICE_RETURN_IF_ERROR(log->Sync());
  SLUICE_RETURN_IF_ERROR(fs_.SyncDir(dir_));
  log_ = std::move(log);
  ++number_;
  log_end_ = 0;
  sequence_ = 0;
  snapshot_bytes_ = static_cast<int64_t>(snapshot.size());
  return absl::OkStatus();
}

// The change that led here is durable, so a failure is no failure of it. But a new snapshot must not stay beside a log
// that goes on growing: opening would prefer it. The new log goes first: one without its snapshot refuses to open.
void LogMetadataStore::Rotate() {
  if (TryRotate().ok()) {
    if (auto names = fs_.List(dir_); names.ok()) RemoveOlder(*names);
    return;
  }
  for (const std::string& path : {LogPath(number_ + 1), SnapshotPath(number_ + 1)}) {
    if (absl::Status removed = fs_.Remove(path); !removed.ok() && !absl::IsNotFound(removed)) failed_ = removed;
    if (absl::Status synced = fs_.SyncDir(dir_); !synced.ok()) failed_ = synced;
  }
}

// What stays behind costs room only, so failures here are met again at the next opening.
void LogMetadataStore::RemoveOlder(const std::vector<std::string>& names) {
  for (const auto& name : names) {
    const auto log = NumberOf(name, kLogPrefix);
    const auto snapshot = NumberOf(name, kSnapshotPrefix);
    const bool old = (log && *log < number_) || (snapshot && *snapshot < number_);
    const bool unfinished = name.starts_with(kSnapshotPrefix) && name.ends_with(".tmp");
    if (old || unfinished) fs_.Remove(Cat(dir_, "/", name)).IgnoreError();
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenLogMetadataStore(FileSystem& fs, const std::string& dir,
                                                                    LogMetadataOptions options) {
  auto store = std::make_unique<LogMetadataStore>(fs, dir, options);
  SLUICE_RETURN_IF_ERROR(store->Open());
  return store;
}

}  // namespace sluice::storage
