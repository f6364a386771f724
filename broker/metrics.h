// What `/metrics` answers: the node's counters in Prometheus' text format. Nothing of Prometheus shows.
//
// Pure function of snapshots; names and units are in docs/operations.md.
#pragma once

#include <cstdint>
#include <string>

#include "broker/api.h"
#include "broker/rpc/server.h"
#include "replication/raft_node.h"
#include "storage/journal.h"
#include "storage/scrubber.h"

namespace sluice::broker {

struct ProcessStats {
  double cpu_seconds = 0;
  int64_t resident_bytes = 0;
  double start_time_seconds = 0;  ///< Since 1970.
};

struct NodeStats {
  std::string version;
  bool ready = false;
  ProcessStats process;
  rpc::ServerStats rpc;
  storage::JournalStats journal;
  storage::ScrubStats scrub;
  replication::RaftNodeStats raft;
  BrokerStats broker;
};

/// Above this many partitions their counters are summed by topic, so that one scrape stays small.
inline constexpr size_t kPartitionLabelsMax = 1000;

std::string RenderMetrics(const NodeStats& stats);

}  // namespace sluice::broker
