// What keeps the journal short, and at what cost.
#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>
#include <vector>

#include "tests/sim/log_store_writer.h"

namespace sluice::storage {
namespace {

using simulation::MakeBatch;
using simulation::StorageNode;

/// Partitions 1 to n beside the writer's own.
struct Others {
  Others(Writer& writer, int count) : w(writer) {
    for (int i = 1; i <= count; ++i) {
      REQUIRE(w.node.Create(StorageNode::Replica(i)).ok());
      logs.push_back(w.node.Attach(StorageNode::Replica(i)));
    }
  }
  void Append(size_t which, size_t bytes) {
    record::Batch batch =
        MakeBatch("o" + std::to_string(which), 1, bytes).Assign(logs[which]->log_end(), LeaderEpoch(1));
    REQUIRE(w.node.Do([&](auto done) { logs[which]->Append({batch}, std::move(done)); }).ok());
  }
  void RequireEach(size_t batches) {
    for (size_t i = 0; i < logs.size(); ++i) {
      logs[i] = w.node.Attach(StorageNode::Replica(static_cast<int32_t>(i) + 1));
      auto found = w.node.ReadAll(*logs[i]);
      REQUIRE(found.ok());
      REQUIRE(found->size() == batches);
    }
  }
  Writer& w;
  std::vector<std::shared_ptr<Log>> logs;
};

TEST_CASE("many quiet partitions hold back neither the journal nor cost a sync each") {
  Writer w;
  w.node.options.checkpoint_interval = absl::Seconds(5);
  w.node.options.journal.file_bytes = 256 << 10;
  w.node.options.journal.total_bytes_max = 4 << 20;
  w.Start();
  Others others(w, 300);
  for (size_t i = 0; i < others.logs.size(); ++i) others.Append(i, 200);
  for (int i = 0; i < 1500; ++i) {  // 12 MB through a journal of at most 4 MiB
    const absl::Status status = w.Append(8'000);
    INFO(i << ": " << status.ToString());
    REQUIRE(status.ok());
    w.node.scheduler.RunFor(absl::Milliseconds(10));
  }
  CHECK(w.node.store->journal().stats().files_recycled > 30);
  CHECK(w.node.store->journal().stats().used_bytes <= w.node.options.journal.total_bytes_max);
  uint64_t quiet_syncs = 0;
  for (const auto& log : others.logs) quiet_syncs += w.node.fs.SyncsOf(log->dir() + "/00000000000000000000-1.log");
  CHECK(quiet_syncs == 0);
  others.logs.clear();
  w.Restart();
  w.RequireAllThere();
  others.RequireEach(1);
}

TEST_CASE("a small tail that memory has no longer is checkpointed where it cannot be carried forward") {
  Writer w;
  w.Start();
  Others others(w, 1);
  others.Append(0, 5'000);
  others.Append(0, 5'000);
  others.logs[0]->FlushSoon();
  w.node.scheduler.RunFor(absl::Seconds(1));
  others.logs[0]->DropCache();
  CHECK_FALSE(others.logs[0]->CarryForward(nullptr));
  for (int i = 0; i < 300; ++i) {
    REQUIRE(w.Append(8'000).ok());
    w.node.scheduler.RunFor(absl::Milliseconds(1));
  }
  CHECK(others.logs[0]->uncheckpointed_bytes() == 0);
  others.logs.clear();
  w.Restart();
  others.RequireEach(2);
}

TEST_CASE("a journal that is over its bound when it is opened is freed, although nothing may be written before") {
  Writer w;
  w.node.options.journal.file_bytes = 64 << 10;
  w.node.options.journal.total_bytes_max = 8 << 20;
  w.Start();
  Others others(w, 60);
  for (size_t i = 0; i < others.logs.size(); ++i) others.Append(i, 8'000);
  others.logs.clear();
  w.node.options.journal.total_bytes_max = 256 << 10;
  w.Restart();
  for (int32_t i = 1; i <= 60; ++i) others.logs.push_back(w.node.Attach(StorageNode::Replica(i)));
  w.node.scheduler.RunFor(absl::Seconds(10));
  CHECK(w.node.store->journal().stats().used_bytes <= w.node.options.journal.total_bytes_max);
  const absl::Status taken = w.Append();
  INFO(taken);
  REQUIRE(taken.ok());
  others.logs.clear();
  w.Restart();
  others.logs.resize(60);
  others.RequireEach(1);
}

TEST_CASE("a journal that one entry fills is freed, although it begins no file then") {
  Writer w;
  w.node.options.journal.file_bytes = 64 << 10;
  w.node.options.journal.total_bytes_max = 512 << 10;
  w.Start();
  Others others(w, 1);
  others.Append(0, 8'000);
  w.Fill(8, 8'000);  // the second file
  REQUIRE(w.Append(500'000).ok());
  w.node.scheduler.RunFor(absl::Seconds(2));
  const absl::Status taken = w.Append();
  INFO(taken);
  REQUIRE(taken.ok());
}

TEST_CASE("many logs with too little for a write each do not make the journal wait for them") {
  Writer w;
  w.node.options.journal.file_bytes = 256 << 10;
  w.node.options.journal.total_bytes_max = 64 << 20;
  w.node.log_options.write_bytes = 64 << 10;
  w.node.log_options.segment_bytes = 1 << 20;
  w.Start();
  Others others(w, 100);
  for (size_t i = 0; i < others.logs.size(); ++i) others.Append(i, 13'000);
  REQUIRE(w.node.store->shared().segments_lag());
  w.node.scheduler.RunFor(absl::Seconds(3));
  CHECK_FALSE(w.node.store->shared().segments_lag());
  const absl::Duration start = w.node.clock.Monotonic();
  REQUIRE(w.Append().ok());
  CHECK(w.node.clock.Monotonic() - start < absl::Milliseconds(20));
}

TEST_CASE("logs with much to sync have their turns spread over the interval") {
  Writer w;
  w.node.options.journal.total_bytes_max = 64 << 20;
  w.node.options.cache_bytes = 64 << 20;
  w.node.options.checkpoint_interval = absl::Seconds(20);
  w.node.log_options.carry_bytes = 10'000;
  w.node.log_options.segment_bytes = 1 << 20;
  w.Start();
  Others others(w, 20);
  uint64_t most = 0;
  uint64_t before = w.node.fs.SyncsOf(".log");
  const uint64_t first = before;
  for (int second = 0; second < 60; ++second) {
    if (second % 20 == 0) {
      for (size_t i = 0; i < others.logs.size(); ++i) others.Append(i, 20'000);
    }
    w.node.scheduler.RunFor(absl::Seconds(1));
    const uint64_t now = w.node.fs.SyncsOf(".log");
    most = std::max(most, now - before);
    before = now;
  }
  CHECK(before - first >= 40);
  CHECK(most <= 3);
}

TEST_CASE("a log under load is synced in steps, so that no sync carries much") {
  Writer w;
  w.node.options.journal.total_bytes_max = 64 << 20;
  w.node.options.cache_bytes = 64 << 20;
  w.node.log_options.segment_bytes = 16 << 20;
  w.node.log_options.write_bytes = 32 << 10;
  w.node.log_options.sync_bytes = 256 << 10;
  w.Start();
  int64_t most = 0;
  for (int i = 0; i < 400; ++i) {
    REQUIRE(w.Append(10'000).ok());
    w.node.scheduler.RunFor(absl::Milliseconds(1));
    most = std::max(most, w.log->uncheckpointed_bytes());
  }
  CHECK(most < 600'000);
  CHECK(w.node.fs.SyncsOf(".log") >= 12);
  w.Restart();
  w.RequireAllThere();
}

}  // namespace
}  // namespace sluice::storage
