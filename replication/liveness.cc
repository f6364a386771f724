#include "replication/liveness.h"

#include <utility>

namespace sluice::replication {

// ---- What this node's replicas do

void Liveness::AddChange(ToPeer& to, const LivenessEntry& entry) {
  to.changes.push_back({++to.version, entry});
  // A peer that is away is told the whole table when it is back, rather than all that ever happened.
  if (to.changes.size() > 2 * to.table.size() + kEntriesMax) BeginAnew(to);
}

void Liveness::BeginAnew(ToPeer& to) {
  to.changes.clear();
  to.acked = 0;
  to.not_following.clear();
  // Versions go on, so that an answer from before cannot be taken for one to the new beginning; the first of them
  // stands for the empty table.
  ++to.version;
  to.fresh_from = to.version;
  for (auto& [group, led] : to.table) {
    led.version = ++to.version;
    to.changes.push_back({led.version, {group, led.term}});
  }
}

void Liveness::SetLeading(NodeId peer, const ReplicaId& group, LeaderEpoch term) {
  ToPeer& to = to_[peer];
  const auto at = to.table.find(group);
  if (term == LeaderEpoch(0)) {
    if (at == to.table.end()) return;
    to.table.erase(at);
    to.not_following.erase(group);
  } else {
    if (at != to.table.end() && at->second.term == term) return;
    to.table[group] = {term, to.version + 1};
  }
  AddChange(to, {group, term});
}

void Liveness::SetFollowing(const ReplicaId& group, NodeId leader, LeaderEpoch term) {
  const auto at = following_.find(group);
  const NodeId before = at == following_.end() ? NodeId(0) : at->second.leader;
  if (leader == NodeId(0)) {
    if (at == following_.end()) return;
    following_.erase(at);
  } else {
    following_[group] = {leader, term};
  }
  for (const NodeId peer : {before, leader}) {
    const auto from = from_.find(peer);
    if (from != from_.end()) Judge(peer, from->second, group);
  }
}

bool Liveness::Follows(NodeId leader, const ReplicaId& group, LeaderEpoch term) const {
  const auto at = following_.find(group);
  return at != following_.end() && at->second.leader == leader && at->second.term == term;
}

void Liveness::Judge(NodeId peer, FromPeer& from, const ReplicaId& group) {
  const auto at = from.table.find(group);
  if (at == from.table.end() || Follows(peer, group, at->second)) {
    from.not_following.erase(group);
  } else {
    from.not_following.insert(group);
  }
}

// ---- What is said

std::vector<NodeId> Liveness::HeartbeatPeers() const {
  std::vector<NodeId> peers;
  for (const auto& [peer, to] : to_) {
    if (!to.table.empty() || !to.changes.empty()) peers.push_back(peer);
  }
  return peers;
}

std::optional<LivenessHeartbeat> Liveness::MakeHeartbeat(NodeId peer) const {
  const auto at = to_.find(peer);
  if (at == to_.end() || (at->second.table.empty() && at->second.changes.empty())) return std::nullopt;
  const ToPeer& to = at->second;
  LivenessHeartbeat heartbeat{.session = session_, .base_version = to.acked, .version = to.acked, .changes = {}};
  if (to.acked == 0) heartbeat.version = to.fresh_from;
  for (const Change& change : to.changes) {
    if (heartbeat.changes.size() == kEntriesMax) break;
    heartbeat.changes.push_back(change.entry);
    heartbeat.version = change.version;
  }
  return heartbeat;
}

LivenessAnswer Liveness::OnHeartbeat(NodeId from_node, const LivenessHeartbeat& heartbeat) {
  FromPeer& from = from_[from_node];
  if (heartbeat.session != from.session) {
    for (const auto& [group, term] : from.table) stirred_.push_back(group);
    const uint64_t heard = from.heard;
    from = FromPeer();
    from.session = heartbeat.session;
    from.heard = heard;
  }
  const bool anew = heartbeat.base_version == 0 && heartbeat.version > from.version;
  if (anew) {
    for (const auto& [group, term] : from.table) stirred_.push_back(group);
    from.table.clear();
    from.not_following.clear();
  }
  if (heartbeat.version > from.version && (anew || heartbeat.base_version <= from.version)) {
    // Those that are here already are taken again, which changes nothing: later ones of the same group follow.
    for (const LivenessEntry& entry : heartbeat.changes) {
      if (entry.term == LeaderEpoch(0)) {
        from.table.erase(entry.group);
      } else {
        from.table[entry.group] = entry.term;
      }
      Judge(from_node, from, entry.group);
      stirred_.push_back(entry.group);
    }
    from.version = heartbeat.version;
  }
  if (from.version > 0) ++from.heard;
  LivenessAnswer answer{.session = heartbeat.session, .version = from.version, .not_following = {}};
  for (const ReplicaId& group : from.not_following) {
    if (answer.not_following.size() == kEntriesMax) break;
    answer.not_following.push_back({group, from.table.at(group)});
  }
  return answer;
}

void Liveness::OnAnswer(NodeId from_node, const LivenessAnswer& answer) {
  const auto at = to_.find(from_node);
  if (at == to_.end() || answer.session != session_ || answer.version > at->second.version) return;
  ToPeer& to = at->second;
  if (answer.version < to.acked) {
    // It has begun a new life, or this is an older answer; telling all again is right for both.
    if (answer.version == 0) {
      BeginAnew(to);
      for (const auto& [group, led] : to.table) stirred_.push_back(group);
    }
    return;
  }
  if (answer.version < to.fresh_from) return;  // from before the new beginning
  to.acked = answer.version;
  while (!to.changes.empty() && to.changes.front().version <= to.acked) to.changes.pop_front();
  const auto before = std::exchange(to.not_following, {});
  for (const auto& [group, lost] : before) stirred_.push_back(group);
  for (const LivenessEntry& entry : answer.not_following) {
    const auto known = before.find(entry.group);
    const bool again = known != before.end() && known->second.term == entry.term;
    stirred_.push_back(entry.group);
    to.not_following[entry.group] = {entry.term, again ? known->second.answers + 1 : 1};
  }
  ++to.heard;
}

// ---- What was heard

uint64_t Liveness::LeadersHeard(NodeId peer) const {
  const auto at = from_.find(peer);
  return at == from_.end() ? 0 : at->second.heard;
}

bool Liveness::LeaderAlive(NodeId peer, const ReplicaId& group, LeaderEpoch term) const {
  const auto at = from_.find(peer);
  if (at == from_.end()) return false;
  const auto entry = at->second.table.find(group);
  return entry != at->second.table.end() && entry->second == term;
}

uint64_t Liveness::FollowersHeard(NodeId peer) const {
  const auto at = to_.find(peer);
  return at == to_.end() ? 0 : at->second.heard;
}

bool Liveness::FollowerAlive(NodeId peer, const ReplicaId& group, LeaderEpoch term) const {
  const auto at = to_.find(peer);
  if (at == to_.end()) return false;
  const auto entry = at->second.table.find(group);
  return entry != at->second.table.end() && entry->second.term == term && entry->second.version <= at->second.acked &&
         at->second.not_following.size() < kEntriesMax && !at->second.not_following.contains(group);
}

bool Liveness::FollowerLost(NodeId peer, const ReplicaId& group, LeaderEpoch term) const {
  const auto at = to_.find(peer);
  if (at == to_.end()) return false;
  const auto entry = at->second.not_following.find(group);
  return entry != at->second.not_following.end() && entry->second.term == term && entry->second.answers >= 2;
}

size_t Liveness::led_entries(NodeId peer) const {
  const auto at = to_.find(peer);
  return at == to_.end() ? 0 : at->second.table.size();
}

}  // namespace sluice::replication
