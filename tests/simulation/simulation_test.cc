#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::simulation {

namespace {

constexpr auto kCreate = OpenOptions::Mode::kCreateNew;

std::unique_ptr<File> Create(SimFileSystem& fs, const std::string& path, bool direct = false) {
  auto file = fs.Open(path, {.mode = kCreate, .direct = direct});
  REQUIRE(file.ok());
  return *std::move(file);
}

// A file "d/a" whose name is durable.
std::unique_ptr<File> CreateDurably(SimFileSystem& fs) {
  REQUIRE(fs.CreateDirs("d").ok());
  REQUIRE(fs.SyncDir(".").ok());
  auto file = Create(fs, "d/a");
  REQUIRE(fs.SyncDir("d").ok());
  return file;
}

}  // namespace

TEST_CASE("a crash keeps what was synced and, over many seeds, loses, keeps, tears and reorders the rest") {
  SimFaultCounts sum;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SimFileSystem fs(seed);
    auto file = CreateDurably(fs);
    REQUIRE(file->WriteAt(0, std::string(4096, 'a')).ok());
    REQUIRE(file->Sync().ok());
    REQUIRE(file->WriteAt(4096, std::string(8192, 'b')).ok());
    REQUIRE(file->WriteAt(8192, std::string(8192, 'c')).ok());
    REQUIRE(fs.Contents("d/a").size() == 16384);
    fs.Crash();
    REQUIRE(fs.Contents("d/a").substr(0, 4096) == std::string(4096, 'a'));
    REQUIRE_FALSE(file->Sync().ok());  // a file of the life before
    sum.writes_lost += fs.counts().writes_lost;
    sum.writes_kept += fs.counts().writes_kept;
    sum.writes_torn += fs.counts().writes_torn;
    sum.writes_reordered += fs.counts().writes_reordered;
  }
  REQUIRE(sum.writes_lost > 0);
  REQUIRE(sum.writes_kept > 0);
  REQUIRE(sum.writes_torn > 0);
  REQUIRE(sum.writes_reordered > 0);
}

TEST_CASE("a name is durable only after its folder was synced") {
  bool lost = false;
  bool kept = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SimFileSystem fs(seed);
    auto file = CreateDurably(fs);
    REQUIRE(fs.Rename("d/a", "d/b").ok());
    fs.Crash();
    const bool renamed = *fs.Exists("d/b");
    REQUIRE(renamed != *fs.Exists("d/a"));
    (renamed ? kept : lost) = true;
  }
  REQUIRE(lost);
  REQUIRE(kept);
  SimFileSystem fs(1);
  auto file = CreateDurably(fs);
  REQUIRE(fs.Rename("d/a", "d/b").ok());
  REQUIRE(fs.SyncDir("d").ok());
  fs.Crash();
  REQUIRE(*fs.Exists("d/b"));
}

TEST_CASE("after a failed sync the bytes still read back, a second sync succeeds, and a crash may lose them") {
  bool lost = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SimFileSystem fs(seed);
    auto file = CreateDurably(fs);
    REQUIRE(file->WriteAt(0, "hello").ok());
    fs.FailCall(SimFileSystem::Call::kSync, 1);
    REQUIRE(file->Sync().code() == absl::StatusCode::kDataLoss);
    REQUIRE(fs.Contents("d/a") == "hello");
    REQUIRE(file->Sync().ok());
    fs.Crash();
    if (fs.Contents("d/a").empty()) lost = true;
    REQUIRE(fs.counts().sync_errors == 1);
  }
  REQUIRE(lost);
}

TEST_CASE("reads and writes fail, bits flip and the disk fills when told to") {
  SimFileSystem fs(7);
  auto file = CreateDurably(fs);
  REQUIRE(file->WriteAt(0, "hello").ok());
  char out[5];
  fs.FailCall(SimFileSystem::Call::kRead, 2);
  fs.FlipBitOfRead(3);
  REQUIRE(file->ReadAt(0, absl::MakeSpan(out)).ok());
  REQUIRE(std::string(out, 5) == "hello");
  REQUIRE_FALSE(file->ReadAt(0, absl::MakeSpan(out)).ok());
  REQUIRE(file->ReadAt(0, absl::MakeSpan(out)).ok());
  REQUIRE(std::string(out, 5) != "hello");
  REQUIRE(fs.Contents("d/a") == "hello");
  fs.FailCall(SimFileSystem::Call::kWrite, 1);
  REQUIRE_FALSE(file->WriteAt(0, "x").ok());
  fs.SetCapacity(6);
  REQUIRE(file->WriteAt(5, "!").ok());
  REQUIRE(file->WriteAt(6, "!").code() == absl::StatusCode::kResourceExhausted);
  REQUIRE(fs.counts().full == 1);
  REQUIRE(fs.UsedBytes() == 6);
}

TEST_CASE("a reservation takes room from others, one that fails keeps what it got until its file is cut or removed") {
  SimFileSystem fs(7);
  auto file = CreateDurably(fs);
  auto other = Create(fs, "d/b");
  fs.SetCapacity(10);
  REQUIRE(file->WriteAt(0, "hello").ok());
  REQUIRE(file->Allocate(8).ok());
  REQUIRE(file->Size().value() == 5);
  REQUIRE(fs.FreeBytes("d").value() == 2);
  REQUIRE(file->WriteAt(5, "you").ok());
  REQUIRE(fs.FreeBytes("d").value() == 2);
  REQUIRE(file->Allocate(11).code() == absl::StatusCode::kResourceExhausted);
  REQUIRE(fs.FreeBytes("d").value() == 0);
  REQUIRE_FALSE(other->WriteAt(0, "!").ok());
  REQUIRE(file->Truncate(8).ok());
  REQUIRE(fs.FreeBytes("d").value() == 2);
  REQUIRE_FALSE(file->Allocate(11).ok());
  REQUIRE(fs.Remove("d/a").ok());
  REQUIRE(fs.FreeBytes("d").value() == 10);
  fs.HideCapacity(true);
  REQUIRE(fs.FreeBytes("d").value() > 10);
  REQUIRE_FALSE(other->Allocate(11).ok());
  fs.SetAllocates(false);
  REQUIRE(other->Allocate(12).ok());
}

TEST_CASE("the world stops at the operation it was told to, and goes on after the crash") {
  SimFileSystem fs(7);
  auto file = CreateDurably(fs);
  fs.CrashAt(fs.operations() + 2);
  REQUIRE(file->WriteAt(0, "a").ok());
  REQUIRE_FALSE(file->WriteAt(1, "b").ok());
  REQUIRE_FALSE(file->Sync().ok());
  REQUIRE_FALSE(fs.Open("d/a", {}).ok());
  REQUIRE(fs.crashed());
  fs.Crash();
  REQUIRE(fs.Open("d/a", {}).ok());
}

TEST_CASE("a direct file refuses what is not aligned") {
  SimFileSystem fs(7);
  REQUIRE(fs.CreateDirs("d").ok());
  auto file = Create(fs, "d/a", true);
  alignas(4096) static char block[4096] = {};
  REQUIRE(file->WriteAt(0, std::string_view(block, 4096)).ok());
  REQUIRE_FALSE(file->WriteAt(1, std::string_view(block, 4096)).ok());
  REQUIRE_FALSE(file->WriteAt(0, std::string_view(block, 100)).ok());
}

TEST_CASE("an executor keeps the order posted, the clock jumps to the next event, and one seed is one run") {
  const auto run = [](uint64_t seed) {
    SimScheduler scheduler(seed);
    SimExecutor shard(scheduler);
    SimBlockingExecutor io(scheduler);
    SimClock clock(scheduler);
    std::vector<int> order;
    std::vector<int> io_order;
    for (int i = 0; i < 20; ++i) {
      shard.Post([&order, i] { order.push_back(i); });
      io.Post([&io_order, i] { io_order.push_back(i); });
    }
    shard.PostAfter(absl::Hours(1), [&order] { order.push_back(99); });
    const auto forgotten = shard.PostAfter(absl::Hours(2), [&order] { order.push_back(100); });
    shard.Cancel(forgotten);
    REQUIRE(scheduler.RunUntilIdle());
    REQUIRE(order.size() == 21);
    REQUIRE(std::is_sorted(order.begin(), order.end()));
    REQUIRE(std::is_sorted(io_order.begin(), io_order.end()));
    REQUIRE(clock.Monotonic() >= absl::Hours(1));
    return scheduler.trace_hash();
  };
  REQUIRE(run(1) == run(1));
  REQUIRE(run(1) != run(2));
}

}  // namespace sluice::simulation
