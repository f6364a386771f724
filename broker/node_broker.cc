#include "broker/node_broker.h"

#include "broker/node_broker_impl.h"
#include "common/check.h"

namespace sluice::broker {

// ---- Starting and stopping -----------------------------------------------------------------------------------------

void NodeBroker::Start(Callback<absl::Status> done) {
  started_ms_ = absl::ToUnixMillis(seams_.clock.Wall());
  auto finish = [this, done = std::move(done)](absl::Status status) mutable {
    if (!status.ok()) return done(status);
    CheckDisk([this, done = std::move(done)]() mutable {
      ArmDiskTimer();
      ArmRetentionTimer();
      gate_->Open();
      if (seams_.peers != nullptr) {
        seams_.peers->Serve([this](PeerCall call, PeerReply reply) { AnswerPeer(std::move(call), std::move(reply)); });
      }
      done(absl::OkStatus());
    });
  };
  home().Post([this, finish = std::move(finish)]() mutable {
    OpenController([this, finish = std::move(finish)](absl::Status status) mutable {
      if (!status.ok()) return finish(status);
      reconciler_.Start(std::move(finish));
    });
  });
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
      seams_.logs.Open({.replica = kControllerReplica}, home(),
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
    const auto catalog = catalog_.Load();
    for (const auto& [name, topic] : catalog->topics) {
      for (const auto& partition : topic->partitions) {
        partition->shard().Post([partition = partition] { partition->EnforceRetention(); });
      }
    }
    ArmRetentionTimer();
  });
}

void NodeBroker::Stop(Callback<Done> done) {
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
  home().Cancel(disk_timer_);
  home().Cancel(retention_timer_);
  catalog_.Publish(std::make_shared<const Catalog>());
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
