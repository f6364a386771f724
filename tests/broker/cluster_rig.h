// Nodes that form, join and run a cluster in the simulator, as far as the controller goes: ControlRig's nodes, and what
// registers, reports, fences and grows group 0 around their controllers. Included by tests only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker/cluster_client.h"
#include "broker/cluster_joiner.h"
#include "broker/cluster_service.h"
#include "broker/group0_membership.h"
#include "broker/node_registry.h"
#include "common/text.h"
#include "tests/broker/control_rig.h"
#include "tests/simulation/sim_peer_calls.h"

namespace sluice::broker {

/// Whether `status` says `text`; where not, the failed check shows what it says.
inline bool Has(const absl::Status& status, const std::string& text) {
  const bool has = status.ToString().find(text) != std::string::npos;
  if (!has) UNSCOPED_INFO(status.ToString() << " does not say: " << text);
  return has;
}

/// What a data folder says of itself; outlives processes.
struct FolderIdentity {
  bool made = false;
  Uuid disk;
  Uuid cluster;
};

class ClusterRig;

class ClusterNode {
 public:
  ClusterNode(ClusterRig& rig, NodeId node) : rig_(rig), id(node), address(Cat("n", node, ":7401")) {}

  /// As the program does; the reason where it would end with one. Runs the world meanwhile, up to `most`; an Aborted
  /// status when that was not enough.
  absl::Status TryStart(absl::Duration most = absl::Seconds(60));
  void Kill();
  void Crash();
  /// Another, empty disk.
  void Wipe();
  Controller& controller() { return *base().controller; }
  bool up() { return base().up(); }
  ControlNode& base();

 private:
  ClusterRig& rig_;

 public:
  const NodeId id;
  std::string address;
  std::string rack;
  std::string cluster_name;
  std::vector<std::string> seeds;  ///< None: forms a cluster of its own.
  int32_t feature_min = kFeatureLevelMin;
  int32_t feature_max = kFeatureLevelMax;
  FolderIdentity folder;
  Uuid process;                  ///< Of its last start.
  bool stop_after_join = false;  ///< As killed once the folder has its cluster id, before group 0 is opened.
  bool disk_full = false;        ///< As its heartbeats say.
  FullNodes full;                ///< As it was told.
  std::optional<absl::Status> refused;

  std::unique_ptr<simulation::SimPeerCalls> calls;
  std::unique_ptr<ClusterJoiner> joiner;
  std::unique_ptr<NodeRegistry> registry;
  std::unique_ptr<ClusterService> service;
  std::unique_ptr<Group0Membership> membership;
  std::unique_ptr<ClusterClient> client;
};

class ClusterRig {
 public:
  /// The first node forms the cluster, the others have it for their seed.
  explicit ClusterRig(int count, uint64_t seed = 1) : base(count, seed), call_network(base.scheduler, base.network) {
    for (int i = 1; i <= count; ++i) {
      nodes.push_back(std::make_unique<ClusterNode>(*this, NodeId(i)));
      if (i > 1) nodes.back()->seeds = {nodes.front()->address};
    }
  }
  ~ClusterRig() {
    for (auto& node : nodes) node->Kill();
    base.scheduler.Clear();
  }

  ClusterNode& node(int id) { return *nodes[static_cast<size_t>(id - 1)]; }
  void Start(int id) {
    const absl::Status started = node(id).TryStart();
    INFO("node " << id << ": " << started);
    REQUIRE(started.ok());
  }
  void StartAll() {
    for (auto& each : nodes) Start(each->id.value());
  }
  template <class Condition>
  void Until(Condition condition, absl::Duration most = absl::Seconds(60)) {
    const bool there = base.RunUntil(condition, most);
    INFO(base.Describe());
    REQUIRE(there);
  }
  /// All that run are registered, unfenced and of one mind, and know that `voters` vote.
  bool Settled(size_t voters) {
    const auto leader = base.LeaderNow();
    if (!leader || !base.Converged()) return false;
    const Controller& at = base.controller(*leader);
    for (auto& each : nodes) {
      if (!each->up()) continue;
      const raft::Raft& raft = each->controller().log()->raft();
      if (raft.configuration().voters.size() != voters) return false;
      if (raft.configurations().back().offset >= raft.committed()) return false;
      const RegisteredNode* node = at.state().FindNode(each->id);
      if (node == nullptr || node->fenced || each->client->epoch() != node->epoch) return false;
    }
    return true;
  }
  void Settle(size_t voters) {
    Until([&] { return Settled(voters); });
  }
  int Leader() { return base.Leader().value(); }
  const ControllerState& State() { return base.controller(base.Leader()).state(); }

  ControlRig base;
  simulation::SimCallNetwork call_network;
  std::vector<std::unique_ptr<ClusterNode>> nodes;
};

inline ControlNode& ClusterNode::base() {
  return rig_.base.node(id);
}

inline void ClusterNode::Kill() {
  client.reset();
  membership.reset();
  service.reset();
  registry.reset();
  joiner.reset();
  calls.reset();
  base().Kill();
}

inline void ClusterNode::Crash() {
  Kill();
  base().fs.Crash();
}

inline void ClusterNode::Wipe() {
  Kill();
  const uint64_t seed = base().random.Next();
  rig_.base.nodes[static_cast<size_t>(id.value() - 1)] = std::make_unique<ControlNode>(rig_.base, id, seed);
  folder = {};
}

inline absl::Status ClusterNode::TryStart(absl::Duration most) {
  ControlNode& node = base();
  const auto draw = [&node] {
    const uint64_t high = node.random.Next();
    return Uuid::FromRandom(high, node.random.Next());
  };
  if (!folder.made) folder = {.made = true, .disk = draw(), .cluster = seeds.empty() ? draw() : Uuid{}};
  node.Boot();
  process = draw();
  calls = std::make_unique<simulation::SimPeerCalls>(
      rig_.call_network,
      PeerCaller{.node = id, .cluster = folder.cluster, .disk = folder.disk, .session = process, .address = address});
  calls->Serve([this, &node](PeerCall call, PeerReply reply) {
    node.executor().Post([this, call = std::move(call), reply = std::move(reply)]() mutable {
      if (service == nullptr) return reply(absl::UnavailableError("this node belongs to no cluster yet"));
      service->Answer(std::move(call), std::move(reply));
    });
  });
  ClusterClientOptions options;
  options.node = {.id = id,
                  .disk = folder.disk,
                  .incarnation = {},
                  .grpc_address = Cat("n", id, ":7400"),
                  .peer_address = address,
                  .rack = rack,
                  .version = "test",
                  .feature_min = feature_min,
                  .feature_max = feature_max,
                  .process = process};
  options.cluster_id = folder.cluster;
  options.cluster_name = cluster_name;
  options.seeds = seeds;

  ReplicaSpec group0{.replica = kControllerReplica};
  std::optional<Registration> registration;
  if (!node.store->Has(kControllerReplica) && !seeds.empty()) {
    joiner = std::make_unique<ClusterJoiner>(
        options, ClusterJoiner::Seams{.executor = node.executor(), .calls = *calls, .log = rig_.base.logger});
    std::optional<absl::StatusOr<Joined>> joined;
    node.executor().Post(
        [&] { joiner->Join([&](absl::StatusOr<Joined> answer) { joined.emplace(std::move(answer)); }); });
    rig_.base.RunUntil([&] { return joined.has_value(); }, most);
    if (!joined.has_value()) return Kill(), absl::AbortedError("not let in yet");
    if (!joined->ok()) return Kill(), joined->status();
    folder.cluster = (*joined)->cluster_id;
    options.cluster_id = folder.cluster;
    calls->SetCluster(folder.cluster);
    if (stop_after_join) return Kill(), absl::AbortedError("stopped after joining");
    registration = (*joined)->registration;
    group0.incarnation = registration->incarnation;
  }
  node.calls = calls.get();
  const absl::Status started = node.StartController(group0);
  if (!started.ok()) return started;
  Controller& controller = *node.controller;
  registry = std::make_unique<NodeRegistry>(
      NodeRegistryOptions{},
      NodeRegistry::Seams{
          .executor = node.executor(), .clock = rig_.base.clock, .controller = controller, .log = rig_.base.logger});
  service = std::make_unique<ClusterService>(ClusterService::Seams{
      .controller = controller, .registry = *registry, .random = node.random, .log = rig_.base.logger});
  membership = std::make_unique<Group0Membership>(Group0Membership::Seams{.executor = node.executor(),
                                                                          .clock = rig_.base.clock,
                                                                          .controller = controller,
                                                                          .log = rig_.base.logger,
                                                                          .registry = registry.get()});
  client = std::make_unique<ClusterClient>(
      options, ClusterClient::Seams{.executor = node.executor(),
                                    .controller = controller,
                                    .service = *service,
                                    .calls = calls.get(),
                                    .addresses = calls.get(),
                                    .log = rig_.base.logger,
                                    .disk_free_bytes = [] { return int64_t{1} << 30; },
                                    .on_refused = [this](const absl::Status& why) { refused = why; },
                                    .disk_full = [this] { return disk_full; },
                                    .full = &full});
  refused.reset();
  node.executor().Post([this, registration] {
    registry->Start();
    membership->Start();
    client->Start(registration);
  });
  return absl::OkStatus();
}

}  // namespace sluice::broker
