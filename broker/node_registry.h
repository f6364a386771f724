// NodeRegistry: who of the registered nodes lives, as the controller's leader hears it. A node that is silent for the
// session time-out, or says that it is about to stop, is fenced; one that is heard and has applied its own registration
// is unfenced. The leader also raises the cluster's feature level once every node supports a higher one.
//
// Fencing is for placement and for people to see; what is safe to acknowledge is Raft's business alone.
// Always holds: a new leader has heard everybody just now, so a change of leader fences nobody by itself; what was
// decided on an epoch that is over by the time it is applied has no effect.
// Threads: the controller's executor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "broker/cluster_calls.h"
#include "broker/controller.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

struct NodeRegistryOptions {
  int32_t feature_max = kFeatureLevelMax;  ///< What this program supports; the level is raised no further.
  absl::Duration session_timeout = absl::Seconds(3);
  absl::Duration check_every = absl::Milliseconds(250);
};

class NodeRegistry final : public ControllerObserver {
 public:
  /// All borrowed.
  struct Seams {
    Executor& executor;
    Clock& clock;
    Controller& controller;
    const Logger& log;
  };

  /// Observes the controller.
  NodeRegistry(NodeRegistryOptions options, Seams seams);
  ~NodeRegistry() override;
  void Start();
  void Stop();

  /// FailedPrecondition when the epoch is not the node's: it must register again. Unavailable where the controller does
  /// not lead.
  absl::Status OnHeartbeat(const Heartbeat& heartbeat);
  /// What the node last said to this one, if that is less than a session time-out ago; whether it was taken or not.
  std::optional<Heartbeat> LastHeartbeat(NodeId node) const;
  /// Whose last heartbeats, no older than that, say that their disks are full.
  std::vector<NodeId> Full() const;

  void OnLeadership(bool leads) override;
  void OnApplied(const ClusterDelta& delta) override;

 private:
  struct Session {
    Offset epoch;
    absl::Duration heard;
    std::optional<Heartbeat> last;  ///< Of that epoch.
  };

  void CheckLater();
  void Check();
  void CheckNode(NodeId id, const RegisteredNode& node);
  void Fence(NodeId id, const RegisteredNode& node, bool fenced, std::string_view why);
  void CheckFeatureLevel();

  const NodeRegistryOptions options_;
  const Seams seams_;
  Executor::TimerId timer_ = 0;
  bool stopped_ = true;
  struct Said {
    absl::Duration at;
    Heartbeat heartbeat;
  };
  std::map<NodeId, Session> sessions_;
  std::map<NodeId, Said> said_;
  std::set<NodeId> deciding_;
  bool raising_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::broker
