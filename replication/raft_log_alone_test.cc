// A group of one: what a node without peers runs all its logs as.
#include <catch2/catch.hpp>

#include "common/record/control.h"
#include "common/text.h"
#include "replication/raft_log.h"
#include "tests/sim/storage_node.h"

namespace sluice::replication {
namespace {

using simulation::MakeBatch;
using simulation::StorageNode;

constexpr NodeId kNode{1};

class NobodyThere final : public PeerTransport {
  void Start(PeerReceiver&) override {}
  void Stop(absl::AnyInvocable<void()> done) override { done(); }
  bool Send(const ReplicaId&, raft::Message) override { return false; }
  bool SendLiveness(NodeId, LivenessMessage) override { return false; }
};

class Partition {
 public:
  explicit Partition(uint64_t seed = 1) : node(seed) {
    REQUIRE(node.Open().ok());
    REQUIRE(node.Create(StorageNode::Replica()).ok());
    Start();
  }

  absl::Status TryStart() {
    using Opened = absl::StatusOr<std::shared_ptr<RaftLog>>;
    const RaftLogSeams seams{.transport = &nobody,
                             .clock = &node.clock,
                             .random = &node.random,
                             .recovery = &recovery,
                             .inbox = &inbox,
                             .options = &options,
                             .log = &logger,
                             .keep = nullptr};
    auto opened = node.Await<Opened>([&](auto done) {
      RaftLog::Open(node.Attach(StorageNode::Replica()), seams,
                    {.node = kNode, .initial = {.voters = {{kNode, StorageNode::Incarnation()}}, .learners = {}}},
                    std::move(done));
    });
    if (!opened.ok()) return opened.status();
    log = *opened;
    return node.Await<absl::Status>([&](auto done) { log->WhenLeading(std::move(done)); });
  }
  void Start() {
    const absl::Status started = TryStart();
    INFO(started.ToString());
    REQUIRE(started.ok());
    REQUIRE(log->IsLeader());
  }
  void Restart() {
    log.reset();
    node.Crash();
    REQUIRE(node.Open().ok());
    Start();
  }
  absl::StatusOr<Committed> Propose(record::PendingBatch batch, std::optional<Offset> expected = std::nullopt) {
    return node.Await<absl::StatusOr<Committed>>(
        [&](auto done) { log->Propose(std::move(batch), expected, std::move(done)); });
  }
  absl::StatusOr<ReadResult> Read(int64_t offset, int64_t bytes_max = 1 << 20) {
    return node.Await<absl::StatusOr<ReadResult>>(
        [&](auto done) { log->Read({.offset = Offset(offset), .bytes_max = bytes_max}, std::move(done)); });
  }
  absl::StatusOr<Offset> Advance(int64_t offset) {
    return node.Await<absl::StatusOr<Offset>>(
        [&](auto done) { log->AdvanceLogStart(Offset(offset), std::move(done)); });
  }
  absl::StatusOr<std::optional<TimestampOffset>> Find(int64_t timestamp_ms) {
    return node.Await<absl::StatusOr<std::optional<TimestampOffset>>>(
        [&](auto done) { log->FindTimestamp(timestamp_ms, std::move(done)); });
  }

  NobodyThere nobody;
  ByteBudget recovery{1 << 20};
  InboxBound inbox;
  RaftLogOptions options;
  const Logger logger = Logger::Silent();
  StorageNode node;
  std::shared_ptr<RaftLog> log;
};

TEST_CASE("each opening begins a new epoch with a leader-change batch") {
  Partition p;
  CHECK(p.log->leader_epoch() == LeaderEpoch(1));
  CHECK(p.log->bounds().high_watermark == Offset(1));
  REQUIRE(p.Propose(MakeBatch("a")).ok());
  p.Restart();
  CHECK(p.log->leader_epoch() == LeaderEpoch(2));
  CHECK(p.log->bounds().high_watermark == Offset(3));

  auto all = p.Read(0);
  REQUIRE(all.ok());
  REQUIRE(all->batches.size() >= 1);
  auto first = record::DecodeControlBatch(all->batches[0].view());
  REQUIRE(first.ok());
  CHECK(std::get<record::LeaderChange>(*first).leader == kNode);
  auto last = p.Read(2);
  REQUIRE(last.ok());
  CHECK(last->batches[0].is_control());
  CHECK(last->batches[0].epoch() == LeaderEpoch(2));
}

TEST_CASE("a proposal gets the next offsets and can be read once it is answered") {
  Partition p;
  auto first = p.Propose(MakeBatch("a", 3));
  REQUIRE(first.ok());
  CHECK(first->base_offset == Offset(1));
  CHECK(first->last_offset == Offset(3));
  CHECK(first->leader_epoch == LeaderEpoch(1));
  auto read = p.Read(2);
  REQUIRE(read.ok());
  REQUIRE(read->batches.size() == 1);
  CHECK(read->batches[0].base_offset() == Offset(1));
  CHECK(read->next_offset == Offset(4));
  CHECK(p.log->last_data_offset_end() == Offset(4));
}

TEST_CASE("compare and append refuses another base offset and writes nothing") {
  Partition p;
  CHECK(p.Propose(MakeBatch("a"), Offset(1)).ok());
  auto refused = p.Propose(MakeBatch("b"), Offset(1));
  CHECK(absl::IsFailedPrecondition(refused.status()));
  CHECK(p.log->bounds().log_end == Offset(2));
  CHECK(p.Propose(MakeBatch("b"), Offset(2)).ok());
}

TEST_CASE("what is not committed is not read") {
  Partition p;
  bool answered = false;
  p.log->Propose(MakeBatch("a"), std::nullopt, [&](auto) { answered = true; });
  CHECK(p.log->bounds().log_end == Offset(2));
  CHECK(p.log->bounds().high_watermark == Offset(1));
  p.log->Read({.offset = Offset(1)}, [&](absl::StatusOr<ReadResult> read) {
    REQUIRE(read.ok());
    if (!answered) CHECK(read->batches.empty());
  });
  CHECK_FALSE(answered);
  REQUIRE(p.node.RunUntil([&] { return answered; }));
  CHECK(p.Read(1)->batches.size() == 1);
}

TEST_CASE("reads outside the committed log are out of range, at its end they are empty") {
  Partition p;
  CHECK(absl::IsOutOfRange(p.Read(2).status()));
  auto at_end = p.Read(1);
  REQUIRE(at_end.ok());
  CHECK(at_end->batches.empty());
  CHECK(at_end->next_offset == Offset(1));
}

TEST_CASE("a waiter wakes when its offset is committed, unless it was cancelled") {
  Partition p;
  int woken = 0;
  bool cancelled_ran = false;
  p.log->WaitForCommit(Offset(1), [&] { ++woken; });
  p.log->WaitForCommit(Offset(2), [&] { woken += 10; });
  p.log->CancelWait(p.log->WaitForCommit(Offset(1), [&] { cancelled_ran = true; }));
  p.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(woken == 0);
  REQUIRE(p.Propose(MakeBatch("a")).ok());
  p.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(woken == 1);
  CHECK_FALSE(cancelled_ran);
  p.log->WaitForCommit(Offset(0), [&] { woken += 100; });
  CHECK(woken == 1);  // never inside the call
  p.node.scheduler.RunFor(absl::Seconds(1));
  CHECK(woken == 101);
}

TEST_CASE("the log start advances by a control batch, survives a crash and never goes back") {
  Partition p;
  for (int i = 0; i < 5; ++i) REQUIRE(p.Propose(MakeBatch("x" + std::to_string(i), 2)).ok());
  auto advanced = p.Advance(4);
  REQUIRE(advanced.ok());
  CHECK(*advanced == Offset(4));
  CHECK(p.log->bounds().log_start == Offset(4));
  CHECK(p.log->bounds().high_watermark == Offset(12));
  CHECK(absl::IsOutOfRange(p.Read(3).status()));
  CHECK(p.Read(4)->batches[0].base_offset() == Offset(3));  // the start lies inside a batch
  CHECK(*p.Advance(2) == Offset(4));
  CHECK(absl::IsOutOfRange(p.Advance(100).status()));
  p.Restart();
  CHECK(p.log->bounds().log_start == Offset(4));
  CHECK(absl::IsOutOfRange(p.Read(3).status()));
}

TEST_CASE("a log start is answered once it is durable, also behind a higher one that is not yet") {
  for (const int64_t second : {4, 8}) {
    Partition p;
    for (int i = 0; i < 5; ++i) REQUIRE(p.Propose(MakeBatch("x" + std::to_string(i), 2)).ok());
    p.log->AdvanceLogStart(Offset(8), [](auto) {});
    auto answered = p.Advance(second);
    REQUIRE(answered.ok());
    CHECK(*answered >= Offset(second));
    CHECK(p.log->bounds().log_start == *answered);
    p.Restart();
    CHECK(p.log->bounds().log_start >= *answered);
  }
}

TEST_CASE("a read below a log start that is not committed yet is answered by the one that is, once it is") {
  Partition p;
  for (int i = 0; i < 4; ++i) REQUIRE(p.Propose(MakeBatch("x")).ok());
  std::optional<absl::StatusOr<Offset>> advanced;
  std::optional<absl::StatusOr<ReadResult>> read;
  std::optional<LogBounds> bounds;
  p.log->AdvanceLogStart(Offset(3), [&](absl::StatusOr<Offset> start) { advanced = std::move(start); });
  REQUIRE(p.log->bounds().log_start == Offset(0));
  p.log->Read({.offset = Offset(1)}, [&](absl::StatusOr<ReadResult> result) {
    read = std::move(result);
    bounds = p.log->bounds();
  });
  REQUIRE(p.node.RunUntil([&] { return advanced.has_value() && read.has_value(); }));
  // Either what was asked for, or out of a range that says so.
  if (!read->ok()) {
    CHECK(absl::IsOutOfRange(read->status()));
    CHECK(bounds->log_start == Offset(3));
    CHECK(Message(read->status()).find("readable are 3") != std::string_view::npos);
  }
}

TEST_CASE("the end of the data does not count control batches, also after restarts") {
  Partition p;
  CHECK(p.log->last_data_offset_end() == Offset(0));
  REQUIRE(p.Propose(MakeBatch("a", 4)).ok());
  for (int i = 0; i < 3; ++i) p.Restart();
  CHECK(p.log->bounds().high_watermark == Offset(8));
  CHECK(p.log->last_data_offset_end() == Offset(5));
  REQUIRE(p.Advance(8).ok());
  CHECK(p.log->last_data_offset_end() == Offset(8));
}

TEST_CASE("a search by time finds the first record that is late enough, in memory and in files") {
  Partition p;
  for (int i = 0; i < 60; ++i) REQUIRE(p.Propose(MakeBatch("t", 3, 400, 1000 + i * 10)).ok());
  const auto check = [&] {
    auto found = p.Find(1201);  // batch 20 holds 1200, 1201, 1202
    REQUIRE(found.ok());
    REQUIRE(found->has_value());
    CHECK((*found)->timestamp_ms == 1201);
    CHECK((*found)->offset == Offset(1 + 20 * 3 + 1));
    CHECK((*p.Find(0))->offset == Offset(1));
    CHECK_FALSE(p.Find(1'800'000'000'000).value().has_value());
  };
  check();
  p.Restart();
  check();
}

TEST_CASE("retention deletes whole segments, the last one too once all is old, and then leaves the log alone") {
  Partition p;
  for (int i = 0; i < 60; ++i) REQUIRE(p.Propose(MakeBatch("t", 1, 1000, 1000)).ok());
  REQUIRE(p.node.Do([&](auto done) { p.node.store->CheckpointAll(std::move(done)); }).ok());
  const auto retain = [&](storage::RetentionPolicy policy) {
    return p.node.Await<absl::StatusOr<Offset>>([&](auto done) { p.log->ApplyRetention(policy, std::move(done)); });
  };
  const int64_t before = p.log->size_bytes();
  auto kept = retain({.retention_bytes = 20'000});
  REQUIRE(kept.ok());
  CHECK(p.log->size_bytes() < before);
  CHECK(p.log->size_bytes() >= 20'000);
  CHECK(p.log->bounds().log_start == *kept);
  CHECK(p.Read(kept->value()).ok());

  auto emptied = retain({.retention_ms = 60'000});
  REQUIRE(emptied.ok());
  CHECK(p.log->last_data_offset_end() == *emptied);
  CHECK(p.log->size_bytes() < 500);
  const LogBounds after = p.log->bounds();
  p.node.scheduler.RunFor(absl::Hours(24 * 30));
  REQUIRE(retain({.retention_ms = 60'000}).ok());
  CHECK(p.log->bounds().log_end == after.log_end);
}

TEST_CASE("stopping answers proposals with unknown, reads and waiters too, and takes nothing more") {
  Partition p;
  std::optional<absl::Status> proposed;
  std::optional<absl::Status> read;
  bool woken = false;
  p.log->Propose(MakeBatch("a"), std::nullopt, [&](auto result) { proposed = result.status(); });
  p.log->Read({.offset = Offset(0)}, [&](auto result) { read = result.status(); });
  p.log->WaitForCommit(Offset(7), [&] { woken = true; });
  p.log->Stop();
  CHECK_FALSE(proposed.has_value());
  p.node.scheduler.RunFor(absl::Seconds(1));
  REQUIRE(proposed.has_value());
  CHECK(absl::IsUnknown(*proposed));
  REQUIRE(read.has_value());
  CHECK(absl::IsUnavailable(*read));
  CHECK(woken);
  CHECK(absl::IsUnavailable(p.Propose(MakeBatch("b")).status()));
  CHECK_FALSE(p.log->IsLeader());
}

TEST_CASE("a full cache refuses proposals and takes them again once segments are written") {
  Partition p;
  p.log.reset();
  p.node.Kill();
  p.node.options.cache_bytes = 30'000;
  REQUIRE(p.node.Open().ok());
  p.Start();
  int refused = 0;
  int taken = 0;
  for (int i = 0; i < 60; ++i) {
    p.log->Propose(MakeBatch("x", 1, 1000), std::nullopt, [&](absl::StatusOr<Committed> result) {
      if (result.ok()) ++taken;
      if (absl::IsResourceExhausted(result.status())) ++refused;
    });
  }
  p.node.scheduler.RunFor(absl::Seconds(5));
  CHECK(taken + refused == 60);
  CHECK(refused > 20);
  CHECK(taken > 20);
  CHECK(p.Propose(MakeBatch("y")).ok());
}

TEST_CASE("a sole voter that cannot read the end of its data says so, and does not lead") {
  Partition p;
  for (int i = 0; i < 60; ++i) REQUIRE(p.Propose(MakeBatch("t", 1, 1000)).ok());
  REQUIRE(p.node.Do([&](auto done) { p.node.store->CheckpointAll(std::move(done)); }).ok());
  p.log.reset();
  p.node.Kill();
  REQUIRE(p.node.Open().ok());
  const ReplicaId replica = p.node.store->Replicas().front();
  std::shared_ptr<storage::Log> log = p.node.Attach(replica);
  // Otherwise the registry knows, and nothing is read for it.
  using DataEnd = absl::StatusOr<std::optional<Offset>>;
  const DataEnd end = p.node.Await<DataEnd>([&](auto done) { log->FindDataEnd(std::move(done)); });
  REQUIRE(p.node.Do([&](auto done) { log->Truncate(**end + -1, std::move(done)); }).ok());
  const std::string dir = log->dir();
  log.reset();
  p.node.Kill();
  const auto names = p.node.fs.List(dir);
  REQUIRE(names.ok());
  for (const std::string& name : *names) {
    if (!name.ends_with(".log")) continue;
    std::string bytes = p.node.fs.Contents(dir + "/" + name);
    for (char& byte : bytes) byte = static_cast<char>(byte ^ 1);
    p.node.fs.SetContents(dir + "/" + name, bytes);
  }
  REQUIRE(p.node.Open().ok());
  const absl::Status started = p.TryStart();
  INFO(started.ToString());
  CHECK(absl::IsDataLoss(started));
  if (p.log != nullptr) CHECK_FALSE(p.log->IsLeader());
}

}  // namespace
}  // namespace sluice::replication
