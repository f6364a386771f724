// The checker is checked: each bug that can be planted in the core (common/planted_bug.h) must be caught within a
// bounded number of seeds, which all hold without it.
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "common/planted_bug.h"
#include "tests/simulation/raft/group.h"
#include "tests/simulation/seeds.h"

namespace sluice::raft_simulation {
namespace {

constexpr uint64_t kSeedsMax = 1000;

struct Planting {
  PlantedBug bug;
  std::string_view name;
};
constexpr Planting kBugs[] = {
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
    {PlantedBug::kForgetMembershipRollback, "a truncated configuration stays in use"},
    {PlantedBug::kCommitBeyondVerified, "commit moves over batches that were not compared"},
};

struct Caught {
  uint64_t seed = 0;
  std::string by;
};

// In a process of its own: a planted bug may also run into one of the core's own checks, which ends it.
std::optional<Caught> Hunt(PlantedBug bug, uint64_t seeds_max) {
  int channel[2];
  if (pipe(channel) != 0) return std::nullopt;
  const pid_t child = fork();
  if (child == 0) {
    close(channel[0]);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    PlantBug(bug);
    for (uint64_t seed = 1; seed <= seeds_max; ++seed) {
      std::string line = Cat(seed, "\n");
      if (write(channel[1], line.data(), line.size()) < 0) _exit(2);
      const Outcome outcome = RunSeed(seed);
      if (!outcome.violation) continue;
      line = Cat("caught by: ", InvariantName(outcome.violation->invariant), "\n");
      if (write(channel[1], line.data(), line.size()) < 0) _exit(2);
      _exit(1);
    }
    _exit(0);
  }
  close(channel[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(channel[0], buffer, sizeof(buffer))) > 0;) {
    said.append(buffer, static_cast<size_t>(got));
  }
  close(channel[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::nullopt;
  Caught caught;
  caught.by = "a check of the core's own";
  for (size_t at = 0; at < said.size();) {
    const size_t end = said.find('\n', at);
    const std::string line = said.substr(at, end - at);
    if (line.starts_with("caught by: ")) {
      caught.by = line.substr(11);
    } else {
      caught.seed = std::strtoull(line.c_str(), nullptr, 10);
    }
    at = end == std::string::npos ? said.size() : end + 1;
  }
  return caught;
}

TEST_CASE("every planted bug is caught within 1,000 seeds") {
  for (const Planting& planting : kBugs) {
    const std::optional<Caught> caught = Hunt(planting.bug, kSeedsMax);
    INFO("not caught: " << planting.name);
    REQUIRE(caught);
    WARN(planting.name << ": seed " << caught->seed << ", by \"" << caught->by << "\"");
  }
}

TEST_CASE("the core with no bug planted holds the seeds that catch planted ones") {
  const std::optional<Caught> caught = Hunt(PlantedBug::kNone, simulation::Seeds(100).count);
  if (caught) FAIL("seed " << caught->seed << " is broken by \"" << caught->by << "\" without a planted bug");
}

}  // namespace
}  // namespace sluice::raft_simulation
