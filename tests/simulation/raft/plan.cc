#include "tests/simulation/raft/plan.h"

namespace sluice::raft_simulation {

namespace {

constexpr std::array<std::string_view, kFaultKinds> kNames = {
    "message lost",
    "message duplicated",
    "message late",
    "old message found again",
    "message to an earlier incarnation",
    "cut, symmetric",
    "cut, one way",
    "cut, bridge",
    "cut, leader alone",
    "cut, for a vote",
    "link held",
    "crash",
    "crash of the leader",
    "crash of all",
    "pause",
    "pause of the leader",
    "clock skew",
    "driver lags",
    "unsynced writes lost",
    "write torn",
    "sync failed",
    "sync slow",
    "read failed",
    "read outdated",
    "damage, data lost",
    "damage, false alarm",
    "damage, vote forgotten",
    "disk wiped",
    "power lost",
    "log start moved",
    "snapshot installed",
    "snapshot failed",
    "crash during an install",
    "learner added",
    "learner promoted",
    "voter demoted",
    "member removed",
    "leader removed",
    "leadership transferred",
    "campaign ordered",
    "leader steps down",
    "peer reported unreachable",
    "connection to leader lost",
};

using simulation::OneOf;
using simulation::Skewed;

absl::Duration Ticks(SimRandom& random, double least, double most) {
  return Between(random, least * kTick, most * kTick);
}

void DrawGroup(SimRandom& random, Plan* plan) {
  plan->storm_of_doubt = random.OneIn(4);
  plan->voters =
      plan->storm_of_doubt ? OneOf(random, {3, 4, 5, 5, 5}) : OneOf(random, {1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5});
  plan->spares = static_cast<int>(random.Below(3));
  raft::Options& options = plan->options;
  options.election_ticks = 6 + static_cast<int>(random.Below(8));
  options.heartbeat_ticks = 1 + static_cast<int>(random.Below(2));
  options.explicit_heartbeats = !random.OneIn(3);
  options.message_bytes_max = OneOf<int64_t>(random, {200, 1000, 4000, 1 << 20});
  options.inflight_bytes_max = options.message_bytes_max * OneOf<int64_t>(random, {1, 2, 8});
  options.inflight_messages_max = OneOf(random, {1, 2, 8, 64});
  options.window_bytes_max = OneOf<int64_t>(random, {0, 500, 4000, 4 << 20});
  for (int i = 0; i < plan->slots(); ++i) {
    const bool skewed = random.OneIn(6);
    const int percent = skewed ? 60 + static_cast<int>(random.Below(100)) : 95 + static_cast<int>(random.Below(11));
    plan->ticks.push_back(kTick * percent / 100);
  }
}

// Hardly any fault but those that make elections, doubts and late messages.
void DrawStormOfDoubt(SimRandom& random, Plan* plan) {
  plan->delay_max = plan->delay_min + Ticks(random, 0.01, 1);
  plan->loss_percent = random.OneIn(3) ? static_cast<int>(random.Below(6)) : 0;
  plan->sync_max = Ticks(random, 0.01, 1);
  plan->slow_sync_percent = plan->sync_failure_per_10000 = plan->read_failure_percent = 0;
  plan->read_max = Ticks(random, 0.01, 1);
  plan->client_interval = Ticks(random, 1, random.OneIn(2) ? 8 : 60);
  plan->action_interval = Ticks(random, 6, 30);
  plan->length_ticks = 300 + static_cast<int>(random.Below(900));
  plan->weights.fill(0);
  for (const Action action : {Action::kCrashLeader, Action::kCutLeader, Action::kCutSymmetric, Action::kCampaign,
                              Action::kTransfer, Action::kLeaderLost, Action::kDamage, Action::kDamageBehindLeader,
                              Action::kPauseLeader, Action::kCrash, Action::kDivideForVote}) {
    plan->weights[static_cast<size_t>(action)] = random.OneIn(2) ? 0 : static_cast<int>(random.Below(3)) + 1;
  }
  plan->weights[static_cast<size_t>(Action::kMembership)] = random.OneIn(2) ? 0 : 2;
  plan->weights[static_cast<size_t>(Action::kHealNetwork)] = 6;
  plan->weights[static_cast<size_t>(Action::kDivideForVote)] += 10;
}

}  // namespace

std::string_view FaultName(Fault fault) {
  return kNames[static_cast<size_t>(fault)];
}

Plan DrawPlan(SimRandom& random) {
  Plan plan;
  DrawGroup(random, &plan);
  plan.length_ticks = 150 + static_cast<int>(random.Below(random.OneIn(8) ? 1500 : 350));

  plan.delay_min = Ticks(random, 0.01, 0.2);
  plan.delay_max = plan.delay_min + (random.OneIn(4) ? Ticks(random, 1, 6) : Ticks(random, 0.01, 1));
  plan.in_order = random.OneIn(2);
  plan.loss_percent = Skewed(random, 30);
  plan.duplicate_percent = Skewed(random, 50);
  plan.late_per_mille = Skewed(random, 30);

  plan.sync_max = random.OneIn(4) ? Ticks(random, 1, 8) : Ticks(random, 0.01, 1);
  plan.slow_sync_percent = Skewed(random, 10);
  plan.sync_failure_per_10000 = Skewed(random, 40);
  plan.read_max = random.OneIn(4) ? Ticks(random, 1, 20) : Ticks(random, 0.01, 1);
  plan.read_failure_percent = Skewed(random, 10);
  plan.keep_below_start = OneOf(random, {0, 0, 5, 40});

  plan.driver_lag_percent = Skewed(random, 50);
  plan.snapshot_failure_percent = Skewed(random, 30);

  plan.client_interval = Ticks(random, 0.3, 4);
  plan.record_bytes_max = OneOf(random, {8, 100, 100, 1000});
  plan.action_interval = Ticks(random, 4, 40);
  for (int& weight : plan.weights) weight = random.OneIn(3) ? 0 : static_cast<int>(random.Below(8)) + 1;
  plan.weights[static_cast<size_t>(Action::kHealNetwork)] += 4;
  plan.weights[static_cast<size_t>(Action::kCrash)] += 2;
  plan.weights[static_cast<size_t>(Action::kMoveLogStart)] *= 2;
  plan.weights[static_cast<size_t>(Action::kMembership)] *= 2;
  plan.weights[static_cast<size_t>(Action::kCrashAll)] /= 3;
  plan.weights[static_cast<size_t>(Action::kWipe)] /= 2;
  if (plan.storm_of_doubt) DrawStormOfDoubt(random, &plan);
  return plan;
}

}  // namespace sluice::raft_simulation
