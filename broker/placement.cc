#include "broker/placement.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr int32_t kReplicasDefaultMax = 3;

struct Candidate {
  NodeId id;
  size_t rack = 0;
  int64_t replicas = 0;
  int64_t leaders = 0;
};

/// Nodes by number in `nodes`, racks by number.
struct Cluster {
  std::vector<Candidate> nodes;
  std::vector<int64_t> rack_replicas;
};

Cluster AliveNodes(const ClusterState& state) {
  Cluster cluster;
  std::map<std::string, size_t> racks;
  std::map<NodeId, size_t> numbers;
  for (const auto& [id, node] : state.nodes) {
    if (node.fenced) continue;
    const size_t rack = racks.emplace(node.node.rack, racks.size()).first->second;
    numbers[id] = cluster.nodes.size();
    cluster.nodes.push_back({.id = id, .rack = rack});
  }
  cluster.rack_replicas.resize(racks.size());
  for (const auto& [id, topic] : state.topics) {
    for (const PartitionAssignment& replicas : topic.assignments) {
      for (size_t i = 0; i < replicas.size(); ++i) {
        const auto it = numbers.find(replicas[i].node);
        if (it == numbers.end()) continue;
        Candidate& node = cluster.nodes[it->second];
        ++node.replicas;
        ++cluster.rack_replicas[node.rack];
        if (i == 0) ++node.leaders;
      }
    }
  }
  return cluster;
}

/// The nodes of one partition, by number.
std::vector<size_t> PlaceOne(Cluster& cluster, size_t replicas, Random& random) {
  // Ties are broken by lot, or the same nodes would always meet.
  std::vector<uint64_t> lot(cluster.nodes.size());
  for (uint64_t& each : lot) each = random.Next();
  std::vector<size_t> chosen;
  std::vector<int> rack_used(cluster.rack_replicas.size());
  std::vector<bool> taken(cluster.nodes.size());
  while (chosen.size() < replicas) {
    std::optional<size_t> best;
    const auto key = [&](size_t n) {
      const Candidate& node = cluster.nodes[n];
      const int used = Planted(PlantedBug::kForgetRacks) ? 0 : rack_used[node.rack];
      return std::tuple(used, node.replicas, cluster.rack_replicas[node.rack], lot[n], n);
    };
    for (size_t n = 0; n < cluster.nodes.size(); ++n) {
      if (!taken[n] && (!best || key(n) < key(*best))) best = n;
    }
    Candidate& node = cluster.nodes[*best];
    taken[*best] = true;
    ++rack_used[node.rack];
    ++node.replicas;
    ++cluster.rack_replicas[node.rack];
    chosen.push_back(*best);
  }
  return chosen;
}

/// Who leads each partition, such that no leader can be handed on, along any chain of replicas, to a node that leads
/// less by two: then the numbers are as even as they can be (an optimal semi-matching; Harvey et al., 2003).
class LeaderSpread {
 public:
  LeaderSpread(std::vector<Candidate>& nodes, const std::vector<std::vector<size_t>>& sets)
      : nodes_(nodes), sets_(sets), led_(nodes.size()) {
    for (size_t p = 0; p < sets.size(); ++p) {
      const size_t leader = *std::min_element(
          sets[p].begin(), sets[p].end(), [&](size_t a, size_t b) { return nodes_[a].leaders < nodes_[b].leaders; });
      leader_.push_back(leader);
      led_[leader].push_back(p);
      ++nodes_[leader].leaders;
    }
    while (Improve()) {
    }
  }
  const std::vector<size_t>& leaders() const { return leader_; }

 private:
  bool Improve() {
    for (size_t n = 0; n < nodes_.size(); ++n) {
      if (ImproveFrom(n)) return true;
    }
    return false;
  }

  bool ImproveFrom(size_t from) {
    std::vector<std::optional<size_t>> by(nodes_.size());  // the partition by which a node is reached
    std::vector<bool> seen(nodes_.size());
    std::deque<size_t> queue{from};
    seen[from] = true;
    while (!queue.empty()) {
      const size_t node = queue.front();
      queue.pop_front();
      if (nodes_[node].leaders + 2 <= nodes_[from].leaders) {
        Shift(node, by);
        return true;
      }
      for (const size_t p : led_[node]) {
        for (const size_t next : sets_[p]) {
          if (seen[next]) continue;
          seen[next] = true;
          by[next] = p;
          queue.push_back(next);
        }
      }
    }
    return false;
  }

  /// Each node on the chain hands one partition to the next.
  void Shift(size_t to, const std::vector<std::optional<size_t>>& by) {
    ++nodes_[to].leaders;
    while (by[to].has_value()) {
      const size_t p = *by[to];
      const size_t from = leader_[p];
      std::erase(led_[from], p);
      led_[to].push_back(p);
      leader_[p] = to;
      to = from;
    }
    --nodes_[to].leaders;
  }

  std::vector<Candidate>& nodes_;
  const std::vector<std::vector<size_t>>& sets_;
  std::vector<size_t> leader_;
  std::vector<std::vector<size_t>> led_;
};

}  // namespace

absl::StatusOr<int32_t> ResolveReplicas(const ClusterState& state, int32_t replicas) {
  const auto alive = static_cast<int32_t>(
      std::count_if(state.nodes.begin(), state.nodes.end(), [](const auto& node) { return !node.second.fenced; }));
  if (alive == 0) return absl::UnavailableError("replicas: no node is alive that could hold one");
  if (replicas == 0) return std::min(alive, kReplicasDefaultMax);
  if (replicas < 0 || replicas > static_cast<int32_t>(kReplicasMax)) {
    return absl::InvalidArgumentError(Cat("replicas: expected 1 to ", kReplicasMax, ", got ", replicas));
  }
  if (replicas > alive) {
    const std::string why =
        Cat("replicas: ", replicas, " were asked for, and ", alive, " of ", state.nodes.size(), " nodes are alive");
    // Those that are away, or have just come, may be there soon.
    return static_cast<size_t>(replicas) <= state.nodes.size() ? absl::UnavailableError(why)
                                                               : absl::InvalidArgumentError(why);
  }
  return replicas;
}

absl::StatusOr<std::vector<PartitionAssignment>> Place(const ClusterState& state, int32_t partitions, int32_t replicas,
                                                       Random& random) {
  SLUICE_ASSIGN_OR_RETURN(const int32_t count, ResolveReplicas(state, replicas));
  Cluster cluster = AliveNodes(state);
  std::vector<std::vector<size_t>> sets;
  sets.reserve(static_cast<size_t>(partitions));
  for (int32_t p = 0; p < partitions; ++p) sets.push_back(PlaceOne(cluster, static_cast<size_t>(count), random));
  const LeaderSpread spread(cluster.nodes, sets);
  std::vector<PartitionAssignment> assignments;
  for (size_t p = 0; p < sets.size(); ++p) {
    std::iter_swap(sets[p].begin(), std::find(sets[p].begin(), sets[p].end(), spread.leaders()[p]));
    PartitionAssignment& assignment = assignments.emplace_back();
    for (const size_t n : sets[p]) {
      const uint64_t high = random.Next();
      assignment.push_back({.node = cluster.nodes[n].id, .incarnation = Uuid::FromRandom(high, random.Next())});
    }
  }
  return assignments;
}

}  // namespace sluice::broker
