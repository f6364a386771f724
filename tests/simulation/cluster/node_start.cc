// How a node starts: as the program does it, step by step.
#include <algorithm>
#include <utility>

#include "common/text.h"
#include "storage/meta/log_store.h"
#include "tests/simulation/cluster/node.h"
#include "tests/simulation/cluster/node_executors.h"

namespace sluice::cluster_simulation {

namespace {

constexpr int64_t kDiskLow = 192 << 10;
constexpr int64_t kDiskHigh = 384 << 10;

}  // namespace

void Node::Start() {
  ++life_;
  serving_ = stopping_ = stopped_ = false;
  calls_failed_ = armed_;
  excused_ = armed_ || damaged_;
  if (upgraded_ && !lost_disk_ && !damaged_) {
    program_ = {.version = "simulated-next",
                .feature_min = broker::kFeatureLevelMax,
                .feature_max = broker::kFeatureLevelMax + 1};
  }
  fatal_ = absl::OkStatus();
  process_ = std::make_unique<simulation::SimProcess>(context_.scheduler);
  context_.trace.Say([&] { return Cat("node ", id_, " starts"); });
  if (const absl::Status opened = OpenStorage(); !opened.ok()) {
    context_.trace.Say([&] { return Cat("node ", id_, " cannot open its folder: ", opened.ToString()); });
    return OnStarted(opened);
  }
  OpenPeers();
  if (folder_.joins && !store_->Has(broker::kControllerReplica)) return Join();
  StartBroker(std::nullopt);
}

// ---- Storage

absl::Status Node::OpenStorage() {
  const bool alone = founds_ || seeds_.empty();
  auto folder = broker::OpenDataFolder(*fs_, "data", id_, random_,
                                       alone ? broker::FolderFor::kNewCluster : broker::FolderFor::kClusterThatIs);
  if (!folder.ok()) return folder.status();
  folder_ = *folder;
  executors_ = std::make_unique<Executors>(*process_);
  ApplyLatency();
  if (absl::Status opened = OpenStore(); !opened.ok()) return opened;
  auto meta = storage::OpenLogMetadataStore(*fs_, "data/meta", {.log_bytes_max = 16 << 10});
  if (!meta.ok()) return meta.status();
  meta_ = *std::move(meta);
  return absl::OkStatus();
}

absl::Status Node::OpenStore() {
  storage::LogStoreOptions options;
  options.data_dir = "data";
  options.journal.file_bytes = context_.plan.journal_file_bytes;
  // As with the program's bounds, no one write is as large as the whole journal may be.
  options.journal.group_bytes_max = 256 << 10;
  options.journal.total_bytes_max = 32 * context_.plan.journal_file_bytes;
  options.journal.disk = folder_.disk_id;
  options.journal.random = &random_;
  options.journal.timers = &executors_->shard0;
  options.journal.on_fatal = [this](absl::Status status) { Fatal(std::move(status)); };
  options.cache_bytes = 4 << 20;
  options.disk_low_watermark_bytes = kDiskLow / 2;
  options.disk_high_watermark_bytes = kDiskHigh / 2;
  options.reserve_bytes = 256 << 10;
  options.checkpoint_interval = absl::Seconds(4);
  auto store = storage::LogStore::Open(*fs_, clock_,
                                       {.home = &executors_->shard0,
                                        .journal_io = &executors_->journal_io,
                                        .segment_io = &executors_->segment_io,
                                        .cold_reads = &executors_->cold_reads},
                                       options);
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  return absl::OkStatus();
}

// ---- The cluster

void Node::OpenPeers() {
  const uint64_t high = random_.Next();
  process_id_ = Uuid::FromRandom(high, random_.Next());
  if (std::exchange(peers_.where[id_], place_.peer()) != place_.peer()) {
    context_.trace.Say([&] { return Cat("node ", id_, " is at ", place_.peer(), " now"); });
  }
  port_ = std::make_unique<PeerPort>(peers_,
                                     broker::PeerCaller{.node = id_,
                                                        .cluster = folder_.cluster_id,
                                                        .disk = folder_.disk_id,
                                                        .session = process_id_,
                                                        .address = place_.peer()},
                                     executors_->wire);
}

void Node::Join() {
  context_.trace.Say([&] { return Cat("node ", id_, " asks to be let in"); });
  broker::ClusterClientOptions options;
  options.node = {.id = id_,
                  .disk = folder_.disk_id,
                  .incarnation = {},
                  .grpc_address = place_.client(),
                  .peer_address = place_.peer(),
                  .rack = rack(),
                  .version = std::string(program_.version),
                  .feature_min = program_.feature_min,
                  .feature_max = program_.feature_max,
                  .process = process_id_};
  options.cluster_id = folder_.cluster_id;
  options.seeds = seeds_;
  joiner_ = std::make_unique<broker::ClusterJoiner>(
      options, broker::ClusterJoiner::Seams{.executor = executors_->shard0, .calls = *port_, .log = log_});
  joiner_->Join([this](const absl::StatusOr<broker::Joined>& joined) { OnJoined(joined); });
}

void Node::OnJoined(const absl::StatusOr<broker::Joined>& joined) {
  if (!joined.ok()) return OnStarted(joined.status());
  if (lost_disk_) {
    context_.history.Fail(Rule::kOnlyMembersJoin,
                          Cat("node ", id_, " was let in again with another disk than it is registered with"));
  }
  const absl::Status written = broker::WriteCluster(*fs_, "data", &folder_, joined->cluster_id);
  if (!written.ok()) return OnStarted(written);
  context_.hits.Add(Hit::kNodeJoined);
  port_->SetCluster(folder_.cluster_id);
  StartBroker(joined->registration);
}

void Node::OpenRaft() {
  replication::RaftNodeOptions options;
  options.node = id_;
  options.log.unknown_after = context_.plan.unknown_after;
  raft_ = replication::RaftNode::Make(options, {.shards = executors_->shards(),
                                                .transport = port_.get(),
                                                .clock = &clock_,
                                                .random = &random_,
                                                .store = store_,
                                                .log = &log_});
  raft_->Start();
  factory_ = std::make_unique<broker::RaftLogFactory>(raft_, store_, executors_->shards(), random_);
}

void Node::StartBroker(std::optional<broker::Registration> joined) {
  OpenRaft();
  broker::BrokerOptions options;
  options.node = id_;
  options.cluster_id = folder_.cluster_id;
  options.address = place_.client();
  options.rack = rack();
  options.version = program_.version;
  options.feature_min = program_.feature_min;
  options.feature_max = program_.feature_max;
  options.replace_voter_after = context_.plan.replace_voter_after;
  options.data_dir = "data";
  options.membership = {.disk = folder_.disk_id,
                        .peer_address = place_.peer(),
                        .seeds = seeds_,
                        .joins = folder_.joins,
                        .process = process_id_,
                        .joined = std::move(joined)};
  options.topic_defaults.segment_bytes = context_.plan.segment_bytes;
  options.topic_defaults.message_bytes_max = 8 << 10;
  options.controller_log_bytes = context_.plan.controller_log_bytes;
  options.controller_snapshot_piece_bytes = context_.plan.snapshot_piece_bytes;
  options.disk_free_low_bytes = kDiskLow;
  options.disk_free_high_bytes = kDiskHigh;
  options.disk_check_every = absl::Milliseconds(200);
  broker_ =
      broker::MakeNodeBroker(std::move(options), {.shards = executors_->shards(),
                                                  .blocking = executors_->blocking,
                                                  .clock = clock_,
                                                  .random = random_,
                                                  .files = *fs_,
                                                  .metadata = *meta_,
                                                  .logs = *factory_,
                                                  .log = log_,
                                                  .peers = port_.get(),
                                                  .addresses = port_.get(),
                                                  .on_refused = [this](const absl::Status& why) { OnRefused(why); }});
  broker_->Start([this](const absl::Status& status) { OnStarted(status); });
}

// ---- How it went

void Node::OnStarted(const absl::Status& status) {
  if (status.ok()) {
    serving_ = true;
    context_.trace.Say([&] { return Cat("node ", id_, " serves"); });
    return;
  }
  if (damaged_ && absl::IsDataLoss(status)) context_.hits.Add(Hit::kDamageRefused);
  if (lost_disk_ && absl::IsFailedPrecondition(status)) {
    context_.hits.Add(Hit::kOtherDiskRefused);
    context_.trace.Say([&] { return Cat("node ", id_, " is gone: ", status.ToString()); });
    gone_ = true;
  } else if (!excused_ && !fs_->crashed() && fatal_.ok()) {
    context_.history.Fail(
        Rule::kNodeStarts,
        Cat("node ", id_, " does not start although nothing is wrong with its disk: ", status.ToString()));
  }
  fatal_ = status;
}

void Node::OnRefused(const absl::Status& why) {
  context_.trace.Say([&] { return Cat("node ", id_, " must stop: ", why.ToString()); });
  if (!excused_ && !fs_->crashed() && fatal_.ok()) {
    context_.history.Fail(Rule::kNodeStarts,
                          Cat("node ", id_, " stops although nothing is wrong with its disk: ", why.ToString()));
  }
  fatal_ = why;
}

}  // namespace sluice::cluster_simulation
