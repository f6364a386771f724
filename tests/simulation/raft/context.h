// What all parts of one run share.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/text.h"
#include "tests/simulation/raft/checker.h"
#include "tests/simulation/raft/plan.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/trace.h"

namespace sluice::raft_simulation {

using simulation::Trace;

struct Context {
  explicit Context(uint64_t seed, std::ostream* out) : scheduler(seed), trace(scheduler, out) {}

  SimRandom& random() { return scheduler.random(); }
  bool Chance(int percent) { return !healed && Percent(scheduler.random(), percent); }

  simulation::SimScheduler scheduler;
  Trace trace;
  Plan plan;
  Checker checker;
  FaultCounts faults;
  bool healed = false;  ///< No more faults from here on.
};

/// "2" or, of a later life of the same disk, "2b".
std::string ShortName(const VoterId& id);

}  // namespace sluice::raft_simulation
