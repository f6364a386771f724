#include "broker/node_registry.h"

#include <algorithm>
#include <utility>

#include "common/planted_bug.h"
#include "common/text.h"

namespace sluice::broker {

NodeRegistry::NodeRegistry(NodeRegistryOptions options, Seams seams) : options_(options), seams_(seams) {
  seams_.controller.AddObserver(this);
}

NodeRegistry::~NodeRegistry() {
  *alive_ = false;
}

void NodeRegistry::Start() {
  stopped_ = false;
  CheckLater();
}

void NodeRegistry::Stop() {
  stopped_ = true;
  seams_.executor.Cancel(std::exchange(timer_, 0));
}

void NodeRegistry::OnLeadership(bool leads) {
  sessions_.clear();
  if (!leads) return;
  for (const auto& [id, node] : seams_.controller.state().nodes) {
    sessions_[id] = {.epoch = node.epoch, .heard = seams_.clock.Monotonic(), .last = std::nullopt};
  }
}

void NodeRegistry::OnApplied(const ClusterDelta& delta) {
  for (const NodeId id : delta.nodes) {
    const RegisteredNode* node = seams_.controller.state().FindNode(id);
    const auto it = sessions_.find(id);
    // Registered anew, it has a whole time-out before its first heartbeat must be here.
    if (it == sessions_.end() || it->second.epoch != node->epoch) {
      sessions_[id] = {.epoch = node->epoch, .heard = seams_.clock.Monotonic(), .last = std::nullopt};
    }
  }
  if (delta.nodes.empty() || stopped_) return;
  // Who makes a topic with replicas right after the nodes have come is not to wait for the next look.
  seams_.executor.Post([this, alive = alive_] {
    if (*alive && !stopped_ && seams_.controller.IsLeader()) CheckFeatureLevel();
  });
}

absl::Status NodeRegistry::OnHeartbeat(const Heartbeat& heartbeat) {
  if (seams_.controller.state().FindNode(heartbeat.node) != nullptr) {
    said_[heartbeat.node] = {.at = seams_.clock.Monotonic(), .heartbeat = heartbeat};
  }
  if (!seams_.controller.IsLeader()) return absl::UnavailableError("this node does not lead the controller");
  const RegisteredNode* node = seams_.controller.state().FindNode(heartbeat.node);
  if (node == nullptr || node->epoch != heartbeat.epoch) {
    return absl::FailedPreconditionError(
        Cat("node ", heartbeat.node, " is not registered with epoch ", heartbeat.epoch, ": it must register again"));
  }
  sessions_[heartbeat.node] = {.epoch = heartbeat.epoch, .heard = seams_.clock.Monotonic(), .last = heartbeat};
  CheckNode(heartbeat.node, *node);
  return absl::OkStatus();
}

std::optional<Heartbeat> NodeRegistry::LastHeartbeat(NodeId node) const {
  const auto it = said_.find(node);
  if (it == said_.end() || seams_.clock.Monotonic() - it->second.at > options_.session_timeout) return std::nullopt;
  return it->second.heartbeat;
}

std::vector<NodeId> NodeRegistry::Full() const {
  std::vector<NodeId> full;
  for (const auto& [node, said] : said_) {
    if (const auto last = LastHeartbeat(node); last.has_value() && last->cannot_write) full.push_back(node);
  }
  return full;
}

void NodeRegistry::CheckLater() {
  timer_ = seams_.executor.PostAfter(options_.check_every, [this] {
    Check();
    CheckLater();
  });
}

void NodeRegistry::Check() {
  if (stopped_ || !seams_.controller.IsLeader()) return;
  CheckFeatureLevel();
  for (const auto& [id, node] : seams_.controller.state().nodes) CheckNode(id, node);
}

void NodeRegistry::CheckNode(NodeId id, const RegisteredNode& node) {
  const auto it = sessions_.find(id);
  if (it == sessions_.end() || deciding_.contains(id)) return;
  const Session& session = it->second;
  const bool silent = seams_.clock.Monotonic() - session.heard > options_.session_timeout;
  const bool draining = session.last.has_value() && session.last->draining;
  if (!node.fenced) {
    if (silent) return Fence(id, node, true, "it was not heard of for too long");
    if (draining) return Fence(id, node, true, "it is about to stop");
    return;
  }
  const bool caught_up = session.epoch == node.epoch && session.last.has_value() && session.last->applied > node.epoch;
  if (Planted(PlantedBug::kForgetToUnfence)) return;
  if (!silent && !draining && caught_up) Fence(id, node, false, "it is there and has caught up");
}

void NodeRegistry::Fence(NodeId id, const RegisteredNode& node, bool fenced, std::string_view why) {
  const ControllerChange change = fenced ? ControllerChange(NodeFenced{.id = id, .epoch = node.epoch})
                                         : ControllerChange(NodeUnfenced{.id = id, .epoch = node.epoch});
  deciding_.insert(id);
  seams_.controller.Change(change, [this, alive = alive_, id, fenced, why = std::string(why)](absl::Status done) {
    if (!*alive) return;
    deciding_.erase(id);
    if (!done.ok()) return;
    seams_.log.Info(fenced ? "a node is fenced" : "a node is no longer fenced", {{"node", id}, {"why", why}});
  });
}

void NodeRegistry::CheckFeatureLevel() {
  const ControllerState& state = seams_.controller.state();
  const auto supported = [own = options_.feature_max](const ControllerState& of) {
    int32_t level = own;
    if (Planted(PlantedBug::kRaiseLevelTooEarly)) return of.nodes.empty() ? 0 : level;
    for (const auto& [id, node] : of.nodes) level = std::min(level, node.node.feature_max);
    return of.nodes.empty() ? 0 : level;
  };
  if (raising_ || supported(state) <= state.feature_level) return;
  raising_ = true;
  seams_.controller.Decide(
      [supported](const ControllerState& now) -> absl::StatusOr<std::optional<ControllerChange>> {
        const int32_t level = supported(now);
        if (level <= now.feature_level) return std::optional<ControllerChange>();
        return std::optional<ControllerChange>(FeatureLevelRaised{level});
      },
      [this, alive = alive_](absl::Status done) {
        if (!*alive) return;
        raising_ = false;
        if (done.ok()) {
          seams_.log.Info("the cluster's feature level is raised",
                          {{"level", seams_.controller.state().feature_level}});
        }
      });
}

}  // namespace sluice::broker
