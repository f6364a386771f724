// What the node's groups and its peers' nodes hear of each other through Liveness.
#include <algorithm>
#include <utility>

#include "replication/raft_node.h"

namespace sluice::replication {

namespace {

/// A heartbeat is due every second tick; one may be late.
constexpr int kSilentTicks = 4;
/// Long enough for a leader to let go of memory that it used (raft::LeaderState).
constexpr int kQuietTicks = 5;

/// The members' nodes but for this replica's.
std::vector<NodeId> OtherNodes(const raft::Raft& raft) {
  std::vector<NodeId> nodes;
  const raft::Configuration& members = raft.configuration();
  for (const auto* list : {&members.voters, &members.learners}) {
    for (const VoterId& member : *list) {
      if (member != raft.self()) nodes.push_back(member.node);
    }
  }
  return nodes;
}

}  // namespace

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
  std::optional<LivenessAnswer> answer;
  std::vector<ReplicaId> stirred;
  {
    std::lock_guard lock(liveness_mutex_);
    if (const auto* answered = std::get_if<LivenessAnswer>(&message)) {
      liveness_.OnAnswer(from, *answered);
    } else {
      answer = liveness_.OnHeartbeat(from, std::get<LivenessHeartbeat>(message));
    }
    stirred = liveness_.TakeStirred();
  }
  if (!stirred.empty()) WakeStirred(stirred);
  if (answer) seams_.transport->SendLiveness(from, *std::move(answer));
}

void RaftNode::WakeStirred(const std::vector<ReplicaId>& groups) {
  std::vector<std::vector<std::shared_ptr<RaftLog>>> of_shard(shards_.size());
  {
    std::lock_guard lock(mutex_);
    for (const ReplicaId& group : groups) {
      const auto at = routes_.find(group);
      if (at != routes_.end() && at->second.log != nullptr) of_shard[at->second.shard].push_back(at->second.log);
    }
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (of_shard[i].empty()) continue;
    shards_[i]->executor->Post([logs = std::move(of_shard[i])] {
      for (const auto& log : logs) log->Wake();
    });
  }
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
  const auto listen = [](std::map<NodeId, Ear>& ears, std::set<NodeId>* fresh, auto heard) {
    for (auto& [peer, ear] : ears) {
      const bool spoke = std::exchange(ear.heard, heard(peer)) != ear.heard;
      ear.silent_ticks = spoke ? 0 : ear.silent_ticks + 1;
      if (spoke) fresh->insert(peer);
    }
  };
  for (const auto& [group, awake] : shard.awake) {
    const RaftLog& log = *shard.logs.at(group);
    const raft::Raft& raft = log.raft();
    Told now{.term = raft.term(), .leader = NodeId(0), .followers = {}};
    if (!log.failure().ok()) {
      // Takes part in nothing: its peers are not to count on it.
    } else if (raft.role() == raft::Role::kLeader) {
      now.followers = OtherNodes(raft);
    } else if (raft.role() == raft::Role::kFollower) {
      now.leader = raft.leader().node;
    }
    for (const NodeId peer : now.followers) shard.followers.try_emplace(peer);
    if (now.leader != NodeId(0)) shard.leaders.try_emplace(now.leader);
    TellOf(group, shard.told[group], std::move(now));
  }
  listen(shard.leaders, &leaders, [this](NodeId peer) { return liveness_.LeadersHeard(peer); });
  listen(shard.followers, &followers, [this](NodeId peer) { return liveness_.FollowersHeard(peer); });
  WakeForSilence(shard);
  if (leaders.empty() && followers.empty()) return;
  for (const auto& [group, awake] : shard.awake) HearFor(*shard.logs.at(group), leaders, followers);
}

void RaftNode::WakeForSilence(Shard& shard) {
  const auto fell_silent = [](const std::map<NodeId, Ear>& ears, NodeId peer) {
    const auto at = ears.find(peer);
    return at != ears.end() && at->second.silent_ticks == kSilentTicks;
  };
  const auto any = [](const std::map<NodeId, Ear>& ears) {
    return std::any_of(ears.begin(), ears.end(), [](const auto& e) { return e.second.silent_ticks == kSilentTicks; });
  };
  if (!any(shard.leaders) && !any(shard.followers)) return;
  for (const auto& [group, told] : shard.told) {
    if (shard.awake.contains(group)) continue;
    const bool concerned = fell_silent(shard.leaders, told.leader) ||
                           std::any_of(told.followers.begin(), told.followers.end(),
                                       [&](NodeId peer) { return fell_silent(shard.followers, peer); });
    if (!concerned) continue;
    shard.logs.at(group)->Wake();
    shard.awake[group].missed_ticks = kSilentTicks - 1;  // this tick is the last of them
  }
}

// ---- Sleep

void RaftNode::FallAsleep(Shard& shard) {
  std::lock_guard lock(liveness_mutex_);
  for (auto at = shard.awake.begin(); at != shard.awake.end();) {
    RaftLog& log = *shard.logs.at(at->first);
    at->second.quiet_ticks = log.Quiet() ? at->second.quiet_ticks + 1 : 0;
    if (at->second.quiet_ticks < kQuietTicks || !Vouched(shard, log)) {
      ++at;
      continue;
    }
    log.Sleep();
    RaftNodeStats& one = shard.counted[at->first] = {};
    CountInto(log, &one);
    at = shard.awake.erase(at);
  }
}

// Whether all that the group depends on are heard of, and liveness stands for what is so now.
bool RaftNode::Vouched(const Shard& shard, const RaftLog& log) const {
  const raft::Raft& raft = log.raft();
  const auto heard = [](const std::map<NodeId, Ear>& ears, NodeId peer) {
    const auto at = ears.find(peer);
    return at != ears.end() && at->second.silent_ticks < kSilentTicks;
  };
  const auto told = shard.told.find(log.group());
  if (told == shard.told.end() || told->second.term != raft.term()) return false;
  if (raft.role() != raft::Role::kLeader) {
    const NodeId leader = raft.leader().node;
    return told->second.leader == leader && heard(shard.leaders, leader) &&
           liveness_.LeaderAlive(leader, log.group(), raft.term());
  }
  const std::vector<NodeId> nodes = OtherNodes(raft);
  return told->second.followers == nodes && std::all_of(nodes.begin(), nodes.end(), [&](NodeId peer) {
           return heard(shard.followers, peer) && liveness_.FollowerAlive(peer, log.group(), raft.term());
         });
}

void RaftNode::ForgetLiveness(Shard& shard, const ReplicaId& group) {
  std::lock_guard lock(liveness_mutex_);
  const auto at = shard.told.find(group);
  if (at == shard.told.end()) return;
  TellOf(group, at->second, {});
  shard.told.erase(at);
}

}  // namespace sluice::replication
