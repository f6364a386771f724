// How partitions stand, put together from what each node says of its own replicas: what a follower believes of its
// leader may be long past, only who leads can say so.
//
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "broker/api.h"
#include "broker/topic_calls.h"
#include "common/types.h"

namespace sluice::broker {

class PartitionSurvey {
 public:
  /// `own` is how this node sees each partition, right for those that it leads.
  explicit PartitionSurvey(std::vector<PartitionStatus> own) : statuses_(std::move(own)) {}

  /// The partition at `place` is not led here: nobody leads it until a node says that it does. `has_replica`: this node
  /// has one, and its status is of that one.
  void AskOthers(size_t place, const ReplicaId& replica, bool has_replica);
  /// What node `from` says of replicas that were asked about; of others nothing is taken. `address` is for clients.
  void Take(NodeId from, const std::string& address, const std::vector<ReplicaReport>& reports);
  /// Each partition has a leader, so nobody can tell more.
  bool all_led() const;
  const std::vector<PartitionStatus>& statuses() const { return statuses_; }
  std::vector<PartitionStatus> Finish() && { return std::move(statuses_); }

 private:
  std::vector<PartitionStatus> statuses_;
  std::map<ReplicaId, size_t> places_;  // of those that are not led here
};

}  // namespace sluice::broker
