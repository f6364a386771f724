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

namespace sluice::raft_simulation {

/// What happened, line by line, where somebody reads it; and a hash of it always.
class Trace {
 public:
  Trace(const simulation::SimScheduler& scheduler, std::ostream* out) : scheduler_(scheduler), out_(out) {}

  /// `line` is only called when there is somebody to read it.
  template <class Line>
  void Say(const Line& line) {
    if (out_ != nullptr) *out_ << Stamp() << line() << '\n';
  }
  void Mix(uint64_t part) { hash_ = (hash_ ^ part) * 0x100000001b3; }
  uint64_t hash() const { return hash_; }

 private:
  std::string Stamp() const;

  const simulation::SimScheduler& scheduler_;
  std::ostream* const out_;
  uint64_t hash_ = 0xcbf29ce484222325;
};

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
