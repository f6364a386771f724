// The segment writer behind the journal: what it does when writes fail or lag, and when memory is short.
#include <catch2/catch.hpp>

#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::SimFileSystem;
using simulation::StorageNode;

/// The journal and the segments hold whatever a test writes.
void MakeRoomy(Writer& w, int64_t write_bytes) {
  w.node.options.journal.file_bytes = 4 << 20;
  w.node.options.journal.total_bytes_max = 256 << 20;
  w.node.log_options.segment_bytes = 64 << 20;
  w.node.log_options.write_bytes = write_bytes;
}

TEST_CASE("a segment write that fails is made again and loses nothing") {
  Writer w;
  w.Start();
  w.Fill(2, 1000);
  // The next write after the batch's journal frame goes to the segment.
  w.node.fs.FailCall(SimFileSystem::Call::kWrite, 2);
  REQUIRE(w.Append(3000).ok());
  w.node.scheduler.RunFor(absl::Milliseconds(100));
  REQUIRE(w.node.fs.counts().write_errors == 1);
  REQUIRE(w.node.fatal.ok());
  CHECK(absl::IsUnavailable(w.Append(100)));
  w.RequireAllThere();
  w.node.scheduler.RunFor(absl::Seconds(3));
  w.Fill(10, 1000);
  REQUIRE(w.Checkpoint().ok());
  w.Restart();
  w.RequireAllThere();
}

TEST_CASE("segment writes that lag slow producers down and refuse nobody") {
  Writer w;
  MakeRoomy(w, 256 << 10);
  w.Start();
  w.node.segment_io->SetLatency(absl::Milliseconds(40), absl::Milliseconds(40));
  // Eight appends of 64 KiB are always under way: much faster than segments take them, and eight times what may wait.
  int refused = 0;
  int answered = 0;
  int64_t behind_most = 0;
  std::function<void()> next = [&] {
    record::Batch batch =
        simulation::MakeBatch("v" + std::to_string(w.made++), 1, 64 << 10).Assign(w.log->log_end(), w.epoch);
    w.log->Append({batch}, [&](absl::Status status) {
      refused += status.ok() ? 0 : 1;
      behind_most = std::max<int64_t>(behind_most, w.node.store->shared().behind_bytes);
      if (++answered <= 512 - 8) next();
    });
  };
  for (int i = 0; i < 8; ++i) next();
  REQUIRE(w.node.RunUntil([&] { return answered == 512; }));
  CHECK(refused == 0);
  CHECK(behind_most > w.node.options.cache_bytes / 4);
  CHECK(behind_most < w.node.options.cache_bytes);
  REQUIRE(w.Checkpoint().ok());
  CHECK(w.node.store->shared().behind_bytes == 0);
  w.log.reset();
}

TEST_CASE("what other logs keep in memory does not make a log write in small pieces") {
  Writer w;
  w.node.log_options.segment_bytes = 64 << 20;
  w.node.log_options.write_bytes = 64 << 10;
  w.Start();
  w.Fill(static_cast<int>(w.node.options.cache_bytes >> 16) + 8, 64 << 10);
  REQUIRE(w.Checkpoint().ok());
  REQUIRE(w.node.store->shared().behind_bytes == 0);
  REQUIRE(w.node.store->shared().cache_bytes > w.node.options.cache_bytes / 2 - (128 << 10));

  const ReplicaId second = simulation::StorageNode::Replica(1);
  REQUIRE(w.node.Create(second).ok());
  std::shared_ptr<Log> log = w.node.Attach(second);
  const auto append = [&] {
    record::Batch batch = MakeBatch("s", 1, 20 << 10).Assign(log->log_end(), LeaderEpoch(1));
    REQUIRE(w.node.Do([&](auto done) { log->Append({batch}, std::move(done)); }).ok());
    w.node.scheduler.RunFor(absl::Milliseconds(5));
    const auto files = w.node.fs.List("data/topics/" + second.ToString());
    return files.ok() && !files->empty();
  };
  CHECK_FALSE(append());
  REQUIRE(w.node.store->shared().cache_bytes > w.node.options.cache_bytes / 2 - (128 << 10));
  CHECK_FALSE(append());
  CHECK_FALSE(append());
  CHECK(append());  // 64 KiB have come together
  log.reset();
}

TEST_CASE("a log whose segment cannot be written does not slow the others down") {
  Writer w;
  MakeRoomy(w, 4 << 20);                 // nothing is written before it is asked for,
  w.node.options.tick = absl::Hours(1);  // which no tick does
  w.Start();
  w.Fill(7, 64 << 10);
  REQUIRE(w.node.store->shared().behind_bytes >= 7 << 16);
  w.node.fs.FailCreatesOf(".log", 1);
  w.log->FlushSoon();
  w.node.scheduler.RunFor(absl::Milliseconds(50));
  CHECK(w.node.store->shared().behind_bytes == 0);
  w.RequireAllThere();
  w.node.scheduler.RunFor(absl::Seconds(2));  // tried again
  REQUIRE(w.Checkpoint().ok());
  CHECK(w.node.store->shared().behind_bytes == 0);
  w.Fill(2, 64 << 10);
  CHECK(w.node.store->shared().behind_bytes > 0);  // counted again
  w.Restart();
  w.RequireAllThere();
}

}  // namespace
}  // namespace sluice::storage
