// A whole node in the simulator, for the broker's tests: real journal, segments and metadata log on a simulated disk.
// Included by tests only.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "broker/data_folder.h"
#include "broker/node_broker.h"
#include "broker/raft_log_factory.h"
#include "common/record/record.h"
#include "common/text.h"
#include "storage/meta/log_store.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::broker {

/// A batch of one record a value.
inline record::PendingBatch MakeBatch(const std::vector<std::string>& values) {
  record::BatchBuilder builder;
  for (const auto& value : values) {
    REQUIRE(builder.Append(1'700'000'000'000, std::nullopt, value).ok());
  }
  auto batch = builder.Build();
  REQUIRE(batch.ok());
  return *std::move(batch);
}

/// Logs that cannot be opened as long as a test says so.
class FaultyLogs final : public LogFactory {
 public:
  using Fault = std::function<absl::Status(const ReplicaId& replica)>;
  using Seen = std::function<void(const ReplicaSpec& spec, Executor& shard)>;
  FaultyLogs(LogFactory& logs, const Fault& fault, const Seen& seen) : logs_(logs), fault_(fault), seen_(seen) {}
  std::vector<ReplicaId> Replicas() const override { return logs_.Replicas(); }
  void Open(ReplicaSpec spec, Executor& shard, Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) override {
    if (seen_) seen_(spec, shard);
    const absl::Status fault = fault_ ? fault_(spec.replica) : absl::OkStatus();
    if (fault.ok()) return logs_.Open(std::move(spec), shard, std::move(done));
    shard.Post([fault, done = std::move(done)]() mutable { done(fault); });
  }
  void LeaveLeadership(absl::Duration within, Executor& executor, Callback<absl::Status> done) override {
    logs_.LeaveLeadership(within, executor, std::move(done));
  }
  void Drop(const ReplicaId& replica, Executor& executor, Callback<absl::Status> done) override {
    logs_.Drop(replica, executor, std::move(done));
  }

 private:
  LogFactory& logs_;
  const Fault& fault_;
  const Seen& seen_;
};

class SimNode {
 public:
  explicit SimNode(uint64_t seed = 1, BrokerOptions options = {})
      : scheduler(seed), fs(seed), options_(std::move(options)) {}
  ~SimNode() { Kill(); }

  /// Opens the folder and starts the broker; the first error.
  absl::Status TryStart() {
    auto folder = OpenDataFolder(fs, "data", NodeId(1), random);
    if (!folder.ok()) return folder.status();
    auto meta = storage::OpenLogMetadataStore(fs, "data/meta", {.log_bytes_max = 32 << 10});
    if (!meta.ok()) return meta.status();
    meta_ = *std::move(meta);
    executors_ = std::make_unique<Executors>(scheduler, shards_);
    storage::LogStoreOptions store;
    store.data_dir = "data";
    store.journal.file_bytes = 256 << 10;
    store.journal.disk = folder->disk_id;
    store.journal.random = &random;
    store.journal.timers = executors_->home();
    store.journal.on_fatal = [this](absl::Status status) { fatal = std::move(status); };
    store.disk_low_watermark_bytes = 0;
    store.disk_high_watermark_bytes = 0;
    auto logs = storage::LogStore::Open(fs, clock,
                                        {.home = executors_->home(),
                                         .journal_io = &executors_->journal_io,
                                         .segment_io = &executors_->segment_io,
                                         .cold_reads = &executors_->cold_reads},
                                        store);
    if (!logs.ok()) return logs.status();
    logs_ = *std::move(logs);
    std::vector<Executor*> shards;
    for (simulation::SimExecutor& shard : executors_->shards) shards.push_back(&shard);
    replication::RaftNodeOptions raft;
    raft.node = NodeId(1);
    raft_ = replication::RaftNode::Make(
        raft,
        {.shards = shards, .transport = &no_peers_, .clock = &clock, .random = &random, .store = logs_, .log = &log_});
    raft_->Start();
    factory_ = std::make_unique<RaftLogFactory>(raft_, logs_, shards, random);
    faulty_ = std::make_unique<FaultyLogs>(*factory_, cannot_open, on_open);
    options_.cluster_id = folder->cluster_id;
    options_.data_dir = "data";
    options_.address = "127.0.0.1:7400";
    broker = MakeNodeBroker(options_, {.shards = shards,
                                       .blocking = executors_->blocking,
                                       .clock = clock,
                                       .random = random,
                                       .files = fs,
                                       .metadata = *meta_,
                                       .logs = *faulty_,
                                       .log = log_,
                                       .on_refused = [this](const absl::Status& why) { refused = why; }});
    std::optional<absl::Status> started;
    broker->Start([&started](absl::Status status) { started = std::move(status); });
    RunUntil([&] { return started.has_value() || fs.crashed(); });
    return started.value_or(absl::AbortedError("the world stopped"));
  }
  void Start() {
    const absl::Status started = TryStart();
    INFO(started);
    REQUIRE(started.ok());
  }
  storage::Journal& journal() { return logs_->journal(); }
  /// For the next start.
  void Reconfigure(BrokerOptions options) { options_ = std::move(options); }
  /// For the next start.
  void SetShards(int count) { shards_ = count; }
  /// Stops in good order.
  void Stop() {
    bool stopped = false;
    broker->Stop([&stopped](Done) { stopped = true; });
    RunUntil([&] { return stopped; });
    stopped = false;
    raft_->Stop([&stopped] { stopped = true; });
    RunUntil([&] { return stopped; });
    stopped = false;
    logs_->Stop([&stopped](absl::Status) { stopped = true; });
    RunUntil([&] { return stopped; });
    Kill();
  }
  /// The process is gone, what it wrote to files is there.
  void Kill() {
    scheduler.Clear();
    if (logs_ != nullptr) logs_->Abandon();
    broker.reset();
    faulty_.reset();
    factory_.reset();
    if (raft_ != nullptr) raft_->Abandon();
    raft_.reset();
    logs_.reset();
    meta_.reset();
    executors_.reset();
  }
  /// Power loss.
  void Crash() {
    Kill();
    fs.Crash();
  }

  template <class Condition>
  void RunUntil(Condition condition) {
    for (int steps = 0; !condition(); ++steps) {
      REQUIRE(steps < 2'000'000);
      REQUIRE(scheduler.Step());
    }
  }
  /// Runs a call to its answer; nothing when the world stopped before.
  template <class T, class Call>
  std::optional<T> TryWait(Call call) {
    auto answer = std::make_shared<std::optional<T>>();
    call([answer](T value) { answer->emplace(std::move(value)); });
    RunUntil([&] { return answer->has_value() || fs.crashed(); });
    return std::move(*answer);
  }
  template <class T, class Call>
  T Wait(Call call) {
    auto answer = TryWait<T>(std::move(call));
    REQUIRE(answer.has_value());
    return *std::move(answer);
  }

  Result<TopicInfo> Create(CreateTopicSpec spec) {
    return Wait<Result<TopicInfo>>([&](auto done) { broker->CreateTopic(spec, std::move(done)); });
  }
  Result<TopicInfo> Create(const std::string& name, int32_t partitions = 1, TopicConfig config = {}) {
    return Create({.name = name, .partitions = partitions, .replicas = 0, .config = std::move(config)});
  }
  Result<Done> Delete(const std::string& name) {
    return Wait<Result<Done>>([&](auto done) { broker->DeleteTopic(name, std::move(done)); });
  }
  ProduceOutcome Produce(const std::string& topic, const std::string& value, int partition = 0,
                         std::optional<Offset> expected = std::nullopt) {
    return Wait<ProduceOutcome>([&](auto done) {
      broker->Produce({.topic = topic,
                       .partition = PartitionId(partition),
                       .batch = MakeBatch({value}),
                       .expected_base_offset = expected},
                      nullptr, std::move(done));
    });
  }
  static FetchSpec FetchOne(const std::string& topic, int64_t offset, absl::Duration wait = absl::ZeroDuration(),
                            int partition = 0) {
    FetchSpec spec;
    spec.items.push_back({.topic = topic, .partition = PartitionId(partition), .offset = Offset(offset)});
    spec.wait_max = wait;
    return spec;
  }
  std::vector<FetchOutcome> Fetch(const FetchSpec& spec) {
    return Wait<std::vector<FetchOutcome>>([&](auto done) { broker->Fetch(spec, std::move(done)); });
  }
  /// Values of all data records from the log start on.
  std::vector<std::string> Values(const std::string& topic, int partition = 0) {
    std::vector<std::string> values;
    ListOffsetsItem earliest{
        .topic = topic, .partition = PartitionId(partition), .kind = ListOffsetsItem::Kind::kEarliest};
    auto offsets =
        Wait<std::vector<ListOffsetsOutcome>>([&](auto done) { broker->ListOffsets({earliest}, std::move(done)); });
    REQUIRE_FALSE(offsets[0].error.has_value());
    const Offset start = offsets[0].offset;
    for (Offset at = start;;) {
      auto got = Fetch(FetchOne(topic, at.value(), absl::ZeroDuration(), partition));
      REQUIRE_FALSE(got[0].error.has_value());
      for (const auto& one : ValuesOf(got[0], start)) values.push_back(one);
      if (got[0].next_offset == at) return values;
      at = got[0].next_offset;
    }
  }
  static std::vector<std::string> ValuesOf(const FetchOutcome& outcome, Offset from = Offset(0)) {
    std::vector<std::string> values;
    for (const auto& batch : outcome.batches) {
      if (batch.is_control()) continue;
      auto reader = record::RecordReader::Open(batch.view());
      REQUIRE(reader.ok());
      record::Record record;
      while (*reader->Next(&record)) {
        if (record.offset >= from) values.emplace_back(record.value.value_or("null"));
      }
    }
    return values;
  }

  simulation::SimScheduler scheduler;
  simulation::SimFileSystem fs;
  simulation::SimClock clock{scheduler};
  simulation::SimRandom random{7};
  std::unique_ptr<Broker> broker;
  absl::Status fatal;
  absl::Status refused;           ///< Why the node wants to stop by itself.
  FaultyLogs::Fault cannot_open;  ///< Which logs cannot be opened, and why.
  FaultyLogs::Seen on_open;       ///< Told what is opened; may be empty.

 private:
  struct Executors {
    Executors(simulation::SimScheduler& s, int shard_count) : journal_io(s), segment_io(s), cold_reads(s), blocking(s) {
      for (int i = 0; i < shard_count; ++i) shards.emplace_back(s);
    }
    Executor* home() { return &shards.front(); }
    std::deque<simulation::SimExecutor> shards;
    simulation::SimBlockingExecutor journal_io;
    simulation::SimBlockingExecutor segment_io;
    simulation::SimBlockingExecutor cold_reads;
    simulation::SimBlockingExecutor blocking;
  };

  BrokerOptions options_;
  int shards_ = 2;
  const Logger log_ = Logger::Silent();
  std::unique_ptr<Executors> executors_;
  std::unique_ptr<storage::MetadataStore> meta_;
  std::shared_ptr<storage::LogStore> logs_;
  NoPeers no_peers_;
  std::shared_ptr<replication::RaftNode> raft_;
  std::unique_ptr<RaftLogFactory> factory_;
  std::unique_ptr<FaultyLogs> faulty_;
};

/// Sends without waiting; the outcomes come in `out`.
struct Pipeline {
  SimNode& node;
  std::shared_ptr<ProduceSession> session = node.broker->NewSession();
  std::shared_ptr<std::vector<std::optional<ProduceOutcome>>> out =
      std::make_shared<std::vector<std::optional<ProduceOutcome>>>();

  void Send(const std::string& topic, const std::string& value, std::optional<Offset> expected = std::nullopt,
            bool reset = false, int partition = 0) {
    const size_t index = out->size();
    out->emplace_back();
    node.broker->Produce({.topic = topic,
                          .partition = PartitionId(partition),
                          .batch = MakeBatch({value}),
                          .expected_base_offset = expected,
                          .leader_epoch = LeaderEpoch(0),
                          .reset = reset},
                         session,
                         [out = out, index](ProduceOutcome outcome) { (*out)[index].emplace(std::move(outcome)); });
  }
  /// The reasons, kUnknown for success, once all are answered.
  std::vector<Reason> Reasons() {
    node.RunUntil(
        [&] { return std::all_of(out->begin(), out->end(), [](const auto& one) { return one.has_value(); }); });
    std::vector<Reason> reasons;
    for (const auto& one : *out) reasons.push_back((*one).ok() ? Reason::kUnknown : (*one).error().reason);
    return reasons;
  }
};

}  // namespace sluice::broker
