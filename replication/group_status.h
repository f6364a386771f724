// What one replica knows of its group: for `partition list`, for placement, for metrics.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/types.h"
#include "replication/core/raft.h"
#include "replication/replicated_log.h"

namespace sluice::replication {

struct MemberStatus {
  VoterId id;
  bool voter = false;  ///< Otherwise a learner.
  bool leads = false;
  // Known to the leader alone; false and 0 elsewhere, but for what a replica knows of itself.
  bool active = false;      ///< Heard of within an election time-out.
  bool in_sync = false;     ///< Active, not in doubt, and durably holds all that is committed. A learner: caught up.
  bool in_doubt = false;    ///< Came back from damage, and is not counted yet.
  std::string_view state;   ///< How it is served: "probe", "replicate", "snapshot"; empty where that is not known.
  Offset match;             ///< It durably has the leader's log up to here.
  int64_t lag_offsets = 0;  ///< From match to the leader's log end.
};

struct GroupStatus {
  ReplicaId group;
  raft::Role role = raft::Role::kFollower;
  LeaderEpoch epoch;
  std::optional<NodeId> leader;  ///< As this replica knows.
  LogBounds bounds;
  std::vector<MemberStatus> members;  ///< Of the configuration in use: voters, then learners, each by id.
  bool members_changing = false;      ///< The configuration in use is not known to be committed.
  bool in_doubt = false;              ///< This replica.
  int64_t size_bytes = 0;             ///< Of this replica.

  bool leads() const { return role == raft::Role::kLeader; }
  const MemberStatus* Find(const VoterId& id) const {
    for (const MemberStatus& member : members) {
      if (member.id == id) return &member;
    }
    return nullptr;
  }
};

}  // namespace sluice::replication
