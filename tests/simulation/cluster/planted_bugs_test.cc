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

constexpr simulation::Planting kBugs[] = {
    {PlantedBug::kSkipJournalSync, "the journal does not sync"},
    {PlantedBug::kAcknowledgeBeforeCommit, "proposals are acknowledged before they are committed"},
    {PlantedBug::kForgetLogStart, "a log start is answered and not written down"},
    {PlantedBug::kServeAboveCommit, "readers get what is not committed"},
    {PlantedBug::kIgnoreExpectedOffset, "compare and append does not compare"},
    {PlantedBug::kSayUnknownIsRefused, "what may have been written is reported as refused"},
    {PlantedBug::kForgetBrokenSession, "items behind a failed one are taken"},
    {PlantedBug::kAcceptAnyClientEpoch, "the client's epoch is not compared"},
    {PlantedBug::kDeleteToEnd, "more is deleted than was asked"},
    {PlantedBug::kSkipABatch, "a fetch leaves out a batch"},
    {PlantedBug::kTrustTheDisk, "what a disk gives back is not checked"},
    {PlantedBug::kStaleLeaderAnswers, "a leader answers where its log ends without asking whether it still leads"},
    {PlantedBug::kForgetDeletedTopic, "a deleted topic stays"},
    {PlantedBug::kControllerAppliesUncommitted, "the controller applies what is not committed"},
    {PlantedBug::kAnswerChangeBeforeCommit, "changes of topics are answered before they are committed"},
    {PlantedBug::kJoinWithAnyDisk, "a node with an empty disk is let in as the one it was"},
    {PlantedBug::kRepeatUnknownChange, "a change of unknown outcome is passed on again"},
    {PlantedBug::kForgetToUnfence, "a node that was away is not counted on again"},
    {PlantedBug::kResetBeforeState, "a log begins anew before the state that it continues is saved"},
    {PlantedBug::kCompactBeforeSaved, "the controller's log is cut above what is saved"},
    {PlantedBug::kForgetToDropReplicas, "replicas of deleted topics stay"},
    {PlantedBug::kKeepOldAddress, "a node that has moved is taken to be where it was"},
    {PlantedBug::kForgetRacks, "replicas are placed whatever the racks are"},
    {PlantedBug::kKeepDeadVoter, "a voter of group 0 that is gone keeps its vote"},
    {PlantedBug::kTakeVoteTooEarly, "a voter loses its vote before another node could have it"},
    {PlantedBug::kRaiseLevelTooEarly, "the feature level is raised to what the leader supports"},
};

std::optional<std::string_view> Broken(uint64_t seed) {
  const Outcome outcome = RunSeed(seed);
  if (!outcome.violation) return std::nullopt;
  return RuleName(outcome.violation->rule);
}

TEST_CASE("every bug planted above the core is caught within 1,000 seeds of whole nodes") {
  simulation::HuntAll(kBugs, kSeedsMax, Broken);
}

TEST_CASE("whole nodes with no bug planted hold the seeds that catch planted ones") {
  simulation::HuntNothing(50, Broken);
}

}  // namespace
}  // namespace sluice::cluster_simulation
