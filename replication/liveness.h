// Liveness: what two nodes must say to each other so that the groups between them need no heartbeats of their own.
//
// For each peer a node keeps a table of what it leads and the peer follows: (group, term). The table is versioned; its
// changes travel as deltas, so that a heartbeat is a few numbers, however many groups there are. The peer holds what it
// was told beside what its own replicas follow, and answers with the version that it has and with those entries that it
// does not follow. So a heartbeat says of every group at once "your leader lives", and its answer "your follower does".
//
// What it means, and what not. It saves messages; it decides nothing: a stale entry keeps a follower from campaigning,
// or a leader from stepping down, for as long as its peer's next word takes. Votes, commits and read barriers rest on
// the core's own messages alone.
//
// A session is a process's life. Whoever hears of a session that it does not know begins with an empty table, and says
// so by version 0; then the whole table travels again.
//
// Always holds: an entry of a table is said to be alive only on the word of that peer, after it has said that it has
// the version that brought the entry. Threads: one at a time. No clock: the caller says when to speak. What it hears is
// told by a number that counts up, so that several readers (shards) each notice once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/types.h"
#include "replication/transport.h"

namespace sluice::replication {

class Liveness {
 public:
  /// Entries of one message; more follow with the next ones.
  static constexpr size_t kEntriesMax = 1000;

  /// `session` is not 0, and no other life of this node had it.
  explicit Liveness(uint64_t session) : session_(session) {}

  // ---- What this node's replicas do

  /// `group` is led from here in `term`, and `peer` has a member of it; term 0: not any more.
  void SetLeading(NodeId peer, const ReplicaId& group, LeaderEpoch term);
  /// `group` follows a leader on `leader` in `term`; nobody: NodeId 0.
  void SetFollowing(const ReplicaId& group, NodeId leader, LeaderEpoch term);

  // ---- What is said

  /// The heartbeat for a peer; nullopt when nothing is led that it follows.
  std::optional<LivenessHeartbeat> MakeHeartbeat(NodeId peer) const;
  /// Those for whom there is one.
  std::vector<NodeId> HeartbeatPeers() const;
  /// Takes a peer's heartbeat; what to answer.
  LivenessAnswer OnHeartbeat(NodeId from, const LivenessHeartbeat& heartbeat);
  void OnAnswer(NodeId from, const LivenessAnswer& answer);

  // ---- What was heard

  /// Counts up with each heartbeat that says that the leaders on `peer` live; 0: none ever.
  uint64_t LeadersHeard(NodeId peer) const;
  /// Whether the last one said it of this group and term.
  bool LeaderAlive(NodeId peer, const ReplicaId& group, LeaderEpoch term) const;
  /// Counts up with each answer of `peer`; 0: none ever.
  uint64_t FollowersHeard(NodeId peer) const;
  /// Whether the last one said that it follows this group in this term.
  bool FollowerAlive(NodeId peer, const ReplicaId& group, LeaderEpoch term) const;
  /// Whether the last two said that it has the entry and does not follow: one may cross the leader's first word.
  bool FollowerLost(NodeId peer, const ReplicaId& group, LeaderEpoch term) const;

  /// Groups of which something else was heard since the last call than before: a leader that came or went, a follower
  /// that does not follow, or does again. Some may be named twice, or in vain.
  std::vector<ReplicaId> TakeStirred() { return std::exchange(stirred_, {}); }

  size_t led_entries(NodeId peer) const;

 private:
  struct Led {
    LeaderEpoch term;
    uint64_t version = 0;  ///< That brought it.
  };
  struct Change {
    uint64_t version;
    LivenessEntry entry;
  };
  struct Lost {
    LeaderEpoch term;
    int answers = 0;  ///< In a row that said so.
  };
  /// What is led from here.
  struct ToPeer {
    std::map<ReplicaId, Led> table;
    uint64_t version = 0;
    std::deque<Change> changes;  ///< After `acked`, ascending.
    uint64_t acked = 0;          ///< The peer has this version.
    uint64_t fresh_from = 0;     ///< The version that stands for the empty table that the present one grew from.
    uint64_t heard = 0;
    std::map<ReplicaId, Lost> not_following;  ///< As last answered.
  };
  /// What is led there.
  struct FromPeer {
    uint64_t session = 0;
    uint64_t version = 0;
    std::map<ReplicaId, LeaderEpoch> table;
    std::set<ReplicaId> not_following;  ///< Those of the table.
    uint64_t heard = 0;
  };
  struct Following {
    NodeId leader;
    LeaderEpoch term;
  };

  void AddChange(ToPeer& to, const LivenessEntry& entry);
  /// Writes the table anew as changes from an empty one.
  static void BeginAnew(ToPeer& to);
  bool Follows(NodeId leader, const ReplicaId& group, LeaderEpoch term) const;
  void Judge(NodeId peer, FromPeer& from, const ReplicaId& group);

  uint64_t session_;
  std::map<NodeId, ToPeer> to_;
  std::map<NodeId, FromPeer> from_;
  std::map<ReplicaId, Following> following_;
  std::vector<ReplicaId> stirred_;
};

}  // namespace sluice::replication
