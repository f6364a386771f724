// A segment whose sync fails is written anew from the journal, whatever happens meanwhile.
#include <catch2/catch.hpp>

#include "common/record/control.h"
#include "storage/segment_rewrite.h"
#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::StorageNode;

TEST_CASE("a segment whose sync fails is written anew from the journal and appends go on") {
  for (const bool synced_before : {false, true}) {
    for (const bool drops : {false, true}) {
      CAPTURE(synced_before, drops);
      Writer w;
      w.node.log_options.segment_bytes = 64 << 10;
      w.Start();
      w.Fill(5, 1500);
      if (synced_before) REQUIRE(w.Checkpoint().ok());
      w.Fill(10, 1000);
      w.log->FlushSoon();
      w.node.scheduler.RunFor(absl::Seconds(1));
      w.log->DropCache();  // so that what was not synced is in the file and in the journal alone
      w.node.fs.FailSyncsOf(".log", 1, drops);
      const absl::Status checkpoint = w.Checkpoint();
      CHECK(absl::IsUnavailable(checkpoint));
      CHECK(w.Holds(checkpoint, "fdatasync"));
      CHECK(absl::IsUnavailable(w.log->Admit(10)));
      REQUIRE(w.node.fs.counts().sync_errors == 1);
      w.node.scheduler.RunFor(absl::Seconds(1));
      REQUIRE(w.node.fatal.ok());
      CHECK(w.node.store->journal().FilesHolding(kReplica).empty());  // it need not hold them any more
      w.RequireAllThere();
      w.Fill(10, 1000);
      w.RequireAllThere();
      CHECK(w.Checkpoint().ok());
      CHECK(w.node.Do([&](auto done) { w.log->Scrub(std::move(done)); }).ok());
      w.Restart();
      w.RequireAllThere();
      CHECK(w.SegmentFiles(kRewriteEnding).empty());
      w.Fill(3);
    }
  }
}

TEST_CASE("while a segment cannot be written anew its partition alone is refused, it is tried with ever longer waits") {
  Writer w;
  w.Start();
  REQUIRE(w.node.Create(StorageNode::Replica(1)).ok());
  auto other = w.node.Attach(StorageNode::Replica(1));
  w.Fill(10, 700);
  w.node.fs.FailSyncsOf(".log", 1, true);
  CHECK_FALSE(w.Checkpoint().ok());
  w.node.fs.FailSyncsOf(kRewriteEnding, 4);
  int refused = 0;
  for (int second = 0; second < 14; ++second) {  // tried at 0, 1, 3, 7 and, at last with success, 15 s
    const absl::Status status = w.Append();
    REQUIRE(absl::IsUnavailable(status));
    CHECK(w.Holds(status, "written anew"));
    ++refused;
    record::Batch batch = MakeBatch("other").Assign(other->log_end(), LeaderEpoch(1));
    REQUIRE(w.node.Do([&](auto done) { other->Append({batch}, std::move(done)); }).ok());
    w.RequireAllThere();
    w.node.scheduler.RunFor(absl::Seconds(1));
  }
  CHECK(w.node.fs.counts().sync_errors == 5);
  w.node.scheduler.RunFor(absl::Seconds(2));
  CHECK(w.node.fs.counts().sync_errors == 5);
  w.Fill(5);
  other.reset();
  w.Restart();
  w.RequireAllThere();
}

TEST_CASE("a read of what a failed sync has lost is never wrong, and right again once the segment is written anew") {
  int right = 0;
  int later = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Writer w(seed);
    w.Start();
    w.Fill(30, 700);
    w.log->FlushSoon();
    w.node.scheduler.RunFor(absl::Seconds(1));
    w.log->DropCache();
    w.node.fs.FailSyncsOf(".log", 1, true);
    CHECK_FALSE(w.Checkpoint().ok());
    w.node.fs.FailSyncsOf(kRewriteEnding, 1);
    using Result = absl::StatusOr<std::vector<record::Batch>>;
    for (int i = 0; i < 200; ++i) {
      const Offset offset(i % 30);
      Result got = w.node.Await<Result>([&](auto done) { w.log->Read(offset, w.log->log_end(), 1, std::move(done)); });
      if (got.ok()) {
        REQUIRE(got->at(0).bytes() == w.written[static_cast<size_t>(offset.value())].bytes());
        ++right;
      } else {
        REQUIRE(absl::IsUnavailable(got.status()));
        ++later;
      }
      w.node.scheduler.RunFor(absl::Milliseconds(10));
    }
    w.RequireAllThere();
  }
  CHECK(right > 500);
  CHECK(later > 0);
}

TEST_CASE("what the checkpoint vouches for but no longer has its checksum is refused, named, and not taken over") {
  Writer w;
  w.node.log_options.segment_bytes = 64 << 10;
  w.Start();
  w.Fill(10, 1000);
  REQUIRE(w.Checkpoint().ok());
  w.Fill(10, 1000);
  const std::string file = w.SegmentFiles().at(0);
  std::string damaged = w.node.fs.Contents(file);
  damaged[2000] = static_cast<char>(damaged[2000] ^ 1);
  w.node.fs.FailSyncsOf(".log", 1);
  CHECK_FALSE(w.Checkpoint().ok());
  w.node.fs.SetContents(file, damaged);
  w.node.scheduler.RunFor(absl::Seconds(1));
  const absl::Status refused = w.Append();
  CHECK(absl::IsUnavailable(refused));
  CHECK(w.Holds(refused, file));
  CHECK(w.Holds(refused, "the registry expects"));
  CHECK(w.node.fs.Contents(file) == damaged);
}

TEST_CASE("a log can be truncated, reset, deleted from and dropped while a segment of it is written anew") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    for (int what = 0; what < 4; ++what) {
      CAPTURE(seed, what);
      Writer w(seed);
      w.Start();
      w.Fill(40, 700);
      w.node.fs.FailSyncsOf(".log", 1 + seed % 3, true);
      CHECK_FALSE(w.Checkpoint().ok());
      w.node.scheduler.RunFor(absl::Microseconds(static_cast<int64_t>(w.node.scheduler.random().Below(900))));
      if (what == 0) {
        REQUIRE(w.node.Do([&](auto done) { w.log->Truncate(Offset(5), std::move(done)); }).ok());
        w.written.erase(w.written.begin() + 5, w.written.end());
      } else if (what == 1) {
        REQUIRE(w.node.Do([&](auto done) { w.log->Reset(Offset(40), std::move(done)); }).ok());
        w.written.clear();
      } else if (what == 2) {
        REQUIRE(w.node.Do([&](auto done) { w.log->SetLogStart(Offset(40), std::move(done)); }).ok());
      } else {
        w.log.reset();
        REQUIRE(w.node.Do([&](auto done) { w.node.store->Drop(kReplica, std::move(done)); }).ok());
        CHECK_FALSE(w.node.fs.Exists(Writer::log_dir()).value());
        w.written.clear();
        w.Restart();
        w.Fill(3);
        continue;
      }
      w.node.fs.FailSyncsOf("", 0);
      w.node.scheduler.RunFor(absl::Seconds(20));
      if (what == 0) w.RequireAllThere();
      w.Fill(8, 700);
      REQUIRE(w.Checkpoint().ok());
      REQUIRE(w.node.Do([&](auto done) { w.log->Scrub(std::move(done)); }).ok());
      const Offset end = w.log->log_end();
      w.Restart();
      CHECK(w.log->log_end() == end);
      if (what == 0) w.RequireAllThere();
      REQUIRE(w.node.ReadAll(*w.log).ok());
    }
  }
}

TEST_CASE("a segment is not put in place shorter than what is durable while its truncation is still on its way") {
  Writer w;
  w.node.log_options.segment_bytes = 64 << 10;
  w.Start();
  w.Fill(10, 1000);
  REQUIRE(w.Checkpoint().ok());
  w.Fill(10, 1000);
  w.node.fs.FailSyncsOf(".log", 1);
  CHECK_FALSE(w.Checkpoint().ok());
  w.node.journal_io->SetLatency(absl::Seconds(1), absl::Seconds(1));
  w.log->Truncate(Offset(5), [](const absl::Status&) {});
  w.node.scheduler.RunFor(absl::Milliseconds(500));
  w.Restart();
  w.RequireAllThere();
}

/// What a leader's start and a new log start append.
absl::Status AppendControl(Writer& w) {
  record::Batch batch =
      record::MakeControlBatch(record::LeaderChange{NodeId(1)}, 1000).Assign(w.log->log_end(), w.epoch);
  const absl::Status status =
      w.node.Do([&](auto done) { w.log->Append({batch}, std::move(done), Log::Urgency::kEssential); });
  if (status.ok()) w.written.push_back(std::move(batch));
  return status;
}

TEST_CASE("while a segment cannot be written anew control batches are taken, and are there once it is") {
  for (const bool new_epoch : {false, true}) {
    CAPTURE(new_epoch);
    Writer w;
    w.node.log_options.segment_bytes = 64 << 10;
    w.Start();
    w.Fill(10, 700);
    w.node.fs.FailSyncsOf(".log", 1, true);
    CHECK_FALSE(w.Checkpoint().ok());
    w.node.fs.FailSyncsOf(kRewriteEnding, 3);
    if (new_epoch) w.epoch = w.epoch + 1;
    for (int i = 0; i < 3; ++i) {
      REQUIRE(AppendControl(w).ok());
      REQUIRE(absl::IsUnavailable(w.Append()));
      w.RequireAllThere();
    }
    w.node.scheduler.RunFor(absl::Seconds(20));
    w.Fill(5);
    w.RequireAllThere();
    REQUIRE(w.Checkpoint().ok());
    REQUIRE(w.node.Do([&](auto done) { w.log->Scrub(std::move(done)); }).ok());
    w.Restart();
    w.RequireAllThere();
  }
}

TEST_CASE("retention may take away the segment that cannot be written anew, behind a control batch") {
  Writer w;
  w.node.log_options.segment_bytes = 64 << 10;
  w.Start();
  w.Fill(10, 700);
  w.node.fs.FailSyncsOf(".log", 1, true);
  CHECK_FALSE(w.Checkpoint().ok());
  w.node.fs.FailSyncsOf(kRewriteEnding, 1000);
  REQUIRE(AppendControl(w).ok());
  REQUIRE(w.node.Do([&](auto done) { w.log->SetLogStart(Offset(10), std::move(done)); }).ok());
  w.written.erase(w.written.begin(), w.written.begin() + 10);
  w.node.scheduler.RunFor(absl::Seconds(20));
  w.Fill(5);
  w.RequireAllThere();
  w.Restart();
  w.RequireAllThere();
}

TEST_CASE("power lost at any file operation while a segment is written anew loses nothing") {
  bool ended = false;
  for (uint64_t n = 1; !ended; ++n) {
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      const bool control = seed > 4;
      CAPTURE(n, seed, control);
      Writer w(seed * 1000 + n);
      w.node.log_options.segment_bytes = 64 << 10;
      w.Start();
      w.Fill(6, 1500);
      if (seed % 2 == 0) REQUIRE(w.Checkpoint().ok());
      w.Fill(10, 1500);
      w.node.fs.FailSyncsOf(".log", 1, seed > 2);
      CHECK_FALSE(w.Checkpoint().ok());
      if (control) {
        w.node.fs.FailSyncsOf(kRewriteEnding, 1);
        REQUIRE(AppendControl(w).ok());
      }
      w.node.fs.CrashAt(w.node.fs.operations() + n);
      w.node.RunUntil([&] { return w.log->Admit(1).ok(); });
      w.node.scheduler.RunFor(absl::Milliseconds(20));
      ended = !w.node.fs.crashed();
      w.Restart();
      w.RequireAllThere();
      CHECK(w.SegmentFiles(kRewriteEnding).empty());
      w.Fill(3);
      REQUIRE(w.Checkpoint().ok());
      w.Restart();
      w.RequireAllThere();
    }
    REQUIRE(n < 100);
  }
}

}  // namespace
}  // namespace sluice::storage
