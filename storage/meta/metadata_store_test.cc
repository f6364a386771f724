// One suite for every metadata store: what it answers, and what is there after it was closed, killed or damaged.
#include "storage/meta/metadata_store.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <functional>

#include "common/text.h"
#include "runtime/posix_file_system.h"
#include "storage/meta/log_store.h"
#include "storage/meta/log_store_codec.h"
#include "storage/meta/rocks_store.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::storage {
namespace {

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-meta-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string store() const { return path_ + "/meta"; }

 private:
  std::string path_;
};

enum class Kind { kRocks, kLog };

std::unique_ptr<MetadataStore> OpenStore(Kind kind, const std::string& dir, int64_t log_bytes_max = 64 << 10) {
  static runtime::PosixFileSystem fs;
  auto store = kind == Kind::kRocks ? OpenRocksMetadataStore(dir)
                                    : OpenLogMetadataStore(fs, dir, {.log_bytes_max = log_bytes_max});
  INFO(store.status().ToString());
  REQUIRE(store.ok());
  return *std::move(store);
}

MetadataChanges Put(const std::string& key, const std::string& value) {
  MetadataChanges changes;
  changes.Put(key, value);
  return changes;
}

MetadataChanges Remove(const std::string& key) {
  MetadataChanges changes;
  changes.Delete(key);
  return changes;
}

TEST_CASE("a metadata store keeps what it was given") {
  const Kind kind = GENERATE(Kind::kRocks, Kind::kLog);
  Folder folder;
  auto store = OpenStore(kind, folder.store());

  SECTION("a new store is empty") {
    CHECK(*store->Applied("controller") == 0);
    CHECK(store->Get("controller", "a")->has_value() == false);
    CHECK(store->Scan("controller", "")->empty());
  }
  SECTION("a scan gives the keys of one machine with a prefix, in order") {
    REQUIRE(store->Apply("controller", 1, Put("t/b", "2")).ok());
    REQUIRE(store->Apply("controller", 2, Put("t/a", "1")).ok());
    REQUIRE(store->Apply("controller", 3, Put("u/a", "3")).ok());
    REQUIRE(store->Apply("controllerx", 9, Put("t/c", "other")).ok());
    CHECK(*store->Scan("controller", "t/") == std::vector<MetadataEntry>{{"t/a", "1"}, {"t/b", "2"}});
    CHECK(*store->Applied("controller") == 3);
    CHECK(*store->Applied("controllerx") == 9);
  }
  SECTION("changes of one call apply together and in order") {
    MetadataChanges changes;
    changes.Put("k", "old");
    changes.Delete("k");
    changes.Put("k", std::string("new\0bytes", 9));
    changes.Put("gone", "x");
    changes.Delete("gone");
    REQUIRE(store->Apply("controller", 5, changes).ok());
    CHECK(**store->Get("controller", "k") == std::string("new\0bytes", 9));
    CHECK_FALSE(store->Get("controller", "gone")->has_value());
  }
  SECTION("the applied index may stay but never goes back") {
    REQUIRE(store->Apply("controller", 7, Put("k", "1")).ok());
    REQUIRE(store->Apply("controller", 7, Put("k", "2")).ok());
    CHECK(absl::IsFailedPrecondition(store->Apply("controller", 6, Put("k", "3"))));
    CHECK(**store->Get("controller", "k") == "2");
    CHECK(*store->Applied("controller") == 7);
  }
  SECTION("names and sizes out of bounds are refused") {
    CHECK(absl::IsInvalidArgument(store->Apply("Controller", 1, {})));
    CHECK(absl::IsInvalidArgument(store->Apply("", 1, {})));
    CHECK(absl::IsInvalidArgument(store->Apply("controller", -1, {})));
    CHECK(absl::IsInvalidArgument(store->Apply("controller", 1, Put(std::string(2000, 'k'), ""))));
    CHECK(absl::IsInvalidArgument(store->Apply("controller", 1, Put("k", std::string(5 << 20, 'v')))));
  }
  SECTION("closed and opened again, it is the same") {
    REQUIRE(store->Apply("controller", 1, Put("a", "1")).ok());
    REQUIRE(store->Apply("controller", 2, Put("b", "2")).ok());
    REQUIRE(store->Apply("controller", 3, Remove("a")).ok());
    store.reset();
    store = OpenStore(kind, folder.store());
    CHECK(*store->Scan("controller", "") == std::vector<MetadataEntry>{{"b", "2"}});
    CHECK(*store->Applied("controller") == 3);
  }
  SECTION("a long life with many snapshots ends in the same state") {
    for (int i = 1; i <= 200; ++i) {
      REQUIRE(store->Apply("controller", i, Put(Cat("key", i % 7), std::string(1000, 'a' + i % 26))).ok());
    }
    store.reset();
    store = OpenStore(kind, folder.store());
    CHECK(*store->Applied("controller") == 200);
    CHECK(store->Scan("controller", "")->size() == 7);
    CHECK(**store->Get("controller", "key4") == std::string(1000, 'a' + 200 % 26));
  }
}

TEST_CASE("a metadata store that was killed holds every answered change and a prefix of the rest") {
  const Kind kind = GENERATE(Kind::kRocks, Kind::kLog);
  Folder folder;
  int64_t applied_before = 0;
  for (int round = 0; round < 4; ++round) {
    int answered[2];
    REQUIRE(::pipe(answered) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      // Each change writes its own number twice; a number goes down the pipe once the change is answered.
      static runtime::PosixFileSystem fs;
      auto store = kind == Kind::kRocks ? OpenRocksMetadataStore(folder.store())
                                        : OpenLogMetadataStore(fs, folder.store(), {.log_bytes_max = 64 << 10});
      if (!store.ok()) ::_exit(1);
      for (int64_t i = applied_before + 1;; ++i) {
        MetadataChanges changes;
        changes.Put("first", Cat(i));
        changes.Put("second", Cat(i));
        if (!(*store)->Apply("controller", i, changes).ok()) ::_exit(1);
        if (::write(answered[1], &i, sizeof(i)) != sizeof(i)) ::_exit(1);
      }
    }
    int64_t last_answered = 0;
    for (int i = 0; i < 20 + 13 * round; ++i) {
      REQUIRE(::read(answered[0], &last_answered, sizeof(last_answered)) == sizeof(last_answered));
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    ::close(answered[1]);
    for (int64_t more = 0; ::read(answered[0], &more, sizeof(more)) == sizeof(more);) last_answered = more;
    ::close(answered[0]);

    auto store = OpenStore(kind, folder.store());
    applied_before = *store->Applied("controller");
    CHECK(applied_before >= last_answered);
    CHECK(applied_before <= last_answered + 1);
    CHECK(**store->Get("controller", "first") == Cat(applied_before));
    CHECK(**store->Get("controller", "second") == Cat(applied_before));
  }
}

void FlipByte(const std::string& path, int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  REQUIRE(file);
  file.seekg(at);
  const char byte = static_cast<char>(file.get());
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 0x40));
}

TEST_CASE("a damaged metadata store refuses to open and names the file") {
  Folder folder;
  runtime::PosixFileSystem fs;

  SECTION("a change in the middle of the log") {
    {
      auto store = OpenStore(Kind::kLog, folder.store());
      for (int i = 1; i <= 3; ++i) REQUIRE(store->Apply("controller", i, Put("k", Cat(i))).ok());
    }
    FlipByte(folder.store() + "/meta.log.0", 4096 + 30);
    const auto reopened = OpenLogMetadataStore(fs, folder.store());
    REQUIRE(absl::IsDataLoss(reopened.status()));
    CHECK(Message(reopened.status()).find("meta.log.0 at 4096") != std::string_view::npos);
  }
  SECTION("the snapshot") {
    {
      auto store = OpenStore(Kind::kLog, folder.store(), 8192);
      for (int i = 1; i <= 4; ++i) REQUIRE(store->Apply("controller", i, Put("k", Cat(i))).ok());
    }
    FlipByte(folder.store() + "/meta.snapshot.1", 25);
    const auto reopened = OpenLogMetadataStore(fs, folder.store());
    REQUIRE(absl::IsDataLoss(reopened.status()));
    CHECK(Message(reopened.status()).find("meta.snapshot.1") != std::string_view::npos);
  }
  SECTION("RocksDB's manifest") {
    {
      auto store = OpenStore(Kind::kRocks, folder.store());
      REQUIRE(store->Apply("controller", 1, Put("k", "1")).ok());
    }
    for (const auto& file : std::filesystem::directory_iterator(folder.store())) {
      if (file.path().filename().string().starts_with("MANIFEST")) FlipByte(file.path().string(), 20);
    }
    const auto reopened = OpenRocksMetadataStore(folder.store());
    INFO(reopened.status().ToString());
    REQUIRE(absl::IsDataLoss(reopened.status()));
    CHECK(Message(reopened.status()).find(folder.store()) != std::string_view::npos);
  }
  SECTION("RocksDB's log") {
    {
      auto store = OpenStore(Kind::kRocks, folder.store());
      for (int i = 1; i <= 3; ++i) REQUIRE(store->Apply("controller", i, Put("k", Cat(i))).ok());
    }
    for (const auto& file : std::filesystem::directory_iterator(folder.store())) {
      if (file.path().extension() == ".log") FlipByte(file.path().string(), 30);
    }
    const auto reopened = OpenRocksMetadataStore(folder.store());
    INFO(reopened.status().ToString());
    REQUIRE(absl::IsDataLoss(reopened.status()));
    CHECK(Message(reopened.status()).find(folder.store() + "/*.log") != std::string_view::npos);
    CHECK(Message(reopened.status()).find("Bring the data folder back") != std::string_view::npos);
  }
  SECTION("one of RocksDB's tables") {
    {
      auto store = OpenStore(Kind::kRocks, folder.store());
      for (int i = 1; i <= 20; ++i)
        REQUIRE(store->Apply("controller", i, Put(Cat("k", i), std::string(100, 'v'))).ok());
    }
    OpenStore(Kind::kRocks, folder.store()).reset();  // what the log held is in a table now
    std::string table;
    for (const auto& file : std::filesystem::directory_iterator(folder.store())) {
      if (file.path().extension() == ".sst") table = file.path().string();
    }
    REQUIRE_FALSE(table.empty());
    FlipByte(table, 200);
    auto reopened = OpenRocksMetadataStore(folder.store());
    absl::Status status = reopened.status();
    if (reopened.ok()) status = (*reopened)->Scan("controller", "").status();
    INFO(status.ToString());
    REQUIRE(absl::IsDataLoss(status));
    CHECK(status.ToString().find(std::filesystem::path(table).filename().string()) != std::string::npos);
  }
}

TEST_CASE("a torn last change of a metadata store is cut, and the store goes on") {
  Folder folder;
  {
    auto store = OpenStore(Kind::kLog, folder.store());
    for (int i = 1; i <= 3; ++i) REQUIRE(store->Apply("controller", i, Put("k", Cat(i))).ok());
  }
  std::filesystem::resize_file(folder.store() + "/meta.log.0", 2 * 4096 + 25);
  auto store = OpenStore(Kind::kLog, folder.store());
  CHECK(*store->Applied("controller") == 2);
  CHECK(**store->Get("controller", "k") == "2");
  REQUIRE(store->Apply("controller", 3, Put("k", "again")).ok());
  store.reset();
  store = OpenStore(Kind::kLog, folder.store());
  CHECK(**store->Get("controller", "k") == "again");
}

TEST_CASE("power loss at any operation of the metadata log keeps every answered change") {
  uint64_t operations = 0;
  for (uint64_t at = 0; at <= operations; ++at) {
    simulation::SimFileSystem fs(at + 1);
    REQUIRE(fs.CreateDirs("node").ok());
    REQUIRE(fs.SyncDir(".").ok());
    const uint64_t before = fs.operations();
    fs.CrashAt(at == 0 ? 0 : before + at);
    int64_t answered = 0;
    int64_t tried = 0;
    if (auto store = OpenLogMetadataStore(fs, "node/meta", {.log_bytes_max = 10'000}); store.ok()) {
      for (int64_t i = 1; i <= 12 && !fs.crashed(); ++i) {
        tried = i;
        MetadataChanges changes;
        changes.Put(Cat("key", i % 3), std::string(static_cast<size_t>(i % 2 == 0 ? 10 : 5000), 'a'));
        changes.Put("last", Cat(i));
        if ((*store)->Apply("controller", i, changes).ok()) answered = i;
      }
    }
    if (at == 0) operations = fs.operations() - before;
    fs.Crash();
    INFO("operation " << at << " of " << operations);
    auto store = OpenLogMetadataStore(fs, "node/meta");
    INFO(store.status().ToString());
    REQUIRE(store.ok());
    const int64_t applied = *(*store)->Applied("controller");
    CHECK(applied >= answered);
    CHECK(applied <= tried);
    if (applied > 0) CHECK(**(*store)->Get("controller", "last") == Cat(applied));
    REQUIRE((*store)->Apply("controller", applied + 1, Put("last", "more")).ok());
  }
  CHECK(operations > 40);
}

TEST_CASE("a full disk refuses a change of the metadata log, and room lets it go on") {
  simulation::SimFileSystem fs(1);
  auto opened = OpenLogMetadataStore(fs, "node/meta");
  REQUIRE(opened.ok());
  auto store = *std::move(opened);
  REQUIRE(store->Apply("controller", 1, Put("k", "1")).ok());
  fs.SetCapacity(fs.UsedBytes() + 100);
  CHECK(absl::IsResourceExhausted(store->Apply("controller", 2, Put("k", std::string(9000, 'x')))));
  CHECK(**store->Get("controller", "k") == "1");
  fs.SetCapacity(-1);
  REQUIRE(store->Apply("controller", 2, Put("k", "2")).ok());
  store.reset();
  store = *OpenLogMetadataStore(fs, "node/meta");
  CHECK(**store->Get("controller", "k") == "2");
}

TEST_CASE("after a failed sync the metadata log takes no change until it is opened again") {
  simulation::SimFileSystem fs(1);
  auto store = *OpenLogMetadataStore(fs, "node/meta");
  fs.FailCall(simulation::SimFileSystem::Call::kSync, 1);
  CHECK_FALSE(store->Apply("controller", 1, Put("k", "1")).ok());
  CHECK_FALSE(store->Apply("controller", 2, Put("k", "2")).ok());
}

// As after a kill between a write and its sync: what is read at the next opening is on no disk.
TEST_CASE("what a metadata log was opened with is there after any later power loss") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    simulation::SimFileSystem fs(seed);
    REQUIRE(fs.CreateDirs("node").ok());
    REQUIRE(fs.SyncDir(".").ok());
    int64_t read = 0;
    {
      auto store = *OpenLogMetadataStore(fs, "node/meta");
      REQUIRE(store->Apply("controller", 1, Put("k", "1")).ok());
      fs.FailCall(simulation::SimFileSystem::Call::kSync, 1);
      CHECK_FALSE(store->Apply("controller", 2, Put("k", "2")).ok());
    }
    {
      auto store = *OpenLogMetadataStore(fs, "node/meta");
      read = *store->Applied("controller");
      fs.CrashAt(fs.operations() + 1 + seed % 3);
      store->Apply("controller", 3, Put("k", "3")).IgnoreError();
    }
    fs.Crash();
    INFO("seed " << seed);
    auto store = OpenLogMetadataStore(fs, "node/meta");
    INFO(store.status().ToString());
    REQUIRE(store.ok());
    CHECK(*(*store)->Applied("controller") >= read);
  }
}

TEST_CASE("a metadata payload cut at any byte is refused") {
  meta_log::State state;
  state["controller"] = {.applied = 3, .entries = {{"key", "value"}, {"other", ""}}};
  const std::string payload = meta_log::EncodeState(state);
  meta_log::State decoded;
  REQUIRE(meta_log::ApplyPayload(payload, &decoded).ok());
  CHECK(decoded["controller"].entries == state["controller"].entries);
  for (size_t size = 0; size < payload.size(); ++size) {
    CHECK(absl::IsDataLoss(meta_log::ApplyPayload(std::string_view(payload).substr(0, size), &decoded)));
  }
}

}  // namespace
}  // namespace sluice::storage
