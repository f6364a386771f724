// A replica whose files have less than its checkpoint vouches for: it is not opened, the others are, and what the
// journal has of it is there when its files are.
#include <catch2/catch.hpp>

#include <string>
#include <utility>

#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::StorageNode;

/// One replica with a checkpointed part and a tail that only the journal holds; its file is cut, and put back later.
struct Damaged : Writer {
  /// `tail`: batches of so many bytes each behind the checkpoint.
  explicit Damaged(int tail, uint64_t seed = 1, size_t bytes = 1000) : Writer(seed) {
    node.log_options.segment_bytes = 4 << 20;
    Start();
    REQUIRE(node.Create(StorageNode::Replica(1)).ok());
    Fill(5, 1500);
    REQUIRE(Checkpoint().ok());
    Fill(tail, bytes);
    vote = {.term = epoch, .voted_for = {.node = NodeId(3), .incarnation = StorageNode::Incarnation()}};
    REQUIRE(node.Do([&](auto done) { log->SaveHardState(vote, std::move(done)); }).ok());
    log.reset();
    node.Crash();
    file = SegmentFiles().at(0);
    whole = node.fs.Contents(file);
    node.fs.SetContents(file, whole.substr(0, 5000));
    OpenOther();
  }
  void OpenOther() {
    REQUIRE(node.Open().ok());
    REQUIRE(absl::IsDataLoss(node.store->Attach(kReplica, *node.shard, node.log_options).status()));
    other = node.Attach(StorageNode::Replica(1));
  }
  absl::Status AppendOther() {
    record::Batch batch = MakeBatch("other", 1, 8'000).Assign(other->log_end(), LeaderEpoch(1));
    const absl::Status status = node.Do([&](auto done) { other->Append({batch}, std::move(done)); });
    node.scheduler.RunFor(absl::Milliseconds(5));
    return status;
  }
  void Repair() {
    other.reset();
    node.Crash();
    node.fs.SetContents(file, whole);
    Start();
    RequireAllThere();
    CHECK(log->hard_state() == vote);
  }
  JournalStats journal() const { return node.store->journal().stats(); }

  std::shared_ptr<Log> other;
  HardState vote;
  std::string file;
  std::string whole;
};

TEST_CASE("the tail and the vote of a replica that cannot be opened do not fill the journal, and outlive its turns") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Damaged d(100, seed);
    for (int turn = 0; turn < 3; ++turn) {
      for (int i = 0; i < 300; ++i) {  // 2.4 MB through a journal of at most 1 MiB
        const absl::Status status = d.AppendOther();
        INFO(turn << " " << i << ": " << status.ToString());
        REQUIRE(status.ok());
      }
      CHECK(d.journal().used_bytes <= d.node.options.journal.total_bytes_max);
      CHECK(d.journal().files_recycled > 20);
      d.other.reset();
      d.node.Crash();
      d.OpenOther();
    }
    d.Repair();
    d.Fill(3);
  }
}

TEST_CASE("power lost at any time while such a tail is carried along loses none of it") {
  int crashes = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Damaged d(60, seed);
    d.node.fs.CrashAt(d.node.fs.operations() + 100 + seed * 37);
    for (int i = 0; i < 400 && d.AppendOther().ok(); ++i) continue;
    crashes += d.node.fs.crashed() ? 1 : 0;
    d.Repair();
  }
  CHECK(crashes > 20);
}

TEST_CASE("what was truncated and written again is carried as it is now") {
  Writer w;
  w.node.log_options.segment_bytes = 4 << 20;
  w.Start();
  REQUIRE(w.node.Create(StorageNode::Replica(1)).ok());
  w.Fill(5, 1500);
  REQUIRE(w.Checkpoint().ok());
  w.Fill(1);
  w.log->CloseActiveSegment();
  w.Fill(10, 900);
  // The second segment is dropped, and made again under its name with other batches.
  REQUIRE(w.node.Do([&](auto done) { w.log->Truncate(Offset(6), std::move(done)); }).ok());
  w.written.resize(6);
  w.Fill(20, 700);
  w.log.reset();
  w.node.Crash();
  const std::string file = w.SegmentFiles().at(0);
  const std::string whole = w.node.fs.Contents(file);
  w.node.fs.SetContents(file, whole.substr(0, 5000));
  REQUIRE(w.node.Open().ok());
  auto other = w.node.Attach(StorageNode::Replica(1));
  for (int i = 0; i < 300; ++i) {
    record::Batch batch = MakeBatch("other", 1, 8'000).Assign(other->log_end(), LeaderEpoch(1));
    REQUIRE(w.node.Do([&](auto done) { other->Append({batch}, std::move(done)); }).ok());
    w.node.scheduler.RunFor(absl::Milliseconds(5));
  }
  CHECK(w.node.store->journal().stats().files_recycled > 20);
  other.reset();
  w.node.Crash();
  w.node.fs.SetContents(file, whole);
  w.Start();
  w.RequireAllThere();
}

TEST_CASE("a replica that cannot be opened can be dropped while its tail is carried along") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    Damaged d(100, seed);
    for (uint64_t i = 0; i < 60 + seed; ++i) REQUIRE(d.AppendOther().ok());
    REQUIRE(d.node.Do([&](auto done) { d.node.store->Drop(kReplica, std::move(done)); }).ok());
    for (int i = 0; i < 300; ++i) REQUIRE(d.AppendOther().ok());
    REQUIRE(d.node.fatal.ok());
    CHECK(d.node.store->journal().PinsOf(kReplica).empty());
    d.other.reset();
    d.node.Crash();
    REQUIRE(d.node.Open().ok());
    CHECK_FALSE(d.node.store->Has(kReplica));
  }
}

TEST_CASE("a tail that is too large to be carried along stays where it is") {
  Damaged d(30, 1, 10'000);  // more than a quarter of the journal
  absl::Status status;
  for (int i = 0; i < 300 && status.ok(); ++i) status = d.AppendOther();
  CHECK(absl::IsResourceExhausted(status));
  const uint64_t written = d.journal().bytes;
  d.node.scheduler.RunFor(absl::Minutes(1));
  CHECK(d.journal().bytes - written < 1 << 20);  // it does not spin
  d.Repair();
}

}  // namespace
}  // namespace sluice::storage
