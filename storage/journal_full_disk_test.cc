// A journal on a disk without room: who waits, who is refused, and how it ends.
#include <catch2/catch.hpp>

#include <optional>
#include <utility>
#include <vector>

#include "tests/simulation/journal_rig.h"

namespace sluice::storage {
namespace {

using simulation::JournalRig;
using simulation::NextAppend;
using simulation::SimFileSystem;
using simulation::TestReplica;

const ReplicaId kA = TestReplica(0);

struct Bench {
  Bench() : fs(1), rig(fs, 1) {}

  void Open() {
    REQUIRE(rig.Open() == absl::OkStatus());
    state = rig.state;
  }
  void Create() {
    const CreateRecord record{kA, Uuid::FromRandom(3, 3)};
    REQUIRE(rig.Write(record) == absl::OkStatus());
    REQUIRE(state.Apply(record).ok());
  }
  void Append() {
    const AppendRecord append = NextAppend(state, kA, 1000, false, 1, ++salt);
    REQUIRE(rig.Write(append) == absl::OkStatus());
    REQUIRE(state.Apply(append).ok());
  }

  SimFileSystem fs;
  JournalRig rig;
  JournalState state;
  uint64_t salt = 0;
};

TEST_CASE("a full disk makes writers wait and new ones be refused, and all goes on once there is room") {
  Bench bench;
  bench.Open();
  bench.Create();
  bench.fs.SetCapacity(bench.fs.UsedBytes());
  std::vector<absl::Status> answers;
  for (int i = 0; i < 12; ++i) {
    const AppendRecord append = NextAppend(bench.state, kA, 6000, false, 1, ++bench.salt);
    REQUIRE(bench.state.Apply(append).ok());
    bench.rig.Submit({append}, [&](absl::Status status) { answers.push_back(std::move(status)); });
    bench.rig.scheduler.RunFor(absl::Milliseconds(5));
  }
  REQUIRE(answers.size() < 12);
  REQUIRE(bench.rig.journal->Admit().code() == absl::StatusCode::kResourceExhausted);
  REQUIRE(bench.rig.fatal_calls == 0);
  bench.fs.SetCapacity(-1);
  bench.rig.scheduler.RunFor(absl::Seconds(2));
  REQUIRE(answers.size() == 12);
  for (const absl::Status& status : answers) REQUIRE(status.ok());
  REQUIRE(bench.rig.journal->Admit().ok());
}

TEST_CASE("what waits for room is answered with an error once it is told not to wait, and nothing durable is lost") {
  const bool prepares = GENERATE(false, true);
  const bool asked_before = GENERATE(false, true);
  CAPTURE(prepares, asked_before);
  Bench bench;
  bench.rig.prepares = prepares;
  bench.Open();
  bench.Create();
  bench.rig.scheduler.RunFor(absl::Seconds(2));
  bench.fs.SetCapacity(bench.fs.UsedBytes());
  if (asked_before) bench.rig.journal->FailOnFullDisk();
  std::vector<absl::Status> answers;
  JournalState acknowledged = bench.state;
  for (int i = 0; i < 12; ++i) {
    const AppendRecord append = NextAppend(bench.state, kA, 6000, false, 1, ++bench.salt);
    REQUIRE(bench.state.Apply(append).ok());
    bench.rig.Submit({append}, [&, append](absl::Status status) {
      if (status.ok()) REQUIRE(acknowledged.Apply(append).ok());
      answers.push_back(std::move(status));
    });
    bench.rig.scheduler.RunFor(absl::Milliseconds(5));
  }
  const size_t answered = answers.size();
  REQUIRE(asked_before == (answered == 12));
  bench.rig.journal->FailOnFullDisk();
  bench.rig.scheduler.RunFor(absl::Seconds(1));
  REQUIRE(answers.size() == 12);
  bool failed = false;
  for (const absl::Status& status : answers) {
    CHECK((absl::IsResourceExhausted(status) || (status.ok() && !failed)));
    failed = failed || !status.ok();
  }
  CHECK(failed);
  CHECK(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  bench.rig.Stop();
  CHECK(bench.rig.fatal_calls == 0);
  bench.fs.SetCapacity(-1);
  bench.fs.Crash();
  bench.Open();
  CHECK(bench.rig.state == acknowledged);
}

TEST_CASE("an entry that is larger than a file waits for room as well, and goes through once there is some") {
  const bool stops = GENERATE(false, true);
  CAPTURE(stops);
  Bench bench;
  bench.Open();
  bench.Create();
  JournalState acknowledged = bench.state;
  const AppendRecord append = NextAppend(bench.state, kA, 50'000, false, 1, ++bench.salt);
  REQUIRE(acknowledged.Apply(append).ok());
  bench.fs.SetCapacity(bench.fs.UsedBytes() + 40'000);  // another file, and not what the entry makes it grow by
  std::optional<absl::Status> answer;
  bench.rig.Submit({append}, [&](absl::Status status) { answer = std::move(status); });
  bench.rig.scheduler.RunFor(absl::Seconds(3));
  CHECK(bench.rig.fatal_calls == 0);
  REQUIRE_FALSE(answer.has_value());
  CHECK(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  if (stops) {
    bench.rig.Stop();
    REQUIRE(answer.has_value());
    CHECK(absl::IsResourceExhausted(*answer));
    acknowledged = bench.state;
  }
  bench.fs.SetCapacity(-1);
  if (!stops) {
    bench.rig.scheduler.RunFor(absl::Seconds(1));
    REQUIRE(answer.has_value());
    CHECK(answer->ok());
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
  bench.Open();
  bench.Create();
  bench.rig.scheduler.RunFor(absl::Seconds(2));
  const AppendRecord append = NextAppend(bench.state, kA, 50'000, false, 1, ++bench.salt);
  const int64_t used = bench.fs.UsedBytes() + 32'768;  // and the file that the entry goes to
  bench.fs.SetCapacity(used + 10'000);
  bench.fs.HideCapacity(quota);
  std::optional<absl::Status> answer;
  bench.rig.Submit({append}, [&](absl::Status status) { answer = std::move(status); });
  bench.rig.scheduler.RunFor(absl::Seconds(3));
  REQUIRE_FALSE(answer.has_value());
  CHECK(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  CHECK((bench.fs.counts().full > 0) == quota);
  CHECK(bench.fs.UsedBytes() == used);
  bench.fs.SetCapacity(-1);
  bench.rig.scheduler.RunFor(absl::Seconds(1));
  REQUIRE(answer.has_value());
  CHECK(answer->ok());
}

TEST_CASE("where no room can be put aside a large entry waits for it all the same") {
  Bench bench;
  bench.fs.SetAllocates(false);
  bench.Open();
  bench.Create();
  const AppendRecord append = NextAppend(bench.state, kA, 50'000, false, 1, ++bench.salt);
  bench.fs.SetCapacity(bench.fs.UsedBytes() + 40'000);
  std::optional<absl::Status> answer;
  bench.rig.Submit({append}, [&](absl::Status status) { answer = std::move(status); });
  bench.rig.scheduler.RunFor(absl::Seconds(3));
  CHECK(bench.rig.fatal_calls == 0);
  REQUIRE_FALSE(answer.has_value());
  CHECK(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  bench.fs.SetCapacity(-1);
  bench.rig.scheduler.RunFor(absl::Seconds(1));
  REQUIRE(answer.has_value());
  CHECK(answer->ok());
}

TEST_CASE("appends are refused while an entry waits for room, whatever becomes of the next file meanwhile") {
  Bench bench;
  bench.rig.prepares = true;
  bench.Open();
  bench.Create();
  bench.Append();  // so that this file cannot be the next
  bench.rig.scheduler.RunFor(absl::Seconds(2));
  bench.rig.prepare->SetLatency(absl::Milliseconds(20), absl::Milliseconds(20));
  const AppendRecord append = NextAppend(bench.state, kA, 100'000, false, 1, ++bench.salt);
  bench.fs.SetCapacity(bench.fs.UsedBytes() + 40'000);  // the next file, and not what the entry takes
  std::optional<absl::Status> answer;
  bench.rig.Submit({append}, [&](absl::Status status) { answer = std::move(status); });
  const uint64_t files = bench.rig.journal->stats().files_created;
  bench.rig.scheduler.RunFor(absl::Milliseconds(10));
  REQUIRE(bench.rig.journal->stats().files_created == files + 1);
  REQUIRE(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  for (int i = 0; i < 400; ++i) {  // the next file is made
    bench.rig.scheduler.RunFor(absl::Milliseconds(1));
    REQUIRE(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  }
  CHECK(bench.fs.Exists("data/journal/spare").value());
  CHECK_FALSE(answer.has_value());
}

TEST_CASE("appends are refused while there is no next file, also once an entry has found the room that it waited for") {
  Bench bench;
  bench.rig.prepares = true;
  bench.Open();
  bench.Create();
  bench.Append();  // so that this file cannot be the next
  bench.rig.scheduler.RunFor(absl::Seconds(2));
  bench.rig.prepare->SetLatency(absl::Milliseconds(20), absl::Milliseconds(20));
  const AppendRecord append = NextAppend(bench.state, kA, 50'000, false, 1, ++bench.salt);
  const int64_t used = bench.fs.UsedBytes();
  bench.fs.SetCapacity(used);
  std::optional<absl::Status> answer;
  bench.rig.Submit({append}, [&](absl::Status status) { answer = std::move(status); });
  bench.rig.scheduler.RunFor(absl::Milliseconds(100));
  REQUIRE(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  bench.fs.SetCapacity(used + 30'000);  // the entry, and then no file
  for (int i = 0; i < 1000; ++i) {
    bench.rig.scheduler.RunFor(absl::Milliseconds(1));
    REQUIRE(absl::IsResourceExhausted(bench.rig.journal->Admit()));
  }
  REQUIRE(answer.has_value());
  CHECK(answer->ok());
}

}  // namespace
}  // namespace sluice::storage
