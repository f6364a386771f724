// What operators ask of the cluster: its nodes, how its partitions stand, who leads them.
#include "broker/node_broker_impl.h"

namespace sluice::broker {

void NodeBroker::DescribeCluster(Callback<Result<ClusterInfo>> done) {
  AtHome<ClusterInfo>(std::move(done), [this](Callback<Result<ClusterInfo>> answer) {
    CollectPartitions({}, [this, answer = std::move(answer)](const std::vector<PartitionStatus>& partitions) mutable {
      ClusterInfo cluster;
      cluster.cluster_id = options_.cluster_id;
      cluster.cluster_name = options_.cluster_name;
      cluster.controller_node = options_.node;
      cluster.topics = static_cast<int32_t>(catalog_.Load()->topics.size());
      cluster.partitions = static_cast<int32_t>(partitions.size());
      NodeInfo node;
      node.id = options_.node;
      node.address = options_.address;
      node.rack = options_.rack;
      node.version = options_.version;
      node.started_ms = started_ms_;
      node.disk_free_bytes = disk_.free_bytes();
      node.alive = true;
      node.controller_voter = true;
      for (const PartitionStatus& partition : partitions) {
        node.disk_used_bytes += partition.size_bytes;
        if (IsUnderReplicated(partition)) ++cluster.under_replicated_partitions;
        if (IsLeaderless(partition)) ++cluster.leaderless_partitions;
        if (partition.error.has_value()) ++cluster.offline_partitions;
      }
      cluster.nodes.push_back(std::move(node));
      answer(std::move(cluster));
    });
  });
}

void NodeBroker::CollectPartitions(ListPartitionsSpec spec, Callback<std::vector<PartitionStatus>> done) {
  const auto catalog = catalog_.Load();
  std::vector<std::shared_ptr<Partition>> partitions;
  for (const auto& [name, topic] : catalog->topics) {
    if (!spec.topic.empty() && name != spec.topic) continue;
    partitions.insert(partitions.end(), topic->partitions.begin(), topic->partitions.end());
  }
  if (partitions.empty()) {
    return home().Post([done = std::move(done)]() mutable { done({}); });
  }
  auto all = std::make_shared<Gather<PartitionStatus>>(
      partitions.size(),
      [spec = std::move(spec), done = std::move(done)](std::vector<PartitionStatus> statuses) mutable {
        std::erase_if(statuses, [&](const PartitionStatus& status) { return !Matches(spec, status); });
        done(std::move(statuses));
      });
  for (size_t i = 0; i < partitions.size(); ++i) {
    Executor& shard = partitions[i]->shard();
    shard.Post([partition = std::move(partitions[i]), all, i] { all->Set(i, partition->status()); });
  }
}

void NodeBroker::ListPartitions(ListPartitionsSpec spec, Callback<Result<std::vector<PartitionStatus>>> done) {
  using Answer = Result<std::vector<PartitionStatus>>;
  AtHome<std::vector<PartitionStatus>>(
      std::move(done), [this, spec = std::move(spec)](Callback<Answer> answer) mutable {
        if (!spec.topic.empty() && catalog_.Load()->Find(spec.topic) == nullptr) {
          const std::string shown = spec.topic.substr(0, 249);
          return answer(MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", shown, "\""), shown));
        }
        CollectPartitions(std::move(spec), [answer = std::move(answer)](std::vector<PartitionStatus> found) mutable {
          answer(std::move(found));
        });
      });
}

// The only replica leads, or nobody can.
void NodeBroker::ElectLeader(ElectLeaderSpec spec, Callback<Result<ElectedLeader>> done) {
  AtHome<ElectedLeader>(std::move(done),
                        [this, spec = std::move(spec)](Callback<Result<ElectedLeader>> answer) mutable {
                          Found found = Find(*catalog_.Load(), spec.topic, spec.partition);
                          if (found.error.has_value()) return answer(*std::move(found.error));
                          if (spec.node != NodeId(0) && spec.node != options_.node) {
                            return answer(MakeError(Reason::kInvalidArgument,
                                                    Cat("node ", spec.node, " has no replica of ", spec.topic, "/",
                                                        spec.partition, ": the replicas are on node ", options_.node),
                                                    spec.topic, spec.partition));
                          }
                          Executor& shard = found.partition->shard();
                          shard.Post([partition = std::move(found.partition), answer = std::move(answer)]() mutable {
                            PartitionInfo info = partition->info();
                            if (info.error.has_value()) return answer(*std::move(info.error));
                            if (info.leader_node == NodeId(0)) {
                              return answer(MakeError(Reason::kNotAvailable, "the partition has no leader yet",
                                                      partition->topic(), info.partition));
                            }
                            answer(ElectedLeader{info.leader_node, std::move(info.leader), info.leader_epoch});
                          });
                        });
}

}  // namespace sluice::broker
