// What the journal does, one thing a test.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/simulation/journal_bench.h"

namespace sluice::storage {

namespace {

using simulation::NextAppend;
using simulation::SimFileSystem;
using simulation::TestReplica;

using Bench = JournalBench;

}  // namespace

TEST_CASE("what was journaled is there after a clean stop, vote and configuration included") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  bench.Append(kA, 5000);
  bench.Write(HardStateRecord{kA, {LeaderEpoch(3), {NodeId(2), Uuid::FromRandom(1, 1)}}});
  bench.Write(RaftConfigRecord{kA, Bytes::Copy("voters")});
  bench.rig.Stop();
  bench.fs.Crash();
  const JournalState before = bench.state;
  bench.Open();
  REQUIRE(bench.rig.state == before);
  REQUIRE(bench.rig.tail.bytes_cut == 0);
  REQUIRE(bench.rig.tail.vouched);
}

TEST_CASE("entries that wait together share one sync, and each is answered after it, in order") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  const uint64_t syncs = bench.stats().syncs;
  std::vector<int> answered;
  for (int i = 0; i < 50; ++i) {
    const AppendRecord append = bench.Next(100);
    REQUIRE(bench.state.Apply(append).ok());
    bench.rig.Submit({append}, [&answered, i](absl::Status status) {
      if (status.ok()) answered.push_back(i);
    });
  }
  REQUIRE(answered.empty());
  bench.rig.scheduler.RunUntilIdle();
  REQUIRE(answered.size() == 50);
  REQUIRE(std::is_sorted(answered.begin(), answered.end()));
  REQUIRE(bench.stats().syncs == syncs + 1);
}

TEST_CASE("an idle journal answers at once, and under load a group waits at most a millisecond") {
  Bench bench;
  bench.Open(1 << 20, 1 << 24);
  bench.Create(kA);
  const absl::Duration start = bench.rig.clock.Monotonic();
  bench.Append(kA, 100);
  REQUIRE(bench.rig.clock.Monotonic() - start < absl::Microseconds(500));
  // A group of 100 kB right after another one is held back, in the hope of more.
  absl::Duration longest;
  int answered = 0;
  std::function<void()> again = [&] {
    const AppendRecord append = bench.Next(100000);
    REQUIRE(bench.state.Apply(append).ok());
    const absl::Duration submitted = bench.rig.clock.Monotonic();
    bench.rig.Submit({append}, [&, submitted](absl::Status status) {
      REQUIRE(status.ok());
      longest = std::max(longest, bench.rig.clock.Monotonic() - submitted);
      if (++answered < 5) again();
    });
  };
  again();
  bench.rig.scheduler.RunUntilIdle();
  REQUIRE(answered == 5);
  REQUIRE(longest > absl::Microseconds(900));
  REQUIRE(longest < absl::Microseconds(1500));
}

TEST_CASE("a group waits while what is behind the journal lags, but not for ever") {
  Bench bench;
  bool lags = false;
  bench.rig.lags = [&] { return lags; };
  bench.Open();
  bench.Create(kA);
  const auto answered_after = [&](absl::Duration lag_ends) {
    const absl::Duration start = bench.rig.clock.Monotonic();
    absl::Duration answered;
    lags = true;
    bench.rig.shard->PostAfter(lag_ends, [&] { lags = false; });
    const AppendRecord append = bench.Next(100);
    REQUIRE(bench.state.Apply(append).ok());
    bench.rig.Submit({append}, [&](absl::Status status) {
      REQUIRE(status.ok());
      answered = bench.rig.clock.Monotonic() - start;
    });
    bench.rig.scheduler.RunUntilIdle();
    return answered;
  };
  const absl::Duration soon = answered_after(absl::Milliseconds(20));
  CHECK(soon >= absl::Milliseconds(20));
  CHECK(soon < absl::Milliseconds(25));
  const absl::Duration late = answered_after(absl::Seconds(30));
  CHECK(late >= storage::JournalOptions::kThrottleMax);
  CHECK(late < 2 * storage::JournalOptions::kThrottleMax);
}

TEST_CASE("what waits goes into one group, larger than a group would be held back for") {
  Bench bench;
  bench.Open(16 << 20, 1 << 28);
  bench.Create(kA);
  const uint64_t syncs = bench.stats().syncs;
  int answered = 0;
  for (int i = 0; i < 12; ++i) {
    const AppendRecord append = bench.Next(300'000);
    REQUIRE(bench.state.Apply(append).ok());
    bench.rig.Submit({append}, [&](absl::Status status) { answered += status.ok() ? 1 : 0; });
  }
  bench.rig.scheduler.RunUntilIdle();
  REQUIRE(answered == 12);
  REQUIRE(bench.stats().syncs == syncs + 1);
}

TEST_CASE("a record that does not fit is refused alone, and leaves no trace") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  bench.Append(kA, 1000);
  AppendRecord gap = NextAppend(bench.state, kA, 100, false, 1, 9);
  gap.position += 1;
  REQUIRE(bench.rig.Write(gap).code() == absl::StatusCode::kFailedPrecondition);
  REQUIRE(bench.rig.Write(ResetRecord{kB, Offset(5)}).code() == absl::StatusCode::kFailedPrecondition);
  bench.Append(kA, 1000);
  bench.rig.Kill();
  bench.fs.Crash();
  const JournalState before = bench.state;
  bench.Open();
  REQUIRE(bench.rig.state == before);
}

TEST_CASE("files whose appends are checkpointed are recycled, so that the folder does not grow") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  for (int i = 0; i < 100; ++i) {
    bench.Append(kA, 6000);
    bench.Checkpoint(kA);
  }
  REQUIRE(bench.stats().files_recycled > 10);
  REQUIRE(bench.fs.List("data/journal")->size() <= 3);
}

TEST_CASE("files that one rush needed are there for the next, within what the journal may take") {
  Bench bench;
  bench.Open(32768, 32768 * 40);
  bench.Create(kA);
  const auto rush = [&] {
    for (int i = 0; i < 60; ++i) bench.Append(kA, 6000);
    bench.Checkpoint(kA);
    for (int i = 0; i < 6; ++i) bench.Append(kA, 6000);  // opens a file, which lets go of those before
  };
  rush();
  const uint64_t created = bench.stats().files_created;
  REQUIRE(created > 8);
  for (int i = 0; i < 5; ++i) {
    bench.Checkpoint(kA);
    rush();
  }
  CHECK(bench.stats().files_created <= created + 2);
  CHECK(bench.fs.List("data/journal")->size() <= 30);
}

// The file stays so long when it is used again, and there is nothing to wait for: what was in it is in segments.
TEST_CASE("a file that an entry has made longer than all may be keeps nothing out, neither then nor used again") {
  Bench bench;
  bench.Open(32768, 8 * 32768);
  bench.Create(kA);
  bench.Append(kA, 9 * 32768);
  REQUIRE(bench.rig.journal->OldestFilePins().empty());
  CHECK(bench.rig.journal->Admit().ok());  // nothing older is there to be let go
  bench.Append(kA, 100);
  CHECK(bench.Refuses());  // the long one is an older one now
  bench.Checkpoint(kA);
  CHECK(bench.rig.journal->Admit().ok());
  const uint64_t recycled = bench.stats().files_recycled;
  int64_t most = 0;
  for (int i = 0; i < 60; ++i) {
    INFO(i);
    bench.Append(kA, 6000);
    REQUIRE(bench.rig.journal->Admit().ok());
    most = std::max(most, bench.stats().used_bytes);
    if (i % 2 == 1)
      bench.Checkpoint(kA);  // so that each file, the long one too, is an older one that is held for a while
    REQUIRE(bench.rig.journal->Admit().ok());
    most = std::max(most, bench.stats().used_bytes);
  }
  CHECK(bench.stats().files_recycled > recycled + 5);
  CHECK(most <= 8 * 32768);
}

TEST_CASE("a cold replica holds the oldest file, is named, and lets go by carrying its tail forward") {
  Bench bench;
  bench.Open(32768, 8 * 32768);
  int pressed = 0;
  bench.rig.journal->OnPressure([&] { ++pressed; });
  bench.Create(kA);
  bench.Create(kB);
  const AppendRecord cold = bench.Append(kA, 300);
  for (int i = 0; i < 40; ++i) {
    bench.Append(kB, 6000);
    bench.Checkpoint(kB);
  }
  REQUIRE(pressed > 0);
  REQUIRE(bench.rig.journal->OldestFilePins() == std::vector<ReplicaId>{kA});
  REQUIRE(bench.rig.journal->Admit().code() == absl::StatusCode::kResourceExhausted);
  const int64_t used = bench.stats().used_bytes;

  bench.Write(cold);  // the same position and bytes
  REQUIRE(bench.rig.journal->OldestFilePins().empty());
  REQUIRE(bench.rig.journal->Admit().ok());
  REQUIRE(bench.stats().used_bytes < used);
  for (int i = 0; i < 20; ++i) {
    bench.Append(kB, 6000);
    bench.Checkpoint(kB);
  }
  REQUIRE(bench.stats().files_recycled > 3);
  bench.rig.Kill();
  bench.fs.Crash();
  bench.Open();
  const SegmentState& segment = bench.rig.state.Find(kA)->segments.front();
  REQUIRE(bench.rig.visitor.model().Range({kA, segment.id}, 0, segment.end_position) == cold.bytes.view());
}

TEST_CASE("truncation, reset and drop let go of the bytes they remove") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  bench.Create(kB);
  bench.Append(kA, 300);
  const SegmentState& first = bench.state.Find(kA)->segments.front();
  const TruncateRecord truncate{kA, first.id, 0, 0, first.id.base, 0};
  bench.Append(kB, 300);
  const auto fill = [&] {
    for (int i = 0; i < 8; ++i) {
      bench.Append(kB, 6000);
      bench.Checkpoint(kB);
    }
  };
  fill();
  REQUIRE(bench.rig.journal->OldestFilePins() == std::vector<ReplicaId>{kA});
  bench.Write(truncate);
  REQUIRE(bench.rig.journal->OldestFilePins().empty());
  bench.Append(kA, 300);
  fill();
  REQUIRE(bench.rig.journal->OldestFilePins() == std::vector<ReplicaId>{kA});
  bench.Write(ResetRecord{kA, Offset(100)});
  REQUIRE(bench.rig.journal->OldestFilePins().empty());
  bench.Append(kA, 300);
  fill();
  bench.Write(DropRecord{kA});
  REQUIRE(bench.rig.journal->OldestFilePins().empty());
}

TEST_CASE("replay passes on a truncated append only up to the cut, and both sides of a carried one only once") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  const AppendRecord append = bench.Append(kA, 1000);
  bench.Write(TruncateRecord{kA, append.segment, 400, Crc32c(append.bytes.view().substr(0, 400)), Offset(4), 1});
  const AppendRecord next = bench.Append(kA, 500);
  REQUIRE(next.segment.base == Offset(4));
  bench.rig.Kill();
  bench.Open();
  REQUIRE(bench.rig.visitor.model().Range({kA, append.segment}, 0, 9999) == append.bytes.view().substr(0, 400));
  REQUIRE(bench.rig.visitor.model().Range({kA, next.segment}, 0, 9999) == next.bytes.view());
}

TEST_CASE("after a failed sync everything fails, the process is told to stop, and that sync is never tried again") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Bench bench(seed);
    bench.Open();
    bench.Create(kA);
    bench.Append(kA, 1000);
    const JournalState acknowledged = bench.state;
    bench.fs.FailCall(SimFileSystem::Call::kSync, 1);
    const AppendRecord doubtful = NextAppend(bench.state, kA, 3000, false, 1, 77);
    REQUIRE(bench.rig.Write(doubtful).code() == absl::StatusCode::kDataLoss);
    const uint64_t operations = bench.fs.operations();
    REQUIRE_FALSE(bench.rig.Write(HardStateRecord{kA, {LeaderEpoch(9), {}}}).ok());
    REQUIRE_FALSE(bench.rig.journal->Admit().ok());
    REQUIRE(bench.fs.operations() == operations);
    REQUIRE(bench.rig.fatal_calls == 1);
    bench.rig.Kill();

    // The process starts again on the same kernel, which still shows the lost bytes. What it then reports is durable.
    bench.Open();
    JournalState with_doubtful = acknowledged;
    REQUIRE(with_doubtful.Apply(doubtful).ok());
    REQUIRE(bench.rig.state == with_doubtful);
    bench.rig.Kill();
    bench.fs.Crash();
    bench.Open();
    REQUIRE(bench.rig.state == with_doubtful);
    bench.rig.Kill();
  }
}

TEST_CASE("a failed write fails what it carried and all that comes after") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  bench.fs.FailCall(SimFileSystem::Call::kWrite, 1);
  REQUIRE(bench.rig.Write(NextAppend(bench.state, kA, 100, false, 1, 1)).code() == absl::StatusCode::kDataLoss);
  REQUIRE(bench.rig.fatal_calls == 1);
  REQUIRE_FALSE(bench.rig.Write(HardStateRecord{kA, {LeaderEpoch(9), {}}}).ok());
}

TEST_CASE("the journal of another disk is refused") {
  Bench bench;
  bench.Open();
  bench.rig.Stop();
  const auto replayed = ReplayJournal(bench.fs, "data/journal", Uuid::FromRandom(8, 8));
  REQUIRE(replayed.status().code() == absl::StatusCode::kFailedPrecondition);
}

TEST_CASE("a damaged last frame is cut, and the report says where, how much, and that nobody can vouch for it") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  const JournalState before = bench.state;
  bench.Append(kA, 6000);
  bench.rig.Kill();
  const std::string path = "data/journal/00000000000000000001.journal";
  std::string contents = bench.fs.Contents(path);
  const size_t frame = contents.rfind("SLJF");
  contents[frame + 5000] = static_cast<char>(contents[frame + 5000] ^ 1);
  bench.fs.SetContents(path, contents);
  bench.Open();
  REQUIRE(bench.rig.state == before);
  REQUIRE(bench.rig.tail.file == path);
  REQUIRE(bench.rig.tail.offset == static_cast<int64_t>(frame));
  REQUIRE(bench.rig.tail.bytes_cut == 8192);
  REQUIRE_FALSE(bench.rig.tail.vouched);
}

TEST_CASE("a large registry and an entry larger than a file are journaled all the same") {
  Bench bench;
  bench.Open();
  for (int32_t i = 0; i < 2000; ++i) {
    const ReplicaId id = TestReplica(i);
    bench.rig.Submit({CreateRecord{id, Uuid::FromRandom(3, 3)}}, [](absl::Status) {});
    REQUIRE(bench.state.Apply(CreateRecord{id, Uuid::FromRandom(3, 3)}).ok());
  }
  bench.rig.scheduler.RunUntilIdle();
  bench.Append(kA, 200000);
  bench.Append(kB, 6000);
  bench.rig.Kill();
  bench.fs.Crash();
  const JournalState before = bench.state;
  bench.Open();
  REQUIRE(bench.rig.state == before);
}

TEST_CASE("stopping answers what is queued first and refuses what comes later") {
  Bench bench;
  bench.Open();
  bench.Create(kA);
  std::vector<absl::StatusCode> answers;
  const auto note = [&](absl::Status status) { answers.push_back(status.code()); };
  bench.rig.Submit({NextAppend(bench.state, kA, 100, false, 1, 1)}, note);
  bool stopped = false;
  bench.rig.journal->Stop([&] { stopped = answers.size() >= 1; });
  bench.rig.Submit({HardStateRecord{kA, {LeaderEpoch(1), {}}}}, note);
  bench.rig.scheduler.RunUntilIdle();
  REQUIRE(stopped);
  REQUIRE(answers.size() == 2);
  REQUIRE(std::count(answers.begin(), answers.end(), absl::StatusCode::kOk) == 1);
  REQUIRE(std::count(answers.begin(), answers.end(), absl::StatusCode::kCancelled) == 1);
}

TEST_CASE("a file that grew, and whose sync failed, is used again without a claim to what it grew by") {
  // Which of the unsynced writes are lost is drawn from the seed.
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Bench bench(seed);
    bench.Open();
    bench.Create(kA);
    bench.Append(kA, 20000);
    bench.fs.FailSyncsOf(".journal", 1);
    AppendRecord lost = NextAppend(bench.state, kA, 60000, false, 1, 77);
    REQUIRE_FALSE(bench.rig.Write(lost).ok());
    // The process ends, the machine does not: the file's size is still what was written.
    bench.rig.Kill();
    REQUIRE(bench.rig.Open(32768, 1 << 20) == absl::OkStatus());
    bench.rig.Kill();
    REQUIRE(bench.rig.Open(32768, 1 << 20) == absl::OkStatus());
    bench.rig.Kill();
    bench.fs.Crash();
    INFO("seed " << seed);
    REQUIRE(bench.rig.Open(32768, 1 << 20) == absl::OkStatus());
    bench.rig.Kill();
  }
}

}  // namespace sluice::storage
