// The checker is checked: each bug that can be planted above the Raft core (common/planted_bug.h) must be caught within
// a bounded number of seeds, which all hold without it.
#include <catch2/catch.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/planted_bug.h"
#include "tests/simulation/cluster/world.h"
#include "tests/simulation/planted_hunt.h"

namespace sluice::cluster_simulation {
namespace {

constexpr uint64_t kSeedsMax = 1000;

struct Planting {
  PlantedBug bug;
  std::string_view name;
};
constexpr Planting kBugs[] = {
    {PlantedBug::kSkipJournalSync, "the journal does not sync"},
    {PlantedBug::kAcknowledgeBeforeCommit, "proposals are acknowledged before they are committed"},
    {PlantedBug::kForgetLogStart, "the log start is not written down"},
    {PlantedBug::kServeAboveCommit, "readers get what is not committed"},
    {PlantedBug::kIgnoreExpectedOffset, "compare and append does not compare"},
    {PlantedBug::kSayUnknownIsRefused, "an unknown outcome is reported as refused"},
    {PlantedBug::kForgetBrokenSession, "items behind a failed one are taken"},
    {PlantedBug::kAcceptAnyClientEpoch, "the client's epoch is not compared"},
    {PlantedBug::kDeleteToEnd, "more is deleted than was asked"},
    {PlantedBug::kSkipABatch, "a fetch leaves out a batch"},
    {PlantedBug::kForgetDeletedTopic, "a deleted topic stays"},
};

std::optional<simulation::Caught> Hunt(PlantedBug bug, uint64_t seeds_max) {
  return simulation::Hunt(bug, seeds_max, [](uint64_t seed) -> std::optional<std::string_view> {
    const Outcome outcome = RunSeed(seed);
    if (!outcome.violation) return std::nullopt;
    return RuleName(outcome.violation->rule);
  });
}

TEST_CASE("every bug planted above the core is caught within 1,000 seeds of whole nodes") {
  for (const Planting& planting : kBugs) {
    const std::optional<simulation::Caught> caught = Hunt(planting.bug, kSeedsMax);
    INFO("not caught: " << planting.name);
    CHECK(caught);
    if (caught) WARN(planting.name << ": seed " << caught->seed << ", by \"" << caught->by << "\"");
  }
}

TEST_CASE("whole nodes with no bug planted hold the seeds that catch planted ones") {
  const std::optional<simulation::Caught> caught = Hunt(PlantedBug::kNone, 50);
  if (caught) FAIL("seed " << caught->seed << " is broken by \"" << caught->by << "\" without a planted bug");
}

}  // namespace
}  // namespace sluice::cluster_simulation
