#include "tests/simulation/cluster/replicated_broker.h"

#include <atomic>
#include <map>
#include <utility>

#include "broker/address_book.h"
#include "broker/admission.h"
#include "broker/error.h"
#include "broker/fetch.h"
#include "broker/gather.h"
#include "broker/partition.h"
#include "broker/read_quota.h"
#include "common/text.h"

namespace sluice::cluster_simulation {

using broker::Callback;
using broker::Error;
using broker::FetchOperation;
using broker::Gather;
using broker::Partition;
using broker::Reason;
using broker::Result;

namespace {

class Session final : public broker::ProduceSession {
 public:
  const std::shared_ptr<broker::SessionLane>& Lane(int32_t partition) {
    auto& lane = lanes_[partition];
    if (lane == nullptr) lane = std::make_shared<broker::SessionLane>();
    return lane;
  }

 private:
  std::map<int32_t, std::shared_ptr<broker::SessionLane>> lanes_;
};

class ReplicatedBroker final : public broker::Broker {
 public:
  ReplicatedBroker(ReplicatedBrokerOptions options, Clock& clock, broker::LogFactory& logs)
      : options_(std::move(options)),
        clock_(clock),
        logs_(logs),
        memory_(std::make_shared<broker::MemoryQuota>(int64_t{1} << 20)),
        reads_(std::make_shared<broker::ReadQuota>(int64_t{1} << 20, clock)) {
    std::map<NodeId, broker::AddressBook::Entry> addresses;
    for (const NodeId node : options_.nodes) addresses[node].client = Cat("node", node, ":7400");
    addresses_.Set(std::move(addresses));
  }

  void Start(Callback<absl::Status> done) override {
    auto all =
        std::make_shared<Gather<absl::Status>>(static_cast<size_t>(options_.partitions),
                                               [this, done = std::move(done)](std::vector<absl::Status> each) mutable {
                                                 absl::Status first;
                                                 for (const absl::Status& status : each) first.Update(status);
                                                 serving_ = first.ok();
                                                 done(first);
                                               });
    partitions_.resize(static_cast<size_t>(options_.partitions));
    for (size_t i = 0; i < partitions_.size(); ++i) OpenPartition(i, all);
  }
  void Stop(Callback<broker::Done> done) override {
    serving_ = false;
    auto all = std::make_shared<Gather<broker::Done>>(
        partitions_.size(), [done = std::move(done)](std::vector<broker::Done>) mutable { done({}); });
    for (size_t i = 0; i < partitions_.size(); ++i) {
      partitions_[i]->shard().Post([partition = partitions_[i], all, i] {
        partition->Stop(Reason::kNotAvailable, "the node is shutting down", [all, i] { all->Set(i, broker::Done{}); });
      });
    }
  }
  bool IsServing() const override { return serving_; }

  std::shared_ptr<broker::ProduceSession> NewSession() override { return std::make_shared<Session>(); }

  void Produce(broker::ProduceItem item, const std::shared_ptr<broker::ProduceSession>& session,
               Callback<broker::ProduceOutcome> done) override {
    std::shared_ptr<Partition> partition = Find(item.topic, item.partition);
    if (partition == nullptr) return Later(std::move(done), broker::ProduceOutcome(NoPartition()));
    broker::PartitionAppend append;
    append.hold = memory_->Take(static_cast<int64_t>(item.batch.size_bytes()));
    if (append.hold) append.batch = std::move(item.batch);
    append.expected_base_offset = item.expected_base_offset;
    append.leader_epoch = item.leader_epoch;
    append.reset = item.reset;
    append.lane = static_cast<Session&>(*session).Lane(item.partition.value());
    append.done = std::move(done);
    Executor& shard = partition->shard();
    shard.Post([partition = std::move(partition), append = std::move(append)]() mutable {
      partition->Append(std::move(append));
    });
  }

  broker::FetchHandle Fetch(broker::FetchSpec spec, Callback<std::vector<broker::FetchOutcome>> done) override {
    std::vector<FetchOperation::Route> routes;
    for (const broker::FetchItem& item : spec.items) {
      FetchOperation::Route route;
      route.partition = Find(item.topic, item.partition);
      if (route.partition == nullptr) route.error = NoPartition();
      routes.push_back(std::move(route));
    }
    auto fetch = std::make_shared<FetchOperation>(std::move(spec), std::move(routes), *options_.shards.front(),
                                                  waiting_, reads_, broker::CallGate::Pass(), std::move(done));
    fetch->Start();
    return fetch;
  }

  void ListOffsets(std::vector<broker::ListOffsetsItem> items,
                   Callback<std::vector<broker::ListOffsetsOutcome>> done) override {
    AskEach(std::move(items), std::move(done),
            [](Partition& partition, const broker::ListOffsetsItem& item, Callback<broker::ListOffsetsOutcome> answer) {
              partition.ListOffsets(item, std::move(answer));
            });
  }
  void DeleteRecords(std::vector<broker::DeleteRecordsItem> items,
                     Callback<std::vector<broker::DeleteRecordsOutcome>> done) override {
    AskEach(
        std::move(items), std::move(done),
        [](Partition& partition, const broker::DeleteRecordsItem& item, Callback<broker::DeleteRecordsOutcome> answer) {
          partition.DeleteRecords(item.before, std::move(answer));
        });
  }

  // Nobody asks here for what takes a controller.
  void CreateTopic(broker::CreateTopicSpec, Callback<Result<broker::TopicInfo>> done) override {
    Refuse(std::move(done));
  }
  void ListTopics(bool, Callback<Result<std::vector<broker::TopicInfo>>> done) override { Refuse(std::move(done)); }
  void DescribeTopic(std::string, Callback<Result<broker::TopicDescription>> done) override { Refuse(std::move(done)); }
  void AlterTopic(broker::AlterTopicSpec, Callback<Result<broker::TopicInfo>> done) override {
    Refuse(std::move(done));
  }
  void AddPartitions(std::string, int32_t, Callback<Result<broker::TopicInfo>> done) override {
    Refuse(std::move(done));
  }
  void DeleteTopic(std::string, Callback<Result<broker::Done>> done) override { Refuse(std::move(done)); }
  void DescribeCluster(Callback<Result<broker::ClusterInfo>> done) override { Refuse(std::move(done)); }
  void ListPartitions(broker::ListPartitionsSpec,
                      Callback<Result<std::vector<broker::PartitionStatus>>> done) override {
    Refuse(std::move(done));
  }
  void ElectLeader(broker::ElectLeaderSpec spec, Callback<Result<broker::ElectedLeader>> done) override {
    (void)spec;
    Refuse(std::move(done));
  }
  void Stats(Callback<broker::BrokerStats> done) override { Later(std::move(done), broker::BrokerStats{}); }

 private:
  static Error NoPartition() { return broker::MakeError(Reason::kUnknownTopic, "there is no such partition"); }

  void OpenPartition(size_t i, const std::shared_ptr<Gather<absl::Status>>& all) {
    Executor& shard = *options_.shards[i % options_.shards.size()];
    broker::ReplicaSpec spec{.replica = ReplicatedGroup(static_cast<int32_t>(i)),
                             .settings = {.segment_bytes = options_.settings.segment_bytes},
                             .incarnation = IncarnationOn(options_.node),
                             .members = {}};
    for (const NodeId node : options_.nodes) spec.members.voters.push_back({node, IncarnationOn(node)});
    const ReplicaId replica = spec.replica;
    logs_.Open(std::move(spec), shard,
               [this, i, all, replica, &shard](absl::StatusOr<std::unique_ptr<broker::PartitionLog>> log) {
                 if (!log.ok()) return all->Set(i, log.status());
                 partitions_[i] = std::make_shared<Partition>(node_,
                                                              Partition::Identity{.replica = replica,
                                                                                  .topic = kReplicatedTopic,
                                                                                  .settings = options_.settings,
                                                                                  .replicas = options_.nodes},
                                                              shard, *std::move(log));
                 all->Set(i, absl::OkStatus());
               });
  }
  std::shared_ptr<Partition> Find(const std::string& topic, PartitionId partition) const {
    const auto number = static_cast<size_t>(partition.value());
    if (topic != kReplicatedTopic || number >= partitions_.size()) return nullptr;
    return partitions_[number];
  }
  template <class T>
  void Later(Callback<T> done, T value) {
    auto held = std::make_shared<T>(std::move(value));
    options_.shards.front()->Post([done = std::move(done), held]() mutable { done(std::move(*held)); });
  }
  template <class T>
  void Refuse(Callback<Result<T>> done) {
    Later(std::move(done), Result<T>(broker::MakeError(Reason::kInvalidArgument, "there is no controller")));
  }
  template <class Item, class Answered, class Ask>
  void AskEach(std::vector<Item> items, Callback<std::vector<Answered>> done, Ask ask) {
    auto all = std::make_shared<Gather<Answered>>(items.size(), std::move(done));
    for (size_t i = 0; i < items.size(); ++i) {
      std::shared_ptr<Partition> partition = Find(items[i].topic, items[i].partition);
      if (partition == nullptr) {
        Answered none;
        none.error = NoPartition();
        options_.shards.front()->Post([all, i, none = std::move(none)]() mutable { all->Set(i, std::move(none)); });
        continue;
      }
      Executor& shard = partition->shard();
      shard.Post([all, i, ask, partition = std::move(partition), item = std::move(items[i])] {
        ask(*partition, item, [all, i](Answered outcome) { all->Set(i, std::move(outcome)); });
      });
    }
  }

  const ReplicatedBrokerOptions options_;
  Clock& clock_;
  broker::LogFactory& logs_;
  const std::shared_ptr<broker::MemoryQuota> memory_;
  const std::shared_ptr<broker::ReadQuota> reads_;
  const std::shared_ptr<std::atomic<int64_t>> waiting_ = std::make_shared<std::atomic<int64_t>>(0);
  broker::DiskWatermarks disk_{0, 0};
  broker::AddressBook addresses_;
  const Partition::Node node_{.clock = clock_,
                              .memory = *memory_,
                              .disk = disk_,
                              .id = options_.node,
                              .address = Cat("node", options_.node, ":7400"),
                              .addresses = addresses_};
  std::vector<std::shared_ptr<Partition>> partitions_;
  bool serving_ = false;
};

}  // namespace

ReplicaId ReplicatedGroup(int32_t partition) {
  return {Uuid::FromRandom(17, 4), PartitionId(partition)};
}

Uuid IncarnationOn(NodeId node) {
  return Uuid::FromRandom(1000 + static_cast<uint64_t>(node.value()), 1);
}

std::unique_ptr<broker::Broker> MakeReplicatedBroker(ReplicatedBrokerOptions options, Clock& clock,
                                                     broker::LogFactory& logs) {
  return std::make_unique<ReplicatedBroker>(std::move(options), clock, logs);
}

}  // namespace sluice::cluster_simulation
