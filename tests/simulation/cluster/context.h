// What all parts of one run share.
#pragma once

#include <cstdint>
#include <ostream>

#include "tests/simulation/cluster/history.h"
#include "tests/simulation/cluster/plan.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/trace.h"

namespace sluice::cluster_simulation {

struct Context {
  Context(uint64_t seed, std::ostream* out) : scheduler(seed), trace(scheduler, out) {}

  SimRandom& random() { return scheduler.random(); }
  bool Chance(int per_mille) { return storm && static_cast<int>(random().Below(1000)) < per_mille; }

  simulation::SimScheduler scheduler;
  simulation::Trace trace;
  Plan plan;
  History history;
  HitCounts hits;
  bool storm = false;  ///< Faults strike; otherwise everything is well.
};

}  // namespace sluice::cluster_simulation
