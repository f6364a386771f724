#include "storage/meta/rocks_store.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <filesystem>
#include <mutex>
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
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(message);
  if (status.IsIOError() && status.ToString().find("LOCK") != std::string::npos) {
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
  options.keep_log_file_num = 2;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

class RocksMetadataStore : public MetadataStore {
 public:
  RocksMetadataStore(std::unique_ptr<rocksdb::DB> db, std::string dir) : db_(std::move(db)), dir_(std::move(dir)) {}

  absl::Status Apply(std::string_view machine, int64_t applied, const MetadataChanges& changes) override {
    SLUICE_RETURN_IF_ERROR(CheckMetadataChanges(machine, applied, changes));
    std::lock_guard lock(mutex_);  // the check of the index and the write are one step
    SLUICE_RETURN_IF_ERROR(failed_);
    SLUICE_ASSIGN_OR_RETURN(const int64_t before, Applied(machine));
    if (applied < before) {
      return absl::FailedPreconditionError(
          Cat("applied index of ", machine, " would go back from ", before, " to ", applied));
    }
    if (resume_) {  // after a full disk RocksDB takes no write until it is told to go on
      SLUICE_RETURN_IF_ERROR(ToStatus(db_->Resume(), dir_));
      resume_ = false;
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
    absl::Status written = ToStatus(db_->Write(options, &batch), dir_);
    if (absl::IsResourceExhausted(written)) {
      resume_ = true;
    } else if (!written.ok()) {
      failed_ = written;
    }
    return written;
  }

  absl::StatusOr<int64_t> Applied(std::string_view machine) override {
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

  absl::StatusOr<std::optional<std::string>> Get(std::string_view machine, std::string_view key) override {
    std::string value;
    const rocksdb::Status read = db_->Get({}, Cat(DataPrefix(machine), key), &value);
    if (read.IsNotFound()) return std::optional<std::string>();
    SLUICE_RETURN_IF_ERROR(ToStatus(read, dir_));
    return std::optional<std::string>(std::move(value));
  }

  absl::StatusOr<std::vector<MetadataEntry>> Scan(std::string_view machine, std::string_view prefix) override {
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
  std::unique_ptr<rocksdb::DB> db_;
  const std::string dir_;
  std::mutex mutex_;
  bool resume_ = false;
  absl::Status failed_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksMetadataStore(const std::string& dir) {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened = rocksdb::DB::Open(MakeOptions(), dir, &db);
  SLUICE_RETURN_IF_ERROR(ToStatus(opened, dir));
  return std::make_unique<RocksMetadataStore>(std::unique_ptr<rocksdb::DB>(db), dir);
}

}  // namespace sluice::storage
