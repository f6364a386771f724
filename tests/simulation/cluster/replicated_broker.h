// A broker of replicated partitions without a controller: one topic whose partitions and replicas are given, the same
// on all nodes. Everything behind it is the real thing: partitions, fetches, Raft groups, storage. What topics are made
// by, and how nodes join, has no part in it.
//
// Threads: as broker::Broker.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "broker/api.h"
#include "broker/log_factory.h"
#include "broker/topic_settings.h"
#include "common/executor.h"

namespace sluice::cluster_simulation {

inline constexpr char kReplicatedTopic[] = "replicated";

struct ReplicatedBrokerOptions {
  NodeId node;
  std::vector<NodeId> nodes;
  int32_t partitions = 1;
  broker::TopicSettings settings;
  std::vector<Executor*> shards;
};

/// As storage names it.
ReplicaId ReplicatedGroup(int32_t partition);
/// Of every replica on that node.
Uuid IncarnationOn(NodeId node);

std::unique_ptr<broker::Broker> MakeReplicatedBroker(ReplicatedBrokerOptions options, Clock& clock,
                                                     broker::LogFactory& logs);

}  // namespace sluice::cluster_simulation
