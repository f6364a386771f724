// A partition between two leaders: its appends wait a moment, and are answered when it is known where they belong.
#include "broker/partition.h"

#include <catch2/catch.hpp>

#include "common/text.h"
#include "tests/simulation/raft_cluster.h"

namespace sluice::broker {
namespace {

using simulation::MakeBatch;
using simulation::RaftCluster;

class BorrowedLog : public PartitionLog {
 public:
  explicit BorrowedLog(replication::RaftLog& log) : log_(log) {}
  replication::RaftLog& log() override { return log_; }
  void Configure(const LogSettings&) override {}
  void ApplyRetention(const RetentionPolicy&, Callback<absl::StatusOr<Offset>>) override {}
  void Stop(absl::AnyInvocable<void()> done) override {
    log_.Stop();
    done();
  }

 private:
  replication::RaftLog& log_;
};

/// Three replicas of one partition, each on a node of its own.
class Replicas {
 public:
  Replicas() {
    cluster_.StartAll();
    addresses_.Set(
        {{NodeId(1), {.client = "one:1"}}, {NodeId(2), {.client = "two:1"}}, {NodeId(3), {.client = "three:1"}}});
    for (int i = 1; i <= 3; ++i) {
      shared_.push_back(Partition::Node{.clock = cluster_.clock,
                                        .memory = *memory_,
                                        .disk = disk_,
                                        .id = NodeId(i),
                                        .address = addresses_.ClientAddress(NodeId(i)),
                                        .addresses = addresses_});
    }
    for (int i = 1; i <= 3; ++i) {
      partitions_.push_back(std::make_shared<Partition>(
          shared_[static_cast<size_t>(i - 1)],
          Partition::Identity{.replica = RaftCluster::Group(),
                              .topic = "t",
                              .settings = {},
                              .replicas = {NodeId(1), NodeId(2), NodeId(3)}},
          cluster_.node(NodeId(i)).shard(), std::make_unique<BorrowedLog>(cluster_.log(NodeId(i)))));
    }
    cluster_.Write("first");
    cluster_.Converge();
  }

  RaftCluster& cluster() { return cluster_; }
  const MemoryQuota& memory() const { return *memory_; }
  Partition& at(NodeId node) { return *partitions_[static_cast<size_t>(node.value() - 1)]; }
  NodeId Other(NodeId than) { return NodeId(than == NodeId(1) ? 2 : 1); }
  void Do(NodeId node, absl::AnyInvocable<void()> what) { cluster_.node(node).shard().Post(std::move(what)); }

  struct Appended {
    std::shared_ptr<SessionLane> lane = std::make_shared<SessionLane>();
    std::vector<std::optional<ProduceOutcome>> answers = {};
    bool all() const {
      return std::all_of(answers.begin(), answers.end(), [](const auto& answer) { return answer.has_value(); });
    }
  };
  /// To be called on the node's shard.
  void Append(NodeId node, const std::string& text, const std::shared_ptr<Appended>& appended) {
    const size_t index = appended->answers.size();
    appended->answers.emplace_back();
    PartitionAppend append;
    append.batch = MakeBatch(text, 1, 20);
    append.hold = memory_->Take(20);
    append.lane = appended->lane;
    append.done = [appended, index](ProduceOutcome outcome) { appended->answers[index] = std::move(outcome); };
    at(node).Append(std::move(append));
  }

 private:
  std::shared_ptr<MemoryQuota> memory_ = std::make_shared<MemoryQuota>(1 << 20);
  DiskWatermarks disk_{0, 0};
  AddressBook addresses_;
  RaftCluster cluster_;
  std::vector<Partition::Node> shared_;
  std::vector<std::shared_ptr<Partition>> partitions_;
};

TEST_CASE("appends that come while leadership is handed over are sent on once the other leads, in one step") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const NodeId next = r.Other(old);
  const auto appended = std::make_shared<Replicas::Appended>();
  r.Do(old, [&] {
    REQUIRE(r.at(old).TransferLeadership(next).ok());
    r.Append(old, "a", appended);
    r.Append(old, "b", appended);
  });
  REQUIRE(r.cluster().RunUntil([&] { return !appended->answers.empty() && appended->all(); }, absl::Seconds(2)));
  CHECK(r.cluster().log(next).raft().role() == raft::Role::kLeader);
  for (const auto& answer : appended->answers) {
    REQUIRE_FALSE(answer->ok());
  }
  CHECK(appended->answers[0]->error().reason == Reason::kNotLeader);
  CHECK(appended->answers[0]->error().leader == (next == NodeId(1) ? "one:1" : "two:1"));
  CHECK(appended->answers[1]->error().reason == Reason::kSequenceBroken);

  // It leads, and has committed nothing of its own yet: what comes there now is not sent away again.
  const auto followed = std::make_shared<Replicas::Appended>();
  const bool served = r.cluster().log(next).IsLeader();
  r.Do(next, [&] {
    r.Append(next, "a", followed);
    r.Append(next, "b", followed);
  });
  REQUIRE(r.cluster().RunUntil([&] { return !followed->answers.empty() && followed->all(); }, absl::Seconds(2)));
  CHECK_FALSE(served);
  for (const auto& answer : followed->answers) {
    INFO((answer->ok() ? std::string() : answer->error().message));
    CHECK(answer->ok());
  }
  CHECK(followed->answers[0]->value().next_offset <= followed->answers[1]->value().base_offset);
}

TEST_CASE("appends wait only so long for a hand-over to one that has gone") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const NodeId next = r.Other(old);
  const auto appended = std::make_shared<Replicas::Appended>();
  r.cluster().network.Isolate(next);
  const absl::Duration from = r.cluster().scheduler.now();
  r.Do(old, [&] {
    REQUIRE(r.at(old).TransferLeadership(next).ok());
    r.Append(old, "a", appended);
  });
  REQUIRE(r.cluster().RunUntil([&] { return !appended->answers.empty() && appended->all(); }, absl::Seconds(2)));
  CHECK(r.cluster().scheduler.now() - from >= Partition::kLeaderWaitMax);
  CHECK(appended->answers[0]->error().reason == Reason::kNotLeader);
  // It gives the hand-over up, and takes what comes then.
  const auto later = std::make_shared<Replicas::Appended>();
  REQUIRE(r.cluster().RunUntil([&] { return r.cluster().LeaderNow() == old; }, absl::Seconds(5)));
  r.Do(old, [&] { r.Append(old, "a", later); });
  REQUIRE(r.cluster().RunUntil([&] { return !later->answers.empty() && later->all(); }, absl::Seconds(2)));
  CHECK(later->answers[0]->ok());
}

TEST_CASE("an append where nobody leads is refused after a while, and from then on at once") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const NodeId left = r.Other(old);
  for (int i = 1; i <= 3; ++i) {
    if (NodeId(i) != left) r.cluster().network.Isolate(NodeId(i));
  }
  REQUIRE(r.cluster().RunUntil([&] { return !r.cluster().log(left).leader().has_value(); }));
  const auto refused_after = [&] {
    const auto appended = std::make_shared<Replicas::Appended>();
    const absl::Duration from = r.cluster().scheduler.now();
    r.Do(left, [&] { r.Append(left, "a", appended); });
    REQUIRE(r.cluster().RunUntil([&] { return !appended->answers.empty() && appended->all(); }, absl::Seconds(2)));
    CHECK(appended->answers[0]->error().reason == Reason::kNotLeader);
    CHECK(appended->answers[0]->error().retriable);
    return r.cluster().scheduler.now() - from;
  };
  CHECK(refused_after() >= Partition::kLeaderWaitMax);
  CHECK(refused_after() < absl::Milliseconds(1));
  r.cluster().network.HealAll();
  REQUIRE(r.cluster().RunUntil([&] { return r.cluster().log(left).leader().has_value(); }));
  for (int i = 1; i <= 3; ++i) {
    if (NodeId(i) != left) r.cluster().network.Isolate(NodeId(i));
  }
  REQUIRE(r.cluster().RunUntil([&] { return !r.cluster().log(left).leader().has_value(); }));
  CHECK(refused_after() >= Partition::kLeaderWaitMax);
}

TEST_CASE("after a wait in vain appends wait again for one that was elected and serves in a moment") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const NodeId next = r.Other(old);
  for (int i = 1; i <= 3; ++i) r.cluster().network.Isolate(NodeId(i));
  REQUIRE(r.cluster().RunUntil([&] { return !r.cluster().log(next).leader().has_value(); }));
  const auto refused = std::make_shared<Replicas::Appended>();
  r.Do(next, [&] { r.Append(next, "a", refused); });
  REQUIRE(r.cluster().RunUntil([&] { return !refused->answers.empty() && refused->all(); }, absl::Seconds(2)));
  CHECK_FALSE(refused->answers[0]->ok());
  r.cluster().network.HealAll();
  REQUIRE(r.cluster().RunUntil([&] {
    const replication::RaftLog& log = r.cluster().log(next);
    if (log.raft().role() == raft::Role::kFollower && !log.leader()) (void)r.cluster().log(next).Campaign();
    return log.raft().role() == raft::Role::kLeader;
  }));
  REQUIRE_FALSE(r.cluster().log(next).IsLeader());
  const auto taken = std::make_shared<Replicas::Appended>();
  r.Do(next, [&] { r.Append(next, "a", taken); });
  REQUIRE(r.cluster().RunUntil([&] { return !taken->answers.empty() && taken->all(); }, absl::Seconds(2)));
  INFO((taken->answers[0]->ok() ? std::string() : taken->answers[0]->error().message));
  CHECK(taken->answers[0]->ok());
}

TEST_CASE("what waits for a leader is refused when the node gives up waiting, and its memory is given back") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const auto waiting = std::make_shared<Replicas::Appended>();
  const absl::Duration from = r.cluster().scheduler.now();
  r.cluster().network.Isolate(r.Other(old));
  r.Do(old, [&] {
    REQUIRE(r.at(old).TransferLeadership(r.Other(old)).ok());
    r.Append(old, "a", waiting);
    r.Append(old, "b", waiting);
    CHECK(r.memory().used() == 40);
    r.at(old).GiveUpWaiting();
  });
  REQUIRE(r.cluster().RunUntil([&] { return !waiting->answers.empty() && waiting->all(); }, absl::Seconds(2)));
  CHECK(r.cluster().scheduler.now() - from < Partition::kLeaderWaitMax);
  CHECK_FALSE(waiting->answers[0]->ok());
  CHECK_FALSE(waiting->answers[1]->ok());
  CHECK(r.memory().used() == 0);
}

TEST_CASE("a client that reads what is damaged at the leader is sent on, to who leads next") {
  Replicas r;
  const NodeId bad = r.cluster().DamagedLeader();
  const auto read_at = [&](NodeId node) {
    const auto read = std::make_shared<std::optional<PartitionRead>>();
    r.Do(node, [&r, node, read] {
      r.at(node).Read(Offset(1), 100'000, LeaderEpoch(0), [read](PartitionRead got) { *read = std::move(got); });
    });
    REQUIRE(r.cluster().RunUntil([&] { return read->has_value(); }));
    return *std::move(*read);
  };
  CHECK_FALSE(r.at(bad).stats().failed);
  const PartitionRead refused = read_at(bad);
  REQUIRE(refused.error.has_value());
  CHECK(refused.error->reason == Reason::kNotLeader);
  CHECK(refused.error->retriable);
  CHECK(refused.error->message.find("CRC32C") != std::string::npos);
  CHECK(r.at(bad).stats().failed);
  const NodeId next = r.cluster().Leader(0, bad);
  const PartitionRead read = read_at(next);
  REQUIRE_FALSE(read.error.has_value());
  CHECK(read.batches.size() > 40);
  // While others lead it is no trouble of the partition's; where nobody can, it may be why.
  REQUIRE(r.cluster().RunUntil([&] { return r.cluster().log(bad).leader() == next; }));
  CHECK_FALSE(r.at(bad).info().error.has_value());
  r.cluster().Crash(next);
  r.cluster().Crash(NodeId(6 - next.value() - bad.value()));
  REQUIRE(r.cluster().RunUntil([&] { return !r.cluster().log(bad).leader().has_value(); }));
  const auto why = r.at(bad).info().error;
  REQUIRE(why.has_value());
  CHECK(why->reason == Reason::kCorruptLog);
  CHECK(why->message.find(Cat("node ", bad, " cannot lead")) != std::string::npos);
  CHECK(why->message.find("CRC32C") != std::string::npos);
}

TEST_CASE("what waits for a leader is refused when the partition goes") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const auto waiting = std::make_shared<Replicas::Appended>();
  const absl::Duration from = r.cluster().scheduler.now();
  r.cluster().network.Isolate(r.Other(old));
  r.Do(old, [&] {
    REQUIRE(r.at(old).TransferLeadership(r.Other(old)).ok());
    r.Append(old, "a", waiting);
    r.at(old).Stop(Reason::kUnknownTopic, "the topic was deleted", [] {});
  });
  REQUIRE(r.cluster().RunUntil([&] { return !waiting->answers.empty() && waiting->all(); }, absl::Seconds(2)));
  CHECK(r.cluster().scheduler.now() - from < Partition::kLeaderWaitMax);
  CHECK(waiting->answers[0]->error().message == "the topic was deleted");
}

TEST_CASE("appends keep their order however they fall around the moment in which a leader begins to serve") {
  Replicas r;
  const NodeId old = r.cluster().Leader();
  const NodeId next = r.Other(old);
  r.Do(old, [&] { REQUIRE(r.at(old).TransferLeadership(next).ok()); });
  REQUIRE(r.cluster().RunUntil([&] { return r.cluster().log(next).raft().role() == raft::Role::kLeader; }));
  REQUIRE_FALSE(r.cluster().log(next).IsLeader());
  const auto appended = std::make_shared<Replicas::Appended>();
  int more = 20;  // after it serves
  while (more > 0) {
    r.Do(next, [&] { r.Append(next, "a", appended); });
    r.cluster().RunFor(absl::Microseconds(20));
    REQUIRE(appended->answers.size() < 10'000);
    if (r.cluster().log(next).IsLeader()) --more;
  }
  REQUIRE(r.cluster().RunUntil([&] { return appended->all() && appended->answers.size() > 20; }, absl::Seconds(2)));
  Offset after{0};
  for (const auto& answer : appended->answers) {
    INFO((answer->ok() ? std::string() : answer->error().message));
    REQUIRE(answer->ok());
    CHECK(answer->value().base_offset >= after);
    after = answer->value().next_offset;
  }
}

TEST_CASE("of a replica that cannot be opened clients are sent to a majority elsewhere, and are else told why") {
  simulation::SimScheduler scheduler(1);
  simulation::SimClock clock(scheduler);
  simulation::SimExecutor shard(scheduler);
  const auto memory = std::make_shared<MemoryQuota>(1 << 20);
  const DiskWatermarks disk(0, 0);
  AddressBook addresses;
  addresses.Set({{NodeId(1), {.client = "one:1"}},
                 {NodeId(2), {.client = "two:1", .alive = false}},
                 {NodeId(3), {.client = "three:1"}}});
  const Partition::Node node{
      .clock = clock, .memory = *memory, .disk = disk, .id = NodeId(1), .address = "one:1", .addresses = addresses};
  const auto lane = std::make_shared<SessionLane>();
  const auto refused = [&](std::vector<NodeId> replicas, const absl::Status& why) {
    const auto partition = std::make_shared<Partition>(
        node,
        Partition::Identity{
            .replica = RaftCluster::Group(), .topic = "t", .settings = {}, .replicas = std::move(replicas)},
        shard, why);
    CHECK(partition->stats().failed);
    // Whoever asks this node for the leader is to come here where nobody else has the partition.
    CHECK((partition->info().leader_node == NodeId(1)) == (partition->replicas().size() == 1));
    std::vector<Error> errors = {*partition->info().error};
    const auto take = [&](const std::optional<Error>& error) {
      REQUIRE(error.has_value());
      CHECK(error->message.find(std::string(why.message())) != std::string::npos);
      errors.push_back(*error);
    };
    shard.Post([&] {
      partition->Read(Offset(0), 1, LeaderEpoch(0), [&](const PartitionRead& got) { take(got.error); });
      partition->ListOffsets({}, [&](const ListOffsetsOutcome& got) { take(got.error); });
      partition->DeleteRecords(Offset(1), [&](const DeleteRecordsOutcome& got) { take(got.error); });
      PartitionAppend append;
      append.batch = MakeBatch("a", 1, 20);
      append.lane = lane;
      append.reset = true;
      append.done = [&](const ProduceOutcome& got) { take(got.error()); };
      partition->Append(std::move(append));
    });
    while (errors.size() < 5) REQUIRE(scheduler.Step());
    CHECK(lane->broken);
    for (size_t i = 2; i < errors.size(); ++i) CHECK(errors[i].reason == errors[1].reason);
    return std::pair(errors[0], errors[1]);
  };
  const absl::Status damage = absl::DataLossError("data/0.log: at byte 7: damage");
  const auto [reason, elsewhere] = refused({NodeId(1), NodeId(2), NodeId(3)}, damage);
  CHECK(reason.reason == Reason::kCorruptLog);
  CHECK(elsewhere.reason == Reason::kNotLeader);
  CHECK(elsewhere.retriable);
  CHECK(elsewhere.leader == "three:1");
  CHECK(refused({NodeId(1)}, damage).second.reason == Reason::kCorruptLog);
  // Two replicas are a majority only together.
  CHECK(refused({NodeId(1), NodeId(3)}, damage).second.reason == Reason::kCorruptLog);
  const absl::Status full = absl::ResourceExhaustedError("data: no space left on device");
  CHECK(refused({NodeId(1), NodeId(3)}, full).second.reason == Reason::kDiskFull);
  CHECK(refused({NodeId(1), NodeId(2), NodeId(3)}, full).second.reason == Reason::kNotLeader);
}

}  // namespace
}  // namespace sluice::broker
