#include "storage/meta/rocks_store.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <cerrno>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::storage {
namespace {

// Keys: "a<machine>" holds the applied index in decimal, "d<machine>\0<key>" a machine's key. A machine's name has no
// zero byte, so one machine's keys are one range.
std::string AppliedKey(std::string_view machine) {
  return Cat("a", machine);
}
std::string DataPrefix(std::string_view machine) {
  return Cat("d", machine, std::string_view("\0", 1));
}

rocksdb::Slice ToSlice(std::string_view text) {
  return {text.data(), text.size()};
}

// RocksDB seldom says in which file a checksum does not hold: its tables can be asked one by one, and what is left are
// those that have no such question.
std::string DamagedFiles(const std::string& dir) {
  std::string names;
  std::error_code error;
  for (auto at = std::filesystem::directory_iterator(dir, error); !error && at != std::filesystem::directory_iterator();
       at.increment(error)) {
    if (at->path().extension() != ".sst") continue;
    rocksdb::SstFileReader table{rocksdb::Options()};
    rocksdb::Status sound = table.Open(at->path().string());
    if (sound.ok()) sound = table.VerifyChecksum();
    if (!sound.ok()) names += Cat(names.empty() ? "" : ", ", at->path().string());
  }
  if (!names.empty()) return Cat("it is ", names);
  if (error) return Cat("which one cannot be told, as ", dir, " cannot be read: ", error.message());
  return Cat("the tables that are there are whole, so it is one that is not, or ", dir, "/CURRENT, ", dir,
             "/MANIFEST-* or ", dir, "/*.log");
}

absl::Status ToStatus(const rocksdb::Status& status, const std::string& dir) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = Cat("metadata store ", dir, ": ", status.ToString());
  if (status.IsCorruption()) {
    return absl::DataLossError(Cat(message, "; a file is damaged: ", DamagedFiles(dir),
                                   ". Bring the data folder back from a copy of all of it, or start a node with an "
                                   "empty node.data_dir and a new node.id (docs/operations.md)"));
  }
  // It says so of ENOSPC alone, and not wherever it passes that on; of a quota (EDQUOT) there is only the text.
  bool full = status.IsNoSpace();
  for (const int error : {ENOSPC, EDQUOT}) {
    full = full || message.find(std::generic_category().message(error)) != std::string::npos;
  }
  if (full) return absl::ResourceExhaustedError(message);
  if (status.IsIOError() && message.find("/LOCK: ") != std::string::npos) {
    return absl::FailedPreconditionError(message);
  }
  return absl::InternalError(message);
}

rocksdb::Options MakeOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  // A record cut short at the end of the log is a write that was never answered; anything else refuses to open.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  // A few thousand small keys: what counts is that an idle broker stays small.
  options.write_buffer_size = size_t{1} << 20;
  options.max_write_buffer_number = 2;
  options.max_open_files = 64;
  options.max_background_jobs = 1;
  options.max_total_wal_size = size_t{4} << 20;
  // Its own log. Without a bound of its size the number is kept only where a database has been opened, and each opening
  // that fails leaves one behind.
  options.keep_log_file_num = 2;
  options.max_log_file_size = size_t{1} << 20;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

class RocksMetadataStore : public MetadataStore {
 public:
  RocksMetadataStore(std::string dir, std::unique_ptr<rocksdb::Env> env) : env_(std::move(env)), dir_(std::move(dir)) {}

  absl::Status Open() {
    std::lock_guard lock(mutex_);
    return OpenLocked();
  }

  absl::Status Apply(std::string_view machine, int64_t applied, const MetadataChanges& changes) override {
    SLUICE_RETURN_IF_ERROR(CheckMetadataChanges(machine, applied, changes));
    std::lock_guard lock(mutex_);  // the check of the index and the write are one step
    SLUICE_RETURN_IF_ERROR(failed_);
    // RocksDB goes on by itself after some calls that found no room, and after others only when it is opened anew (7.8:
    // where there was none for its next log, or where it was a quota that was full).
    if (was_full_) SLUICE_RETURN_IF_ERROR(NoteFailure(OpenLocked()));
    SLUICE_ASSIGN_OR_RETURN(const int64_t before, AppliedLocked(machine));
    if (applied < before) {
      return absl::FailedPreconditionError(
          Cat("applied index of ", machine, " would go back from ", before, " to ", applied));
    }
    rocksdb::WriteBatch batch;
    const std::string prefix = DataPrefix(machine);
    for (const auto& change : changes.changes()) {
      const std::string key = Cat(prefix, change.key);
      const rocksdb::Status staged = change.value.has_value() ? batch.Put(key, *change.value) : batch.Delete(key);
      SLUICE_RETURN_IF_ERROR(ToStatus(staged, dir_));
    }
    SLUICE_RETURN_IF_ERROR(ToStatus(batch.Put(AppliedKey(machine), Cat(applied)), dir_));
    rocksdb::WriteOptions options;
    options.sync = true;
    return NoteFailure(ToStatus(db_->Write(options, &batch), dir_));
  }

  absl::StatusOr<int64_t> Applied(std::string_view machine) override {
    std::lock_guard lock(mutex_);
    SLUICE_RETURN_IF_ERROR(closed_);
    return AppliedLocked(machine);
  }

  absl::StatusOr<std::optional<std::string>> Get(std::string_view machine, std::string_view key) override {
    std::lock_guard lock(mutex_);
    SLUICE_RETURN_IF_ERROR(closed_);
    std::string value;
    const rocksdb::Status read = db_->Get({}, Cat(DataPrefix(machine), key), &value);
    if (read.IsNotFound()) return std::optional<std::string>();
    SLUICE_RETURN_IF_ERROR(ToStatus(read, dir_));
    return std::optional<std::string>(std::move(value));
  }

  absl::StatusOr<std::vector<MetadataEntry>> Scan(std::string_view machine, std::string_view prefix) override {
    std::lock_guard lock(mutex_);
    SLUICE_RETURN_IF_ERROR(closed_);
    const std::string machine_prefix = DataPrefix(machine);
    const std::string from = Cat(machine_prefix, prefix);
    std::vector<MetadataEntry> entries;
    std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
    for (it->Seek(from); it->Valid() && it->key().starts_with(ToSlice(from)); it->Next()) {
      rocksdb::Slice key = it->key();
      key.remove_prefix(machine_prefix.size());
      entries.push_back({key.ToString(), it->value().ToString()});
    }
    SLUICE_RETURN_IF_ERROR(ToStatus(it->status(), dir_));
    return entries;
  }

 private:
  absl::Status OpenLocked() {
    db_.reset();
    rocksdb::DB* db = nullptr;
    rocksdb::Options options = MakeOptions();
    if (env_ != nullptr) options.env = env_.get();
    closed_ = ToStatus(rocksdb::DB::Open(options, dir_, &db), dir_);
    db_.reset(db);
    was_full_ = !closed_.ok();
    return closed_;
  }

  absl::Status NoteFailure(absl::Status status) {
    if (absl::IsResourceExhausted(status)) {
      was_full_ = true;
    } else if (!status.ok()) {
      failed_ = status;
    }
    return status;
  }

  absl::StatusOr<int64_t> AppliedLocked(std::string_view machine) {
    std::string text;
    const rocksdb::Status read = db_->Get({}, AppliedKey(machine), &text);
    if (read.IsNotFound()) return 0;
    SLUICE_RETURN_IF_ERROR(ToStatus(read, dir_));
    int64_t applied = 0;
    if (!absl::SimpleAtoi(text, &applied) || applied < 0) {
      return absl::DataLossError(
          Cat("metadata store ", dir_, ": the applied index of ", machine, " is \"", text, "\""));
    }
    return applied;
  }

  const std::unique_ptr<rocksdb::Env> env_;  // null: the process's own
  const std::string dir_;
  std::mutex mutex_;  // of all below
  std::unique_ptr<rocksdb::DB> db_;
  absl::Status closed_;  // why it is not open
  absl::Status failed_;
  bool was_full_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksMetadataStore(
    const std::string& dir, const std::shared_ptr<rocksdb::FileSystem>& files) {
  auto store = std::make_unique<RocksMetadataStore>(dir, files == nullptr ? nullptr : rocksdb::NewCompositeEnv(files));
  SLUICE_RETURN_IF_ERROR(store->Open());
  return store;
}

}  // namespace sluice::storage
