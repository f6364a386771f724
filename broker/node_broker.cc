#include "broker/node_broker.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "broker/admission.h"
#include "broker/catalog.h"
#include "broker/controller.h"
#include "broker/error.h"
#include "broker/fetch.h"
#include "broker/gather.h"
#include "broker/limits.h"
#include "broker/produce_session.h"
#include "broker/topic_manager.h"
#include "common/check.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

class NodeBroker final : public Broker {
 public:
  NodeBroker(BrokerOptions options, BrokerSeams seams)
      : options_(std::move(options)),
        seams_(std::move(seams)),
        memory_(std::make_shared<MemoryQuota>(options_.inflight_bytes_max)),
        reads_(std::make_shared<ReadQuota>(options_.read_bytes_max, seams_.clock)),
        disk_(options_.disk_free_low_bytes, options_.disk_free_high_bytes),
        node_{
            .clock = seams_.clock, .memory = *memory_, .disk = disk_, .id = options_.node, .address = options_.address},
        controller_({.executor = home(), .blocking = seams_.blocking, .clock = seams_.clock, .store = seams_.metadata}),
        topics_({.default_partitions = options_.default_partitions, .defaults = options_.topic_defaults},
                {.shards = seams_.shards,
                 .controller = controller_,
                 .logs = seams_.logs,
                 .clock = seams_.clock,
                 .random = seams_.random,
                 .node = node_,
                 .catalog = catalog_,
                 .log = seams_.log}) {}

  void Start(Callback<absl::Status> done) override;
  void Stop(Callback<Done> done) override;
  bool IsServing() const override { return gate_->is_open(); }

  std::shared_ptr<ProduceSession> NewSession() override { return std::make_shared<NodeSession>(); }
  void Produce(ProduceItem item, const std::shared_ptr<ProduceSession>& session,
               Callback<ProduceOutcome> done) override;
  FetchHandle Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) override;
  void ListOffsets(std::vector<ListOffsetsItem> items, Callback<std::vector<ListOffsetsOutcome>> done) override;
  void DeleteRecords(std::vector<DeleteRecordsItem> items, Callback<std::vector<DeleteRecordsOutcome>> done) override;
  void CreateTopic(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) override;
  void ListTopics(bool internal, Callback<Result<std::vector<TopicInfo>>> done) override;
  void DescribeTopic(std::string name, Callback<Result<TopicDescription>> done) override;
  void AlterTopic(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) override;
  void AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) override;
  void DeleteTopic(std::string name, Callback<Result<Done>> done) override;
  void DescribeCluster(Callback<Result<ClusterInfo>> done) override;
  void Stats(Callback<BrokerStats> done) override;

 private:
  Executor& home() const { return *seams_.shards.front(); }

  void OpenController(Callback<absl::Status> done);
  void CheckDisk(absl::AnyInvocable<void()> done);
  void ArmDiskTimer();
  void ArmRetentionTimer();
  void CloseEverything(Callback<Done> done);

  struct Found {
    std::shared_ptr<Partition> partition;
    std::optional<Error> error;
  };
  Found Find(const Catalog& catalog, const std::string& topic, PartitionId partition) const;
  static Error NotServing() { return MakeError(Reason::kNotAvailable, "the node is starting or shutting down"); }
  static Error TooManyItems(size_t count) {
    return MakeError(Reason::kInvalidArgument, Cat(count, " items in one request; ", kItemsMax, " are allowed"));
  }

  void Count(const Error& error) {
    const auto index = static_cast<size_t>(error.reason);
    errors_[std::min(index, errors_.size() - 1)].fetch_add(1, std::memory_order_relaxed);
  }
  template <class T>
  void CountIn(const Result<T>& result) {
    if (!result.ok()) Count(result.error());
  }
  template <class Outcome>
  void CountIn(const std::vector<Outcome>& outcomes) {
    for (const auto& outcome : outcomes) {
      if (outcome.error.has_value()) Count(*outcome.error);
    }
  }
  /// `done` with the call's pass held until it has run, and its errors counted.
  template <class T>
  Callback<T> Guard(CallGate::Pass pass, Callback<T> done) {
    return [this, pass = std::move(pass), done = std::move(done)](T answer) mutable {
      CountIn(answer);
      done(std::move(answer));
    };
  }
  /// Runs `work(guarded done)` on the first shard, or answers that the node does not serve.
  template <class T, class Work>
  void AtHome(Callback<Result<T>> done, Work work) {
    CallGate::Pass pass = gate_->Enter();
    home().Post([this, pass = std::move(pass), done = std::move(done), work = std::move(work)]() mutable {
      if (!pass) return done(NotServing());
      work(Guard<Result<T>>(std::move(pass), std::move(done)));
    });
  }
  /// Each item to its partition's shard by `ask(partition, item, answer)`; answers in the items' order.
  template <class Item, class Outcome, class Ask>
  void AskEach(std::vector<Item> items, Callback<std::vector<Outcome>> done, Ask ask);

  const BrokerOptions options_;
  const BrokerSeams seams_;
  std::shared_ptr<CallGate> gate_ = std::make_shared<CallGate>();
  std::shared_ptr<MemoryQuota> memory_;
  std::shared_ptr<ReadQuota> reads_;
  DiskWatermarks disk_;
  const Partition::Node node_;
  CatalogCell catalog_;
  Controller controller_;
  TopicManager topics_;
  int64_t started_ms_ = 0;
  std::shared_ptr<std::atomic<int64_t>> waiting_fetches_ = std::make_shared<std::atomic<int64_t>>(0);
  std::array<std::atomic<int64_t>, 16> errors_{};

  // The first shard's.
  Executor::TimerId disk_timer_ = 0;
  Executor::TimerId retention_timer_ = 0;
  bool closing_ = false;

  std::mutex fetches_mutex_;
  std::map<uint64_t, std::weak_ptr<FetchOperation>> fetches_;  // those that have not answered
  uint64_t fetches_made_ = 0;
};

// ---- Starting and stopping -----------------------------------------------------------------------------------------

void NodeBroker::Start(Callback<absl::Status> done) {
  started_ms_ = absl::ToUnixMillis(seams_.clock.Wall());
  auto finish = [this, done = std::move(done)](absl::Status status) mutable {
    if (!status.ok()) return done(status);
    CheckDisk([this, done = std::move(done)]() mutable {
      ArmDiskTimer();
      ArmRetentionTimer();
      gate_->Open();
      done(absl::OkStatus());
    });
  };
  home().Post([this, finish = std::move(finish)]() mutable {
    OpenController([this, finish = std::move(finish)](absl::Status status) mutable {
      if (!status.ok()) return finish(status);
      topics_.Start(std::move(finish));
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
      seams_.logs.Open(kControllerReplica, home(), LogSettings{},
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
  topics_.Stop([this, done = std::move(done)]() mutable {
    controller_.Stop([this, done = std::move(done)]() mutable {
      // Behind whatever a file call that was under way still posts here.
      seams_.blocking.Post([this, done = std::move(done)]() mutable {
        home().Post([done = std::move(done)]() mutable { done(Done{}); });
      });
    });
  });
}

// ---- Records -------------------------------------------------------------------------------------------------------

NodeBroker::Found NodeBroker::Find(const Catalog& catalog, const std::string& topic, PartitionId partition) const {
  const std::string_view shown = std::string_view(topic).substr(0, 249);
  const CatalogTopic* found = catalog.Find(topic);
  if (found == nullptr) {
    return {nullptr, MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", shown, "\""), shown, partition)};
  }
  if (partition.value() < 0 || static_cast<size_t>(partition.value()) >= found->partitions.size()) {
    return {nullptr, MakeError(Reason::kUnknownTopic,
                               Cat("topic \"", shown, "\" has ", found->partitions.size(), " partitions, there is no ",
                                   partition),
                               shown, partition)};
  }
  return {found->partitions[static_cast<size_t>(partition.value())], std::nullopt};
}

void NodeBroker::Produce(ProduceItem item, const std::shared_ptr<ProduceSession>& session,
                         Callback<ProduceOutcome> done) {
  CallGate::Pass pass = gate_->Enter();
  if (!pass) {
    return home().Post([done = std::move(done)]() mutable { done(NotServing()); });
  }
  Callback<ProduceOutcome> guarded = Guard<ProduceOutcome>(std::move(pass), std::move(done));
  const auto refuse = [this](Callback<ProduceOutcome> to, Error error) {
    home().Post([to = std::move(to), error = std::move(error)]() mutable { to(std::move(error)); });
  };
  NodeSession::Route route;
  if (session != nullptr) {
    const NodeSession::Route* known = static_cast<NodeSession&>(*session).Find(catalog_, item.topic, item.partition);
    if (known == nullptr) {
      return refuse(std::move(guarded), MakeError(Reason::kQuota, Cat("a stream may name ", kSessionLanesMax,
                                                                      " partitions; open another one")));
    }
    route = *known;
  }
  if (route.partition == nullptr) {
    Found found = Find(*catalog_.Load(), item.topic, item.partition);
    // A session's view may be a moment older than the catalog's; it then counts, for order's sake.
    if (found.partition != nullptr && session != nullptr) {
      found.error = MakeError(Reason::kNotAvailable, "the topic is being made", item.topic, item.partition);
    }
    if (found.error.has_value()) return refuse(std::move(guarded), *std::move(found.error));
    route.partition = std::move(found.partition);
  }
  PartitionAppend append;
  append.hold = memory_->Take(static_cast<int64_t>(item.batch.size_bytes()));
  if (append.hold) append.batch = std::move(item.batch);
  append.expected_base_offset = item.expected_base_offset;
  append.leader_epoch = item.leader_epoch;
  append.reset = item.reset;
  append.lane = std::move(route.lane);
  append.done = std::move(guarded);
  Executor& shard = route.partition->shard();
  shard.Post([partition = std::move(route.partition), append = std::move(append)]() mutable {
    partition->Append(std::move(append));
  });
}

FetchHandle NodeBroker::Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) {
  CallGate::Pass pass = gate_->Enter();
  std::vector<FetchOperation::Route> routes;
  routes.reserve(spec.items.size());
  const auto catalog = catalog_.Load();
  for (const auto& item : spec.items) {
    FetchOperation::Route route;
    if (!pass) {
      route.error = NotServing();
    } else if (spec.items.size() > kItemsMax) {
      route.error = TooManyItems(spec.items.size());
    } else {
      Found found = Find(*catalog, item.topic, item.partition);
      route = {std::move(found.partition), std::move(found.error)};
    }
    if (route.error.has_value()) {
      route.error->topic = item.topic;
      route.error->partition = item.partition;
    }
    routes.push_back(std::move(route));
  }
  const auto first = std::find_if(routes.begin(), routes.end(), [](const auto& r) { return r.partition != nullptr; });
  Executor& at = first == routes.end() ? home() : first->partition->shard();
  std::lock_guard lock(fetches_mutex_);
  const uint64_t id = ++fetches_made_;
  auto fetch = std::make_shared<FetchOperation>(
      std::move(spec), std::move(routes), at, waiting_fetches_, reads_, std::move(pass),
      [this, id, done = std::move(done)](std::vector<FetchOutcome> outcomes) mutable {
        {
          std::lock_guard inner(fetches_mutex_);
          fetches_.erase(id);
        }
        CountIn(outcomes);
        done(std::move(outcomes));
      });
  fetches_[id] = fetch;
  fetch->Start();
  // Stop may have looked for waiting fetches just before this one was noted.
  if (!gate_->is_open()) fetch->Cancel();
  return fetch;
}

template <class Item, class Outcome, class Ask>
void NodeBroker::AskEach(std::vector<Item> items, Callback<std::vector<Outcome>> done, Ask ask) {
  CallGate::Pass pass = gate_->Enter();
  if (items.empty()) return home().Post([done = std::move(done)]() mutable { done({}); });
  const size_t count = items.size();
  const auto catalog = catalog_.Load();
  const bool serving = static_cast<bool>(pass);
  auto all = std::make_shared<Gather<Outcome>>(count, Guard<std::vector<Outcome>>(std::move(pass), std::move(done)));
  for (size_t i = 0; i < count; ++i) {
    Found found;
    if (!serving) {
      found.error = NotServing();
    } else if (count > kItemsMax) {
      found.error = TooManyItems(count);
    } else {
      found = Find(*catalog, items[i].topic, items[i].partition);
    }
    if (found.error.has_value()) {
      Outcome outcome;
      outcome.topic = items[i].topic;
      outcome.partition = items[i].partition;
      found.error->topic = outcome.topic;
      found.error->partition = outcome.partition;
      outcome.error = std::move(found.error);
      home().Post([all, i, outcome = std::move(outcome)]() mutable { all->Set(i, std::move(outcome)); });
      continue;
    }
    Executor& shard = found.partition->shard();
    shard.Post([all, i, ask, partition = std::move(found.partition), item = std::move(items[i])]() mutable {
      ask(*partition, item, [all, i](Outcome outcome) { all->Set(i, std::move(outcome)); });
    });
  }
}

void NodeBroker::ListOffsets(std::vector<ListOffsetsItem> items, Callback<std::vector<ListOffsetsOutcome>> done) {
  AskEach(std::move(items), std::move(done),
          [](Partition& partition, const ListOffsetsItem& item, Callback<ListOffsetsOutcome> answer) {
            partition.ListOffsets(item, std::move(answer));
          });
}

void NodeBroker::DeleteRecords(std::vector<DeleteRecordsItem> items, Callback<std::vector<DeleteRecordsOutcome>> done) {
  AskEach(std::move(items), std::move(done),
          [](Partition& partition, const DeleteRecordsItem& item, Callback<DeleteRecordsOutcome> answer) {
            partition.DeleteRecords(item.before, std::move(answer));
          });
}

// ---- Topics --------------------------------------------------------------------------------------------------------

void NodeBroker::CreateTopic(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done), [this, spec = std::move(spec)](Callback<Result<TopicInfo>> answer) mutable {
    topics_.Create(std::move(spec), std::move(answer));
  });
}

void NodeBroker::AlterTopic(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done), [this, spec = std::move(spec)](Callback<Result<TopicInfo>> answer) mutable {
    topics_.Alter(std::move(spec), std::move(answer));
  });
}

void NodeBroker::AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done),
                    [this, name = std::move(name), partitions](Callback<Result<TopicInfo>> answer) mutable {
                      topics_.AddPartitions(std::move(name), partitions, std::move(answer));
                    });
}

void NodeBroker::DeleteTopic(std::string name, Callback<Result<Done>> done) {
  AtHome<Done>(std::move(done), [this, name = std::move(name)](Callback<Result<Done>> answer) mutable {
    topics_.Delete(std::move(name), std::move(answer));
  });
}

void NodeBroker::ListTopics(bool internal, Callback<Result<std::vector<TopicInfo>>> done) {
  AtHome<std::vector<TopicInfo>>(std::move(done), [this, internal](Callback<Result<std::vector<TopicInfo>>> answer) {
    std::vector<TopicInfo> topics;
    const auto catalog = catalog_.Load();
    for (const auto& [name, topic] : catalog->topics) {
      if (internal || !IsInternalTopic(name)) topics.push_back(topic->info);
    }
    answer(std::move(topics));
  });
}

void NodeBroker::DescribeTopic(std::string name, Callback<Result<TopicDescription>> done) {
  AtHome<TopicDescription>(
      std::move(done), [this, name = std::move(name)](Callback<Result<TopicDescription>> answer) mutable {
        const auto catalog = catalog_.Load();
        const CatalogTopic* topic = catalog->Find(name);
        if (topic == nullptr) {
          const std::string shown = name.substr(0, 249);
          return answer(MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", shown, "\""), shown));
        }
        auto all = std::make_shared<Gather<PartitionInfo>>(
            topic->partitions.size(),
            [info = topic->info, answer = std::move(answer)](std::vector<PartitionInfo> partitions) mutable {
              answer(TopicDescription{.topic = std::move(info), .partitions = std::move(partitions)});
            });
        for (size_t i = 0; i < topic->partitions.size(); ++i) {
          const auto& partition = topic->partitions[i];
          partition->shard().Post([partition, all, i] { all->Set(i, partition->info()); });
        }
      });
}

// ---- The node ------------------------------------------------------------------------------------------------------

void NodeBroker::DescribeCluster(Callback<Result<ClusterInfo>> done) {
  AtHome<ClusterInfo>(std::move(done), [this](Callback<Result<ClusterInfo>> answer) {
    Stats([this, answer = std::move(answer)](BrokerStats stats) mutable {
      ClusterInfo cluster;
      cluster.cluster_id = options_.cluster_id;
      cluster.cluster_name = options_.cluster_name;
      cluster.controller_node = options_.node;
      cluster.topics = stats.topics;
      cluster.partitions = static_cast<int32_t>(stats.partitions.size());
      NodeInfo node;
      node.id = options_.node;
      node.address = options_.address;
      node.rack = options_.rack;
      node.version = options_.version;
      node.started_ms = started_ms_;
      node.disk_free_bytes = stats.disk_free_bytes;
      for (const auto& partition : stats.partitions) node.disk_used_bytes += partition.size_bytes;
      node.alive = true;
      cluster.nodes.push_back(std::move(node));
      answer(std::move(cluster));
    });
  });
}

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
    partitions.insert(partitions.end(), topic->partitions.begin(), topic->partitions.end());
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

}  // namespace

std::unique_ptr<Broker> MakeNodeBroker(BrokerOptions options, BrokerSeams seams) {
  SLUICE_CHECK(!seams.shards.empty());
  return std::make_unique<NodeBroker>(std::move(options), std::move(seams));
}

}  // namespace sluice::broker
