#include "broker/data_folder.h"

#include <catch2/catch.hpp>

#include "common/text.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::broker {
namespace {

struct Disk {
  simulation::SimFileSystem fs{1};
  simulation::SimRandom random{2};
  absl::StatusOr<DataFolder> Open(int node = 1) { return OpenDataFolder(fs, "data", NodeId(node), random); }
};

TEST_CASE("a data folder keeps the identity that it was made with") {
  Disk disk;
  const auto made = disk.Open();
  REQUIRE(made.ok());
  CHECK(made->created);
  CHECK_FALSE(made->disk_id == made->cluster_id);
  disk.fs.Crash();
  const auto again = disk.Open();
  REQUIRE(again.ok());
  CHECK_FALSE(again->created);
  CHECK(again->disk_id == made->disk_id);
  CHECK(again->cluster_id == made->cluster_id);
}

TEST_CASE("a crash at any step of making a data folder leaves one that opens") {
  for (uint64_t at = 1;; ++at) {
    Disk disk;
    disk.fs.CrashAt(at);
    const auto made = disk.Open();
    const bool crashed = disk.fs.crashed();
    disk.fs.Crash();
    const auto again = disk.Open();
    INFO(at << ": " << again.status());
    REQUIRE(again.ok());
    if (made.ok()) CHECK(again->disk_id == made->disk_id);
    if (!crashed) break;
  }
}

TEST_CASE("a data folder that another process holds is refused") {
  Disk disk;
  REQUIRE(disk.Open().ok());
  const auto lock = disk.fs.LockFile("data/LOCK");
  REQUIRE(lock.ok());
  const auto second = disk.Open();
  REQUIRE(absl::IsFailedPrecondition(second.status()));
  CHECK(Message(second.status()).find("in use by another process") != std::string_view::npos);
}

TEST_CASE("a folder that is not this node's is refused with the reason") {
  Disk disk;
  SECTION("something else lies in it") {
    REQUIRE(disk.fs.CreateDirs("data").ok());
    disk.fs.SetContents("data/photo.jpg", "x");
    CHECK(Message(disk.Open().status()).find("photo.jpg") != std::string_view::npos);
  }
  SECTION("it has data but lost its node.yaml") {
    REQUIRE(disk.fs.CreateDirs("data/journal").ok());
    CHECK(Message(disk.Open().status()).find("no node.yaml") != std::string_view::npos);
  }
  SECTION("it is another node's") {
    REQUIRE(disk.Open(1).ok());
    CHECK(Message(disk.Open(2).status()).find("node.id: 2") != std::string_view::npos);
  }
  SECTION("a later version made it") {
    REQUIRE(disk.Open().ok());
    std::string text = disk.fs.Contents("data/node.yaml");
    text.replace(text.find("format_version: 2"), 17, "format_version: 3");
    disk.fs.SetContents("data/node.yaml", text);
    CHECK(absl::IsFailedPrecondition(disk.Open().status()));
  }
  SECTION("node.yaml is damaged") {
    REQUIRE(disk.Open().ok());
    std::string text = disk.fs.Contents("data/node.yaml");
    for (size_t size = 0; size < text.find("format_version"); ++size) {
      disk.fs.SetContents("data/node.yaml", text.substr(0, size));
      CHECK(absl::IsDataLoss(disk.Open().status()));
    }
  }
}

TEST_CASE("a folder made to join belongs to no cluster until it is told which") {
  Disk disk;
  auto made = OpenDataFolder(disk.fs, "data", NodeId(2), disk.random, FolderFor::kClusterThatIs);
  REQUIRE(made.ok());
  CHECK(made->joins);
  CHECK(made->cluster_id.IsNil());
  CHECK_FALSE(made->disk_id.IsNil());
  disk.fs.Crash();
  // Whatever is asked of it now: it has been made for this.
  auto again = disk.Open(2);
  REQUIRE(again.ok());
  CHECK(again->joins);
  CHECK(again->cluster_id.IsNil());
  const Uuid cluster = Uuid::FromRandom(5, 6);
  for (uint64_t at = 1;; ++at) {
    disk.fs.CrashAt(at);
    DataFolder folder = *again;
    const absl::Status written = WriteCluster(disk.fs, "data", &folder, cluster);
    const bool crashed = disk.fs.crashed();
    disk.fs.Crash();
    const auto after = disk.Open(2);
    INFO(at << ": " << after.status());
    REQUIRE(after.ok());
    CHECK(after->joins);
    CHECK(after->disk_id == made->disk_id);
    if (written.ok()) CHECK(after->cluster_id == cluster);
    if (!crashed) break;
    CHECK((after->cluster_id.IsNil() || after->cluster_id == cluster));
  }
}

TEST_CASE("a folder that was never let into a cluster may still become another node's") {
  Disk disk;
  const auto made = OpenDataFolder(disk.fs, "data", NodeId(2), disk.random, FolderFor::kClusterThatIs);
  REQUIRE(made.ok());
  auto other = disk.Open(5);
  REQUIRE(other.ok());
  CHECK(other->node_id == NodeId(5));
  CHECK(other->disk_id == made->disk_id);
  REQUIRE(WriteCluster(disk.fs, "data", &*other, Uuid::FromRandom(5, 6)).ok());
  CHECK(disk.Open(5)->node_id == NodeId(5));
  CHECK(absl::IsFailedPrecondition(disk.Open(2).status()));
}

TEST_CASE("only a folder that joins may be without a cluster") {
  Disk disk;
  REQUIRE(disk.Open().ok());
  std::string text = disk.fs.Contents("data/node.yaml");
  const size_t at = text.find("cluster_id: ") + 12;
  text.replace(at, 36, "00000000-0000-0000-0000-000000000000");
  disk.fs.SetContents("data/node.yaml", text);
  CHECK(absl::IsDataLoss(disk.Open().status()));
}

TEST_CASE("a folder that had a replica of group 0 and has lost it is refused, saying what to do") {
  Disk disk;
  DataFolder folder = *disk.Open();
  CHECK_FALSE(folder.had_group0);
  CHECK(CheckGroup0("data", folder, false).ok());  // made, and not begun
  CHECK(CheckGroup0("data", folder, true).ok());
  REQUIRE(NoteGroup0(disk.fs, "data", &folder).ok());
  disk.fs.Crash();
  folder = *disk.Open();
  CHECK(folder.had_group0);
  CHECK(CheckGroup0("data", folder, true).ok());
  const absl::Status lost = CheckGroup0("data", folder, false);
  REQUIRE(absl::IsFailedPrecondition(lost));
  for (const std::string& word :
       {std::string("journal/ and meta/"), std::string("node.id"), folder.cluster_id.ToString()}) {
    CHECK(Message(lost).find(word) != std::string_view::npos);
  }
}

TEST_CASE(
    "a folder that had a replica of group 0 and has no journal is refused before one is begun, saying what to do") {
  Disk disk;
  DataFolder folder = *disk.Open();
  CHECK(CheckJournalIsThere(disk.fs, "data", folder).ok());  // made, and not begun
  REQUIRE(NoteGroup0(disk.fs, "data", &folder).ok());
  for (const bool emptied : {false, true}) {
    CAPTURE(emptied);
    if (emptied) REQUIRE(disk.fs.CreateDirs("data/journal").ok());
    const absl::Status lost = CheckJournalIsThere(disk.fs, "data", folder);
    REQUIRE(absl::IsFailedPrecondition(lost));
    for (const char* word : {"data/topics", "journal/", "copy of the whole folder", "new node.id", "cluster.seeds"}) {
      CHECK(Message(lost).find(word) != std::string_view::npos);
    }
  }
  disk.fs.SetContents("data/journal/00000000000000000001.journal", "bytes");
  CHECK(CheckJournalIsThere(disk.fs, "data", folder).ok());
}

TEST_CASE("lost data is told with what to do about it, and nothing else is") {
  const absl::Status lost = WithWaysOut("data", absl::DataLossError("data/journal/1 at byte 0: no frame starts here"));
  CHECK(absl::IsDataLoss(lost));
  CHECK(Message(lost).find("data/journal/1 at byte 0: no frame starts here. Bring journal/ and meta/ back") == 0);
  const absl::Status full = absl::ResourceExhaustedError("no room");
  CHECK(WithWaysOut("data", full) == full);
}

TEST_CASE("a crash at any step of noting group 0 leaves a folder that opens, with the same identity") {
  for (uint64_t at = 1;; ++at) {
    Disk disk;
    DataFolder folder = *disk.Open();
    disk.fs.CrashAt(disk.fs.operations() + at);
    const bool noted = NoteGroup0(disk.fs, "data", &folder).ok();
    const bool crashed = disk.fs.crashed();
    disk.fs.Crash();
    const auto again = disk.Open();
    INFO(at << ": " << again.status());
    REQUIRE(again.ok());
    CHECK(again->disk_id == folder.disk_id);
    if (noted) CHECK(again->had_group0);
    if (!crashed) break;
  }
}

}  // namespace
}  // namespace sluice::broker
