// The Raft core through many seeds of everything that can go wrong. A seed that breaks a rule is printed with the
// command that shows it again.
#include <catch2/catch.hpp>

#include <cstdint>

#include "tests/simulation/raft/group.h"
#include "tests/simulation/same_elsewhere.h"
#include "tests/simulation/seeds.h"

namespace sluice::raft_simulation {
namespace {

TEST_CASE("a raft group keeps every promise through faults, and recovers once they heal") {
  simulation::ReportSeedOnAbort("raft_sim");
  FaultCounts faults;
  const simulation::SeedRange seeds = simulation::Seeds(kSeedsShort);
  for (const uint64_t seed : seeds) {
    CurrentSeed() = seed;
    const Outcome outcome = RunSeed(seed);
    INFO(Report(outcome));
    REQUIRE_FALSE(outcome.violation);
    faults.Add(outcome.faults);
  }
  if (seeds.count < kSeedsShort) return;
  for (size_t i = 0; i < kFaultKinds; ++i) {
    INFO("this fault never struck: " << FaultName(static_cast<Fault>(i)));
    REQUIRE(faults.of(static_cast<Fault>(i)) > 0);
  }
}

TEST_CASE("another process sees the same happen in the same seeds") {
  simulation::RequireSameElsewhere(SLUICE_RAFT_SIM, 1, kSeedsShort / 100,
                                   [](uint64_t seed) { return RunSeed(seed).trace_hash; });
}

}  // namespace
}  // namespace sluice::raft_simulation
