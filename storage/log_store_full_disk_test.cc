// What a disk without room does to a store: it starts, it serves, and what frees space works.
#include <catch2/catch.hpp>

#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::StorageNode;

TEST_CASE("a full disk refuses appends, serves reads, and takes appends again when there is room") {
  Writer w;
  w.Start();
  w.Fill(10, 1000);
  w.node.fs.SetCapacity(w.node.fs.UsedBytes() + 20'000);
  int refused = 0;
  int answered = 0;
  for (int i = 0; i < 200; ++i) {
    record::Batch batch = MakeBatch("f", 1, 1000).Assign(w.log->log_end(), w.epoch);
    w.log->Append({batch}, [&, batch](const absl::Status& status) {
      ++answered;
      if (status.ok()) w.written.push_back(batch);
      if (absl::IsResourceExhausted(status)) ++refused;
    });
    w.node.scheduler.RunFor(absl::Milliseconds(2));
  }
  CHECK(refused > 100);
  CHECK(w.node.fatal.ok());
  using Result = absl::StatusOr<std::vector<record::Batch>>;
  Result read = w.node.Await<Result>([&](auto done) { w.log->Read(Offset(0), Offset(10), 1, std::move(done)); });
  REQUIRE(read.ok());
  CHECK(read->at(0).bytes() == w.written[0].bytes());
  w.node.fs.SetCapacity(-1);
  w.node.scheduler.RunFor(absl::Seconds(10));
  CHECK(answered == 200);
  CHECK(static_cast<int>(w.written.size()) == 210 - refused);
  w.Fill(20, 1000);
  w.Restart();
  w.RequireAllThere();
}

TEST_CASE("free space below the low watermark refuses appends until the high one is reached") {
  Writer w;
  w.node.options.disk_low_watermark_bytes = 1 << 20;
  w.node.options.disk_high_watermark_bytes = 2 << 20;
  w.Start();
  w.Fill(2);
  const auto leave = [&](int64_t free_bytes) {
    w.node.fs.SetCapacity(w.node.fs.UsedBytes() + free_bytes);
    w.node.scheduler.RunFor(absl::Seconds(3));
  };
  leave(500'000);
  const absl::Status refused = w.Append();
  CHECK(absl::IsResourceExhausted(refused));
  CHECK(w.Holds(refused, "disk_low_watermark"));
  leave(1'500'000);
  CHECK(absl::IsResourceExhausted(w.Append()));
  leave(3'000'000);
  CHECK(w.Append().ok());
}

TEST_CASE("a store opens on a completely full disk with what it kept aside, serves reads, and keeps room again later") {
  Writer w;
  w.node.options.reserve_bytes = 1 << 20;
  w.node.log_options.write_bytes = 64 << 10;
  w.Start();
  w.node.scheduler.RunFor(absl::Seconds(2));
  CHECK(w.node.fs.Contents("data/RESERVE").size() == 1 << 20);
  w.Fill(40, 1000);  // most of it is in the journal alone
  w.log.reset();
  w.node.Crash();
  w.node.fs.SetCapacity(w.node.fs.UsedBytes());
  for (int i = 0; i < 3; ++i) {
    w.Restart();
    w.RequireAllThere();
    CHECK_FALSE(w.node.fs.Exists("data/RESERVE").value());
  }
  w.node.fs.SetCapacity(-1);
  w.node.scheduler.RunFor(absl::Seconds(2));
  CHECK(w.node.fs.Contents("data/RESERVE").size() == 1 << 20);
  w.Fill(40, 1000);
  w.RequireAllThere();
}

TEST_CASE("a replica is dropped although there is no room for the marker, and the journal lets go of it at once") {
  for (const bool first_only : {true, false}) {
    CAPTURE(first_only);
    Writer w;
    w.Start();
    w.Fill(20, 1000);
    w.log->FlushSoon();
    w.node.scheduler.RunFor(absl::Seconds(1));
    REQUIRE_FALSE(w.node.store->journal().FilesHolding(kReplica).empty());
    w.log.reset();
    const auto drop = [&] { return w.node.Do([&](auto done) { w.node.store->Drop(kReplica, std::move(done)); }); };
    w.node.fs.FailCreatesOf("DROPPING", first_only ? 1 : 2);
    const absl::Status dropped = drop();
    INFO(dropped.ToString());
    CHECK(dropped.ok() == first_only);
    CHECK(w.node.store->journal().FilesHolding(kReplica).empty());
    CHECK(w.node.store->Replicas().empty());
    CHECK(drop().ok());
    CHECK_FALSE(w.node.fs.Exists(Writer::log_dir()).value());
    REQUIRE(w.node.Create(kReplica).ok());
    w.written.clear();
    w.Restart();
    w.RequireAllThere();
  }
}

TEST_CASE(
    "power lost at any file operation of a drop without room for its marker leaves the replica whole, empty or gone") {
  bool ended = false;
  bool was_empty = false;
  for (uint64_t n = 1; !ended; ++n) {
    CAPTURE(n);
    Writer w(n);
    w.Start();
    w.Fill(10, 1500);
    REQUIRE(w.Checkpoint().ok());
    w.Fill(10, 1500);
    w.node.fs.FailCreatesOf("DROPPING", 1);
    w.node.fs.CrashAt(w.node.fs.operations() + n);
    const absl::Status dropped = w.node.Do([&](auto done) { w.node.store->Drop(kReplica, std::move(done)); });
    ended = !w.node.fs.crashed();
    w.node.fs.FailCreatesOf("", 0);
    const absl::Status opened = w.Reopen();
    INFO(opened.ToString());
    REQUIRE(opened.ok());
    if (w.node.store->Replicas().empty()) {
      CHECK_FALSE(w.node.fs.Exists(Writer::log_dir()).value());
      continue;
    }
    REQUIRE_FALSE(dropped.ok());
    w.log = w.node.Attach(kReplica);
    CHECK(w.log->log_end() == Offset(20));
    if (w.log->log_start() == Offset(20)) {
      was_empty = true;
      CHECK((!w.node.fs.Exists(Writer::log_dir()).value() || w.SegmentFiles().empty()));
    } else {
      w.RequireAllThere();
    }
    REQUIRE(n < 200);
  }
  CHECK(was_empty);
}

}  // namespace
}  // namespace sluice::storage
