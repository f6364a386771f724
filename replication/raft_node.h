// RaftNode: the Raft groups that have a replica on this node: opens and removes them, hands received messages to their
// shards, ticks them (one timer a shard), and shares among them what a node has once: the transport, the recovery
// budget, the bound on received messages.
//
// Groups that are quiet sleep: while their peers' nodes are heard of and nothing else happens, a tick does not look at
// them, so thousands of idle groups cost nothing. Any message, call or broken connection wakes a group, and so does the
// silence of a node that it depends on; the ticks that it has missed since that node was last heard are made up.
//
// Always holds: a group is on one shard from Open to Close or Remove; messages of a group that is not open here are
// dropped (its peers say everything again).
// Threads: any, but for what says otherwise; callbacks run on the group's shard. The shards outlive the node; the
// store, the transport and the rest of the seams too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "absl/time/time.h"
#include "common/executor.h"
#include "common/log.h"
#include "replication/liveness.h"
#include "replication/raft_log.h"
#include "replication/transport.h"
#include "storage/log_store.h"

namespace sluice::replication {

struct RaftNodeOptions {
  NodeId node;
  absl::Duration election_timeout = absl::Seconds(1);  ///< raft.election_timeout_ms
  absl::Duration heartbeat = absl::Milliseconds(100);  ///< raft.heartbeat_ms
  int64_t recovery_bytes_max = int64_t{8} << 20;       ///< Under way to followers that catch up from the log.
  int64_t inbox_bytes_max = int64_t{64} << 20;         ///< Received, and not looked at yet.
  /// Nodes tell each other of their life, rather than each group of its own (liveness.h). All nodes alike.
  bool coalesce_heartbeats = true;
  RaftLogOptions log;  ///< Its ticks and explicit_heartbeats are set here.
};

struct RaftNodeSeams {
  std::vector<Executor*> shards;
  PeerTransport* transport = nullptr;
  Clock* clock = nullptr;
  Random* random = nullptr;  ///< Used only while the node is made.
  std::shared_ptr<storage::LogStore> store;
  const Logger* log = nullptr;
  LeaderObserver on_leader_change = nullptr;  ///< May be empty.
};

struct GroupSpec {
  ReplicaId group;
  size_t shard = 0;  ///< Index of RaftNodeSeams::shards.
  storage::LogOptions log;
  /// With which a replica that is not there yet is made; one that is there keeps its own.
  Uuid incarnation;
  /// Looked at only where the replica has no Raft state yet; nobody for one that joins a group.
  raft::Configuration initial;
  /// Instead of `initial`: this replica alone, whatever its incarnation is. How a log of version 0.1 becomes a group.
  bool alone = false;
  /// No earlier process of this node can have had the replica: whatever the journal's end was, it has forgotten
  /// nothing.
  bool never_before = false;
  bool feeds_state = false;  ///< RaftLog::Start::feeds_state.
};

/// Of all groups, as of the last tick.
struct RaftNodeStats {
  int64_t groups = 0;
  int64_t asleep = 0;
  int64_t leaders = 0;
  int64_t without_leader = 0;    ///< As far as this node knows.
  int64_t under_replicated = 0;  ///< Led here, with a voter that is silent or behind.
  int64_t in_doubt = 0;
  int64_t damaged = 0;
  int64_t lag_offsets_max = 0;
  uint64_t elections_won = 0;  ///< Counters, of groups that are closed by now too.
  uint64_t messages_refused = 0;
  uint64_t messages_dropped = 0;
  uint64_t messages_unrouted = 0;  ///< For groups that are not open here.
  uint64_t appends_refused = 0;
  uint64_t snapshots_sent = 0;
  uint64_t snapshots_installed = 0;
  uint64_t commits = 0;
  uint64_t unknown_outcomes = 0;
  absl::Duration commit_total;
  absl::Duration commit_max;
  int64_t recovery_bytes = 0;  ///< Under way now.
  int64_t inbox_bytes = 0;
};

class RaftNode final : public PeerReceiver, public std::enable_shared_from_this<RaftNode> {
 public:
  static std::shared_ptr<RaftNode> Make(const RaftNodeOptions& options, RaftNodeSeams seams);
  ~RaftNode() override = default;

  /// Begins to tick and to receive (PeerTransport::Start).
  void Start();
  /// Closes all groups, and ticks and receives no more. The transport is to be stopped before. `done` on some shard.
  void Stop(absl::AnyInvocable<void()> done);

  /// Forgets all that is under way, unanswered, as when the process is killed. For simulators; only once nothing runs
  /// on the executors any more.
  void Abandon();

  /// Opens a group's replica, made when it is not there. Errors: as LogStore::Create and Attach, and RaftLog::Open;
  /// AlreadyExists when it is open.
  void Open(GroupSpec spec, Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done);
  /// Stops a group; its replica stays on disk, attached to its shard. OK when it is not open.
  void Close(const ReplicaId& group, Callback<absl::Status> done);
  /// As Close, and then drops the replica for good. `done` on the store's home.
  void Remove(const ReplicaId& group, Callback<absl::Status> done);
  /// Null when it is not open. The log is to be used on its shard only.
  std::shared_ptr<RaftLog> Find(const ReplicaId& group) const;

  RaftNodeStats stats() const;
  /// Of every open group, ascending by group. `done` on some shard.
  void CollectStatus(absl::AnyInvocable<void(std::vector<GroupStatus>)> done);

  /// Before a controlled stop: hands every group that is led here, and has another voter, to the one of its active
  /// voters that has the most of the log; a few at a time, and again where it failed or leadership came back meanwhile.
  /// Proposals under way are answered as ever; new ones are refused (Unavailable) while their group moves, for about as
  /// long as an election takes. `done` on some shard: OK once nothing is led here; DeadlineExceeded when that took
  /// longer than `within`. One call at a time.
  void LeaveLeadership(absl::Duration within, Callback<absl::Status> done);

  // PeerReceiver
  void OnMessage(const ReplicaId& group, raft::Message message) override;
  void OnLiveness(NodeId from, LivenessMessage message) override;
  void OnPeerState(NodeId peer, PeerState state) override;

 private:
  /// What liveness was last told of a group.
  struct Told {
    LeaderEpoch term;
    NodeId leader;                  ///< It follows one there; 0: none.
    std::vector<NodeId> followers;  ///< It leads, and these have members of it.
    bool operator==(const Told&) const = default;
  };

  /// A node that groups of a shard depend on, as the shard last heard of it.
  struct Ear {
    uint64_t heard = 0;    ///< As Liveness counts.
    int silent_ticks = 0;  ///< Since then.
  };
  /// A group that has ticks.
  struct Awake {
    int quiet_ticks = 0;   ///< How long it could have slept.
    int missed_ticks = 0;  ///< To be made up with the next one.
  };

  struct Leaving;

  /// Touched on its executor only, but for `stats`.
  struct Shard {
    size_t index = 0;
    Executor* executor = nullptr;
    RaftLogSeams seams;
    std::map<ReplicaId, std::shared_ptr<RaftLog>> logs;
    std::map<ReplicaId, Awake> awake;  ///< All others sleep.
    std::map<ReplicaId, Told> told;
    std::map<ReplicaId, RaftNodeStats> counted;  ///< As each last was.
    std::map<NodeId, Ear> leaders;               ///< Nodes that lead what is followed here.
    std::map<NodeId, Ear> followers;             ///< Nodes that follow what is led here.
    absl::Duration phase;                        ///< Of its first tick.
    bool stopped = false;
    uint64_t ticks = 0;
    std::shared_ptr<Leaving> leaving;  ///< Null: nobody asks to.
    bool leaving_scheduled = false;
    std::map<NodeId, int> moved_to;  ///< How many groups, while leaving.
    RaftNodeStats closed;            ///< Counters of groups that are closed.
    std::mutex mutex;
    RaftNodeStats stats;  ///< Guarded by mutex.
  };

  RaftNode(const RaftNodeOptions& options, RaftNodeSeams seams);
  void Attach(GroupSpec spec, Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done);
  void TickLater(size_t shard);
  void Tick(Shard& shard);
  void CountAll(Shard& shard);

  // raft_node_groups.cc
  void ContinueLeavingSoon(Shard& shard);
  void ContinueLeaving(Shard& shard);
  /// False where nobody can take it now.
  static bool Move(Shard& shard, RaftLog& log);

  // raft_node_liveness.cc
  void SendHeartbeats();
  /// Tells liveness of what changed in the shard's groups, and the groups of what was heard.
  void ExchangeLiveness(Shard& shard);
  /// Wakes the groups that depend on a node that has fallen silent.
  static void WakeForSilence(Shard& shard);
  /// Those on that something new was heard.
  void WakeStirred(const std::vector<ReplicaId>& groups);
  void FallAsleep(Shard& shard);
  bool Vouched(const Shard& shard, const RaftLog& log) const;
  void TellOf(const ReplicaId& group, Told& told, Told now);
  void HearFor(RaftLog& log, const std::set<NodeId>& leaders, const std::set<NodeId>& followers);
  void ForgetLiveness(Shard& shard, const ReplicaId& group);
  static void CountInto(const RaftLog& log, RaftNodeStats* stats);

  const RaftNodeOptions options_;
  const RaftNodeSeams seams_;
  const absl::Duration tick_;
  /// A log may live a little longer than its node, in a task.
  struct Shared {
    explicit Shared(int64_t recovery_bytes_max) : recovery(recovery_bytes_max) {}
    RaftLogOptions options;
    std::vector<LeaderObserver> on_leader_change;                      ///< Of the shards.
    std::vector<std::function<void(const ReplicaId& group)>> on_wake;  ///< The same.
    ByteBudget recovery;
    InboxBound inbox;
    std::vector<std::unique_ptr<Random>> random;  ///< Of the shards.
  };
  const std::shared_ptr<Shared> shared_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::atomic<uint64_t> unrouted_{0};

  mutable std::mutex liveness_mutex_;
  Liveness liveness_;  ///< Guarded by liveness_mutex_.

  struct Route {
    size_t shard = 0;
    std::shared_ptr<RaftLog> log;  ///< Null while it is being opened.
  };
  mutable std::mutex mutex_;
  std::map<ReplicaId, Route> routes_;  ///< Guarded by mutex_.
};

}  // namespace sluice::replication
