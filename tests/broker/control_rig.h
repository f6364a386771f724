// Nodes with nothing but group 0 in the simulator: a log store on a disk of its own, a RaftNode, a metadata store and a
// Controller each, one network between them. Included by tests only.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker/controller.h"
#include "broker/raft_log_factory.h"
#include "common/text.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"
#include "storage/meta/log_store.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"
#include "tests/simulation/sim_transport.h"

namespace sluice::broker {

/// Remembers what a controller told.
struct ControllerWitness final : ControllerObserver {
  void OnApplied(const ClusterDelta& delta) override { deltas.push_back(delta); }
  void OnLeadership(bool leads) override { leadership.push_back(leads); }
  void OnFailure(const absl::Status& why) override { failure = why; }
  std::vector<ClusterDelta> deltas;
  std::vector<bool> leadership;
  absl::Status failure;
};

class ControlRig;

inline Logger WarningsTo(std::string* lines) {
  LogOptions options;
  options.level = LogLevel::kWarn;
  options.write = [lines](std::string_view line) { lines->append(line); };
  return Logger(std::move(options));
}

/// One node: its disk outlives its processes.
class ControlNode {
 public:
  ControlNode(ControlRig& rig, NodeId node, uint64_t seed) : id(node), fs(seed), random(seed), rig_(rig) {}
  ~ControlNode() { Kill(); }

  /// Opens what is on disk and the store of the controller, and lets the node's Raft groups run; no controller yet.
  void Boot();
  /// Boots, and starts the controller on group 0, whose first members are `members`.
  absl::Status TryStart(const raft::Configuration& members);
  absl::Status StartController(ReplicaSpec spec);
  void Kill();
  /// Power loss.
  void Crash() {
    Kill();
    fs.Crash();
  }
  bool up() const { return controller != nullptr; }
  Uuid incarnation() const { return Uuid::FromRandom(100 + static_cast<uint64_t>(id.value()), 1); }
  VoterId voter() const { return {id, incarnation()}; }
  /// What the metadata store has.
  LoadedClusterState Saved() {
    auto loaded = LoadClusterState(*meta);
    INFO(loaded.status());
    REQUIRE(loaded.ok());
    return *std::move(loaded);
  }
  Executor& executor() { return executors_->shard; }
  BlockingExecutor& blocking() { return executors_->blocking; }

  const NodeId id;
  simulation::SimFileSystem fs;
  simulation::SimRandom random;
  std::shared_ptr<storage::LogStore> store;
  std::unique_ptr<storage::MetadataStore> meta;
  std::shared_ptr<replication::RaftNode> raft;
  std::unique_ptr<RaftLogFactory> logs;
  std::unique_ptr<ControllerWitness> witness;
  std::unique_ptr<Controller> controller;
  PeerCalls* calls = nullptr;  ///< Of the process; set before the controller starts.

 private:
  struct Executors {
    explicit Executors(simulation::SimScheduler& s)
        : shard(s), journal_io(s), segment_io(s), cold_reads(s), blocking(s) {}
    simulation::SimExecutor shard;
    simulation::SimBlockingExecutor journal_io;
    simulation::SimBlockingExecutor segment_io;
    simulation::SimBlockingExecutor cold_reads;
    simulation::SimBlockingExecutor blocking;
  };
  ControlRig& rig_;
  std::unique_ptr<Executors> executors_;
  std::unique_ptr<simulation::SimTransport> transport_;
};

class ControlRig {
 public:
  explicit ControlRig(int count, uint64_t seed = 1) : scheduler(seed), clock(scheduler), network(scheduler) {
    for (int i = 1; i <= count; ++i) {
      nodes.push_back(std::make_unique<ControlNode>(*this, NodeId(i), seed * 100 + static_cast<uint64_t>(i)));
    }
  }
  ~ControlRig() {
    for (auto& node : nodes) node->Kill();
    scheduler.Clear();
  }

  ControlNode& node(NodeId id) { return *nodes[static_cast<size_t>(id.value() - 1)]; }
  Controller& controller(NodeId id) { return *node(id).controller; }
  /// The first `voters` nodes.
  raft::Configuration Members(size_t voters) const {
    raft::Configuration members;
    for (size_t i = 0; i < voters; ++i) members.voters.push_back(nodes[i]->voter());
    return members;
  }
  void Start(NodeId id) {
    const absl::Status started = node(id).TryStart(Members(nodes.size()));
    INFO(started);
    REQUIRE(started.ok());
  }
  void StartAll() {
    for (auto& each : nodes) Start(each->id);
  }

  template <class Condition>
  bool RunUntil(Condition condition, absl::Duration most = absl::Seconds(60)) {
    const absl::Duration end = scheduler.now() + most;
    while (!condition()) {
      if (scheduler.now() > end || !scheduler.Step()) return condition();
    }
    return true;
  }
  /// Runs `call(done)` on a node's executor to its answer.
  template <class T, class Call>
  T Await(NodeId at, Call call, absl::Duration most = absl::Seconds(60)) {
    auto answer = std::make_shared<std::optional<T>>();
    node(at).executor().Post(
        [call = std::move(call), answer]() mutable { call([answer](T value) { answer->emplace(std::move(value)); }); });
    const bool answered = RunUntil([&] { return answer->has_value(); }, most);
    REQUIRE(answered);
    return std::move(**answer);
  }

  std::optional<NodeId> LeaderNow() {
    for (auto& each : nodes) {
      if (each->up() && each->controller->IsLeader()) return each->id;
    }
    return std::nullopt;
  }
  /// The node that leads, once one does; another than `not_this`.
  NodeId Leader(NodeId not_this = NodeId(0)) {
    std::optional<NodeId> found;
    const bool there = RunUntil([&] {
      found = LeaderNow();
      return found.has_value() && *found != not_this;
    });
    INFO(Describe());
    REQUIRE(there);
    return *found;
  }
  NodeId Follower() {
    const NodeId leader = Leader();
    for (auto& each : nodes) {
      if (each->up() && each->id != leader) return each->id;
    }
    FAIL("no follower");
    return {};
  }
  absl::Status Change(NodeId at, const ControllerChange& change) {
    return Await<absl::Status>(
        at, [&controller = controller(at), change](auto done) { controller.Change(change, std::move(done)); });
  }
  /// At the leader; REQUIREs success.
  void Change(const ControllerChange& change) {
    const absl::Status changed = Change(Leader(), change);
    INFO(changed);
    REQUIRE(changed.ok());
  }
  /// Where every node stands; for people.
  std::string Describe() {
    std::string text;
    for (auto& each : nodes) {
      text += Cat("node ", each->id, ": ");
      if (!each->up()) {
        text += "down\n";
        continue;
      }
      const Controller& at = *each->controller;
      const raft::Raft& raft = at.log()->raft();
      const auto leader = at.leader();
      text += Cat(raft::RoleName(raft.role()), " t", raft.term(), ", ", raft.configuration().ToString(), ", log to ",
                  raft.log_end(), ", committed ", raft.committed(), ", applied ", at.applied(), ", leader ",
                  leader.value_or(NodeId(0)), raft.in_doubt() ? ", in doubt" : "", " ",
                  each->witness->failure.ToString(), "\n");
    }
    if (const auto leader = LeaderNow()) {
      for (const auto& [id, node] : controller(*leader).state().nodes) {
        text += Cat("registered ", id, ", epoch ", node.epoch, node.fenced ? ", fenced" : "", "\n");
      }
    }
    return text;
  }
  /// All that run have the same state, applied as far as the leader's log is committed, and saved.
  bool Converged() {
    const auto leader = LeaderNow();
    if (!leader) return false;
    const Controller& first = controller(*leader);
    for (auto& each : nodes) {
      if (!each->up()) continue;
      const Controller& other = *each->controller;
      if (other.applied() != first.log()->bounds().high_watermark || other.applied() != first.applied()) return false;
      if (!(static_cast<const ClusterState&>(other.state()) == static_cast<const ClusterState&>(first.state()))) {
        return false;
      }
    }
    return true;
  }
  void Converge() {
    const bool there = RunUntil([&] { return Converged(); });
    REQUIRE(there);
    scheduler.RunFor(absl::Milliseconds(10));  // what was saved last
    for (auto& each : nodes) {
      if (!each->up()) continue;
      const LoadedClusterState saved = each->Saved();
      REQUIRE(saved.applied == each->controller->applied());
      REQUIRE(saved.state == each->controller->state());
    }
  }

  simulation::SimScheduler scheduler;
  simulation::SimClock clock;
  simulation::SimNetwork network;
  std::string warnings;  ///< What the nodes have logged, from warnings on.
  const Logger logger = WarningsTo(&warnings);
  ControllerOptions controller_options;
  int64_t disk_low_bytes = 0;  ///< Below this much free space a node's logs take no data.
  std::vector<std::unique_ptr<ControlNode>> nodes;
};

inline void ControlNode::Boot() {
  executors_ = std::make_unique<Executors>(rig_.scheduler);
  REQUIRE(fs.CreateDirs("data/meta").ok());
  REQUIRE(fs.SyncDir(".").ok());
  REQUIRE(fs.SyncDir("data").ok());
  auto opened_meta = storage::OpenLogMetadataStore(fs, "data/meta", {.log_bytes_max = 32 << 10});
  INFO(opened_meta.status());
  REQUIRE(opened_meta.ok());
  meta = *std::move(opened_meta);
  storage::LogStoreOptions options;
  options.data_dir = "data";
  options.journal.file_bytes = 64 << 10;
  options.journal.total_bytes_max = 1 << 20;
  options.journal.random = &random;
  options.journal.timers = &executors_->shard;
  options.disk_low_watermark_bytes = rig_.disk_low_bytes;
  options.disk_high_watermark_bytes = rig_.disk_low_bytes;
  auto opened = storage::LogStore::Open(fs, rig_.clock,
                                        {.home = &executors_->shard,
                                         .journal_io = &executors_->journal_io,
                                         .segment_io = &executors_->segment_io,
                                         .cold_reads = &executors_->cold_reads},
                                        options);
  INFO(opened.status());
  REQUIRE(opened.ok());
  store = *std::move(opened);
  transport_ = rig_.network.Join(id);
  replication::RaftNodeOptions raft_options;
  raft_options.node = id;
  raft = replication::RaftNode::Make(raft_options, {.shards = {&executors_->shard},
                                                    .transport = transport_.get(),
                                                    .clock = &rig_.clock,
                                                    .random = &random,
                                                    .store = store,
                                                    .log = &rig_.logger});
  raft->Start();
  logs = std::make_unique<RaftLogFactory>(raft, store, std::vector<Executor*>{&executors_->shard}, random);
}

inline absl::Status ControlNode::TryStart(const raft::Configuration& members) {
  Boot();
  return StartController(
      {.replica = kControllerReplica, .settings = {}, .incarnation = incarnation(), .members = members});
}

inline absl::Status ControlNode::StartController(ReplicaSpec spec) {
  controller = std::make_unique<Controller>(Controller::Seams{.executor = executors_->shard,
                                                              .blocking = executors_->blocking,
                                                              .clock = rig_.clock,
                                                              .store = *meta,
                                                              .calls = calls},
                                            rig_.controller_options);
  spec.settings = Group0Settings(rig_.controller_options.log_bytes);
  spec.feeds_state = true;
  witness = std::make_unique<ControllerWitness>();
  controller->AddObserver(witness.get());
  auto answer = std::make_shared<std::optional<absl::Status>>();
  logs->Open(spec, executors_->shard, [this, answer](absl::StatusOr<std::unique_ptr<PartitionLog>> log) {
    if (!log.ok()) return answer->emplace(log.status()), void();
    controller->Start(*std::move(log), [answer](absl::Status status) { answer->emplace(std::move(status)); });
  });
  rig_.RunUntil([&] { return answer->has_value() || fs.crashed(); });
  return answer->value_or(absl::AbortedError("the world stopped"));
}

inline void ControlNode::Kill() {
  calls = nullptr;
  transport_.reset();
  if (raft != nullptr) raft->Abandon();
  if (store != nullptr) store->Abandon();
  executors_.reset();
  controller.reset();
  witness.reset();
  logs.reset();
  raft.reset();
  store.reset();
  meta.reset();
}

}  // namespace sluice::broker
