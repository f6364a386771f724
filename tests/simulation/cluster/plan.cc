#include "tests/simulation/cluster/plan.h"

#include <algorithm>
#include <iterator>

namespace sluice::cluster_simulation {

namespace {

constexpr std::array<std::string_view, kHits> kNames = {
    "connection refused",
    "connection broken",
    "client timed out",
    "clients cut off from a node",
    "peers cut off",
    "peers cut one way",
    "peers swizzled",
    "peers deafened",
    "peers bridged",
    "stranded",
    "peers slow",
    "peers' message lost",
    "peers' call lost",
    "peers' message came twice",
    "process killed",
    "crash",
    "crash in the middle of a write",
    "crash of all nodes",
    "crash while starting",
    "pause",
    "controlled stop",
    "unsynced write lost",
    "write torn",
    "read failed",
    "write failed",
    "sync failed",
    "node stopped itself",
    "disk full",
    "disk slow",
    "disk lost",
    "node with another disk refused",
    "bit flipped",
    "block misdirected",
    "file cut short",
    "read flipped",
    "start refused for damage",
    "node moved",
    "node moved to where another one was",
    "nodes moved at once",
    "replicas spread over racks",
    "more replicas than racks",
    "wall clock jumped",
    "outcome unknown",
    "refused: disk full",
    "refused: sequence broken",
    "refused: expected another offset",
    "refused: leader epoch",
    "refused: unknown topic",
    "offset out of range",
    "not the leader",
    "waiting fetch woken",
    "leader changed",
    "snapshot installed",
    "controller's log cut",
    "controller's state installed from another node",
    "topic deleted",
    "partitions added",
    "topic altered",
    "records deleted",
    "leader elected by an operator",
    "topic changed at a node that does not decide",
    "node joined",
    "cluster grew in a storm",
    "node fenced",
    "controller moved",
    "voter replaced",
    "node upgraded",
    "feature level raised by an upgrade",
};

absl::Duration Milliseconds(SimRandom& random, int64_t least, int64_t most) {
  return Between(random, absl::Milliseconds(least), absl::Milliseconds(most));
}

/// Most worlds stay as they are; some grow.
std::vector<int> NodesOf(uint64_t seed) {
  switch (seed % 10) {
    case 0:
    case 5:
      return {1};
    case 3:
      return {1, 3};
    case 7:
      return {1, 3, 5};
    case 8:
      return {3, 5};
    case 9:
      return {5};
    default:
      return {3};
  }
}

void DrawMoves(SimRandom random, Plan& plan) {
  if (random.OneIn(3)) plan.weights[static_cast<size_t>(Blow::kMove)] = 5 + static_cast<int>(random.Below(30));
}

void DrawRacks(SimRandom random, Plan& plan) {
  if (plan.nodes.back() == 1 || !random.OneIn(3)) return;
  for (int i = 0; i < 6; ++i) plan.racks.push_back(OneOf<std::string>(random, {"a", "b", "c", ""}));
}

// Short enough for clients that go on meanwhile, and long enough for nodes to be away without losing their votes.
void DrawReplacements(SimRandom random, Plan& plan) {
  if (!plan.loses_disk || !random.OneIn(2)) return;
  plan.replace_voter_after = Milliseconds(random, 500, 6000);
  if (random.OneIn(2)) plan.substitute_after = Milliseconds(random, 1000, 10000);
}

void DrawUpgrades(SimRandom random, Plan& plan) {
  plan.upgrades = random.OneIn(6);
  if (plan.upgrades) plan.weights[static_cast<size_t>(Blow::kUpgrade)] = 3 + static_cast<int>(random.Below(15));
}

void DrawDamage(SimRandom random, Plan& plan) {
  if (plan.nodes.back() > 1 && random.OneIn(2)) plan.duplicates_per_mille = 1 + random.Below(500);
  if (plan.nodes.back() > 1 && random.OneIn(3)) plan.weights[static_cast<size_t>(Blow::kBridge)] = 8;
  if (plan.loses_disk && random.OneIn(2)) {
    plan.weights[static_cast<size_t>(Blow::kDamage)] = 60;
    plan.weights[static_cast<size_t>(Blow::kLoseDisk)] = 0;
  }
}

void DrawAdditions(uint64_t seed, Plan& plan) {
  const auto* const former = std::find_if(std::begin(kFormerSeeds), std::end(kFormerSeeds),
                                          [seed](const FormerSeed& each) { return each.seed == seed; });
  const Addition last = former == std::end(kFormerSeeds) ? Addition::kAll : former->last;
  if (last >= Addition::kMoves) DrawMoves(SimRandom(~seed), plan);
  if (last >= Addition::kRacks) DrawRacks(SimRandom(~seed + 1), plan);
  if (last >= Addition::kReplacements) DrawReplacements(SimRandom(~seed + 2), plan);
  if (last >= Addition::kUpgrades) DrawUpgrades(SimRandom(~seed + 3), plan);
  if (last >= Addition::kDamage) DrawDamage(SimRandom(~seed + 4), plan);
}

}  // namespace

std::string_view HitName(Hit hit) {
  return kNames[static_cast<size_t>(hit)];
}

Plan DrawPlan(uint64_t seed, SimRandom& random) {
  Plan plan;
  plan.nodes = NodesOf(seed);
  plan.loses_disk = plan.nodes.front() >= 3 && random.OneIn(2);
  plan.storms = std::max(1 + static_cast<int>(random.Below(3)), static_cast<int>(plan.nodes.size()) - 1);
  plan.storm_max = Milliseconds(random, 1000, random.OneIn(6) ? 12000 : 5000);
  plan.blow_interval = Milliseconds(random, 60, 1200);
  for (size_t i = 0; i <= static_cast<size_t>(Blow::kMend); ++i)
    plan.weights[i] = random.OneIn(3) ? 0 : static_cast<int>(random.Below(8)) + 1;
  const auto weight = [&plan](Blow blow) -> int& { return plan.weights[static_cast<size_t>(blow)]; };
  weight(Blow::kMend) += 3;
  weight(Blow::kCrash) += 1;
  weight(Blow::kCrashMidWrite) += 2;
  weight(Blow::kLoseDisk) = plan.loses_disk ? 6 : 0;

  plan.producers = 1 + static_cast<int>(random.Below(4));
  plan.consumers = static_cast<int>(random.Below(4));
  plan.produce_interval = Milliseconds(random, 2, 60);
  plan.in_flight_max = OneOf(random, {1, 2, 8, 32});
  plan.record_bytes_max = OneOf(random, {20, 100, 100, 1000, 2000});
  plan.reset_percent = OneOf(random, {50, 90, 100});
  plan.expect_percent = Skewed(random, 60);
  plan.admin_interval = Milliseconds(random, 50, 1500);
  plan.client_delay_max = random.OneIn(4) ? Milliseconds(random, 5, 60) : Milliseconds(random, 0, 3);
  plan.answer_loss_per_mille = Skewed(random, 50);

  plan.segment_bytes = OneOf<int64_t>(random, {8 << 10, 16 << 10, 64 << 10});
  plan.journal_file_bytes = OneOf<int64_t>(random, {64 << 10, 64 << 10, 256 << 10});
  plan.controller_log_bytes = OneOf<int64_t>(random, {200, 500, 1500, 5000, 1 << 20});
  plan.snapshot_piece_bytes = OneOf<size_t>(random, {100, 500, 4000});

  // Drawn by themselves, so that the seeds without it are what they were when they found their bugs: storms that are
  // long enough for leaders that do not know that they are none any more, and clients that turn to others meanwhile.
  SimRandom later(seed);
  if (plan.nodes.back() >= 3 && later.OneIn(4)) {
    plan.storm_max = Milliseconds(later, 8000, 16000);
    plan.blow_interval = Milliseconds(later, 500, 2500);
    plan.asks_anybody = true;
    plan.client_timeout = absl::Seconds(2);
    plan.unknown_after = Milliseconds(later, 10, 500);
    weight(Blow::kStrand) = 20;
    weight(Blow::kDeafen) = 12;
  }
  DrawAdditions(seed, plan);
  return plan;
}

}  // namespace sluice::cluster_simulation
