// A journal on a disk without room: who waits, who is refused, and how it ends.
#include <catch2/catch.hpp>

#include <optional>
#include <utility>
#include <vector>

#include "tests/simulation/journal_bench.h"

namespace sluice::storage {
namespace {

struct Bench : JournalBench {
  explicit Bench(bool prepares = false) { rig.prepares = prepares; }

  void Begin() {
    Open();
    Create();
    Settle();
  }
  void Submit(const AppendRecord& append) {
    rig.Submit({append}, [this](absl::Status status) { answer = std::move(status); });
  }
  /// Twelve appends, one each 5 ms; what comes of them is in `answers` and `acknowledged`.
  void SubmitTwelve() {
    acknowledged = state;
    for (int i = 0; i < 12; ++i) {
      const AppendRecord append = Next(6000);
      REQUIRE(state.Apply(append).ok());
      rig.Submit({append}, [this, append](absl::Status status) {
        if (status.ok()) REQUIRE(acknowledged.Apply(append).ok());
        answers.push_back(std::move(status));
      });
      RunFor(absl::Milliseconds(5));
    }
  }
  void RunFor(absl::Duration time) { rig.scheduler.RunFor(time); }

  std::optional<absl::Status> answer;
  std::vector<absl::Status> answers;
  JournalState acknowledged;
};

TEST_CASE("a full disk makes writers wait and new ones be refused, and all goes on once there is room") {
  Bench bench;
  bench.Begin();
  bench.fs.SetCapacity(bench.fs.UsedBytes());
  bench.SubmitTwelve();
  REQUIRE(bench.answers.size() < 12);
  REQUIRE(bench.Refuses());
  REQUIRE(bench.rig.fatal_calls == 0);
  bench.fs.SetCapacity(-1);
  bench.Settle();
  REQUIRE(bench.answers.size() == 12);
  for (const absl::Status& status : bench.answers) REQUIRE(status.ok());
  REQUIRE(bench.rig.journal->Admit().ok());
}

TEST_CASE("what waits for room is answered with an error once it is told not to wait, and nothing durable is lost") {
  const bool prepares = GENERATE(false, true);
  const bool asked_before = GENERATE(false, true);
  CAPTURE(prepares, asked_before);
  Bench bench(prepares);
  bench.Begin();
  bench.fs.SetCapacity(bench.fs.UsedBytes());
  if (asked_before) bench.rig.journal->FailOnFullDisk();
  bench.SubmitTwelve();
  REQUIRE(asked_before == (bench.answers.size() == 12));
  bench.rig.journal->FailOnFullDisk();
  bench.RunFor(absl::Seconds(1));
  REQUIRE(bench.answers.size() == 12);
  bool failed = false;
  for (const absl::Status& status : bench.answers) {
    CHECK((absl::IsResourceExhausted(status) || (status.ok() && !failed)));
    failed = failed || !status.ok();
  }
  CHECK(failed);
  CHECK(bench.Refuses());
  bench.rig.Stop();
  CHECK(bench.rig.fatal_calls == 0);
  bench.fs.SetCapacity(-1);
  bench.fs.Crash();
  bench.Open();
  CHECK(bench.rig.state == bench.acknowledged);
}

TEST_CASE("an entry that is larger than a file waits for room as well, and goes through once there is some") {
  const bool stops = GENERATE(false, true);
  CAPTURE(stops);
  Bench bench;
  bench.Begin();
  JournalState acknowledged = bench.state;
  const AppendRecord append = bench.Next(50'000);
  REQUIRE(acknowledged.Apply(append).ok());
  bench.fs.SetCapacity(bench.fs.UsedBytes() + 40'000);  // another file, and not what the entry makes it grow by
  bench.Submit(append);
  bench.RunFor(absl::Seconds(3));
  CHECK(bench.rig.fatal_calls == 0);
  REQUIRE_FALSE(bench.answer.has_value());
  CHECK(bench.Refuses());
  if (stops) {
    bench.rig.Stop();
    REQUIRE(bench.answer.has_value());
    CHECK(absl::IsResourceExhausted(*bench.answer));
    acknowledged = bench.state;
  }
  bench.fs.SetCapacity(-1);
  if (!stops) {
    bench.RunFor(absl::Seconds(1));
    REQUIRE(bench.answer.has_value());
    CHECK(bench.answer->ok());
    CHECK(bench.rig.journal->Admit().ok());
    bench.rig.Kill();
  }
  bench.fs.Crash();
  bench.Open();
  CHECK(bench.rig.state == acknowledged);
}

TEST_CASE("a journal that finds no room for a large entry leaves to others what there is") {
  const bool quota = GENERATE(false, true);  // then nobody is told of it beforehand
  CAPTURE(quota);
  Bench bench;
  bench.Begin();
  const AppendRecord append = bench.Next(50'000);
  const int64_t used = bench.fs.UsedBytes() + 32'768;  // and the file that the entry goes to
  bench.fs.SetCapacity(used + 10'000);
  bench.fs.HideCapacity(quota);
  bench.Submit(append);
  bench.RunFor(absl::Seconds(3));
  REQUIRE_FALSE(bench.answer.has_value());
  CHECK(bench.Refuses());
  CHECK((bench.fs.counts().full > 0) == quota);
  CHECK(bench.fs.UsedBytes() == used);
  bench.fs.SetCapacity(-1);
  bench.RunFor(absl::Seconds(1));
  REQUIRE(bench.answer.has_value());
  CHECK(bench.answer->ok());
}

TEST_CASE("a file waits for the room that its opening takes, where that is larger than a file") {
  const bool prepares = GENERATE(false, true);
  const bool quota = GENERATE(false, true);
  CAPTURE(prepares, quota);
  Bench bench(prepares);
  bench.Begin();
  bench.Append(kA, 1000);  // so that this file cannot be the next
  bench.Settle();
  // Of so many replicas the snapshots do not fit into a file.
  for (int begin = 1; begin <= 600; begin += 100) {
    std::vector<JournalRecord> records;
    for (int n = begin; n < begin + 100; ++n) {
      records.emplace_back(CreateRecord{simulation::TestReplica(n), Uuid::FromRandom(3, 3)});
    }
    bench.rig.Submit(std::move(records), [&](const absl::Status& status) { CHECK(status.ok()); });
    bench.Settle();
  }
  const uint64_t files = bench.stats().files_created + bench.stats().files_recycled;
  bench.fs.SetCapacity(bench.fs.UsedBytes() + (prepares ? 4096 : 32'768 + 4096));
  bench.fs.HideCapacity(quota);
  std::vector<absl::Status> answers;
  for (int i = 0; i < 20; ++i) {
    bench.rig.Submit({HardStateRecord{kA, {LeaderEpoch(i + 1), {}}}},
                     [&](absl::Status status) { answers.push_back(std::move(status)); });
    bench.RunFor(absl::Milliseconds(100));
  }
  CHECK(bench.rig.fatal_calls == 0);
  CHECK(answers.size() < 20);
  CHECK(bench.Refuses());
  CHECK(bench.stats().files_created + bench.stats().files_recycled == files);
  bench.fs.SetCapacity(-1);
  bench.Settle();
  REQUIRE(answers.size() == 20);
  for (const absl::Status& status : answers) CHECK(status.ok());
  bench.Reopen();
  CHECK(bench.rig.state.replicas().size() == 601);
  CHECK(bench.rig.state.Find(kA)->hard_state.term == LeaderEpoch(20));
}

TEST_CASE("where no room can be put aside a large entry waits for it all the same") {
  Bench bench;
  bench.fs.SetAllocates(false);
  bench.Begin();
  const AppendRecord append = bench.Next(50'000);
  bench.fs.SetCapacity(bench.fs.UsedBytes() + 40'000);
  bench.Submit(append);
  bench.RunFor(absl::Seconds(3));
  CHECK(bench.rig.fatal_calls == 0);
  REQUIRE_FALSE(bench.answer.has_value());
  CHECK(bench.Refuses());
  bench.fs.SetCapacity(-1);
  bench.RunFor(absl::Seconds(1));
  REQUIRE(bench.answer.has_value());
  CHECK(bench.answer->ok());
}

TEST_CASE("appends are refused while an entry waits for room, whatever becomes of the next file meanwhile") {
  Bench bench(true);
  bench.Begin();
  bench.Append(kA, 1000);  // so that this file cannot be the next
  bench.rig.prepare->SetLatency(absl::Milliseconds(20), absl::Milliseconds(20));
  const AppendRecord append = bench.Next(100'000);
  bench.fs.SetCapacity(bench.fs.UsedBytes() + 40'000);  // the next file, and not what the entry takes
  bench.Submit(append);
  const uint64_t files = bench.rig.journal->stats().files_created;
  bench.RunFor(absl::Milliseconds(10));
  REQUIRE(bench.rig.journal->stats().files_created == files + 1);
  REQUIRE(bench.Refuses());
  for (int i = 0; i < 400; ++i) {  // the next file is made
    bench.RunFor(absl::Milliseconds(1));
    REQUIRE(bench.Refuses());
  }
  CHECK(bench.fs.Exists("data/journal/spare").value());
  CHECK_FALSE(bench.answer.has_value());
}

TEST_CASE("appends are refused while there is no next file, also once an entry has found the room that it waited for") {
  Bench bench(true);
  bench.Begin();
  bench.Append(kA, 1000);  // so that this file cannot be the next
  bench.rig.prepare->SetLatency(absl::Milliseconds(20), absl::Milliseconds(20));
  const AppendRecord append = bench.Next(50'000);
  const int64_t used = bench.fs.UsedBytes();
  bench.fs.SetCapacity(used);
  bench.Submit(append);
  bench.RunFor(absl::Milliseconds(100));
  REQUIRE(bench.Refuses());
  bench.fs.SetCapacity(used + 30'000);  // the entry, and then no file
  for (int i = 0; i < 1000; ++i) {
    bench.RunFor(absl::Milliseconds(1));
    REQUIRE(bench.Refuses());
  }
  REQUIRE(bench.answer.has_value());
  CHECK(bench.answer->ok());
}

}  // namespace
}  // namespace sluice::storage
