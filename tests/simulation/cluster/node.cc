#include "tests/simulation/cluster/node.h"

#include <charconv>
#include <utility>

#include "broker/data_folder.h"
#include "common/text.h"
#include "storage/meta/log_store.h"
#include "tests/simulation/cluster/replicated_broker.h"

namespace sluice::cluster_simulation {

using simulation::SimBlockingExecutor;
using simulation::SimExecutor;
using simulation::SimFileSystem;

namespace {

constexpr int64_t kDiskLow = 192 << 10;
constexpr int64_t kDiskHigh = 384 << 10;

Logger MakeLogger(Context& context, NodeId id) {
  if (!context.trace.read()) return Logger::Silent();
  LogOptions options;
  options.level = LogLevel::kDebug;
  options.write = [&context, id](std::string_view line) {
    if (line.ends_with('\n')) line.remove_suffix(1);
    context.trace.Say([&] { return Cat("node ", id, " | ", line); });
  };
  options.now = [&context] { return absl::FromUnixSeconds(1'700'000'000) + context.scheduler.now(); };
  return Logger(std::move(options));
}

}  // namespace

/// What arrives from peers waits like everything else while the process is paused.
class Port final : public replication::PeerTransport, public replication::PeerReceiver {
 public:
  Port(std::unique_ptr<simulation::SimTransport> inner, Executor& wire) : inner_(std::move(inner)), wire_(wire) {}

  void Start(replication::PeerReceiver& receiver) override {
    receiver_ = &receiver;
    inner_->Start(*this);
  }
  void Stop(absl::AnyInvocable<void()> done) override { inner_->Stop(std::move(done)); }
  bool Send(const ReplicaId& group, raft::Message message) override { return inner_->Send(group, std::move(message)); }
  bool SendLiveness(NodeId to, replication::LivenessMessage message) override {
    return inner_->SendLiveness(to, std::move(message));
  }

  void OnMessage(const ReplicaId& group, raft::Message message) override {
    wire_.Post(
        [this, group, message = std::move(message)]() mutable { receiver_->OnMessage(group, std::move(message)); });
  }
  void OnLiveness(NodeId from, replication::LivenessMessage message) override {
    wire_.Post(
        [this, from, message = std::move(message)]() mutable { receiver_->OnLiveness(from, std::move(message)); });
  }
  void OnPeerState(NodeId peer, replication::PeerState state) override {
    wire_.Post([this, peer, state] { receiver_->OnPeerState(peer, state); });
  }

 private:
  const std::unique_ptr<simulation::SimTransport> inner_;
  Executor& wire_;
  replication::PeerReceiver* receiver_ = nullptr;
};

struct Node::Executors {
  explicit Executors(simulation::SimProcess& process)
      : shard0(process),
        shard1(process),
        wire(process),
        journal_io(process),
        segment_io(process),
        cold_reads(process, SimBlockingExecutor::Order::kAny),
        blocking(process) {}
  std::vector<Executor*> shards() { return {&shard0, &shard1}; }

  SimExecutor shard0;
  SimExecutor shard1;
  SimExecutor wire;
  SimBlockingExecutor journal_io;
  SimBlockingExecutor segment_io;
  SimBlockingExecutor cold_reads;
  SimBlockingExecutor blocking;
};

Node::Node(Context& context, NodeId id, simulation::SimNetwork& peers)
    : context_(context),
      id_(id),
      peers_(peers),
      fs_(context.random().Next()),
      clock_(context.scheduler),
      random_(context.random().Next()),
      log_(MakeLogger(context, id)) {}

Node::~Node() {
  Kill();
}

std::string Node::address() const {
  return Cat("node", id_, ":7400");
}

NodeId Node::AtAddress(const std::string& address) {
  int32_t id = 0;
  if (address.starts_with("node")) std::from_chars(address.data() + 4, address.data() + address.size(), id);
  return NodeId(id);
}

// ---- Its life

void Node::Start() {
  ++life_;
  serving_ = stopping_ = stopped_ = false;
  excused_ = calls_failed_ = armed_;
  fatal_ = absl::OkStatus();
  process_ = std::make_unique<simulation::SimProcess>(context_.scheduler);
  context_.trace.Say([&] { return Cat("node ", id_, " starts"); });
  if (const absl::Status opened = Open(); !opened.ok()) {
    context_.trace.Say([&] { return Cat("node ", id_, " cannot open its folder: ", opened.ToString()); });
    return OnStarted(opened);
  }
  broker_->Start([this](const absl::Status& status) { OnStarted(status); });
}

absl::Status Node::Open() {
  auto folder = broker::OpenDataFolder(fs_, "data", id_, random_);
  if (!folder.ok()) return folder.status();
  auto meta = storage::OpenLogMetadataStore(fs_, "data/meta", {.log_bytes_max = 16 << 10});
  if (!meta.ok()) return meta.status();
  meta_ = *std::move(meta);
  executors_ = std::make_unique<Executors>(*process_);
  ApplyLatency();
  if (absl::Status opened = OpenStore(folder->disk_id); !opened.ok()) return opened;
  OpenRaft();
  OpenBroker(folder->cluster_id);
  return absl::OkStatus();
}

void Node::OpenBroker(Uuid cluster) {
  if (context_.plan.nodes > 1) {
    broker_ = MakeReplicated();
    return;
  }
  broker::BrokerOptions options;
  options.node = id_;
  options.cluster_id = cluster;
  options.address = address();
  options.data_dir = "data";
  options.topic_defaults.segment_bytes = context_.plan.segment_bytes;
  options.topic_defaults.message_bytes_max = 8 << 10;
  options.disk_free_low_bytes = kDiskLow;
  options.disk_free_high_bytes = kDiskHigh;
  options.disk_check_every = absl::Milliseconds(200);
  broker_ = broker::MakeNodeBroker(std::move(options), {.shards = executors_->shards(),
                                                        .blocking = executors_->blocking,
                                                        .clock = clock_,
                                                        .random = random_,
                                                        .files = fs_,
                                                        .metadata = *meta_,
                                                        .logs = *factory_,
                                                        .log = log_});
}

std::unique_ptr<broker::Broker> Node::MakeReplicated() {
  ReplicatedBrokerOptions options;
  options.node = id_;
  for (int32_t i = 1; i <= context_.plan.nodes; ++i) options.nodes.push_back(NodeId(i));
  options.partitions = context_.plan.partitions;
  options.settings.segment_bytes = context_.plan.segment_bytes;
  options.settings.message_bytes_max = 8 << 10;
  options.shards = executors_->shards();
  return MakeReplicatedBroker(std::move(options), clock_, *factory_);
}

absl::Status Node::OpenStore(Uuid disk) {
  storage::LogStoreOptions options;
  options.data_dir = "data";
  options.journal.file_bytes = context_.plan.journal_file_bytes;
  options.journal.total_bytes_max = 8 * context_.plan.journal_file_bytes;
  options.journal.disk = disk;
  options.journal.random = &random_;
  options.journal.timers = &executors_->shard0;
  options.journal.on_fatal = [this](absl::Status status) { Fatal(std::move(status)); };
  options.cache_bytes = 1 << 20;
  options.disk_low_watermark_bytes = kDiskLow / 2;
  options.disk_high_watermark_bytes = kDiskHigh / 2;
  options.reserve_bytes = 256 << 10;
  options.checkpoint_interval = absl::Seconds(4);
  auto store = storage::LogStore::Open(fs_, clock_,
                                       {.home = &executors_->shard0,
                                        .journal_io = &executors_->journal_io,
                                        .segment_io = &executors_->segment_io,
                                        .cold_reads = &executors_->cold_reads},
                                       options);
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  return absl::OkStatus();
}

void Node::OpenRaft() {
  replication::RaftNodeOptions options;
  options.node = id_;
  transport_ = std::make_unique<Port>(peers_.Join(id_), executors_->wire);
  raft_ = replication::RaftNode::Make(options, {.shards = executors_->shards(),
                                                .transport = transport_.get(),
                                                .clock = &clock_,
                                                .random = &random_,
                                                .store = store_,
                                                .log = &log_});
  raft_->Start();
  factory_ = std::make_unique<broker::RaftLogFactory>(raft_, store_, executors_->shards(), random_);
}

void Node::Fatal(absl::Status why) {
  context_.hits.Add(Hit::kNodeStoppedItself);
  context_.trace.Say([&] { return Cat("node ", id_, " stops itself: ", why.ToString()); });
  fatal_ = std::move(why);
}

void Node::OnStarted(const absl::Status& status) {
  if (status.ok()) {
    serving_ = true;
    context_.trace.Say([&] { return Cat("node ", id_, " serves"); });
    return;
  }
  if (!excused_ && !fs_.crashed() && fatal_.ok()) {
    context_.history.Fail(
        Rule::kNodeStarts,
        Cat("node ", id_, " does not start although nothing is wrong with its disk: ", status.ToString()));
  }
  fatal_ = status;
}

bool Node::Reap() {
  if (!up()) return false;
  const bool crashed = fs_.crashed();
  if (fatal_.ok() && !lose_power_ && !crashed && !stopped_) return false;
  if (crashed) {
    context_.hits.Add(Hit::kCrashMidWrite);
    context_.trace.Say([&] { return Cat("node ", id_, " loses power in the middle of a file operation"); });
  }
  if (!serving_ && (crashed || lose_power_)) context_.hits.Add(Hit::kCrashStarting);
  Kill();
  if (crashed || lose_power_) fs_.Crash();
  lose_power_ = false;
  CountHits();
  return true;
}

void Node::PowerOff() {
  if (!up()) {
    fs_.Crash();  // what a dead process had written and not synced
    return;
  }
  context_.hits.Add(Hit::kCrash);
  context_.trace.Say([&] { return Cat("node ", id_, " loses power"); });
  lose_power_ = true;
}

void Node::PowerOffAtOperation(uint64_t nth) {
  fs_.CrashAt(fs_.operations() + nth);
}

void Node::StopInOrder() {
  if (!serving() || stopping_) return;
  stopping_ = true;
  context_.hits.Add(Hit::kControlledStop);
  context_.trace.Say([&] { return Cat("node ", id_, " is told to stop"); });
  raft_->LeaveLeadership(absl::Seconds(3), [this](const absl::Status&) { StopParts(); });
}

void Node::StopParts() {
  broker_->Stop([this](broker::Done) {
    transport_->Stop([this] {
      raft_->Stop([this] {
        store_->Stop([this](const absl::Status&) {
          context_.trace.Say([&] { return Cat("node ", id_, " has stopped"); });
          stopped_ = true;
        });
      });
    });
  });
}

void Node::Pause() {
  if (!up() || process_->paused()) return;
  context_.hits.Add(Hit::kPause);
  context_.trace.Say([&] { return Cat("node ", id_, " is paused"); });
  process_->Pause();
}

void Node::Resume() {
  if (!paused()) return;
  context_.trace.Say([&] { return Cat("node ", id_, " goes on"); });
  process_->Resume();
}

// The process is gone; what it wrote to files is there.
void Node::Kill() {
  serving_ = stopping_ = stopped_ = false;
  fatal_ = absl::OkStatus();
  if (raft_ != nullptr) CountHits();
  snapshots_counted_ = 0;
  sessions_.clear();
  transport_.reset();
  if (store_ != nullptr) store_->Abandon();
  broker_.reset();
  factory_.reset();
  if (raft_ != nullptr) raft_->Abandon();
  raft_.reset();
  store_.reset();
  meta_.reset();
  executors_.reset();
  process_.reset();
}

std::string Node::Describe() const {
  return Cat("node ", id_, up() ? (serving_ ? " serves" : " is starting") : " is down", paused() ? ", paused" : "",
             stopping_ ? ", stopping" : "");
}

// ---- What reaches it

void Node::Deliver(Task task) {
  executors_->wire.Post(std::move(task));
}

std::shared_ptr<broker::ProduceSession> Node::Session(uint64_t name) {
  auto& session = sessions_[name];
  if (session == nullptr) session = broker_->NewSession();
  return session;
}

void Node::ReadReplica(const ReplicaId& replica, Offset from,
                       absl::AnyInvocable<void(absl::StatusOr<replication::ReadResult>)> done) {
  Executor* const shard = executors_->shards()[static_cast<size_t>(replica.partition.value()) % 2];
  shard->Post([this, replica, from, done = std::move(done)]() mutable {
    const auto log = raft_->Find(replica);
    if (log == nullptr) return done(absl::UnavailableError("there is no such replica"));
    log->ReadCommitted({.offset = from}, std::move(done));
  });
}

// ---- Faults of its disk and clock

void Node::FailCall(SimFileSystem::Call call) {
  excused_ = armed_ = calls_failed_ = true;
  fs_.FailCall(call, 1 + context_.random().Below(call == SimFileSystem::Call::kRead ? 8 : 30));
}

void Node::FailSyncsOf(const std::string& ending) {
  excused_ = armed_ = true;
  fs_.FailSyncsOf(ending, 1 + context_.random().Below(2), context_.random().OneIn(2));
}

void Node::FillDisk() {
  excused_ = armed_ = true;
  context_.hits.Add(Hit::kDiskFull);
  const auto room = static_cast<int64_t>(context_.random().Below(2 * kDiskHigh));
  context_.trace.Say([&] { return Cat("the disk of node ", id_, " has only ", room, " bytes more"); });
  fs_.SetCapacity(fs_.UsedBytes() + room);
}

void Node::SlowDisk() {
  context_.hits.Add(Hit::kDiskSlow);
  context_.trace.Say([&] { return Cat("the disk of node ", id_, " is slow"); });
  slow_ = true;
  ApplyLatency();
}

void Node::ApplyLatency() {
  if (executors_ == nullptr) return;
  const absl::Duration most = slow_ ? absl::Milliseconds(40) : absl::Microseconds(400);
  executors_->journal_io.SetLatency(absl::Microseconds(5), most);
  executors_->segment_io.SetLatency(absl::Microseconds(5), most);
  executors_->cold_reads.SetLatency(absl::Microseconds(5), most);
}

void Node::JumpClock() {
  const auto seconds = static_cast<int64_t>(context_.random().Below(2 * 7200)) - 7200;
  context_.hits.Add(Hit::kClockJumped);
  context_.trace.Say([&] { return Cat("the wall clock of node ", id_, " jumps by ", seconds, " s"); });
  clock_.JumpWall(absl::Seconds(seconds));
}

void Node::Mend() {
  fs_.ClearFailures();
  if (!fs_.crashed()) fs_.CrashAt(0);
  armed_ = slow_ = false;
  ApplyLatency();
}

void Node::CountHits() {
  const simulation::SimFaultCounts now = fs_.counts();
  context_.hits.Add(Hit::kWritesLost, now.writes_lost - counted_.writes_lost);
  context_.hits.Add(Hit::kWriteTorn, now.writes_torn - counted_.writes_torn);
  context_.hits.Add(Hit::kReadFailed, now.read_errors - counted_.read_errors);
  context_.hits.Add(Hit::kWriteFailed, now.write_errors - counted_.write_errors);
  context_.hits.Add(Hit::kSyncFailed, now.sync_errors - counted_.sync_errors);
  counted_ = now;
  if (raft_ == nullptr) return;
  const uint64_t installed = raft_->stats().snapshots_installed;
  context_.hits.Add(Hit::kSnapshotInstalled, installed - snapshots_counted_);
  snapshots_counted_ = installed;
}

}  // namespace sluice::cluster_simulation
