// Whole nodes and their clients through many seeds of everything that can go wrong. A seed that breaks a rule is
// printed with the command that shows it again.
#include <catch2/catch.hpp>

#include <cstdint>

#include "tests/simulation/cluster/world.h"
#include "tests/simulation/same_elsewhere.h"
#include "tests/simulation/seed_report.h"
#include "tests/simulation/seeds.h"

namespace sluice::cluster_simulation {
namespace {

/// About five minutes of one core, in parts that can run beside each other.
constexpr uint64_t kSeeds = 4000;
constexpr uint64_t kParts = 4;

/// Fewer seeds than that, asked for by hand, are all in the first part. There are no more with SLUICE_LONG: then all
/// those that tally.py runs come after them.
simulation::SeedRange SeedsOf(uint64_t part) {
  simulation::SeedRange seeds = simulation::Seeds(kSeeds, 1);
  if (seeds.count < kSeeds) return {seeds.first, part == 0 ? seeds.count : 0};
  return {seeds.first + part * (kSeeds / kParts), kSeeds / kParts};
}

void RunPart(uint64_t part) {
  simulation::ReportSeedOnAbort("./dev test sim");
  HitCounts hits;
  const simulation::SeedRange seeds = SeedsOf(part);
  for (const uint64_t seed : seeds) {
    simulation::CurrentSeed() = seed;
    const Outcome outcome = RunSeed(seed);
    INFO(Report(outcome));
    REQUIRE_FALSE(outcome.violation);
    hits.Add(outcome.hits);
  }
  if (seeds.count < kSeeds / kParts) return;
  for (size_t i = 0; i < kHits; ++i) {
    INFO("this never happened: " << HitName(static_cast<Hit>(i)));
    REQUIRE(hits.of(static_cast<Hit>(i)) > 0);
  }
}

TEST_CASE("whole nodes keep every promise to their clients through storms, and work again after each, part 1") {
  RunPart(0);
}
TEST_CASE("whole nodes keep every promise to their clients through storms, and work again after each, part 2") {
  RunPart(1);
}
TEST_CASE("whole nodes keep every promise to their clients through storms, and work again after each, part 3") {
  RunPart(2);
}
TEST_CASE("whole nodes keep every promise to their clients through storms, and work again after each, part 4") {
  RunPart(3);
}

// Each of these broke a rule once (docs/reliability.md).
TEST_CASE("seeds of whole nodes that found bugs hold") {
  simulation::ReportSeedOnAbort("./dev test sim");
  for (const auto& [seed, last] : kFormerSeeds) {
    simulation::CurrentSeed() = seed;
    const Outcome outcome = RunSeed(seed);
    INFO(Report(outcome));
    CHECK_FALSE(outcome.violation);
  }
}

TEST_CASE("another process sees the same happen to whole nodes in the same seeds") {
  simulation::RequireSameElsewhere(SLUICE_CLUSTER_SIM, 1, kSeeds / 100,
                                   [](uint64_t seed) { return RunSeed(seed).trace_hash; });
}

}  // namespace
}  // namespace sluice::cluster_simulation
