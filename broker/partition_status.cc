// What a partition tells of itself: to clients who look for its leader, to operators, and as metrics.
#include <algorithm>
#include <utility>

#include "broker/partition.h"
#include "common/text.h"

namespace sluice::broker {

PartitionStats Partition::stats() const {
  PartitionStats stats = stats_;
  stats.topic = topic_;
  stats.partition = replica_.partition;
  stats.failed = failed_ || (log_ != nullptr && !log().read_damage().ok());
  if (log_ == nullptr) return stats;
  const replication::LogBounds bounds = log().bounds();
  stats.log_start = bounds.log_start;
  stats.high_watermark = bounds.high_watermark;
  stats.log_end = bounds.log_end;
  stats.size_bytes = log().size_bytes();
  return stats;
}

PartitionInfo Partition::info() const {
  PartitionInfo info;
  info.partition = replica_.partition;
  info.replica_nodes = replicas_;
  if (failed_) {
    info.error = Fail(stop_reason_, stop_why_);
    if (replicas_.size() == 1) {
      // Whom to ask, for the reason: told that there is no leader, clients would wait for one.
      info.leader_node = node_.id;
      info.leader = node_.address;
    }
  }
  if (log_ == nullptr) return info;
  if (const std::optional<NodeId> leader = log().leader()) {
    info.leader_node = *leader;
    info.leader = *leader == node_.id ? node_.address : node_.addresses.ClientAddress(*leader);
  } else if (!log().damage().ok()) {
    // Perhaps why nobody leads.
    info.error =
        Fail(Reason::kCorruptLog, Cat("the replica on node ", node_.id, " cannot lead: ", Message(log().damage())));
  }
  info.leader_epoch = log().leader_epoch();
  info.log_start = log().bounds().log_start;
  info.high_watermark = log().bounds().high_watermark;
  info.size_bytes = log().size_bytes();
  return info;
}

std::vector<ReplicaStatus> Partition::ReplicaStatuses() const {
  std::vector<ReplicaStatus> statuses;
  for (const NodeId node : replicas_) statuses.push_back({.node = node});
  if (log_ == nullptr || !log().IsLeader()) return statuses;
  const replication::LogBounds bounds = log().bounds();
  const raft::Raft& raft = log().raft();
  const auto of = [&statuses](NodeId node) -> ReplicaStatus& {
    const auto it = std::find_if(statuses.begin(), statuses.end(), [node](const auto& s) { return s.node == node; });
    return it != statuses.end() ? *it : statuses.emplace_back(ReplicaStatus{.node = node});
  };
  ReplicaStatus& own = of(node_.id);
  own.in_sync = true;
  own.lag = 0;
  for (const raft::FollowerStatus& follower : raft.followers()) {
    if (follower.id == raft.self()) continue;
    ReplicaStatus& status = of(follower.id.node);
    status.learner = !follower.voter;
    status.in_sync = follower.active && follower.match >= bounds.high_watermark;
    status.lag = std::max<int64_t>(0, bounds.log_end - follower.match);
  }
  return statuses;
}

PartitionStatus Partition::status() const {
  PartitionInfo known = info();
  PartitionStatus status;
  status.topic = topic_;
  status.partition = known.partition;
  status.leader_node = known.leader_node;
  status.leader = std::move(known.leader);
  status.leader_epoch = known.leader_epoch;
  status.preferred_leader = replicas_.empty() ? NodeId(0) : replicas_.front();
  status.replicas = ReplicaStatuses();
  status.log_start = known.log_start;
  status.high_watermark = known.high_watermark;
  status.size_bytes = known.size_bytes;
  status.error = std::move(known.error);
  return status;
}

}  // namespace sluice::broker
