// Crashes at every write and sync: what was answered OK is there, and what comes back is a prefix of what was
// submitted.
#include "tests/sim/journal_history.h"

namespace sluice::storage {

namespace {

using simulation::SimFaultCounts;

void Add(SimFaultCounts& sum, const SimFaultCounts& more) {
  sum.crashes += more.crashes;
  sum.writes_lost += more.writes_lost;
  sum.writes_torn += more.writes_torn;
  sum.writes_kept += more.writes_kept;
  sum.names_lost += more.names_lost;
}

constexpr size_t kRecords = 300;

// What the crash runs add up to: each kind must have happened.
struct CrashSum {
  SimFaultCounts faults;
  uint64_t tails_cut = 0;
  uint64_t recoveries_crashed = 0;
};

// How many operations of the file system a workload is, when nothing happens to it.
uint64_t OperationsOf(uint64_t workload) {
  SimFileSystem fs(1);
  JournalRig rig(fs, workload);
  REQUIRE(rig.Open().ok());
  Drawer drawer(workload);
  History history;
  SimRandom random(workload);
  Work(rig, drawer, history, kRecords, random);
  REQUIRE(history.acknowledged == history.records.size());
  REQUIRE(rig.journal->stats().files_recycled > 0);
  rig.Kill();
  return fs.operations();
}

// Runs the workload up to operation `n`, loses power, recovers, loses power again, works on.
void CrashAndRecover(uint64_t workload, uint64_t n, uint64_t variant, CrashSum& sum) {
  const uint64_t seed = n * 100 + variant;
  CAPTURE(workload, n, variant);
  SimFileSystem fs(seed);
  History history;
  SimRandom random(workload);
  JournalRig rig(fs, workload);
  fs.CrashAt(n);
  if (rig.Open().ok()) {
    Drawer drawer(workload);
    Work(rig, drawer, history, kRecords, random);
  }
  rig.Kill();
  fs.Crash();
  JournalRig again(fs, seed);
  // Half of the time the machine dies once more while it recovers.
  if (variant % 2 == 1) {
    fs.CrashAt(fs.operations() + 1 + SimRandom(seed).Below(14));
    if (!again.Open().ok()) ++sum.recoveries_crashed;
    again.Kill();
    fs.Crash();
  }
  REQUIRE(again.Open() == absl::OkStatus());
  if (again.tail.bytes_cut > 0) ++sum.tails_cut;
  const int64_t prefix = PrefixOf(history, again);
  REQUIRE(prefix >= static_cast<int64_t>(history.acknowledged));
  // What was recovered once is durable: another power loss takes nothing of it.
  again.Kill();
  fs.Crash();
  JournalRig third(fs, seed);
  REQUIRE(third.Open() == absl::OkStatus());
  REQUIRE(PrefixOf(history, third) == prefix);
  // And work goes on.
  Drawer drawer(seed);
  drawer.Restart(third.state);
  history.records.resize(static_cast<size_t>(prefix));
  history.acknowledged = history.records.size();
  Work(third, drawer, history, 20, random);
  REQUIRE(history.acknowledged == history.records.size());
  third.Stop();
  REQUIRE(again.Open() == absl::OkStatus());
  REQUIRE(PrefixOf(history, again) == static_cast<int64_t>(history.records.size()));
  again.Kill();
  Add(sum.faults, fs.counts());
}

}  // namespace

TEST_CASE("a crash at any write or sync, also while recovering, loses nothing that was answered") {
  CrashSum sum;
  for (uint64_t workload = 1; workload <= 4; ++workload) {
    const uint64_t operations = OperationsOf(workload);
    REQUIRE(operations > 100);
    for (uint64_t n = 1; n <= operations + 10; ++n) {
      for (uint64_t variant = 0; variant < 4; ++variant) CrashAndRecover(workload, n, variant, sum);
    }
  }
  REQUIRE(sum.faults.writes_lost > 0);
  REQUIRE(sum.faults.writes_torn > 0);
  REQUIRE(sum.faults.writes_kept > 0);
  REQUIRE(sum.faults.names_lost > 0);
  REQUIRE(sum.tails_cut > 0);
  REQUIRE(sum.recoveries_crashed > 0);
}

TEST_CASE("power lost while a start goes on after a kill loses nothing: what was read may be on no disk yet") {
  uint64_t recoveries_crashed = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    for (uint64_t n = 1; n <= 14; ++n) {
      CAPTURE(seed, n);
      SimFileSystem fs(seed);
      History history;
      {
        JournalRig rig(fs, seed);
        REQUIRE(rig.Open(16384).ok());
        const ReplicaId id = TestReplica(0);
        JournalState state;
        const auto note = [&](JournalRecord record) {
          REQUIRE(state.Apply(record).ok());
          history.records.push_back(record);
          return record;
        };
        REQUIRE(rig.Write(note(CreateRecord{id, Uuid::FromRandom(1, 1)})).ok());
        for (int i = 0; i < 12; ++i) REQUIRE(rig.Write(note(NextAppend(state, id, 3000, false, 1, 7))).ok());
        history.acknowledged = history.records.size();
        // Written and not synced, it lets go of all files before: the next start may write over them.
        const SegmentState last = state.Find(id)->segments.back();
        rig.Submit({note(CheckpointRecord{id, last.id, last.end_position})}, [](const absl::Status&) {});
        const uint64_t before = fs.operations();
        while (fs.operations() == before) REQUIRE(rig.scheduler.Step());
        rig.Kill();  // the process alone: what it wrote can be read
      }
      JournalRig starting(fs, seed);
      fs.CrashAt(fs.operations() + n);
      if (!starting.Open(16384).ok()) ++recoveries_crashed;
      starting.Kill();
      fs.Crash();
      JournalRig again(fs, seed);
      REQUIRE(again.Open(16384) == absl::OkStatus());
      REQUIRE(PrefixOf(history, again) >= static_cast<int64_t>(history.acknowledged));
      again.Kill();
    }
  }
  REQUIRE(recoveries_crashed > 100);
}

}  // namespace sluice::storage
