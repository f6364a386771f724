// What runs a node's process. For node.cc and node_start.cc only.
#pragma once

#include <vector>

#include "tests/simulation/cluster/node.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::cluster_simulation {

struct Node::Executors {
  explicit Executors(simulation::SimProcess& process)
      : shard0(process),
        shard1(process),
        wire(process),
        journal_io(process),
        segment_io(process),
        cold_reads(process, simulation::SimBlockingExecutor::Order::kAny),
        blocking(process) {}
  std::vector<Executor*> shards() { return {&shard0, &shard1}; }
  /// All that is queued: what waits there may hold on to the node's parts, and let go of them with a last word.
  void Drop() {
    for (simulation::SimExecutor* executor : {&shard0, &shard1, &wire}) executor->Drop();
    for (simulation::SimBlockingExecutor* executor : {&journal_io, &segment_io, &cold_reads, &blocking}) {
      executor->Drop();
    }
  }

  simulation::SimExecutor shard0;
  simulation::SimExecutor shard1;
  simulation::SimExecutor wire;
  simulation::SimBlockingExecutor journal_io;
  simulation::SimBlockingExecutor segment_io;
  simulation::SimBlockingExecutor cold_reads;
  simulation::SimBlockingExecutor blocking;
};

}  // namespace sluice::cluster_simulation
