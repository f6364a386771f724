// What the node's groups and its peers' nodes hear of each other through Liveness.
#include <algorithm>
#include <utility>

#include "replication/raft_node.h"

namespace sluice::replication {

void RaftNode::SendHeartbeats() {
  if (!options_.coalesce_heartbeats) return;
  std::vector<std::pair<NodeId, LivenessHeartbeat>> heartbeats;
  {
    std::lock_guard lock(liveness_mutex_);
    for (const NodeId peer : liveness_.HeartbeatPeers()) {
      if (auto heartbeat = liveness_.MakeHeartbeat(peer)) heartbeats.emplace_back(peer, *std::move(heartbeat));
    }
  }
  for (auto& [peer, heartbeat] : heartbeats) seams_.transport->SendLiveness(peer, std::move(heartbeat));
}

void RaftNode::OnLiveness(NodeId from, LivenessMessage message) {
  LivenessAnswer answer;
  {
    std::lock_guard lock(liveness_mutex_);
    if (const auto* answered = std::get_if<LivenessAnswer>(&message)) return liveness_.OnAnswer(from, *answered);
    answer = liveness_.OnHeartbeat(from, std::get<LivenessHeartbeat>(message));
  }
  seams_.transport->SendLiveness(from, std::move(answer));
}

void RaftNode::TellOf(const ReplicaId& group, Told& told, Told now) {
  if (told == now) return;
  for (const NodeId peer : told.followers) {
    if (std::find(now.followers.begin(), now.followers.end(), peer) == now.followers.end()) {
      liveness_.SetLeading(peer, group, LeaderEpoch(0));
    }
  }
  for (const NodeId peer : now.followers) liveness_.SetLeading(peer, group, now.term);
  liveness_.SetFollowing(group, now.leader, now.term);
  told = std::move(now);
}

void RaftNode::HearFor(RaftLog& log, const std::set<NodeId>& leaders, const std::set<NodeId>& followers) {
  const raft::Raft& raft = log.raft();
  const LeaderEpoch term = raft.term();
  if (raft.role() != raft::Role::kLeader) {
    const NodeId leader = raft.leader().node;
    if (leaders.contains(leader) && liveness_.LeaderAlive(leader, log.group(), term)) log.OnLeaderAlive(term);
    return;
  }
  const raft::Configuration& members = raft.configuration();
  for (const auto* list : {&members.voters, &members.learners}) {
    for (const VoterId& member : *list) {
      if (!followers.contains(member.node)) continue;
      if (liveness_.FollowerAlive(member.node, log.group(), term)) {
        log.OnFollowerAlive(member, term);
      } else if (liveness_.FollowerLost(member.node, log.group(), term)) {
        log.OnFollowerLost(member);
      }
    }
  }
}

void RaftNode::ExchangeLiveness(Shard& shard) {
  std::lock_guard lock(liveness_mutex_);
  std::set<NodeId> leaders;
  std::set<NodeId> followers;
  for (const auto& [group, log] : shard.logs) {
    const raft::Raft& raft = log->raft();
    Told now{.term = raft.term(), .leader = NodeId(0), .followers = {}};
    if (!log->failure().ok() || !log->damage().ok()) {
      // Takes part in nothing: its peers are not to count on it.
    } else if (raft.role() == raft::Role::kLeader) {
      const raft::Configuration& members = raft.configuration();
      for (const auto* list : {&members.voters, &members.learners}) {
        for (const VoterId& member : *list) {
          if (member != raft.self()) now.followers.push_back(member.node);
        }
      }
    } else if (raft.role() == raft::Role::kFollower) {
      now.leader = raft.leader().node;
    }
    for (const NodeId peer : now.followers) followers.insert(peer);
    if (now.leader != NodeId(0)) leaders.insert(now.leader);
    TellOf(group, shard.told[group], std::move(now));
  }
  const auto keep_new = [](std::set<NodeId>& peers, std::map<NodeId, uint64_t>& seen, auto heard) {
    std::erase_if(peers, [&](NodeId peer) { return std::exchange(seen[peer], heard(peer)) == heard(peer); });
  };
  keep_new(leaders, shard.leaders_heard, [this](NodeId peer) { return liveness_.LeadersHeard(peer); });
  keep_new(followers, shard.followers_heard, [this](NodeId peer) { return liveness_.FollowersHeard(peer); });
  if (leaders.empty() && followers.empty()) return;
  for (const auto& [group, log] : shard.logs) HearFor(*log, leaders, followers);
}

void RaftNode::ForgetLiveness(Shard& shard, const ReplicaId& group) {
  std::lock_guard lock(liveness_mutex_);
  const auto at = shard.told.find(group);
  if (at == shard.told.end()) return;
  TellOf(group, at->second, {});
  shard.told.erase(at);
}

}  // namespace sluice::replication
