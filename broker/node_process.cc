#include "broker/node_process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_join.h"
#include "broker/cluster_joiner.h"
#include "broker/controller.h"
#include "broker/metrics.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "storage/meta/rocks_store.h"

namespace sluice::broker {
namespace {

// How often somebody who waits to be let in looks whether it should stop instead.
constexpr absl::Duration kSignalCheck = absl::Milliseconds(50);
constexpr absl::Duration kDrainMax = absl::Seconds(10);
// Journal files: enough of them that recycling goes on, large enough that a rotation is rare.
constexpr int64_t kJournalFileBytesMax = int64_t{32} << 20;
// Half of what a client at full speed has in flight: while one half is written the other arrives.
constexpr int64_t kJournalGroupBytesMax = int64_t{2} << 20;
// Room kept aside so that a node starts on a full disk: twice a journal file.
constexpr int64_t kReserveBytes = int64_t{64} << 20;

ProcessStats ReadProcess(absl::Time started) {
  ProcessStats stats;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  stats.cpu_seconds =
      absl::ToDoubleSeconds(absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime));
  int64_t pages = 0;
  int64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident_pages;
  stats.resident_bytes = resident_pages * sysconf(_SC_PAGESIZE);
  stats.start_time_seconds = absl::ToDoubleSeconds(started - absl::UnixEpoch());
  return stats;
}

int ShardCount(int configured) {
  if (configured > 0) return configured;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return cores > 2 ? cores : 1;
}

runtime::HttpListenerOptions HttpOptions(const NodeConfig& config) {
  runtime::HttpListenerOptions options;
  if (const auto address = ParseHostPort(config.listen_http); address.ok()) {  // always: the configuration was checked
    options.host = address->host;
    options.port = static_cast<uint16_t>(address->port);
  }
  return options;
}

/// With the key of the configuration that named the address.
absl::Status At(std::string_view key, const absl::Status& status) {
  return status.ok() ? status : absl::Status(status.code(), Cat(key, ": ", Message(status)));
}

// Waits for an answer that comes on an executor; for main's thread alone.
template <class T, class Ask>
T Await(Ask ask) {
  std::promise<T> answer;
  ask([&](T value) { answer.set_value(std::move(value)); });
  return answer.get_future().get();
}

// Of a folder with a replica of group 0, which is made after the metadata store: where that is gone, an empty one must
// not take its place, as it would know no topic, no session and no other node.
absl::Status CheckMetadataIsThere(FileSystem& files, const std::string& meta) {
  SLUICE_ASSIGN_OR_RETURN(const bool there, files.Exists(meta + "/CURRENT"));
  if (there) return absl::OkStatus();
  return absl::DataLossError(Cat("metadata store ", meta,
                                 ": it is gone (there is no file CURRENT), but the journal knows ",
                                 "that it was there; bring the data folder back as it was, or give it up"));
}

}  // namespace

NodeProcess::NodeProcess(NodeConfig config, const Logger& log)
    : config_(std::move(config)),
      log_(log),
      started_(clock_.Wall()),
      journal_io_(1, "journal"),
      segment_io_(1, "segments"),
      cold_reads_(2, "cold-reads"),
      metadata_io_(1, "metadata"),
      http_(HttpOptions(config_)) {
  for (int i = 0; i < ShardCount(config_.shards); ++i) {
    shards_.push_back(std::make_unique<runtime::ThreadExecutor>(Cat("shard-", i)));
  }
}

absl::Status NodeProcess::OpenStorage() {
  const FolderFor made_for = config_.seeds.empty() ? FolderFor::kNewCluster : FolderFor::kClusterThatIs;
  SLUICE_ASSIGN_OR_RETURN(folder_, OpenDataFolder(files_, config_.data_dir, config_.id, random_, made_for));
  storage::LogStoreOptions options;
  options.data_dir = config_.data_dir;
  options.cache_bytes = config_.cache_bytes;
  options.disk_low_watermark_bytes = config_.disk_low_watermark;
  options.disk_high_watermark_bytes = config_.disk_high_watermark;
  options.reserve_bytes = kReserveBytes;
  options.journal.total_bytes_max = config_.journal_bytes;
  options.journal.file_bytes = std::min(kJournalFileBytesMax, (config_.journal_bytes / 8) & ~(kBlockBytes - 1));
  options.journal.group_bytes_max = kJournalGroupBytesMax;
  options.journal.disk = folder_.disk_id;
  options.journal.random = &journal_random_;
  options.journal.timers = shards_[0].get();
  options.journal.on_fatal = [&log = log_](const absl::Status& status) {
    log.Error("the journal failed; nothing more can be acknowledged, so the process stops", {{"error", status}});
    std::abort();
  };
  options.scrub.period = config_.scrub_period;
  options.scrub.bytes_per_second_max = config_.scrub_bytes_per_second;
  options.scrub.on_damage = [&log = log_](const ReplicaId& replica, const absl::Status& status) {
    log.Error("the scrubber found stored bytes that are damaged or cannot be read",
              {{"replica", replica}, {"error", status}});
  };
  options.on_removed = [&log = log_](const std::string& path, std::string_view why) {
    log.Warn("recovery removed a file that does not count", {{"file", path}, {"why", why}});
  };
  const storage::LogStoreExecutors executors{
      .home = shards_[0].get(), .journal_io = &journal_io_, .segment_io = &segment_io_, .cold_reads = &cold_reads_};
  SLUICE_RETURN_IF_ERROR(CheckJournalIsThere(files_, config_.data_dir, folder_));
  auto opened = storage::LogStore::Open(files_, clock_, executors, options);
  if (!opened.ok()) return WithWaysOut(config_.data_dir, opened.status());
  store_ = *std::move(opened);
  const storage::RecoveryReport& recovery = store_->recovery();
  log_.Info("opened the data folder", {{"data_dir", config_.data_dir},
                                       {"replicas", recovery.replicas},
                                       {"bytes_rewritten", recovery.bytes_rewritten},
                                       {"files_removed", recovery.files_removed}});
  if (recovery.journal.bytes_cut > 0) {
    log_.Warn("cut a damaged tail off the journal", {{"file", recovery.journal.file},
                                                     {"offset", recovery.journal.offset},
                                                     {"bytes_cut", recovery.journal.bytes_cut},
                                                     {"surely_unacknowledged", recovery.journal.vouched}});
  }
  SLUICE_RETURN_IF_ERROR(CheckGroup0(config_.data_dir, folder_, HasGroup0()));
  const std::string meta = config_.data_dir + "/meta";
  if (HasGroup0()) SLUICE_RETURN_IF_ERROR(CheckMetadataIsThere(files_, meta));
  SLUICE_ASSIGN_OR_RETURN(metadata_, storage::OpenRocksMetadataStore(meta));
  return absl::OkStatus();
}

bool NodeProcess::HasGroup0() const {
  return store_->Has(kControllerReplica);
}

void NodeProcess::NoteOwnGroup0() {
  if (folder_.had_group0) return;
  const absl::Status noted = NoteGroup0(files_, config_.data_dir, &folder_);
  // A full disk, say: the next start does it.
  if (!noted.ok()) log_.Warn("could not note in node.yaml that group 0 is here", {{"error", noted}});
}

absl::Status NodeProcess::OpenPeers() {
  rpc::PeerTransportOptions options;
  options.identity = Identity();
  const uint64_t high = random_.Next();
  process_ = Uuid::FromRandom(high, random_.Next());
  options.session = process_;
  options.address = config_.listen_peer;
  options.tls = config_.peer_tls;
  options.log = log_;
  auto peers = rpc::GrpcPeerTransport::Make(options, clock_);
  if (!peers.ok()) return At("listen.peer", peers.status());
  peers_ = *std::move(peers);
  return absl::OkStatus();
}

NodeRecord NodeProcess::Record() const {
  return {.id = folder_.node_id,
          .disk = folder_.disk_id,
          .incarnation = {},
          .grpc_address = config_.advertise_grpc,
          .peer_address = PeerAddress(),
          .rack = config_.rack,
          .version = SLUICE_VERSION,
          .feature_min = kFeatureLevelMin,
          .feature_max = kFeatureLevelMax,
          .process = process_};
}

// A port that was left to the system to choose is known once it is bound.
std::string NodeProcess::PeerAddress() const {
  const auto advertised = ParseHostPort(config_.advertise_peer);
  return advertised.ok() && advertised->port != 0 ? config_.advertise_peer : peers_->address();
}

absl::Status NodeProcess::Join(runtime::TerminationSignals& signals) {
  if (!folder_.joins || HasGroup0()) return absl::OkStatus();
  if (config_.seeds.empty()) {
    return absl::FailedPreconditionError(
        Cat("the data folder ", config_.data_dir, " was made to join a cluster: name nodes of it in cluster.seeds"));
  }
  ClusterClientOptions options;
  options.node = Record();
  options.cluster_id = folder_.cluster_id;
  options.cluster_name = config_.cluster_name;
  options.seeds = config_.seeds;
  log_.Info("joins a cluster", {{"node", folder_.node_id}, {"seeds", absl::StrJoin(config_.seeds, ",")}});
  ClusterJoiner joiner(options, {.executor = *shards_.front(), .calls = *peers_, .log = log_});
  std::promise<absl::StatusOr<Joined>> answered;
  auto answer = answered.get_future();
  joiner.Join([&answered](absl::StatusOr<Joined> joined) { answered.set_value(std::move(joined)); });
  std::optional<int> signal_number;
  while (!signal_number.has_value() && answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    signal_number = signals.WaitFor(kSignalCheck);
  }
  // The joiner is the first shard's.
  Await<Done>([&](auto done) {
    shards_.front()->Post([&joiner, done = std::move(done)]() mutable {
      joiner.Abandon();
      done(Done{});
    });
  });
  if (signal_number.has_value()) return absl::CancelledError("asked to stop before it was let into its cluster");
  SLUICE_ASSIGN_OR_RETURN(const Joined joined, answer.get());
  SLUICE_RETURN_IF_ERROR(WriteCluster(files_, config_.data_dir, &folder_, joined.cluster_id));
  peers_->SetIdentity(Identity());
  joined_ = joined.registration;
  log_.Info("has joined the cluster", {{"cluster", joined.cluster_id}, {"name", joined.cluster_name}});
  return absl::OkStatus();
}

void NodeProcess::StartRaft() {
  replication::RaftNodeOptions options;
  options.node = folder_.node_id;
  options.election_timeout = config_.raft_election_timeout;
  options.heartbeat = config_.raft_heartbeat;
  replication::RaftNodeSeams seams{
      .shards = {}, .transport = peers_.get(), .clock = &clock_, .random = &random_, .store = store_, .log = &log_};
  for (const auto& shard : shards_) seams.shards.push_back(shard.get());
  std::vector<Executor*> shards = seams.shards;
  raft_ = replication::RaftNode::Make(options, std::move(seams));
  raft_->Start();
  logs_ = std::make_unique<RaftLogFactory>(raft_, store_, std::move(shards), random_);
}

absl::Status NodeProcess::StartBroker(runtime::TerminationSignals& signals) {
  StartRaft();
  BrokerOptions options;
  options.node = folder_.node_id;
  options.cluster_id = folder_.cluster_id;
  options.cluster_name = config_.cluster_name;
  options.address = config_.advertise_grpc.empty() ? config_.listen_grpc : config_.advertise_grpc;
  options.membership = {.disk = folder_.disk_id,
                        .peer_address = PeerAddress(),
                        .seeds = config_.seeds,
                        .joins = folder_.joins,
                        .process = process_,
                        .joined = joined_};
  options.default_replicas = config_.default_replicas;
  options.rack = config_.rack;
  options.version = SLUICE_VERSION;
  options.data_dir = config_.data_dir;
  options.default_partitions = config_.default_partitions;
  options.topic_defaults = config_.topic_defaults;
  options.message_bytes_max = config_.message_bytes_max;
  // The adapter stops reading at its own bound; this one is for what was on its way then.
  options.inflight_bytes_max = 2 * config_.inflight_bytes_max;
  options.read_bytes_max = config_.read_bytes_max;
  options.controller_log_bytes = config_.controller_log_bytes;
  options.disk_free_low_bytes = config_.disk_low_watermark;
  options.disk_free_high_bytes = config_.disk_high_watermark;
  BrokerSeams seams{.shards = {},
                    .blocking = metadata_io_,
                    .clock = clock_,
                    .random = random_,
                    .files = files_,
                    .metadata = *metadata_,
                    .logs = *logs_,
                    .log = log_,
                    .peers = peers_.get(),
                    .addresses = peers_.get(),
                    .on_refused = [this](const absl::Status& why) {
                      {
                        std::lock_guard lock(refused_mutex_);
                        refused_ = why;
                      }
                      runtime::TerminationSignals::Raise();
                    }};
  for (const auto& shard : shards_) seams.shards.push_back(shard.get());
  broker_ = MakeNodeBroker(std::move(options), std::move(seams));
  std::promise<absl::Status> answered;
  auto answer = answered.get_future();
  broker_->Start([&answered](absl::Status status) { answered.set_value(std::move(status)); });
  std::optional<int> signal_number;
  while (!signal_number.has_value() && answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    signal_number = signals.WaitFor(kSignalCheck);
  }
  if (signal_number.has_value()) Await<Done>([&](auto done) { broker_->PrepareStop(std::move(done)); });
  absl::Status started = answer.get();
  // The reason why it stops by itself, where it does.
  SLUICE_RETURN_IF_ERROR(Refused());
  if (signal_number.has_value()) return absl::CancelledError("asked to stop before it had started");
  return started;
}

absl::Status NodeProcess::StartHttp() {
  http_.Handle("/healthz", [](const runtime::HttpRequest&, runtime::HttpRespond respond) {
    respond({200, "text/plain", "alive\n"});
  });
  http_.Handle("/readyz", [this](const runtime::HttpRequest&, runtime::HttpRespond respond) {
    const bool serving = ready_ && broker_->IsReady();
    respond({serving ? 200 : 503, "text/plain", serving ? "serving\n" : "not serving\n"});
  });
  http_.Handle("/metrics", [this](const runtime::HttpRequest&, runtime::HttpRespond respond) {
    AnswerMetrics(std::move(respond));
  });
  return At("listen.http", http_.Start());
}

void NodeProcess::AnswerMetrics(runtime::HttpRespond respond) {
  NodeStats stats;
  stats.version = SLUICE_VERSION;
  stats.process = ReadProcess(started_);
  const char* const type = "text/plain; version=0.0.4; charset=utf-8";
  if (!ready_) return respond({200, type, RenderMetrics(stats)});
  stats.ready = true;
  stats.rpc = server_->stats();
  stats.journal = store_->journal().stats();
  stats.raft = raft_->stats();
  stats.scrub = store_->scrub_stats();
  broker_->Stats([stats = std::move(stats), respond = std::move(respond), type](BrokerStats broker) mutable {
    stats.broker = std::move(broker);
    respond({200, type, RenderMetrics(stats)});
  });
}

absl::Status NodeProcess::Refused() {
  std::lock_guard lock(refused_mutex_);
  return refused_;
}

absl::Status NodeProcess::Start(runtime::TerminationSignals& signals) {
  SLUICE_RETURN_IF_ERROR(StartHttp());
  SLUICE_RETURN_IF_ERROR(OpenStorage());
  SLUICE_RETURN_IF_ERROR(OpenPeers());
  SLUICE_RETURN_IF_ERROR(Join(signals));
  if (HasGroup0()) NoteOwnGroup0();
  SLUICE_RETURN_IF_ERROR(StartBroker(signals));
  NoteOwnGroup0();
  rpc::ServerOptions options;
  options.address = config_.listen_grpc;
  options.tls = config_.listen_tls;
  options.threads = static_cast<int>(shards_.size());
  options.message_bytes_max = config_.message_bytes_max;
  options.inflight_bytes_max = config_.inflight_bytes_max;
  options.connections_max = config_.connections_max;
  options.streams_max = config_.streams_max;
  options.log = log_;
  auto server = rpc::Server::Start(options, *broker_, clock_);
  if (!server.ok()) return At("listen.grpc", server.status());
  server_ = *std::move(server);
  ready_ = true;
  log_.Info("serving", {{"version", SLUICE_VERSION},
                        {"node", folder_.node_id.value()},
                        {"cluster", folder_.cluster_id},
                        {"grpc", server_->address()},
                        {"http", Cat(HttpOptions(config_).host, ":", http_.port())},
                        {"startup_ms", absl::ToInt64Milliseconds(clock_.Wall() - started_)}});
  return absl::OkStatus();
}

void NodeProcess::Stop() {
  ready_ = false;
  if (broker_ != nullptr) Await<Done>([&](auto done) { broker_->PrepareStop(std::move(done)); });
  // Calls that wait for room in the journal would be waited for in vain.
  if (store_ != nullptr) store_->journal().FailOnFullDisk();
  if (server_ != nullptr) server_->Shutdown(kDrainMax);
  if (broker_ != nullptr) Await<Done>([&](auto done) { broker_->Stop(std::move(done)); });
  if (peers_ != nullptr) {
    Await<Done>([&](auto done) { peers_->Stop([done = std::move(done)]() mutable { done(Done{}); }); });
  }
  if (raft_ != nullptr) {
    Await<Done>([&](auto done) { raft_->Stop([done = std::move(done)]() mutable { done(Done{}); }); });
  }
  if (store_ != nullptr) {
    const auto status = Await<absl::Status>([&](auto done) { store_->Stop(std::move(done)); });
    if (!status.ok()) log_.Warn("closing the logs", {{"error", status}});
  }
  for (const auto& shard : shards_) shard->Stop();
  journal_io_.Stop();
  segment_io_.Stop();
  cold_reads_.Stop();
  metadata_io_.Stop();
}

}  // namespace sluice::broker
