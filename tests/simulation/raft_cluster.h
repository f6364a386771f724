// Nodes with replicated logs in the simulator: a log store each on a disk of its own, a RaftNode, one network between
// them, all on one event heap. What tests of the replication driver speak in.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/record/record.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"
#include "tests/sim/storage_node.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"
#include "tests/simulation/sim_transport.h"

namespace sluice::simulation {

struct RaftClusterOptions {
  int nodes = 3;
  int groups = 1;
  storage::LogStoreOptions store;
  storage::LogOptions log;
  replication::RaftNodeOptions raft;

  RaftClusterOptions() {
    store.data_dir = "data";
    store.journal.file_bytes = 64 << 10;
    store.journal.total_bytes_max = 1 << 20;
    store.cache_bytes = 4 << 20;
    store.disk_low_watermark_bytes = 0;
    store.disk_high_watermark_bytes = 0;
    store.checkpoint_interval = absl::Hours(1);
    log.segment_bytes = 8 << 10;
    log.index_interval_bytes = 1 << 10;
    log.write_bytes = 2 << 10;
  }
};

class RaftCluster;

/// One node: its disk outlives its processes.
class RaftClusterNode {
 public:
  RaftClusterNode(RaftCluster& cluster, NodeId id, uint64_t seed)
      : fs(seed), random(seed), cluster_(cluster), id_(id) {}
  ~RaftClusterNode() { Kill(); }

  /// The first error of opening the store or a group.
  absl::Status TryStart();
  void Kill();
  bool up() const { return raft != nullptr; }
  NodeId id() const { return id_; }
  Uuid incarnation() const { return Uuid::FromRandom(100 + static_cast<uint64_t>(id_.value()), life_of_disk); }
  VoterId voter() const { return {id_, incarnation()}; }
  std::shared_ptr<replication::RaftLog> log(int group = 0) const;
  /// While it is up.
  Executor& shard() { return executors_->shard; }
  absl::Status Open(int group, const raft::Configuration& initial, bool never_before = false);

  SimFileSystem fs;
  SimRandom random;
  uint64_t life_of_disk = 1;
  std::shared_ptr<storage::LogStore> store;
  std::shared_ptr<replication::RaftNode> raft;
  absl::Status fatal;

 private:
  struct Executors {
    explicit Executors(SimScheduler& s)
        : shard(s), home(s), journal_io(s), segment_io(s), cold_reads(s, SimBlockingExecutor::Order::kAny) {}
    SimExecutor shard;
    SimExecutor home;
    SimBlockingExecutor journal_io;
    SimBlockingExecutor segment_io;
    SimBlockingExecutor cold_reads;
  };
  RaftCluster& cluster_;
  const NodeId id_;
  std::unique_ptr<Executors> executors_;
  std::unique_ptr<SimTransport> transport_;
};

class RaftCluster {
 public:
  using Options = RaftClusterOptions;

  explicit RaftCluster(uint64_t seed = 1, Options options_in = {})
      : options(std::move(options_in)), scheduler(seed), clock(scheduler), network(scheduler) {
    for (int i = 1; i <= options.nodes; ++i) {
      nodes.push_back(std::make_unique<RaftClusterNode>(*this, NodeId(i), seed * 100 + static_cast<uint64_t>(i)));
    }
  }
  ~RaftCluster() {
    for (auto& node : nodes) node->Kill();
    scheduler.Clear();
  }

  static ReplicaId Group(int n = 0) { return {Uuid::FromRandom(3, 4), PartitionId(n)}; }
  /// All nodes as voters.
  raft::Configuration Members() const {
    raft::Configuration members;
    for (const auto& node : nodes) members.voters.push_back(node->voter());
    return members;
  }

  void Start(NodeId id) {
    const absl::Status started = node(id).TryStart();
    INFO(started.ToString());
    REQUIRE(started.ok());
  }
  void StartAll() {
    for (auto& each : nodes) Start(each->id());
  }
  /// Power loss.
  void Crash(NodeId id) {
    node(id).Kill();
    node(id).fs.Crash();
  }
  void Restart(NodeId id) {
    Crash(id);
    Start(id);
  }
  /// Who leads, with forty records in segments of which the closed ones are damaged. Nobody has read them since.
  NodeId DamagedLeader() {
    for (int i = 0; i < 40; ++i) Write("v" + std::to_string(i), 1000);
    Converge();
    const NodeId leader = Leader();
    DamageClosedSegments(leader);
    return leader;
  }
  /// Each closed segment of the node loses a bit, and nothing of them is cached.
  void DamageClosedSegments(NodeId id) {
    RunFor(absl::Seconds(2));
    for (const auto& segment : log(id).storage_log().closed_segments()) {
      std::string bytes = node(id).fs.Contents(segment.path);
      bytes[bytes.size() / 2] ^= 1;
      node(id).fs.SetContents(segment.path, bytes);
    }
    log(id).storage_log().DropCache();
  }
  RaftClusterNode& node(NodeId id) { return *nodes[static_cast<size_t>(id.value() - 1)]; }
  replication::RaftLog& log(NodeId id, int group = 0) { return *node(id).log(group); }

  template <class Condition>
  bool RunUntil(Condition condition, absl::Duration most = absl::Seconds(60)) {
    const absl::Duration end = scheduler.now() + most;
    while (!condition()) {
      if (scheduler.now() > end || !scheduler.Step()) return condition();
    }
    return true;
  }
  void RunFor(absl::Duration span) { scheduler.RunFor(span); }
  template <class T, class Call>
  T Await(Call call, absl::Duration most = absl::Seconds(60)) {
    auto answer = std::make_shared<std::optional<T>>();
    call([answer](T value) { answer->emplace(std::move(value)); });
    REQUIRE_FALSE(answer->has_value());  // never inside the call
    if (!RunUntil([&] { return answer->has_value(); }, most)) return T(absl::DeadlineExceededError("no answer"));
    return std::move(**answer);
  }

  std::optional<NodeId> LeaderNow(int group = 0) {
    std::optional<NodeId> found;
    for (auto& each : nodes) {
      if (!each->up() || each->log(group) == nullptr || !each->log(group)->IsLeader()) continue;
      if (!found || each->log(group)->leader_epoch() > log(*found, group).leader_epoch()) found = each->id();
    }
    return found;
  }
  /// The node that leads, once one does; another than `not_this`.
  NodeId Leader(int group = 0, NodeId not_this = NodeId(0)) {
    std::optional<NodeId> found;
    const bool there = RunUntil([&] {
      found = LeaderNow(group);
      return found.has_value() && *found != not_this;
    });
    REQUIRE(there);
    return *found;
  }
  absl::StatusOr<replication::Committed> Propose(NodeId at, const std::string& text, size_t bytes = 20, int group = 0) {
    return Await<absl::StatusOr<replication::Committed>>(
        [&](auto done) { log(at, group).Propose(MakeBatch(text, 1, bytes), std::nullopt, std::move(done)); });
  }
  /// At whoever leads; REQUIREs success.
  void Write(const std::string& text, size_t bytes = 20, int group = 0) {
    const auto written = Propose(Leader(group), text, bytes, group);
    INFO(written.status().ToString());
    REQUIRE(written.ok());
    acknowledged.push_back(text);
  }
  absl::StatusOr<Offset> Advance(NodeId at, Offset offset) {
    return Await<absl::StatusOr<Offset>>([&](auto done) { log(at).AdvanceLogStart(offset, std::move(done)); });
  }
  bool Converged(int group = 0) {
    std::optional<Offset> end;
    for (auto& each : nodes) {
      if (!each->up()) continue;
      const auto bounds = each->log(group)->bounds();
      if (bounds.high_watermark != bounds.log_end || (end && *end != bounds.log_end)) return false;
      end = bounds.log_end;
    }
    return LeaderNow(group).has_value();
  }
  /// Where every replica stands; for people.
  std::string Describe(int group = 0) const {
    std::string text;
    for (const auto& each : nodes) {
      text += "node " + std::to_string(each->id().value()) + ": ";
      const auto one = each->log(group);
      if (one == nullptr) {
        text += "down\n";
        continue;
      }
      const raft::Raft& raft = one->raft();
      text += std::string(raft::RoleName(raft.role())) + " t" + std::to_string(raft.term().value()) + ", log " +
              std::to_string(raft.log_start().value()) + " to " + std::to_string(raft.log_end().value()) +
              ", durable " + std::to_string(raft.durable_end().value()) + ", committed " +
              std::to_string(raft.committed().value()) + ", stored " +
              std::to_string(one->storage_log().log_start().value()) + " to " +
              std::to_string(one->storage_log().log_end().value()) + (raft.installing() ? ", installing" : "") +
              (raft.in_doubt() ? ", in doubt" : "") + (one->damage().ok() ? "" : ", damaged") + " " +
              one->failure().ToString();
      for (const raft::FollowerStatus& follower : raft.followers()) {
        text += "; " + std::to_string(follower.id.node.value()) + " " + std::string(follower.state) + " match " +
                std::to_string(follower.match.value()) + " next " + std::to_string(follower.next.value());
      }
      text += "\n";
    }
    return text;
  }
  void Converge(int group = 0) {
    const bool there = RunUntil([&] { return Converged(group); });
    INFO(Describe(group));
    REQUIRE(there);
  }

  /// Every committed batch that a node has, from its storage's first on.
  std::vector<record::Batch> Batches(NodeId at, int group = 0) {
    using Result = absl::StatusOr<replication::ReadResult>;
    std::vector<record::Batch> all;
    const auto bounds = log(at, group).bounds();
    for (Offset from = bounds.log_start; from < bounds.high_watermark;) {
      auto read = Await<Result>([&](auto done) { log(at, group).ReadCommitted({.offset = from}, std::move(done)); });
      INFO(read.status().ToString());
      REQUIRE(read.ok());
      REQUIRE_FALSE(read->batches.empty());
      for (auto& batch : read->batches) all.push_back(std::move(batch));
      from = read->next_offset;
    }
    return all;
  }
  /// What the data records say that a node has committed, without MakeBatch's padding.
  std::vector<std::string> Values(NodeId at, int group = 0) {
    std::vector<std::string> values;
    for (const record::Batch& batch : Batches(at, group)) {
      if (batch.is_control()) continue;
      auto reader = record::RecordReader::Open(batch.view());
      REQUIRE(reader.ok());
      record::Record record;
      while (*reader->Next(&record)) {
        const std::string_view value = record.value.value_or("");
        values.emplace_back(value.substr(0, value.find(':')));
      }
    }
    return values;
  }
  /// Committed batches are the same everywhere, byte for byte, where both have them.
  void RequireSame(int group = 0) {
    std::map<Offset, Bytes> seen;
    for (auto& each : nodes) {
      if (!each->up()) continue;
      for (const record::Batch& batch : Batches(each->id(), group)) {
        const auto at = seen.emplace(batch.base_offset(), batch.bytes()).first;
        REQUIRE(at->second == batch.bytes());
      }
    }
  }
  /// All that was acknowledged is at `at`, in order, each once; what was not may be there too.
  void RequireAcknowledged(NodeId at) {
    const std::vector<std::string> values = Values(at);
    REQUIRE(std::set<std::string>(values.begin(), values.end()).size() == values.size());
    auto from = values.begin();
    for (const std::string& text : acknowledged) {
      from = std::find(from, values.end(), text);
      INFO("acknowledged and not there, or out of order: " << text);
      REQUIRE(from != values.end());
    }
  }

  Options options;
  SimScheduler scheduler;
  SimClock clock;
  SimNetwork network;
  const Logger logger = Logger::Silent();
  std::vector<std::unique_ptr<RaftClusterNode>> nodes;
  /// Hears what every node's observer hears; may be empty.
  std::function<void(NodeId at, const ReplicaId& group, std::optional<NodeId> leader, LeaderEpoch epoch)>
      on_leader_change;
  std::vector<std::string> acknowledged;  ///< By Write, in order.
};

inline absl::Status RaftClusterNode::TryStart() {
  fatal = absl::OkStatus();
  executors_ = std::make_unique<Executors>(cluster_.scheduler);
  storage::LogStoreOptions opened = cluster_.options.store;
  opened.journal.random = &random;
  opened.journal.timers = &executors_->home;
  opened.journal.on_fatal = [this](const absl::Status& status) { fatal = status; };
  auto result = storage::LogStore::Open(fs, cluster_.clock,
                                        {.home = &executors_->home,
                                         .journal_io = &executors_->journal_io,
                                         .segment_io = &executors_->segment_io,
                                         .cold_reads = &executors_->cold_reads},
                                        opened);
  if (!result.ok()) return result.status();
  store = *std::move(result);
  transport_ = cluster_.network.Join(id_);
  replication::RaftNodeOptions raft_options = cluster_.options.raft;
  raft_options.node = id_;
  raft = replication::RaftNode::Make(
      raft_options, {.shards = {&executors_->shard},
                     .transport = transport_.get(),
                     .clock = &cluster_.clock,
                     .random = &random,
                     .store = store,
                     .log = &cluster_.logger,
                     .on_leader_change = [this](const ReplicaId& group, auto leader, LeaderEpoch epoch) {
                       if (cluster_.on_leader_change) {
                         cluster_.on_leader_change(id_, group, leader, epoch);
                       }
                     }});
  raft->Start();
  absl::Status first;
  for (int i = 0; i < cluster_.options.groups; ++i) first.Update(Open(i, cluster_.Members()));
  return first;
}

inline absl::Status RaftClusterNode::Open(int group, const raft::Configuration& initial, bool never_before) {
  using Opened = absl::StatusOr<std::shared_ptr<replication::RaftLog>>;
  auto answer = std::make_shared<std::optional<Opened>>();
  raft->Open({.group = RaftCluster::Group(group),
              .shard = 0,
              .log = cluster_.options.log,
              .incarnation = incarnation(),
              .initial = initial,
              .never_before = never_before},
             [answer](Opened opened) { answer->emplace(std::move(opened)); });
  cluster_.RunUntil([&] { return answer->has_value() || fs.crashed(); });
  if (!answer->has_value()) return absl::AbortedError("the world stopped");
  return (*answer)->status();
}

inline std::shared_ptr<replication::RaftLog> RaftClusterNode::log(int group) const {
  return raft == nullptr ? nullptr : raft->Find(RaftCluster::Group(group));
}

inline void RaftClusterNode::Kill() {
  transport_.reset();
  if (raft != nullptr) raft->Abandon();
  if (store != nullptr) store->Abandon();
  executors_.reset();
  raft.reset();
  store.reset();
}

}  // namespace sluice::simulation
