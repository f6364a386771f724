// The metadata store on RocksDB where the disk has no room, or fails.
#include "storage/meta/rocks_store.h"

#include <rocksdb/file_system.h>
#include <stdlib.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "common/text.h"

namespace sluice::storage {
namespace {

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-rocks-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string store() const { return path_ + "/meta"; }

 private:
  std::string path_;
};

MetadataChanges Put(const std::string& key, const std::string& value) {
  MetadataChanges changes;
  changes.Put(key, value);
  return changes;
}

// Errors as RocksDB's own file system reports them: NoSpace of ENOSPC alone, and no errno.
class FullFiles : public rocksdb::FileSystemWrapper {
 public:
  FullFiles() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  static const char* kClassName() { return "FullFiles"; }
  const char* Name() const override { return kClassName(); }

  /// What needs room fails with `error` after `calls` more calls, 0 for no more.
  void Set(int error, int calls = 0) {
    left_ = calls;
    error_ = error;
  }
  int refused() const { return refused_; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = Room("While open a file for appending: ", path);
    if (status.ok()) status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
    if (status.ok()) *file = std::make_unique<FullFile>(*this, path, std::move(*file));
    return status;
  }

 private:
  class FullFile : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    FullFile(FullFiles& files, std::string path, std::unique_ptr<rocksdb::FSWritableFile> target)
        : FSWritableFileOwnerWrapper(std::move(target)), files_(files), path_(std::move(path)) {}

    using FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      rocksdb::IOStatus status = files_.Room("While appending to file: ", path_);
      if (status.ok()) return FSWritableFileOwnerWrapper::Append(data, options, debug);
      const rocksdb::Slice half(data.data(), data.size() / 2);  // what still fits
      return FSWritableFileOwnerWrapper::Append(half, options, debug).ok() ? status : rocksdb::IOStatus::IOError();
    }

   private:
    FullFiles& files_;
    const std::string path_;
  };

  rocksdb::IOStatus Room(const std::string& call, const std::string& path) {
    const int error = error_;
    if (error == 0 || left_-- > 0) return rocksdb::IOStatus::OK();
    ++refused_;
    const std::string why = std::generic_category().message(error);
    return error == ENOSPC ? rocksdb::IOStatus::NoSpace(call + path, why)
                           : rocksdb::IOStatus::IOError(call + path, why);
  }

  std::atomic<int> left_{0};
  std::atomic<int> error_{0};
  std::atomic<int> refused_{0};
};

TEST_CASE("a full disk or quota refuses a change of the metadata database, and room lets it go on") {
  const int error = GENERATE(ENOSPC, EDQUOT);
  Folder folder;
  const auto files = std::make_shared<FullFiles>();
  auto store = *OpenRocksMetadataStore(folder.store(), files);
  int64_t applied = 0;
  for (int time = 0; time < 3; ++time) {
    // Enough of them for the table in memory to be written out, which then needs room too.
    for (int i = 0; i < 30; ++i) {
      ++applied;
      REQUIRE(store->Apply("controller", applied, Put(Cat("k", applied), std::string(100'000, 'v'))).ok());
    }
    files->Set(error);
    for (int i = 0; i < 3; ++i) {
      const absl::Status refused = store->Apply("controller", applied + 1, Put("k", "refused"));
      INFO(refused.ToString());
      CHECK(absl::IsResourceExhausted(refused));
    }
    files->Set(0);
    ++applied;
    const absl::Status taken = store->Apply("controller", applied, Put("k", Cat(applied)));
    INFO(taken.ToString());
    REQUIRE(taken.ok());
    CHECK(store->Get("controller", Cat("k", applied - 1))->has_value());
    CHECK(*store->Applied("controller") == applied);
  }
  CHECK(files->refused() >= 9);
  store.reset();
  store = *OpenRocksMetadataStore(folder.store());
  CHECK(*store->Applied("controller") == applied);
  CHECK(**store->Get("controller", "k") == Cat(applied));
  CHECK(store->Scan("controller", "k")->size() == 91);
}

TEST_CASE("a metadata database is opened anew at whatever call its opening found no room") {
  int opened_after = -1;
  for (int calls = 0; opened_after < 0; ++calls) {
    REQUIRE(calls < 100);
    // A database of its own for each: after some openings of one its own threads would take calls for a compaction.
    Folder folder;
    const auto files = std::make_shared<FullFiles>();
    auto store = *OpenRocksMetadataStore(folder.store(), files);
    REQUIRE(store->Apply("controller", 1, Put("k", "1")).ok());
    files->Set(EDQUOT);
    const absl::Status refused = store->Apply("controller", 2, Put("k", "refused"));
    INFO(calls << ": " << refused.ToString());
    REQUIRE(absl::IsResourceExhausted(refused));
    files->Set(EDQUOT, calls);
    const absl::Status again = store->Apply("controller", 2, Put("k", "again"));
    INFO(again.ToString());
    if (again.ok()) opened_after = calls;
    if (!again.ok()) REQUIRE(absl::IsResourceExhausted(again));
    const auto read = store->Get("controller", "k");
    CHECK((read.ok() || absl::IsResourceExhausted(read.status())));
    CHECK((store->Scan("controller", "").ok() == read.ok() && store->Applied("controller").ok() == read.ok()));
    files->Set(0);
    REQUIRE(store->Apply("controller", 2, Put("k", "2")).ok());
    CHECK(**store->Get("controller", "k") == "2");
  }
  CHECK(opened_after > 3);
}

TEST_CASE("openings of a metadata database that fail leave no log of their own each") {
  Folder folder;
  const auto files = std::make_shared<FullFiles>();
  auto store = *OpenRocksMetadataStore(folder.store(), files);
  REQUIRE(store->Apply("controller", 1, Put("k", "1")).ok());
  files->Set(EDQUOT);
  for (int i = 0; i < 10; ++i) {
    REQUIRE(absl::IsResourceExhausted(store->Apply("controller", 2, Put("k", "refused"))));
  }
  int logs = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder.store())) {
    logs += file.path().filename().string().starts_with("LOG") ? 1 : 0;
  }
  CHECK(logs <= 2);
}

TEST_CASE("a metadata database whose opening anew fails otherwise takes nothing more") {
  Folder folder;
  const auto files = std::make_shared<FullFiles>();
  auto store = *OpenRocksMetadataStore(folder.store(), files);
  files->Set(ENOSPC);
  REQUIRE(absl::IsResourceExhausted(store->Apply("controller", 1, Put("k", "1"))));
  files->Set(EIO);
  const absl::Status failed = store->Apply("controller", 1, Put("k", "1"));
  CHECK_FALSE(failed.ok());
  CHECK_FALSE(absl::IsResourceExhausted(failed));
  files->Set(0);
  CHECK(store->Apply("controller", 1, Put("k", "1")) == failed);
  CHECK_FALSE(store->Get("controller", "k").ok());
}

TEST_CASE("an error of the disk ends the metadata database until it is opened again") {
  Folder folder;
  const auto files = std::make_shared<FullFiles>();
  auto store = *OpenRocksMetadataStore(folder.store(), files);
  REQUIRE(store->Apply("controller", 1, Put("k", "1")).ok());
  files->Set(EIO);
  CHECK_FALSE(store->Apply("controller", 2, Put("k", "2")).ok());
  files->Set(0);
  const absl::Status after = store->Apply("controller", 2, Put("k", "2"));
  CHECK_FALSE(after.ok());
  CHECK_FALSE(absl::IsResourceExhausted(after));
  store.reset();
  store = *OpenRocksMetadataStore(folder.store());
  const int64_t applied = *store->Applied("controller");
  CHECK(**store->Get("controller", "k") == Cat(applied));
}

}  // namespace
}  // namespace sluice::storage
