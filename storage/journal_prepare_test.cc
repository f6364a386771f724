// The journal's next file is made ahead: a rotation takes no time and, on a full disk, no space.
#include <catch2/catch.hpp>

#include <functional>
#include <optional>
#include <vector>

#include "tests/simulation/journal_bench.h"

namespace sluice::storage {
namespace {

struct Bench : JournalBench {
  explicit Bench(absl::Duration latency = absl::Microseconds(100), uint64_t seed = 1) : JournalBench(seed) {
    rig.prepares = true;
    rig.prepare_latency = latency;
  }
  /// How long it took to be answered; nullopt when it was not, within a minute.
  std::optional<absl::Duration> Write(const JournalRecord& record) {
    REQUIRE(state.Apply(record).ok());
    const absl::Duration start = rig.clock.Monotonic();
    std::optional<absl::Duration> took;
    rig.Submit({record}, [&](const absl::Status& status) {
      REQUIRE(status.ok());
      took = rig.clock.Monotonic() - start;
    });
    while (!took && rig.clock.Monotonic() - start < absl::Minutes(1) && rig.scheduler.Step()) continue;
    return took;
  }
  std::optional<absl::Duration> Append() { return Write(Next(6000)); }
  void Create() { REQUIRE(Write(CreateRecord{kA, Uuid::FromRandom(3, 3)}).has_value()); }
  void Checkpoint() { REQUIRE(Write(NextCheckpoint()).has_value()); }
};

TEST_CASE("nobody waits for a file that is made ahead, however slowly, and whoever outruns it waits but is answered") {
  Bench bench(absl::Milliseconds(20));
  bench.Open();
  bench.Create();
  bench.Settle();
  const uint64_t files = bench.rig.journal->stats().files_created;
  absl::Duration longest;
  while (bench.rig.journal->stats().files_created == files) longest = std::max(longest, bench.Append().value());
  CHECK(longest < absl::Milliseconds(2));
  // Two more files at once: the second is not there yet.
  while (bench.rig.journal->stats().files_created < files + 2) longest = std::max(longest, bench.Append().value());
  CHECK(longest > absl::Milliseconds(20));
  CHECK(longest < absl::Milliseconds(150));
  const JournalState before = bench.state;
  bench.Reopen();
  CHECK(bench.rig.state == before);
}

TEST_CASE("on a full disk appends are refused while checkpoints still pass, and those alone let it go on") {
  Bench bench;
  bench.Open();
  bench.Create();
  bench.Append();
  bench.Settle();
  bench.fs.SetCapacity(bench.fs.UsedBytes());
  int taken = 0;
  while (bench.rig.journal->Admit().ok()) {
    REQUIRE(bench.Append().has_value());
    bench.Settle();
    REQUIRE(++taken < 20);
  }
  CHECK(taken >= 2);  // the rest of the file; the spare one is opened, and the next cannot be made
  CHECK(bench.Refuses());
  bench.Checkpoint();
  bench.Settle();
  CHECK(bench.rig.journal->Admit().ok());
  for (int i = 0; i < 40; ++i) {
    REQUIRE(bench.Append().has_value());
    bench.Checkpoint();
  }
  CHECK(bench.rig.fatal_calls == 0);
}

TEST_CASE("a journal opens on a disk without any room, again and again") {
  Bench bench;
  bench.Open();
  bench.Create();
  for (int i = 0; i < 12; ++i) REQUIRE(bench.Append().has_value());
  bench.Settle();
  bench.fs.SetCapacity(0);
  const JournalState before = bench.state;
  for (int i = 0; i < 5; ++i) {
    bench.Reopen();
    CHECK(bench.rig.state == before);
    bench.Settle();
  }
  bench.fs.SetCapacity(-1);
  bench.Settle();
  REQUIRE(bench.rig.journal->Admit().ok());
  for (int i = 0; i < 12; ++i) REQUIRE(bench.Append().has_value());
}

TEST_CASE("stopping does not wait for a file to be made, and a crash while it is made leaves nothing behind") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    Bench bench(absl::Milliseconds(1), seed);
    bench.Open();
    bench.Create();
    bench.fs.CrashAt(seed < 20 ? bench.fs.operations() + seed : 0);
    bench.rig.scheduler.RunFor(absl::Microseconds(static_cast<int64_t>(seed * 700)));
    if (bench.fs.crashed()) {
      bench.rig.Kill();
    } else {
      bench.rig.Stop();
    }
    bench.fs.Crash();
    const JournalState before = bench.state;
    bench.Open();
    CHECK(bench.rig.state == before);
    for (int i = 0; i < 12; ++i) REQUIRE(bench.Append().has_value());
    bench.rig.Stop();
    CHECK(bench.fs.List("data/journal")->size() <= 6);
    CHECK_FALSE(bench.fs.Exists("data/journal/spare.tmp").value());
  }
}

}  // namespace
}  // namespace sluice::storage
