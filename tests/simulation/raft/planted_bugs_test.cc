// The checker is checked: each bug that can be planted in the core (common/planted_bug.h) must be caught within a
// bounded number of seeds, which all hold without it.
#include <catch2/catch.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/planted_bug.h"
#include "tests/simulation/planted_hunt.h"
#include "tests/simulation/raft/group.h"
#include "tests/simulation/seeds.h"

namespace sluice::raft_simulation {
namespace {

constexpr uint64_t kSeedsMax = 1000;

constexpr simulation::Planting kBugs[] = {
    {PlantedBug::kAnswerVoteBeforeDurable, "a vote is answered before it is durable"},
    {PlantedBug::kAnswerAppendBeforeDurable, "batches are acknowledged before they are durable"},
    {PlantedBug::kVoteTwice, "a second candidate of a term gets a vote too"},
    {PlantedBug::kCommitOldTermByCounting, "an old term's batches are committed by counting"},
    {PlantedBug::kForgetTruncation, "a conflicting tail stays"},
    {PlantedBug::kIgnorePreviousCheck, "what stands before the batches is not compared"},
    {PlantedBug::kTwoMembershipChanges, "two membership changes at once"},
    {PlantedBug::kMembershipBeforeOwnCommit, "a membership change before a commit of the term"},
    {PlantedBug::kReadIndexWithoutQuorum, "a read index without a quorum"},
    {PlantedBug::kLeaderCountsBeforeDurable, "the leader counts itself too early"},
    {PlantedBug::kServeBeforeOwnCommit, "a new leader serves reads too early"},
    {PlantedBug::kVoteForShorterLog, "the candidate's log is not compared"},
    {PlantedBug::kVoteInDoubt, "a replica in doubt counts like any other"},
    {PlantedBug::kEndDoubtAtOnce, "a doubt ends though a vote that was forgotten may still elect somebody"},
    {PlantedBug::kForgetMembershipRollback, "a truncated configuration stays in use"},
    {PlantedBug::kCommitBeyondVerified, "commit moves over batches that were not compared"},
};

std::optional<std::string_view> Broken(uint64_t seed) {
  const Outcome outcome = RunSeed(seed);
  if (!outcome.violation) return std::nullopt;
  return InvariantName(outcome.violation->invariant);
}

TEST_CASE("every planted bug is caught within 1,000 seeds") {
  simulation::HuntAll(kBugs, kSeedsMax, Broken);
}

TEST_CASE("the core with no bug planted holds the seeds that catch planted ones") {
  simulation::HuntNothing(simulation::Seeds(100).count, Broken);
}

}  // namespace
}  // namespace sluice::raft_simulation
