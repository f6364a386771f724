// Whole nodes and their clients through many seeds of everything that can go wrong. A seed that breaks a rule is
// printed with the command that shows it again.
#include <catch2/catch.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "common/text.h"
#include "tests/simulation/cluster/world.h"
#include "tests/simulation/seed_report.h"
#include "tests/simulation/seeds.h"

namespace sluice::cluster_simulation {
namespace {

constexpr uint64_t kSeeds = 150;

TEST_CASE("whole nodes keep every promise to their clients through storms, and work again after each") {
  simulation::ReportSeedOnAbort("./dev test sim");
  HitCounts hits;
  const simulation::SeedRange seeds = simulation::Seeds(kSeeds);
  for (const uint64_t seed : seeds) {
    simulation::CurrentSeed() = seed;
    const Outcome outcome = RunSeed(seed);
    INFO(Report(outcome));
    REQUIRE_FALSE(outcome.violation);
    hits.Add(outcome.hits);
  }
  if (seeds.count < kSeeds) return;
  for (size_t i = 0; i < kHits; ++i) {
    INFO("this never happened: " << HitName(static_cast<Hit>(i)));
    REQUIRE(hits.of(static_cast<Hit>(i)) > 0);
  }
}

TEST_CASE("another process sees the same happen to whole nodes in the same seeds") {
  constexpr uint64_t kFrom = 1, kCount = 6;
  const std::string command = Cat(SLUICE_CLUSTER_SIM, " --hash ", kFrom, " ", kCount);
  const std::unique_ptr<FILE, int (*)(FILE*)> other(popen(command.c_str(), "r"), pclose);
  REQUIRE(other != nullptr);
  for (uint64_t seed = kFrom; seed < kFrom + kCount; ++seed) {
    char line[64] = {};
    REQUIRE(fgets(line, sizeof(line), other.get()) != nullptr);
    INFO("seed " << seed);
    REQUIRE(std::strtoull(line, nullptr, 10) == RunSeed(seed).trace_hash);
  }
}

}  // namespace
}  // namespace sluice::cluster_simulation
