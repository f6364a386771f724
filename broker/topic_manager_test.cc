// What is asked of topics, on simulated nodes that have nothing but group 0.
#include "broker/topic_manager.h"

#include <catch2/catch.hpp>

#include <functional>
#include <string>

#include "broker/error.h"
#include "tests/broker/control_rig.h"

namespace sluice::broker {
namespace {

/// Whose logs are never open.
class StuckLogs final : public LogFactory {
 public:
  std::vector<ReplicaId> Replicas() const override { return {}; }
  void Open(ReplicaSpec, Executor&, Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) override {
    opening_.push_back(std::move(done));
  }
  void LeaveLeadership(absl::Duration, Executor&, Callback<absl::Status> done) override { done(absl::OkStatus()); }
  void Drop(const ReplicaId&, Executor&, Callback<absl::Status> done) override { done(absl::OkStatus()); }

 private:
  std::vector<Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>>> opening_;
};

/// A TopicManager, and what it stands on, at one node of a rig.
class Topics {
 public:
  Topics(ControlRig& rig, NodeId at) : Topics(rig, at, *rig.node(at).logs) {}
  Topics(ControlRig& rig, NodeId at, LogFactory& logs) : rig_(rig), at_(at), shards_{&rig.node(at).executor()} {
    reconciler = std::make_unique<Reconciler>(TopicSettings{}, Reconciler::Seams{.shards = shards_,
                                                                                 .controller = rig.controller(at),
                                                                                 .logs = logs,
                                                                                 .node = node_,
                                                                                 .addresses = addresses_,
                                                                                 .catalog = catalog,
                                                                                 .log = rig.logger});
    manager = std::make_unique<TopicManager>(
        TopicManager::Options{.node = at, .defaults = {}, .message_bytes_max = int64_t{16} << 20},
        TopicManager::Seams{.home = rig.node(at).executor(),
                            .controller = rig.controller(at),
                            .reconciler = *reconciler,
                            .clock = rig.clock,
                            .random = rig.node(at).random,
                            .log = log_,
                            .forward = &forward,
                            .without_room = [this] { return without_room; }});
  }

  Result<TopicInfo> Apply(TopicChange change) {
    return rig_.Await<Result<TopicInfo>>(
        at_, [this, change = std::move(change)](auto done) { manager->Apply(change, std::move(done)); });
  }
  Result<TopicChanged> Decide(TopicChange change) {
    return rig_.Await<Result<TopicChanged>>(
        at_, [this, change = std::move(change)](auto done) { manager->Decide(change, std::move(done)); });
  }

  absl::Status Reconcile() {
    return rig_.Await<absl::Status>(at_, [this](auto done) { reconciler->Start(std::move(done)); });
  }

  /// As the leader learns it from the nodes' heartbeats: all disks but its own are full.
  void KnowFullDisks() {
    for (auto& node : rig_.nodes) {
      if (node->id != at_) without_room.push_back(node->id);
    }
  }
  bool NamesFullDisks(const Error& error) const {
    std::string names;
    for (const NodeId node : without_room) names += Cat(names.empty() ? "node " : ", node ", node);
    return error.message.find(Cat("on the disk of ", names, " (")) != std::string::npos;
  }

  TopicManager::Forward forward = [](NodeId, const TopicChange&, Callback<Result<TopicChanged>> done) {
    done(MakeError(Reason::kNotLeader, "another one leads"));
  };
  std::vector<NodeId> without_room;
  std::string lines;  ///< That the manager has logged.
  CatalogCell catalog;
  std::unique_ptr<Reconciler> reconciler;
  std::unique_ptr<TopicManager> manager;

 private:
  Logger Lines() {
    LogOptions options;
    options.write = [this](std::string_view line) { lines += line; };
    return Logger(std::move(options));
  }

  ControlRig& rig_;
  const NodeId at_;
  const Logger log_ = Lines();
  std::vector<Executor*> shards_;
  MemoryQuota memory_{int64_t{1} << 20};
  DiskWatermarks disk_{0, 0};
  AddressBook addresses_;
  const Partition::Node node_{
      .clock = rig_.clock, .memory = memory_, .disk = disk_, .id = at_, .address = "n:7400", .addresses = addresses_};
};

NodeRegistered Registered(int id) {
  const auto n = static_cast<uint64_t>(id);
  return {{.id = NodeId(id), .disk = Uuid::FromRandom(n, 1), .incarnation = Uuid::FromRandom(n, 2), .feature_max = 1}};
}

/// Registers nodes 1 to `count`; all but the first are fenced.
void Register(ControlRig& rig, int count) {
  for (int id = 1; id <= count; ++id) rig.Change(Registered(id));
}

std::vector<ControllerChange> Unfenced(ControlRig& rig) {
  std::vector<ControllerChange> changes;
  for (const auto& [id, node] : rig.controller(rig.Leader()).state().nodes) {
    changes.emplace_back(NodeUnfenced{id, node.epoch});
  }
  return changes;
}

TEST_CASE("a change waits for a leader by time, however long each try takes") {
  ControlRig rig(3);
  rig.StartAll();
  Topics topics(rig, rig.Follower());
  int tries = 0;
  topics.forward = [&](NodeId, const TopicChange&, Callback<Result<TopicChanged>> done) {
    ++tries;
    rig.scheduler.At(absl::Seconds(2),
                     [done = std::move(done)]() mutable { done(MakeError(Reason::kNotLeader, "another one leads")); });
  };
  const absl::Duration began = rig.scheduler.now();
  const auto answer = topics.Apply(DeleteTopicSpec{"t"});
  REQUIRE_FALSE(answer.ok());
  CHECK(answer.error().retriable);
  CHECK(rig.scheduler.now() - began < absl::Seconds(8));
  CHECK(tries == 3);
}

TEST_CASE("a topic is not promised batches that no client could send, or no node could replicate") {
  ControlRig rig(1);
  rig.StartAll();
  Register(rig, 1);
  Topics topics(rig, NodeId(1));
  const auto refused = [&](TopicChange change) {
    const auto changed = topics.Decide(std::move(change));
    return changed.ok() ? std::string() : changed.error().message;
  };
  const auto with = [](const char* bytes) { return TopicConfig{{"max.message.bytes", bytes}}; };
  // The rig's client messages may have 16 MiB.
  const std::string large = refused(CreateTopicSpec{.name = "t", .config = with("16777217")});
  CHECK(large.find("max.message.bytes: 16777217") == 0);
  CHECK(large.find("limits.message_bytes of the nodes' configuration, 16777216") != std::string::npos);
  CHECK(refused(CreateTopicSpec{.name = "t", .config = with("33554433")}).find("33554432") != std::string::npos);
  REQUIRE(topics.Decide(CreateTopicSpec{.name = "t", .config = with("16777216")}).ok());
  CHECK_FALSE(refused(AlterTopicSpec{.name = "t", .set = with("16777217"), .unset = {}}).empty());
  CHECK(refused(AlterTopicSpec{.name = "t", .set = with("2000000"), .unset = {}}).empty());
}

TEST_CASE("a setting that is none, or out of its range, is refused by name when a topic is made or altered") {
  ControlRig rig(1);
  rig.StartAll();
  Register(rig, 1);
  Topics topics(rig, NodeId(1));
  REQUIRE(topics.Decide(CreateTopicSpec{.name = "t"}).ok());
  const auto refused = [&](TopicChange change) {
    const auto changed = topics.Decide(std::move(change));
    return changed.ok() ? std::string() : changed.error().message;
  };
  for (const auto& [key, value] : TopicConfig{{"retention.ms", "-2"},
                                              {"segment.bytes", "10"},
                                              {"cleanup.policy", "compact"},
                                              {"min.insync.replicas", "2"},
                                              {"retention.hours", "1"}}) {
    CAPTURE(key);
    CHECK(refused(CreateTopicSpec{.name = "u", .config = {{key, value}}}).starts_with(key + ": "));
    CHECK(refused(AlterTopicSpec{.name = "t", .set = {{key, value}}, .unset = {}}).starts_with(key + ": "));
  }
  const std::string unset = refused(AlterTopicSpec{.name = "t", .set = {}, .unset = {"min.insync.replicas"}});
  CHECK(unset.find("a majority of the partition's replicas has it on disk") != std::string::npos);
  CHECK(refused(AlterTopicSpec{.name = "t", .set = {}, .unset = {"retention.ms"}}).empty());
}

TEST_CASE("a replicated topic waits for the feature level and for nodes that have just come") {
  ControlRig rig(1);
  rig.StartAll();
  Register(rig, 3);
  Topics topics(rig, NodeId(1));
  rig.scheduler.At(absl::Milliseconds(400), [&] {
    rig.node(NodeId(1)).executor().Post([&] {
      Controller& controller = rig.controller(NodeId(1));
      controller.Change(FeatureLevelRaised{1}, [](const absl::Status&) {});
      for (const auto& [id, node] : controller.state().nodes) {
        controller.Change(NodeUnfenced{id, node.epoch}, [](const absl::Status&) {});
      }
    });
  });
  const auto made = topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 3});
  INFO((made.ok() ? std::string() : made.error().message));
  REQUIRE(made.ok());
  CHECK(made.value().topic.replicas == 3);
}

TEST_CASE("where the feature level does not rise the answer says why, and that later may do") {
  ControlRig rig(1);
  rig.StartAll();
  Register(rig, 2);
  Topics topics(rig, NodeId(1));
  const auto refused = topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 2});
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().reason == Reason::kNotAvailable);
  CHECK(refused.error().retriable);
  CHECK(refused.error().message.find("feature level is 0") != std::string::npos);
  const auto alone = topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 1});
  CHECK(alone.ok());
}

TEST_CASE("below the low watermark of the disk topics are deleted and altered, and none is made or widened") {
  ControlRig rig(3);
  rig.disk_low_bytes = 1 << 20;
  rig.StartAll();
  const NodeId leader = rig.Leader();
  Topics topics(rig, leader);
  for (const char* name : {"a", "b"}) {
    REQUIRE(topics.Decide(CreateTopicSpec{.name = name, .partitions = 1, .replicas = 1}).ok());
  }
  for (auto& node : rig.nodes) {
    node->fs.SetCapacity(node->fs.UsedBytes() + (512 << 10));
    topics.without_room.push_back(node->id);
  }
  rig.scheduler.RunFor(absl::Seconds(20));
  for (auto& node : rig.nodes) {
    storage::Log& log = rig.controller(node->id).log()->storage_log();
    REQUIRE(log.Admit(100).ok());
  }
  CHECK(topics.Decide(DeleteTopicSpec{"a"}).ok());
  CHECK(topics.Decide(AlterTopicSpec{.name = "b", .set = {{"retention.bytes", "1000000"}}, .unset = {}}).ok());
  for (const TopicChange& change : {TopicChange(CreateTopicSpec{.name = "c", .partitions = 1, .replicas = 1}),
                                    TopicChange(AddPartitionsSpec{"b", 2})}) {
    const auto refused = topics.Decide(change);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().reason == Reason::kDiskFull);
    CHECK(refused.error().message.find("on the disk of node 1, node 2, node 3") != std::string::npos);
  }
  rig.Converge();
  CHECK(rig.controller(leader).state().topics.size() == 1);
}

void FillAllButTheLeader(ControlRig& rig) {
  for (auto& node : rig.nodes) {
    if (node->id != rig.Leader()) node->fs.SetCapacity(node->fs.UsedBytes());
  }
}

/// Makes changes until one finds no room: that one's answer. `*made` counts them, that one included.
Result<TopicChanged> GetStuck(Topics& topics, const std::function<TopicChange(int)>& change, int* made) {
  for (int tries = 0; tries < 5000; ++tries) {
    auto answer = topics.Decide(change(++*made));
    if (!answer.ok()) return answer;
  }
  FAIL("the disks do not fill");
  return TopicChanged{};
}

TopicChange Retention(int bytes) {
  return AlterTopicSpec{.name = "t", .set = {{"retention.bytes", std::to_string(bytes)}}, .unset = {}};
}

void MakeRoom(ControlRig& rig, Topics& topics) {
  for (auto& node : rig.nodes) node->fs.SetCapacity(-1);
  topics.without_room.clear();
  rig.Converge();
  rig.scheduler.RunFor(absl::Seconds(20));
  rig.Converge();
}

TEST_CASE("a change that a majority has no room for is answered in time, and so is the one behind it") {
  ControlRig rig(3);
  rig.StartAll();
  Topics topics(rig, rig.Leader());
  REQUIRE(topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 1}).ok());
  FillAllButTheLeader(rig);
  topics.KnowFullDisks();
  int changes = 0;
  absl::Duration began;
  const auto stuck = GetStuck(
      topics,
      [&](int n) {
        began = rig.scheduler.now();
        return Retention(n);
      },
      &changes);
  CHECK(rig.scheduler.now() - began <= absl::Seconds(11));
  CHECK(stuck.error().reason == Reason::kOutcomeUnknown);
  CHECK(topics.NamesFullDisks(stuck.error()));
  began = rig.scheduler.now();
  const auto behind = topics.Decide(DeleteTopicSpec{"t"});
  REQUIRE_FALSE(behind.ok());
  CHECK(behind.error().reason == Reason::kDiskFull);
  CHECK(topics.NamesFullDisks(behind.error()));
  CHECK(rig.scheduler.now() - began <= absl::Seconds(11));
  // What may still be made is; what was not made is not.
  MakeRoom(rig, topics);
  const auto& state = rig.controller(rig.Leader()).state();
  REQUIRE(state.topics.size() == 1);
  CHECK(state.topics.begin()->second.config.at("retention.bytes") == std::to_string(changes));
}

TEST_CASE("a topic that is made after its creation was answered is there, and told of, like any other") {
  ControlRig rig(3);
  rig.StartAll();
  Topics topics(rig, rig.Leader());
  FillAllButTheLeader(rig);  // and nobody knows yet, or nothing would be made
  int made = 0;
  const auto name = [](int n) { return Cat("topic-", n, "."); };
  const auto stuck = GetStuck(
      topics, [&](int n) { return CreateTopicSpec{.name = name(n), .partitions = 1, .replicas = 1}; }, &made);
  REQUIRE(made > 1);
  CHECK(stuck.error().reason == Reason::kOutcomeUnknown);
  CHECK(topics.lines.find(name(made - 1)) != std::string::npos);
  CHECK(topics.lines.find(name(made)) == std::string::npos);
  MakeRoom(rig, topics);
  CHECK(rig.controller(rig.Leader()).state().FindTopic(name(made)) != nullptr);
  CHECK(topics.lines.find(name(made)) != std::string::npos);
}

TEST_CASE("of changes that were answered and still wait for room there are so many, and they are let go of with it") {
  ControlRig rig(3);
  rig.StartAll();
  Topics topics(rig, rig.Leader());
  REQUIRE(topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 1}).ok());
  int changes = 0;
  for (int round = 0; round < 2; ++round) {
    CAPTURE(round);
    FillAllButTheLeader(rig);
    topics.KnowFullDisks();
    REQUIRE(GetStuck(topics, Retention, &changes).error().reason == Reason::kOutcomeUnknown);
    int answered = 0;
    int full = 0;
    rig.node(rig.Leader()).executor().Post([&] {
      for (int i = 0; i < 999; ++i) {
        topics.manager->Decide(DeleteTopicSpec{"t"}, [&](const Result<TopicChanged>& answer) {
          ++answered;
          full += !answer.ok() && answer.error().reason == Reason::kDiskFull ? 1 : 0;
        });
      }
    });
    rig.scheduler.RunFor(absl::Seconds(9));
    CHECK(answered == 0);
    rig.scheduler.RunFor(absl::Seconds(2));
    CHECK(full == 999);
    const absl::Duration began = rig.scheduler.now();
    const auto refused = topics.Decide(DeleteTopicSpec{"t"});
    REQUIRE_FALSE(refused.ok());
    CHECK(rig.scheduler.now() - began < absl::Seconds(1));
    CHECK(refused.error().reason == Reason::kNotAvailable);
    CHECK(refused.error().message.find("1000 others wait as well") != std::string::npos);
    MakeRoom(rig, topics);
    const auto& state = rig.controller(rig.Leader()).state();
    REQUIRE(state.topics.size() == 1);
    CHECK(state.topics.begin()->second.config.at("retention.bytes") == std::to_string(changes));
  }
}

TEST_CASE("a change whose outcome is being found out is not counted with those in the controller's line") {
  ControlRig rig(3);
  rig.StartAll();
  StuckLogs logs;
  Topics topics(rig, rig.Leader(), logs);
  REQUIRE(topics.Reconcile().ok());
  REQUIRE(topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 1}).ok());
  // Committed, and not to be saved: whether it is in force is for the reconciler to say, which never does.
  simulation::SimFileSystem& disk = rig.node(rig.Leader()).fs;
  disk.SetCapacity(disk.UsedBytes());
  const auto unknown = topics.Decide(CreateTopicSpec{.name = "u", .partitions = 1, .replicas = 1});
  REQUIRE_FALSE(unknown.ok());
  CHECK(unknown.error().message == "whether the change was made is not known yet");
  disk.SetCapacity(-1);
  rig.scheduler.RunFor(absl::Seconds(2));
  // One less than may wait in the line.
  FillAllButTheLeader(rig);
  topics.KnowFullDisks();
  int changes = 0;
  REQUIRE(GetStuck(topics, Retention, &changes).error().reason == Reason::kOutcomeUnknown);
  rig.node(rig.Leader()).executor().Post([&] {
    for (int i = 0; i < 998; ++i) topics.manager->Decide(DeleteTopicSpec{"t"}, [](const Result<TopicChanged>&) {});
  });
  rig.scheduler.RunFor(absl::Seconds(11));
  const absl::Duration began = rig.scheduler.now();
  const auto last = topics.Decide(DeleteTopicSpec{"t"});
  REQUIRE_FALSE(last.ok());
  CHECK(last.error().reason == Reason::kDiskFull);
  CHECK(rig.scheduler.now() - began > absl::Seconds(9));
}

TEST_CASE("a topic that could not be stored is refused at the door") {
  ControlRig rig(1);
  rig.StartAll();
  Register(rig, 15);
  rig.Change(FeatureLevelRaised{1});
  for (auto& change : Unfenced(rig)) rig.Change(change);
  Topics topics(rig, NodeId(1));
  const auto wide = topics.Decide(CreateTopicSpec{.name = "t", .partitions = kPartitionsMax, .replicas = 15});
  REQUIRE_FALSE(wide.ok());
  CHECK(wide.error().reason == Reason::kInvalidArgument);
  CHECK(wide.error().message.find("10000 partitions of 15 replicas") != std::string::npos);
  REQUIRE(topics.Decide(CreateTopicSpec{.name = "t", .partitions = 1, .replicas = 15}).ok());
  const auto widened = topics.Decide(AddPartitionsSpec{.name = "t", .partitions = kPartitionsMax});
  REQUIRE_FALSE(widened.ok());
  CHECK(widened.error().message.find("10000 partitions of 15 replicas") != std::string::npos);
  // A number may have as many zeros before it as one likes.
  const std::string zeros(size_t{5} << 20, '0');
  const auto padded =
      topics.Decide(CreateTopicSpec{.name = "p", .partitions = 1, .replicas = 1, .config = {{"retention.ms", zeros}}});
  REQUIRE_FALSE(padded.ok());
  CHECK(padded.error().reason == Reason::kInvalidArgument);
  CHECK(padded.error().message.size() < 1000);
  const auto altered = topics.Decide(AlterTopicSpec{.name = "t", .set = {{"retention.ms", zeros}}, .unset = {}});
  REQUIRE_FALSE(altered.ok());
  CHECK(altered.error().message.size() < 1000);
  const auto most = topics.Decide(CreateTopicSpec{.name = "m", .partitions = kPartitionsMax, .replicas = 3});
  CHECK(most.ok());
}

}  // namespace
}  // namespace sluice::broker
