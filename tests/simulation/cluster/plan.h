// What one seed draws before it begins: how many nodes, how bad their network and their disks are, what their clients
// do, and what happens to them. And the count of everything that really struck.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "tests/simulation/counts.h"
#include "tests/simulation/draw.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::cluster_simulation {

using simulation::Between;
using simulation::OneOf;
using simulation::Percent;
using simulation::SimRandom;
using simulation::Skewed;

/// Everything that goes wrong or is out of the ordinary.
enum class Hit : uint8_t {
  // clients' connections
  kConnectionRefused,
  kConnectionBroken,  ///< A request was under way, or its answer: the client cannot know.
  kClientTimedOut,
  kClientCutOff,
  // the peers' network
  kPeersCut,
  kPeersCutOneWay,
  kPeersSwizzled,  ///< Cut off one after the other, and let back in another order.
  kPeersDeafened,
  kPeersBridged,  ///< Two parts that do not hear each other, and a node that hears both.
  kStranded,      ///< Goes on after a while, cut off, and may take itself for the leader that it was.
  kPeersSlow,
  kPeerMessageLost,
  kPeerCallLost,
  kPeerMessageTwice,
  // processes
  kKilled,
  kCrash,
  kCrashMidWrite,  ///< The power went in the middle of a file operation.
  kCrashAll,
  kCrashStarting,
  kPause,
  kControlledStop,
  // disks
  kWritesLost,
  kWriteTorn,
  kReadFailed,
  kWriteFailed,
  kSyncFailed,
  kNodeStoppedItself,  ///< After a failed sync or write of its journal.
  kDiskFull,
  kDiskSlow,
  kDiskLost,
  kOtherDiskRefused,  ///< Of a node that came with another disk than it is registered with.
  kBitFlipped,        ///< In a file.
  kBlockMisdirected,  ///< What belongs to one place of a file stands in another one, too.
  kFileCutShort,
  kReadFlipped,    ///< In what a read returned; the file is as it was.
  kDamageRefused,  ///< A node that found its disk damaged and did not start.
  // addresses
  kMoved,
  kMovedToAnothers,  ///< Where clients and nodes looked for another node.
  kMovedAtOnce,      ///< All but one.
  // racks
  kSpreadOverRacks,  ///< A partition whose nodes could all have been in racks of their own.
  kMoreThanRacks,    ///< One that has more replicas than there were racks.
  // clocks
  kClockJumped,
  // what clients were told
  kOutcomeUnknown,
  kRefusedFull,
  kRefusedSequence,
  kRefusedExpectation,
  kRefusedEpoch,
  kUnknownTopic,
  kOffsetOutOfRange,
  kNotLeader,
  kWaitedAtEnd,  ///< A fetch that waited was woken with records.
  // what followed
  kLeaderChanged,
  kSnapshotInstalled,
  kControllerLogCut,
  kControllerStateInstalled,  ///< From another node, for the log there was cut.
  // what operators did
  kTopicDeleted,
  kPartitionsAdded,
  kTopicAltered,
  kRecordsDeleted,
  kLeaderElected,
  kTopicChangeElsewhere,  ///< Asked of another node than the controller's leader.
  // of the cluster
  kNodeJoined,
  kClusterGrew,  ///< By nodes that came in a storm.
  kNodeFenced,
  kControllerMoved,
  kVoterReplaced,  ///< One that was gone, by one that came.
  kUpgraded,
  kFeatureLevelRaised,  ///< By an upgrade of all nodes.
  kCount,
};
inline constexpr size_t kHits = static_cast<size_t>(Hit::kCount);
std::string_view HitName(Hit hit);

using HitCounts = simulation::Counts<Hit>;

/// What the run does to its nodes, one at a time, at drawn moments.
enum class Blow : uint8_t {
  kKill,
  kCrash,
  kCrashMidWrite,
  kCrashAll,
  kPause,
  kControlledStop,
  kReadFails,
  kWriteFails,
  kSyncFails,
  kSegmentSyncFails,
  kDiskFull,
  kDiskSlow,
  kLoseDisk,
  kCutClients,  ///< All clients from one node.
  kClockJump,
  kCutPeers,        ///< One node from all others.
  kCutPeersOneWay,  ///< What one node sends to another.
  kSwizzlePeers,
  kSlowPeers,
  kLossyPeers,
  kMend,     ///< Ends what lasts: full and slow disks, cuts.
  kStrand,   ///< A node stands still, and goes on cut off from its peers: what it led, others lead by then.
  kDeafen,   ///< A node hears none of its peers, and is heard by them.
  kMove,     ///< A node, or all but one, start again with other addresses.
  kUpgrade,  ///< A node starts again as the next version of the program.
  kBridge,   ///< Two parts of the nodes do not hear each other; one node hears both.
  kDamage,   ///< What a node's disk has is not what was written; the disk is replaced when the storm is over.
  kCount,
};
inline constexpr size_t kBlows = static_cast<size_t>(Blow::kCount);

/// What worlds have been given one after the other, each drawn from a stream of its own.
enum class Addition : uint8_t { kNone, kMoves, kRacks, kReplacements, kUpgrades, kDamage, kAll = 255 };
/// Seeds that found bugs, and the last addition that there was then: they have no later one, and so stay what they
/// were.
struct FormerSeed {
  uint64_t seed;
  Addition last;
};
inline constexpr FormerSeed kFormerSeeds[] = {
    {8, Addition::kNone},     {67, Addition::kNone},     {111, Addition::kNone},    {118, Addition::kNone},
    {277, Addition::kMoves},  {375, Addition::kNone},    {2304, Addition::kDamage}, {2726, Addition::kNone},
    {3058, Addition::kNone},  {3861, Addition::kRacks},  {4548, Addition::kNone},   {5278, Addition::kNone},
    {5282, Addition::kRacks}, {6094, Addition::kNone},   {7888, Addition::kNone},   {7928, Addition::kNone},
    {8454, Addition::kNone},  {8573, Addition::kNone},   {8687, Addition::kNone},   {9616, Addition::kNone},
    {11495, Addition::kNone}, {21256, Addition::kMoves}, {22218, Addition::kMoves},
};

struct Plan {
  std::vector<int> nodes{1};  ///< How many there are at the beginning, and at the end of each of the first storms.
  bool loses_disk = false;    ///< One node loses its disk for good, and another takes its place.
  int storms = 1;             ///< Times of faults, each followed by a quiet time in which everything must work again.
  absl::Duration storm_max;
  absl::Duration blow_interval;
  std::array<int, kBlows> weights{};

  /// Of one that is fenced; as long as the program waits no world goes on.
  absl::Duration replace_voter_after = absl::Hours(1);
  absl::Duration substitute_after;  ///< How much later the node comes that takes the place of the one without a disk.
  bool replaces_voter() const { return replace_voter_after < absl::Hours(1); }
  uint64_t duplicates_per_mille = 0;  ///< Of messages between nodes, in storms.
  bool upgrades = false;              ///< Nodes begin as one version of the program, and end as the next one.

  std::vector<std::string> racks;  ///< Of the nodes, by number, again and again; none: nobody names one.

  // Clients
  int producers = 1;
  int consumers = 1;
  absl::Duration produce_interval;
  int in_flight_max = 1;
  int record_bytes_max = 100;
  int reset_percent = 90;   ///< Of items behind a failed one that carry `reset`.
  int expect_percent = 20;  ///< Of items that name the offset they expect.
  absl::Duration admin_interval;
  absl::Duration client_delay_max;
  int answer_loss_per_mille = 0;
  absl::Duration client_timeout = absl::Seconds(6);
  bool asks_anybody = false;  ///< Where a partition begins and ends is asked of any node, not only of its leader.

  // Nodes
  int64_t segment_bytes = 16 << 10;
  int64_t journal_file_bytes = 64 << 10;
  int64_t controller_log_bytes = 4 << 10;
  size_t snapshot_piece_bytes = 1 << 10;
  absl::Duration unknown_after = absl::Seconds(10);  ///< replication::RaftLogOptions
};

/// `seed` says how many nodes; the rest is drawn.
Plan DrawPlan(uint64_t seed, SimRandom& random);

}  // namespace sluice::cluster_simulation
