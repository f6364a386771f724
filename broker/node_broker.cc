#include "broker/node_broker.h"

#include "broker/node_broker_impl.h"
#include "common/check.h"

namespace sluice::broker {
namespace {

constexpr absl::Duration kLeaveLeadershipMax = absl::Seconds(10);
// How long a stop waits for answers to what this node has taken.
constexpr absl::Duration kDrainMax = absl::Seconds(5);
constexpr absl::Duration kReadyCheckEvery = absl::Milliseconds(500);
/// A leader that takes no heartbeat for so long, the session time-out, does not count on this node any more.
constexpr absl::Duration kHeardFor = absl::Seconds(3);
/// An election is no reason to send clients away: beyond it there is none.
constexpr absl::Duration kUnreadyAfter = absl::Seconds(5);

}  // namespace

// ---- Starting and stopping -----------------------------------------------------------------------------------------

void NodeBroker::Start(Callback<absl::Status> done) {
  started_ms_ = absl::ToUnixMillis(seams_.clock.Wall());
  home().Post([this, done = std::move(done)]() mutable {
    OpenController([this, done = std::move(done)](absl::Status opened) mutable {
      if (!opened.ok()) return done(opened);
      reconciler_.Start([this, done = std::move(done)](absl::Status reconciled) mutable {
        if (!reconciled.ok()) return done(reconciled);
        CheckDisk([this, done = std::move(done)]() mutable { Belong(std::move(done)); });
      });
    });
  });
}

ClusterClientOptions NodeBroker::ClientOptions(const BrokerOptions& options) {
  ClusterClientOptions client;
  client.node = {.id = options.node,
                 .disk = options.membership.disk,
                 .incarnation = {},
                 .grpc_address = options.address,
                 .peer_address = options.membership.peer_address,
                 .rack = options.rack,
                 .version = options.version,
                 .feature_min = options.feature_min,
                 .feature_max = options.feature_max,
                 .process = options.membership.process};
  client.cluster_id = options.cluster_id;
  client.cluster_name = options.cluster_name;
  client.seeds = options.membership.seeds;
  return client;
}

void NodeBroker::Belong(Callback<absl::Status> done) {
  if (stop_asked_) return done(absl::UnavailableError("the node is stopping"));
  if (options_.membership.disk.IsNil()) {
    ready_.store(true, std::memory_order_relaxed);
    return Serve(std::move(done));
  }
  registry_.Start();
  group0_.Start();
  client_.Start(options_.membership.joined);
  const raft::Raft& group0 = controller_.log()->raft();
  alone_ = group0.configuration().voters.size() == 1 && group0.configuration().IsVoter(group0.self());
  UpdateReady();
  ArmReadyTimer();
  // One that the cluster has counted on before, and that is its own cluster, cannot say so again on a full disk; it
  // serves readers.
  if (!alone_ || ready_) {
    client_.WhenRegistered([this](const absl::Status& status) {
      if (status.ok()) reconciler_.OnRegistered();
      UpdateReady();
    });
    return Serve(std::move(done));
  }
  client_.WhenRegistered([this, done = std::move(done)](absl::Status status) mutable {
    if (!status.ok()) return done(status);
    reconciler_.OnRegistered();
    UpdateReady();
    Serve(std::move(done));
  });
}

bool NodeBroker::IsCountedOn() const {
  const RegisteredNode* self = controller_.state().FindNode(options_.node);
  if (self == nullptr || self->fenced || self->node.disk != options_.membership.disk) return false;
  return client_.epoch() == self->epoch || (alone_ && controller_.IsLeader());
}

bool NodeBroker::IsHeard() {
  const absl::Duration now = seams_.clock.Monotonic();
  if (std::exchange(heartbeats_seen_, client_.heartbeats_taken()) != client_.heartbeats_taken()) heard_at_ = now;
  if (controller_.IsLeader()) return true;
  return controller_.leader().has_value() && heartbeats_seen_ > 0 && now - heard_at_ < kHeardFor;
}

// That it is fenced is true at once; that nobody leads may be over in a second.
void NodeBroker::UpdateReady() {
  if (options_.membership.disk.IsNil()) return;
  const bool counted_on = IsCountedOn();
  const absl::Duration now = seams_.clock.Monotonic();
  if (IsHeard() && counted_on) good_at_ = now;
  const bool ready = counted_on && good_at_.has_value() && now - *good_at_ < kUnreadyAfter;
  if (ready_.exchange(ready, std::memory_order_relaxed) == ready) return;
  seams_.log.Info(ready ? "ready" : "not ready any more: the cluster does not count on this node, or has no leader");
}

void NodeBroker::ArmReadyTimer() {
  ready_timer_ = home().PostAfter(kReadyCheckEvery, [this] {
    UpdateReady();
    ArmReadyTimer();
  });
}

void NodeBroker::OnApplied(const ClusterDelta& delta) {
  if (serves_ && delta.nodes.contains(options_.node)) UpdateReady();
}

void NodeBroker::Serve(Callback<absl::Status> done) {
  if (stop_asked_) return done(absl::UnavailableError("the node is stopping"));
  serves_ = true;
  ArmDiskTimer();
  ArmRetentionTimer();
  gate_->Open();
  if (seams_.peers != nullptr) {
    seams_.peers->Serve([this](PeerCall call, PeerReply reply) { AnswerPeer(std::move(call), std::move(reply)); });
  }
  done(absl::OkStatus());
}

void NodeBroker::OnFailure(const absl::Status& why) {
  // A stop does not wait for room on a full disk, so what waits for it fails: no news for who has asked for the stop.
  if (stop_asked_) return seams_.log.Warn("the controller's log has failed during the stop", {{"error", why}});
  seams_.log.Error("the controller's log cannot be followed any more", {{"error", why}});
  if (seams_.on_refused) seams_.on_refused(why);
}

// A controller's log that is missing is made only where nothing says that there was one.
void NodeBroker::OpenController(Callback<absl::Status> done) {
  seams_.blocking.Post([this, done = std::move(done)]() mutable {
    auto applied = seams_.metadata.Applied("controller");
    home().Post([this, applied = std::move(applied), done = std::move(done)]() mutable {
      if (!applied.ok()) return done(applied.status());
      const std::vector<ReplicaId> replicas = seams_.logs.Replicas();
      const bool on_disk = std::binary_search(replicas.begin(), replicas.end(), kControllerReplica);
      if (!on_disk && (*applied > 0 || !replicas.empty())) {
        return done(absl::DataLossError(Cat("the controller's log is missing, but the metadata store has applied ",
                                            *applied, " of it and there are ", replicas.size(),
                                            " replicas on disk: the journal is not this data folder's")));
      }
      ReplicaSpec group0{.replica = kControllerReplica,
                         .settings = Group0Settings(options_.controller_log_bytes),
                         .feeds_state = true};
      if (options_.membership.joins) {
        // Of one that is there already the incarnation is its own; what matters is that it is not alone.
        const auto& joined = options_.membership.joined;
        group0.incarnation = joined.has_value() ? joined->incarnation : options_.membership.disk;
        if (!on_disk && !joined.has_value()) {
          return done(absl::InternalError("a node that joins opens group 0 before it was let in"));
        }
      }
      seams_.logs.Open(std::move(group0), home(),
                       [this, done = std::move(done)](absl::StatusOr<std::unique_ptr<PartitionLog>> log) mutable {
                         if (!log.ok()) return done(log.status());
                         controller_.Start(*std::move(log), std::move(done));
                       });
    });
  });
}

void NodeBroker::CheckDisk(absl::AnyInvocable<void()> done) {
  seams_.blocking.Post([this, done = std::move(done)]() mutable {
    auto free_bytes = seams_.files.FreeBytes(options_.data_dir);
    home().Post([this, free_bytes = std::move(free_bytes), done = std::move(done)]() mutable {
      const bool refused = disk_.refusing();
      if (free_bytes.ok()) disk_.Update(*free_bytes);  // otherwise what was known last stands
      if (refused != disk_.refusing()) {
        seams_.log.Warn(
            refused ? "the disk has room again: appends are taken" : "the disk is full: appends are refused",
            {{"free_bytes", disk_.free_bytes()}});
      }
      done();
    });
  });
}

void NodeBroker::ArmDiskTimer() {
  disk_timer_ = home().PostAfter(options_.disk_check_every, [this] {
    CheckDisk([this] {
      if (!closing_) ArmDiskTimer();
    });
  });
}

void NodeBroker::ArmRetentionTimer() {
  retention_timer_ = home().PostAfter(options_.retention_check_every, [this] {
    if (clock_watch_.Look()) {
      seams_.log.Warn(
          "the wall clock of this machine has jumped forward, or the machine slept: until it goes back, or has stood "
          "for a "
          "day, records are deleted by age as if it had not; set the clock right, or restart the node where it is "
          "right now",
          {{"ahead", absl::FormatDuration(clock_watch_.ahead())}});
    }
    const auto catalog = catalog_.Load();
    for (const auto& [name, topic] : catalog->topics) {
      for (const auto& partition : topic->partitions) {
        partition->shard().Post(
            [partition = partition, ahead = clock_watch_.ahead()] { partition->EnforceRetention(ahead); });
      }
    }
    ArmRetentionTimer();
  });
}

void NodeBroker::PrepareStop(Callback<Done> done) {
  home().Post([this, done = std::move(done)]() mutable {
    stop_asked_ = true;
    if (!serves_) {
      // A start that waits for its registration waits no more.
      client_.Stop();
      return done(Done{});
    }
    if (controller_.state().nodes.size() < 2) return done(Done{});
    client_.SetDraining();
    seams_.logs.LeaveLeadership(kLeaveLeadershipMax, home(), [this, done = std::move(done)](absl::Status left) mutable {
      if (!left.ok()) seams_.log.Warn("stops while it still leads", {{"why", left}});
      done(Done{});
    });
  });
}

void NodeBroker::Stop(Callback<Done> done) {
  // Calls wait for what the rest of the cluster has decided; cut off from it, they would keep the gate for good. So
  // would records that a full disk, here or at most replicas, keeps from being written.
  home().Post([this] {
    controller_.GiveUpWaiting();
    drain_timer_ = home().PostAfter(kDrainMax, [this] { reconciler_.GiveUpWaiting(); });
  });
  gate_->Close([this, done = std::move(done)]() mutable {
    home().Post([this, done = std::move(done)]() mutable { CloseEverything(std::move(done)); });
  });
  std::vector<std::shared_ptr<FetchOperation>> waiting;
  {
    std::lock_guard lock(fetches_mutex_);
    for (const auto& [id, fetch] : fetches_) {
      if (auto alive = fetch.lock()) waiting.push_back(std::move(alive));
    }
  }
  for (const auto& fetch : waiting) fetch->Cancel();
}

void NodeBroker::CloseEverything(Callback<Done> done) {
  closing_ = true;
  home().Cancel(drain_timer_);
  home().Cancel(disk_timer_);
  home().Cancel(retention_timer_);
  home().Cancel(ready_timer_);
  catalog_.Publish(std::make_shared<const Catalog>());
  client_.Stop();
  group0_.Stop();
  registry_.Stop();
  reconciler_.Stop([this, done = std::move(done)]() mutable {
    controller_.Stop([this, done = std::move(done)]() mutable {
      // Behind whatever a file call that was under way still posts here.
      seams_.blocking.Post([this, done = std::move(done)]() mutable {
        home().Post([done = std::move(done)]() mutable { done(Done{}); });
      });
    });
  });
}

// ---- The node ------------------------------------------------------------------------------------------------------

void NodeBroker::Stats(Callback<BrokerStats> done) {
  BrokerStats stats;
  stats.inflight_bytes = memory_->used();
  stats.inflight_bytes_max = memory_->bytes_max();
  stats.waiting_fetches = waiting_fetches_->load(std::memory_order_relaxed);
  const ReadQuotaStats reads = reads_->stats();
  stats.read_bytes = reads.bytes;
  stats.read_bytes_max = reads.bytes_max;
  stats.reads_waiting = reads.waiting;
  stats.reads_called_in = reads.called_in;
  stats.disk_free_bytes = disk_.free_bytes();
  stats.disk_refusing_writes = disk_.refusing();
  for (size_t i = 0; i < errors_.size(); ++i) {
    if (const int64_t count = errors_[i].load(std::memory_order_relaxed); count > 0) {
      stats.errors[std::string(ReasonName(static_cast<Reason>(i)))] = count;
    }
  }
  const auto catalog = catalog_.Load();
  stats.topics = static_cast<int32_t>(catalog->topics.size());
  std::vector<std::shared_ptr<Partition>> partitions;
  for (const auto& [name, topic] : catalog->topics) {
    std::copy_if(topic->partitions.begin(), topic->partitions.end(), std::back_inserter(partitions),
                 [](const auto& partition) { return !partition->remote(); });
  }
  if (partitions.empty()) {
    return home().Post([stats = std::move(stats), done = std::move(done)]() mutable { done(std::move(stats)); });
  }
  auto all = std::make_shared<Gather<PartitionStats>>(
      partitions.size(), [stats = std::move(stats), done = std::move(done)](std::vector<PartitionStats> each) mutable {
        stats.partitions = std::move(each);
        done(std::move(stats));
      });
  for (size_t i = 0; i < partitions.size(); ++i) {
    Executor& shard = partitions[i]->shard();
    shard.Post([partition = std::move(partitions[i]), all, i] { all->Set(i, partition->stats()); });
  }
}

std::unique_ptr<Broker> MakeNodeBroker(BrokerOptions options, BrokerSeams seams) {
  SLUICE_CHECK(!seams.shards.empty());
  return std::make_unique<NodeBroker>(std::move(options), std::move(seams));
}

}  // namespace sluice::broker
