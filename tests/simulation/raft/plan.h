// What one seed draws before it begins: how large the group is, how it is set up, how bad its network and its disks
// are, and what happens to it. And the count of every fault that really struck.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "replication/core/raft.h"
#include "tests/simulation/counts.h"
#include "tests/simulation/draw.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::raft_simulation {

using simulation::Between;
using simulation::Percent;
using simulation::SimRandom;

/// Everything that goes wrong, or that is out of the ordinary.
enum class Fault : uint8_t {
  // network
  kMessageLost,
  kMessageDuplicated,
  kMessageLate,     ///< Delivered long after others that were sent later.
  kMessageRefound,  ///< One of long ago is delivered once more.
  kMessageMisaddressed,
  kCutSymmetric,
  kCutOneWay,
  kCutBridge,
  kCutLeader,
  kCutForVote,
  kLinkHeld,
  // process
  kCrash,
  kCrashLeader,
  kCrashAll,
  kPause,
  kPauseLeader,
  kTickSkew,
  kDriverLags,  ///< Several events went before one TakeReady.
  // disk
  kWritesLost,
  kWriteTorn,
  kSyncFailed,
  kSyncSlow,
  kReadFailed,
  kReadOutdated,   ///< The log was cut between a read's request and its answer.
  kDamageLoss,     ///< What had been durable is gone; the replica is in doubt.
  kDamageAlarm,    ///< In doubt, and nothing durable was lost.
  kVoteForgotten,  ///< By damage: one that the candidate may not have heard of yet.
  kDiskWiped,
  kPowerLost,  ///< All members come back in doubt, and nobody else comes back.
  // logs
  kLogStartMoved,
  kSnapshotInstalled,
  kSnapshotFailed,
  kCrashDuringInstall,
  // orders
  kLearnerAdded,
  kLearnerPromoted,
  kVoterDemoted,
  kMemberRemoved,
  kLeaderRemoved,
  kTransfer,
  kCampaign,
  kStepDown,
  kUnreachable,
  kLeaderLost,
  kCount,
};
inline constexpr size_t kFaultKinds = static_cast<size_t>(Fault::kCount);
std::string_view FaultName(Fault fault);

using FaultCounts = simulation::Counts<Fault>;

/// What the run does to the group, one at a time, at drawn moments.
enum class Action : uint8_t {
  kCrash,
  kCrashLeader,
  kCrashAll,
  kDamage,              ///< A crash whose journal ends in damage.
  kDamageBehindLeader,  ///< The leader dies and a follower comes back damaged, at once.
  kDivideForVote,       ///< As many as elect a leader are cut off from theirs, and one of them is to campaign.
  kWipe,
  kPause,
  kPauseLeader,
  kCutSymmetric,
  kCutOneWay,
  kCutBridge,
  kCutLeader,
  kHealNetwork,
  kRefind,
  kMoveLogStart,
  kMembership,
  kTransfer,
  kCampaign,
  kStepDown,
  kUnreachable,
  kLeaderLost,
  kCount,
};
inline constexpr size_t kActions = static_cast<size_t>(Action::kCount);

/// The nominal tick; every replica's own differs from it a little, or a lot.
inline constexpr absl::Duration kTick = absl::Milliseconds(10);

struct Plan {
  int voters = 3;
  int spares = 0;  ///< Replicas that begin outside the group.
  raft::Options options;
  std::vector<absl::Duration> ticks;  ///< By slot.
  int length_ticks = 0;               ///< Of the time with faults.

  // Network
  absl::Duration delay_min;
  absl::Duration delay_max;
  bool in_order = false;  ///< Messages of one sender to one receiver do not overtake each other, unless they are late.
  int loss_percent = 0;
  int duplicate_percent = 0;
  int late_per_mille = 0;

  // Disks
  absl::Duration sync_max;
  int slow_sync_percent = 0;
  int sync_failure_per_10000 = 0;
  absl::Duration read_max;
  int read_failure_percent = 0;
  int keep_below_start = 0;  ///< Records that a log keeps below its start, as whole segments do.

  int driver_lag_percent = 0;
  int snapshot_failure_percent = 0;

  // Clients and misfortune
  absl::Duration client_interval;
  int record_bytes_max = 0;
  absl::Duration action_interval;
  std::array<int, kActions> weights{};

  /// What a replica in doubt may break needs several things at once, which chance hardly ever brings together: one that
  /// voted forgets it while its vote, or the candidate, is held up, and the others go on. Here that is arranged
  /// (storm.cc).
  bool storm_of_doubt = false;

  int slots() const { return voters + spares; }
};

Plan DrawPlan(SimRandom& random);

}  // namespace sluice::raft_simulation
