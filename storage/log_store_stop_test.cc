// What a stop leaves for the next start to do, and what a start leaves for the one after it: nothing.
#include <catch2/catch.hpp>

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "storage/journal_mark.h"
#include "tests/sim/storage_node.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::SimFileSystem;
using simulation::StorageNode;

/// A node with several replicas, and what each of them was given.
struct Several {
  explicit Several(uint64_t seed = 1, int32_t replicas = 5) : node(seed), count(replicas) {
    node.options.journal.file_bytes = 16 << 10;
    node.log_options.segment_bytes = 64 << 10;
  }

  void Open() {
    const absl::Status opened = node.Open();
    INFO(opened.ToString());
    REQUIRE(opened.ok());
    Attach();
  }
  void Attach() {
    for (int32_t i = 0; i < count; ++i) {
      if (!node.store->Has(StorageNode::Replica(i))) REQUIRE(node.Create(StorageNode::Replica(i)).ok());
      logs.push_back(node.Attach(StorageNode::Replica(i)));
    }
    epoch = epoch + 1;
  }
  absl::Status Append(int32_t i, size_t bytes) {
    record::Batch batch = MakeBatch("v" + std::to_string(made++), 1, bytes).Assign(At(i).log_end(), epoch);
    const absl::Status status = node.Do([&](auto done) { At(i).Append({batch}, std::move(done)); });
    if (status.ok()) written[i].push_back(std::move(batch));
    return status;
  }
  void Fill(int batches, size_t bytes) {
    for (int n = 0; n < batches; ++n) {
      for (int32_t i = 0; i < count; ++i) REQUIRE(Append(i, bytes).ok());
    }
  }
  Log& At(int32_t i) { return *logs[static_cast<size_t>(i)]; }
  absl::Status Stop() {
    return node.Do([&](auto done) { node.store->Stop(std::move(done)); });
  }
  void PowerOff() {
    logs.clear();
    node.Crash();
  }
  void RequireAllThere() {
    for (int32_t i = 0; i < count; ++i) {
      auto found = node.ReadAll(At(i));
      CAPTURE(i, found.status().ToString());
      REQUIRE(found.ok());
      REQUIRE(found->size() == written[i].size());
      for (size_t k = 0; k < found->size(); ++k) REQUIRE((*found)[k].bytes() == written[i][k].bytes());
    }
  }
  int64_t rewritten() const { return node.store->recovery().bytes_rewritten; }
  /// How many files of the journal the next start reads.
  uint64_t JournalFilesNeeded() {
    const auto mark = ReadJournalMark(node.fs, "data/journal", node.options.journal.disk);
    REQUIRE(mark.ok());
    REQUIRE(mark->has_value());
    return (*mark)->file - (*mark)->needed_from + 1;
  }

  StorageNode node;
  const int32_t count;
  std::vector<std::shared_ptr<Log>> logs;
  std::map<int32_t, std::vector<record::Batch>> written;
  LeaderEpoch epoch;
  int made = 0;
};

TEST_CASE("after a stop in order the next start writes nothing from the journal, and reads little of it") {
  Several s;
  s.Open();
  s.Fill(20, 1500);
  REQUIRE(s.node.store->journal().OldestFilePins().size() > 0);
  REQUIRE(s.Stop().ok());
  s.PowerOff();
  CHECK(s.JournalFilesNeeded() <= 2);
  s.Open();
  CHECK(s.rewritten() == 0);
  s.RequireAllThere();
  // Each index is there as well: the first read of a segment need not look through all of it.
  const std::string dir = "data/topics/" + StorageNode::Replica(0).ToString();
  const auto names = s.node.fs.List(dir);
  REQUIRE(names.ok());
  size_t indexes = 0;
  for (const std::string& name : *names) indexes += name.ends_with(".index") ? 1 : 0;
  CHECK(indexes == 1);
  // A tail of a few bytes is journaled once more instead: less work, and the older files may go.
  s.Fill(1, 100);
  REQUIRE(s.Append(0, 9000).ok());
  const uint64_t syncs = s.node.fs.SyncsOf(".log");
  REQUIRE(s.Stop().ok());
  CHECK(s.node.fs.SyncsOf(".log") == syncs + 1);
  s.PowerOff();
  CHECK(s.JournalFilesNeeded() <= 2);
  s.Open();
  CHECK(s.rewritten() > 0);
  CHECK(s.rewritten() < 1000 * s.count);
  s.RequireAllThere();
}

TEST_CASE("what a start wrote from the journal is checkpointed soon, so that the next one does not write it again") {
  Several s;
  s.Open();
  s.Fill(10, 700);
  s.PowerOff();
  s.Open();
  CHECK(s.rewritten() >= 10 * 700 * s.count);
  const uint64_t folder_syncs = s.node.fs.operations();
  s.node.scheduler.RunFor(absl::Seconds(5));
  REQUIRE(s.node.fs.operations() > folder_syncs);
  for (const auto& log : s.logs) CHECK(log->uncheckpointed_bytes() == 0);
  s.PowerOff();
  s.Open();
  CHECK(s.rewritten() == 0);
  s.RequireAllThere();
}

TEST_CASE("power lost at any file operation of a stop, or of the checkpoints after a start, loses nothing") {
  const bool while_stopping = GENERATE(true, false);
  int crashes = 0;
  int nothing_left = 0;
  bool ended = false;
  for (uint64_t n = 1; !ended; ++n) {
    CAPTURE(while_stopping, n);
    REQUIRE(n < 2000);
    Several s(n, 4);
    s.Open();
    s.Fill(4, 1100);
    REQUIRE(s.Append(1, 6000).ok());
    if (!while_stopping) {
      s.PowerOff();
      s.Open();
    }
    s.node.fs.CrashAt(s.node.fs.operations() + n);
    if (while_stopping) {
      (void)s.Stop();
    } else {
      for (int i = 0; i < 500 && !s.node.fs.crashed(); ++i) s.node.scheduler.RunFor(absl::Milliseconds(10));
    }
    ended = !s.node.fs.crashed();
    crashes += ended ? 0 : 1;
    s.PowerOff();
    s.Open();
    nothing_left += s.rewritten() == 0 ? 1 : 0;
    s.RequireAllThere();
    s.Fill(1, 300);
    s.PowerOff();
    s.Open();
    s.RequireAllThere();
  }
  CHECK(crashes > 20);
  CHECK(nothing_left > 0);
}

TEST_CASE("a stop checkpoints no longer than it may, and what it did not reach is not lost") {
  Several s(1, 40);
  s.node.options.stop_checkpoints_max = absl::Seconds(2);
  s.node.options.checkpoint_interval = absl::Hours(1);
  s.Open();
  s.Fill(1, 6000);
  s.node.segment_io->SetLatency(absl::Milliseconds(100), absl::Milliseconds(100));
  const absl::Duration began = s.node.clock.Monotonic();
  REQUIRE(s.Stop().ok());
  const absl::Duration took = s.node.clock.Monotonic() - began;
  CHECK(took >= absl::Seconds(2));
  CHECK(took < absl::Seconds(8));  // what is under way on the disk is waited for
  s.PowerOff();
  s.Open();
  CHECK(s.rewritten() > 0);
  CHECK(s.rewritten() < 40 * 6000);
  s.RequireAllThere();
}

TEST_CASE("a stop on a full disk ends, and loses nothing") {
  Several s(1, 4);
  s.Open();
  s.Fill(2, 3000);
  s.node.fs.SetCapacity(s.node.fs.UsedBytes());
  const absl::Duration began = s.node.clock.Monotonic();
  REQUIRE(s.Stop().ok());
  CHECK(s.node.clock.Monotonic() - began < absl::Seconds(5));
  s.PowerOff();
  s.node.fs.SetCapacity(-1);
  s.Open();
  s.RequireAllThere();
}

TEST_CASE(
    "a stop writes the index of what was checkpointed before as well, for three file operations a log and no sync") {
  constexpr int32_t kLogs = 30;
  Several s(1, kLogs);
  s.node.options.journal.file_bytes = 1 << 20;
  s.node.options.journal.total_bytes_max = 16 << 20;
  s.Open();
  s.Fill(4, 1500);
  REQUIRE(s.node.Do([&](auto done) { s.node.store->CheckpointAll(std::move(done)); }).ok());
  for (const auto& log : s.logs) REQUIRE(log->uncheckpointed_bytes() == 0);
  const uint64_t before = s.node.fs.operations();
  const uint64_t segment_syncs = s.node.fs.SyncsOf(".log");
  REQUIRE(s.Stop().ok());
  // A file made, its name, its bytes; and the journal's mark.
  CHECK(s.node.fs.operations() - before <= kLogs * 3 + 4);
  CHECK(s.node.fs.SyncsOf(".log") == segment_syncs);
  CHECK(s.node.fs.SyncsOf(".index") == 0);
  int indexes = 0;
  for (int32_t i = 0; i < kLogs; ++i) {
    const auto names = s.node.fs.List("data/topics/" + StorageNode::Replica(i).ToString());
    REQUIRE(names.ok());
    for (const std::string& name : *names) indexes += name.ends_with(".index") ? 1 : 0;
  }
  CHECK(indexes == kLogs);
  s.PowerOff();
  s.Open();
  CHECK(s.rewritten() == 0);
  s.RequireAllThere();
  // Nothing was written since: another stop leaves them alone.
  const uint64_t again = s.node.fs.operations();
  REQUIRE(s.Stop().ok());
  CHECK(s.node.fs.operations() - again <= 4);
}

TEST_CASE("a stop ends although appends wait in a journal that a full disk holds up, and they are answered") {
  const bool room_comes = GENERATE(false, true);
  CAPTURE(room_comes);
  Several s(1, 4);
  s.Open();
  s.Fill(2, 3000);
  s.node.fs.SetCapacity(s.node.fs.UsedBytes());
  // What leaders must write is taken although there is no next file: more of it than the present one has room for.
  std::vector<absl::Status> answers;
  int asked = 0;
  std::vector<std::pair<int32_t, record::Batch>> waiting;
  for (; asked < 20; ++asked) {
    const int32_t i = asked % s.count;
    waiting.emplace_back(i, MakeBatch("w", 1, 3000).Assign(s.At(i).log_end(), s.epoch));
    s.At(i).Append(
        {waiting.back().second}, [&](absl::Status status) { answers.push_back(std::move(status)); },
        Log::Urgency::kEssential);
  }
  s.node.scheduler.RunFor(absl::Seconds(3));
  const size_t answered = answers.size();
  REQUIRE(answered < 20);
  for (const absl::Status& status : answers) REQUIRE(status.ok());
  if (room_comes) s.node.fs.SetCapacity(-1);  // the journal has not noticed yet
  std::optional<absl::Status> stopped;
  const absl::Duration began = s.node.clock.Monotonic();
  s.node.store->Stop([&](absl::Status status) { stopped = std::move(status); });
  for (int i = 0; i < 3000 && !stopped; ++i) s.node.scheduler.RunFor(absl::Milliseconds(10));
  REQUIRE(stopped.has_value());
  CHECK(s.node.clock.Monotonic() - began < absl::Seconds(7));
  REQUIRE(answers.size() == 20);
  for (size_t k = 0; k < 20; ++k) {
    CAPTURE(k, answers[k].ToString());
    CHECK((answers[k].ok() || (k >= answered && !room_comes && absl::IsUnknown(answers[k]))));
  }
  CHECK(s.node.fatal.ok());
  // What was acknowledged is there, and after it nothing but what was asked for.
  s.PowerOff();
  s.node.fs.SetCapacity(-1);
  s.Open();
  for (size_t k = 0; k < 20; ++k) {
    if (answers[k].ok()) s.written[waiting[k].first].push_back(waiting[k].second);
  }
  s.RequireAllThere();
}

TEST_CASE("checkpoints of many logs after a start sync the folders that they share once") {
  Several s(1, 30);
  s.node.options.journal.file_bytes = 1 << 20;
  s.node.options.journal.total_bytes_max = 16 << 20;
  s.Open();
  s.Fill(1, 5000);
  s.PowerOff();
  s.Open();
  const uint64_t before = s.node.fs.operations();
  s.node.scheduler.RunFor(absl::Seconds(5));
  for (const auto& log : s.logs) REQUIRE(log->uncheckpointed_bytes() == 0);
  // Of each log: its folder, its segment, at most a write and a sync of the journal. Of all together: three folders.
  CHECK(s.node.fs.operations() - before <= 30 * 4 + 3);
}

}  // namespace
}  // namespace sluice::storage
