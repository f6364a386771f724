#include "tests/simulation/sim_transport.h"

#include <algorithm>
#include <vector>

namespace sluice::simulation {

using replication::LivenessMessage;
using replication::PeerState;

namespace {

int64_t BytesOf(const raft::Message& message) {
  int64_t bytes = 100;
  if (const auto* append = std::get_if<raft::AppendRequest>(&message.body)) {
    for (const record::Batch& batch : append->batches) bytes += static_cast<int64_t>(batch.size_bytes());
  }
  return bytes;
}

}  // namespace

std::unique_ptr<SimTransport> SimNetwork::Join(NodeId node) {
  const uint64_t life = ++lives_;
  ports_[node] = {.life = life};
  return std::make_unique<SimTransport>(*this, node, life);
}

void SimTransport::Start(replication::PeerReceiver& receiver) {
  auto& port = network_.ports_[node_];
  if (port.life != life_) return;
  port.receiver = &receiver;
  network_.TellAll(node_, PeerState::kConnected);
  for (const auto& [other, its_port] : network_.ports_) {
    if (other != node_ && its_port.receiver != nullptr) network_.Tell(node_, other, PeerState::kConnected);
  }
}

void SimTransport::Stop(absl::AnyInvocable<void()> done) {
  network_.Leave(node_, life_);
  network_.scheduler_.At(absl::ZeroDuration(), std::move(done));
}

void SimNetwork::Leave(NodeId node, uint64_t life) {
  auto& port = ports_[node];
  if (port.life != life || port.receiver == nullptr) return;
  port.receiver = nullptr;
  TellAll(node, PeerState::kBroken);
}

void SimNetwork::TellAll(NodeId about, PeerState state) {
  for (const auto& [other, port] : ports_) {
    if (other != about && port.receiver != nullptr) Tell(other, about, state);
  }
}

void SimNetwork::Tell(NodeId whom, NodeId about, PeerState state) {
  scheduler_.At(DrawDelay(), [this, whom, about, state, life = ports_[whom].life] {
    if (Alive(whom, life)) ports_[whom].receiver->OnPeerState(about, state);
  });
}

bool SimNetwork::Alive(NodeId node, uint64_t life) const {
  auto at = ports_.find(node);
  return at != ports_.end() && at->second.life == life && at->second.receiver != nullptr;
}

void SimNetwork::Block(NodeId from, NodeId to) {
  blocked_.insert({from, to});
}

void SimNetwork::Unblock(NodeId from, NodeId to) {
  blocked_.erase({from, to});
}

void SimNetwork::Isolate(NodeId node) {
  for (const auto& [other, port] : ports_) {
    if (other == node) continue;
    Block(node, other);
    Block(other, node);
  }
}

void SimNetwork::Rejoin(NodeId node) {
  std::erase_if(blocked_, [node](const Way& way) { return way.first == node || way.second == node; });
}

void SimNetwork::HealAll() {
  blocked_.clear();
  loss_per_mille_ = duplicates_per_mille_ = 0;
  filter_ = nullptr;
}

absl::Duration SimNetwork::DrawDelay() {
  const auto spread = static_cast<uint64_t>(std::max<int64_t>(1, absl::ToInt64Nanoseconds(delay_most_ - delay_least_)));
  return delay_least_ + absl::Nanoseconds(static_cast<int64_t>(scheduler_.random().Below(spread)));
}

absl::Duration SimNetwork::Leaves(NodeId from, int64_t bytes) {
  if (uplink_bytes_per_second_ == 0) return scheduler_.now();
  absl::Duration& busy_until = uplink_busy_until_[from];
  busy_until = std::max(busy_until, scheduler_.now()) + absl::Seconds(1) * bytes / uplink_bytes_per_second_;
  return busy_until;
}

bool SimNetwork::Passes(NodeId from, uint64_t life, NodeId to) {
  ++counts_.sent;
  if (!Alive(from, life)) return false;
  if (blocked_.contains({from, to})) {
    ++counts_.blocked;
    return false;
  }
  if (loss_per_mille_ > 0 && scheduler_.random().Below(1000) < loss_per_mille_) {
    ++counts_.lost;
    return false;
  }
  return true;
}

bool SimNetwork::Send(NodeId from, uint64_t life, const ReplicaId& group, raft::Message message) {
  const NodeId to = message.to.node;
  auto port = ports_.find(to);
  if (port == ports_.end() || port->second.receiver == nullptr || message.from.node != from) return false;
  const Way way{from, to};
  const int64_t bytes = BytesOf(message);
  if (under_way_[way] + bytes > bytes_max_) {
    ++counts_.refused;
    return false;
  }
  ++group_messages_;
  if (filter_ && !filter_(group, message)) return true;
  if (!Passes(from, life, to)) return true;
  // Later than what this group sent before; other groups may be overtaken.
  absl::Duration& busy_until = lane_busy_until_[{from, to, group}];
  const absl::Duration arrives = std::max(Leaves(from, bytes) + DrawDelay(), busy_until + absl::Nanoseconds(1));
  busy_until = arrives;
  absl::Duration& latest = way_latest_[way];
  if (arrives < latest) ++counts_.reordered;
  latest = std::max(latest, arrives);
  if (duplicates_per_mille_ > 0 && scheduler_.random().Below(1000) < duplicates_per_mille_) {
    ++counts_.duplicated;
    busy_until = arrives + absl::Nanoseconds(1 + static_cast<int64_t>(scheduler_.random().Below(1'000'000)));
    Deliver(way, port->second.life, bytes, group, busy_until, message);
  }
  Deliver(way, port->second.life, bytes, group, arrives, std::move(message));
  return true;
}

void SimNetwork::Deliver(const Way& way, uint64_t its_life, int64_t bytes, const ReplicaId& group,
                         absl::Duration arrives, raft::Message message) {
  under_way_[way] += bytes;
  scheduler_.At(arrives - scheduler_.now(),
                [this, way, bytes, its_life, group, message = std::move(message)]() mutable {
                  under_way_[way] -= bytes;
                  if (!Alive(way.second, its_life)) return;
                  if (blocked_.contains(way)) {
                    ++counts_.blocked;
                    return;
                  }
                  ++counts_.delivered;
                  ports_[way.second].receiver->OnMessage(group, std::move(message));
                });
}

bool SimNetwork::SendLiveness(NodeId from, uint64_t life, NodeId to, LivenessMessage message) {
  auto port = ports_.find(to);
  if (port == ports_.end() || port->second.receiver == nullptr) return false;
  if (!Passes(from, life, to)) return true;
  scheduler_.At(DrawDelay(), [this, from, to, its_life = port->second.life, message = std::move(message)]() mutable {
    if (!Alive(to, its_life) || blocked_.contains({from, to})) return;
    ++counts_.delivered;
    ports_[to].receiver->OnLiveness(from, std::move(message));
  });
  return true;
}

}  // namespace sluice::simulation
