#include "broker/controller.h"

#include <catch2/catch.hpp>

#include "common/record/record.h"
#include "tests/broker/control_rig.h"

namespace sluice::broker {
namespace {

TopicCreated Topic(uint64_t n) {
  TopicRecord topic{.id = Uuid::FromRandom(n, n), .name = "t" + std::to_string(n), .partitions = 1, .replicas = 1};
  topic.assignments = {{{.node = NodeId(1), .incarnation = Uuid{}}}};
  return {topic};
}

/// Takes nothing more once it is broken, as RocksDB after an I/O error: no damage, and no full disk.
class BreakableStore final : public storage::MetadataStore {
 public:
  explicit BreakableStore(std::unique_ptr<storage::MetadataStore> store) : store_(std::move(store)) {}
  absl::Status Apply(std::string_view machine, int64_t applied, const storage::MetadataChanges& changes) override {
    return broken ? absl::InternalError("an I/O error") : store_->Apply(machine, applied, changes);
  }
  absl::StatusOr<int64_t> Applied(std::string_view machine) override { return store_->Applied(machine); }
  absl::StatusOr<std::optional<std::string>> Get(std::string_view machine, std::string_view key) override {
    return store_->Get(machine, key);
  }
  absl::StatusOr<std::vector<storage::MetadataEntry>> Scan(std::string_view machine, std::string_view prefix) override {
    return store_->Scan(machine, prefix);
  }
  bool broken = false;

 private:
  const std::unique_ptr<storage::MetadataStore> store_;
};

ClusterFormed Formed() {
  return {.id = Uuid::FromRandom(5, 5), .name = "prod"};
}

TEST_CASE("what the leader commits is applied, saved and told at every replica") {
  ControlRig rig(3);
  rig.StartAll();
  rig.Change(Formed());
  rig.Change(Topic(1));
  rig.Change(Topic(2));
  rig.Change(TopicDeleted{Topic(1).topic.id});
  rig.Converge();
  for (auto& node : rig.nodes) {
    CHECK(node->controller->state().cluster_name == "prod");
    CHECK(node->controller->state().topics.size() == 1);
    CHECK(node->controller->state().dropping == DroppingMarks{{Topic(1).topic.id, 1}});
    ClusterDelta told;
    for (const auto& delta : node->witness->deltas) told.Merge(delta);
    CHECK(told.topics == std::set<TopicId>{Topic(2).topic.id});
    CHECK(told.deleted.contains(Topic(1).topic.id));
    CHECK(told.cluster);
  }
}

TEST_CASE("a change is refused where the controller does not lead, and nothing is written") {
  ControlRig rig(3);
  rig.StartAll();
  rig.Change(Formed());
  const NodeId leader = rig.Leader();
  const NodeId follower = rig.Follower();
  rig.Converge();
  const Offset end = rig.controller(leader).applied();
  const absl::Status refused = rig.Change(follower, Topic(1));
  CHECK(absl::IsUnavailable(refused));
  CHECK(refused.ToString().find("node " + std::to_string(leader.value()) + " leads") != std::string::npos);
  CHECK(rig.controller(follower).leader() == leader);
  rig.Converge();
  CHECK(rig.controller(leader).applied() == end);
}

TEST_CASE("a decision sees all changes before it, and may find that there is nothing to do") {
  ControlRig rig(3);
  rig.StartAll();
  const NodeId leader = rig.Leader();
  Controller& controller = rig.controller(leader);
  std::vector<size_t> seen;
  std::vector<absl::Status> answers;
  rig.node(leader).executor().Post([&] {
    for (uint64_t n = 1; n <= 3; ++n) {
      controller.Decide(
          [&seen, n](const ControllerState& state) -> absl::StatusOr<std::optional<ControllerChange>> {
            seen.push_back(state.topics.size());
            if (n == 2) return std::optional<ControllerChange>();
            return std::optional<ControllerChange>(Topic(n));
          },
          [&](absl::Status status) { answers.push_back(std::move(status)); });
    }
    controller.Decide(
        [](const ControllerState& state) -> absl::StatusOr<std::optional<ControllerChange>> {
          return absl::AlreadyExistsError(std::to_string(state.topics.size()));
        },
        [&](absl::Status status) { answers.push_back(std::move(status)); });
  });
  REQUIRE(rig.RunUntil([&] { return answers.size() == 4; }));
  CHECK(seen == std::vector<size_t>{0, 1, 1});
  CHECK(answers[0].ok());
  CHECK(answers[1].ok());
  CHECK(answers[2].ok());
  CHECK(answers[3] == absl::AlreadyExistsError("2"));
}

TEST_CASE("a change beyond the cluster's feature level is not proposed until the level is raised") {
  ControlRig rig(1);
  rig.StartAll();
  TopicCreated replicated = Topic(1);
  replicated.topic.assignments[0][0].incarnation = Uuid::FromRandom(8, 8);
  const absl::Status refused = rig.Change(NodeId(1), replicated);
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(refused.ToString().find("feature level is 0, this needs 1") != std::string::npos);
  rig.Change(FeatureLevelRaised{1});
  rig.Change(replicated);
  CHECK(rig.controller(NodeId(1)).state().topics.size() == 1);
}

TEST_CASE("a new leader has applied all that the one before committed before it takes changes") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    ControlRig rig(3, seed);
    rig.StartAll();
    uint64_t made = 0;
    for (int round = 0; round < 4; ++round) {
      const NodeId leader = rig.Leader();
      for (int i = 0; i < 5; ++i) rig.Change(Topic(++made));
      rig.node(leader).Crash();
      const NodeId next = rig.Leader(leader);
      CHECK(rig.controller(next).state().topics.size() == made);
      CHECK(rig.node(next).witness->leadership.back());
      rig.Start(leader);
    }
    rig.Converge();
  }
}

TEST_CASE("a leader that is cut off ceases to lead, and says so") {
  ControlRig rig(3);
  rig.StartAll();
  const NodeId old = rig.Leader();
  rig.network.Isolate(old);
  const NodeId next = rig.Leader(old);
  REQUIRE(rig.Change(next, Topic(1)).ok());
  REQUIRE(rig.RunUntil([&] { return !rig.controller(old).IsLeader(); }));
  CHECK(rig.node(old).witness->leadership == std::vector<bool>{true, false});
  CHECK(absl::IsUnavailable(rig.Change(old, Topic(2))));
  rig.network.HealAll();
  rig.Converge();
  CHECK(rig.controller(old).state().topics.size() == 1);
}

TEST_CASE("who waits for an offset hears when this node has applied it") {
  ControlRig rig(3);
  rig.StartAll();
  rig.Change(Topic(1));
  const NodeId follower = rig.Follower();
  const Offset next = rig.controller(rig.Leader()).applied() + 1;
  std::optional<absl::Status> heard;
  rig.node(follower).executor().Post(
      [&] { rig.controller(follower).WaitApplied(next, [&](absl::Status status) { heard = std::move(status); }); });
  rig.scheduler.RunFor(absl::Seconds(2));
  CHECK_FALSE(heard.has_value());
  rig.Change(Topic(2));
  REQUIRE(rig.RunUntil([&] { return heard.has_value(); }));
  CHECK(heard->ok());
  CHECK(rig.controller(follower).state().topics.size() == 2);
  CHECK(rig.node(follower).Saved().applied >= next);
}

TEST_CASE("a node whose metadata store has no room goes on when it has") {
  ControlRig rig(3);
  rig.StartAll();
  rig.Change(Topic(1));
  const NodeId follower = rig.Follower();
  rig.Converge();
  const Offset before = rig.node(follower).Saved().applied;
  rig.node(follower).fs.SetCapacity(rig.node(follower).fs.UsedBytes());
  rig.Change(Topic(2));
  rig.Change(Topic(3));
  rig.scheduler.RunFor(absl::Seconds(3));
  CHECK(rig.node(follower).Saved().applied == before);
  const size_t told = rig.node(follower).witness->deltas.size();
  rig.node(follower).fs.SetCapacity(-1);
  rig.Converge();
  CHECK(rig.controller(follower).state().topics.size() == 3);
  CHECK(rig.node(follower).witness->deltas.size() > told);
}

TEST_CASE("a change that could not be read again is refused, and the controller goes on, also after a restart") {
  ControlRig rig(1);
  rig.StartAll();
  const NodeId leader = rig.Leader();
  NodeRegistered node;
  node.node.id = leader;
  node.node.disk = Uuid::FromRandom(1, 1);
  node.node.incarnation = Uuid::FromRandom(2, 2);
  for (const std::string& rack : {std::string(5000, 'r'), std::string("\xff")}) {
    node.node.rack = rack;
    const absl::Status refused = rig.Change(leader, node);
    INFO(refused);
    CHECK(absl::IsFailedPrecondition(refused));
  }
  node.node.rack = "r";
  rig.Change(node);
  rig.node(leader).Kill();
  rig.Start(leader);
  rig.Converge();
  CHECK(rig.controller(leader).state().nodes.at(leader).node.rack == "r");
}

TEST_CASE("a metadata store that has failed ends the controller, and who waits is told") {
  ControlRig rig(1);
  const NodeId leader(1);
  ControlNode& node = rig.node(leader);
  node.Boot();
  auto breakable = std::make_unique<BreakableStore>(std::move(node.meta));
  BreakableStore& store = *breakable;
  node.meta = std::move(breakable);
  REQUIRE(node.StartController({.replica = kControllerReplica,
                                .settings = {},
                                .incarnation = node.incarnation(),
                                .members = rig.Members(1)})
              .ok());
  rig.Change(Topic(1));
  Controller& controller = rig.controller(leader);
  std::vector<absl::Status> waited;
  const auto wait = [&] {
    rig.node(leader).executor().Post([&] {
      controller.WaitApplied(Offset(1000), [&](absl::Status status) { waited.push_back(std::move(status)); });
    });
  };
  wait();
  store.broken = true;
  CHECK(absl::IsUnknown(rig.Change(leader, Topic(2))));
  const absl::Status& failure = rig.node(leader).witness->failure;
  REQUIRE(rig.RunUntil([&] { return !failure.ok(); }, absl::Seconds(5)));
  CHECK(absl::IsInternal(failure));
  CHECK_FALSE(controller.IsLeader());
  CHECK(absl::IsUnavailable(rig.Change(leader, Topic(3))));
  wait();
  REQUIRE(rig.RunUntil([&] { return waited.size() == 2; }, absl::Seconds(5)));
  for (const absl::Status& status : waited) CHECK(absl::IsUnavailable(status));
  // What is committed is there once the store was opened anew, as by the next process.
  rig.node(leader).Kill();
  rig.Start(leader);
  rig.Converge();
  CHECK(rig.controller(leader).state().topics.size() == 2);
}

TEST_CASE("a log that has failed ends the controller, also where something is left to be saved") {
  for (const bool full : {false, true}) {
    ControlRig rig(3);
    rig.StartAll();
    rig.Change(Topic(1));
    rig.Converge();
    const NodeId follower = rig.Follower();
    ControlNode& node = rig.node(follower);
    if (full) {
      node.fs.SetCapacity(node.fs.UsedBytes());
      rig.Change(Topic(2));
      rig.scheduler.RunFor(absl::Seconds(2));
    }
    node.fs.FailSyncsOf(".journal", 1);
    rig.Change(Topic(3));
    REQUIRE(rig.RunUntil([&] { return !node.controller->log()->failure().ok(); }, absl::Seconds(10)));
    REQUIRE(rig.RunUntil([&] { return !node.witness->failure.ok(); }, absl::Seconds(2)));
    INFO(node.witness->failure);
    CHECK(absl::IsUnavailable(node.witness->failure));
    CHECK(node.witness->failure.ToString().find("the controller's log has failed") != std::string::npos);
    std::optional<absl::Status> waited;
    node.executor().Post([&] { node.controller->WaitApplied(Offset(1000), [&](auto status) { waited = status; }); });
    REQUIRE(rig.RunUntil([&] { return waited.has_value(); }, absl::Seconds(1)));
    CHECK(absl::IsUnavailable(*waited));
    // The next process goes on.
    node.Kill();
    node.fs.SetCapacity(-1);
    rig.Start(follower);
    rig.Converge();
    CHECK(node.controller->state().topics.size() == (full ? 3 : 2));
  }
}

TEST_CASE("a controller whose node begins to stop keeps nobody waiting, and goes on otherwise") {
  ControlRig rig(3);
  rig.StartAll();
  const NodeId follower = rig.Follower();
  Controller& controller = rig.controller(follower);
  std::vector<absl::Status> waited;
  const auto wait = [&] {
    controller.WaitApplied(Offset(1000), [&](absl::Status status) { waited.push_back(std::move(status)); });
  };
  rig.node(follower).executor().Post([&] {
    wait();
    controller.GiveUpWaiting();
    wait();
  });
  REQUIRE(rig.RunUntil([&] { return waited.size() == 2; }, absl::Seconds(1)));
  for (const absl::Status& status : waited) CHECK(absl::IsUnavailable(status));
  rig.Change(Topic(1));
  rig.Converge();
  CHECK(controller.state().topics.size() == 1);
}

TEST_CASE("a record of a kind that is not known ends the controller, naming its offset") {
  ControlRig rig(3);
  rig.StartAll();
  rig.Change(Topic(1));
  rig.Converge();
  const NodeId leader = rig.Leader();
  record::BatchBuilder builder;
  REQUIRE(builder.Append(0, std::nullopt, std::string_view("\x7a\x00", 2)).ok());
  auto batch = builder.Build();
  const auto written = rig.Await<absl::StatusOr<replication::Committed>>(leader, [&](auto done) {
    rig.controller(leader).log()->Propose(*std::move(batch), std::nullopt, std::move(done));
  });
  REQUIRE(written.ok());
  for (auto& node : rig.nodes) {
    REQUIRE(rig.RunUntil([&] { return !node->witness->failure.ok(); }));
    CHECK(absl::IsDataLoss(node->witness->failure));
    const std::string text = node->witness->failure.ToString();
    CHECK(text.find("at offset " + std::to_string(written->base_offset.value())) != std::string::npos);
    CHECK_FALSE(node->controller->IsLeader());
  }
  CHECK(absl::IsUnavailable(rig.Change(leader, Topic(2))));
}

TEST_CASE("a metadata store that is ahead of the log that leads is data loss") {
  ControlRig rig(1);
  rig.StartAll();
  rig.Change(Topic(1));
  rig.Converge();
  REQUIRE(rig.node(NodeId(1)).meta->Apply(kControllerMachine, 1000, {}).ok());
  rig.node(NodeId(1)).Kill();
  const absl::Status started = rig.node(NodeId(1)).TryStart(rig.Members(1));
  CHECK(absl::IsDataLoss(started));
  CHECK(started.ToString().find("not of one data folder") != std::string::npos);
}

TEST_CASE("a controller stops with answers for everybody") {
  ControlRig rig(3);
  rig.StartAll();
  const NodeId leader = rig.Leader();
  Controller& controller = rig.controller(leader);
  std::vector<absl::Status> answers;
  bool stopped = false;
  rig.node(leader).executor().Post([&] {
    const auto answer = [&](absl::Status status) { answers.push_back(std::move(status)); };
    controller.Change(Topic(1), answer);
    controller.Change(Topic(2), answer);
    controller.WaitApplied(Offset(1000), answer);
    controller.Stop([&] { stopped = true; });
  });
  REQUIRE(rig.RunUntil([&] { return stopped && answers.size() == 3; }));
  for (const auto& answer : answers) CHECK_FALSE(answer.ok());
  rig.scheduler.RunFor(absl::Seconds(1));
  CHECK(controller.log() == nullptr);
}

}  // namespace
}  // namespace sluice::broker
