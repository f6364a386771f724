// The logs of a node's Raft groups, for the broker: RaftNode's groups on its LogStore's replicas.
#pragma once

#include <memory>
#include <vector>

#include "broker/log_factory.h"
#include "common/executor.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"

namespace sluice::broker {

/// Threads: Open and Drop on one executor at a time (the controller's), which is also where `random` is used.
class RaftLogFactory final : public LogFactory {
 public:
  /// All outlive the factory and the logs it opened. `shards` are the node's, in the same order. The node and the store
  /// are stopped by their owner, after the broker.
  RaftLogFactory(std::shared_ptr<replication::RaftNode> node, std::shared_ptr<storage::LogStore> store,
                 std::vector<Executor*> shards, Random& random)
      : node_(std::move(node)), store_(std::move(store)), shards_(std::move(shards)), random_(random) {}

  std::vector<ReplicaId> Replicas() const override { return store_->Replicas(); }
  void Open(ReplicaSpec spec, Executor& shard, Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) override;
  void LeaveLeadership(absl::Duration within, Executor& executor, Callback<absl::Status> done) override;
  void Drop(const ReplicaId& replica, Executor& executor, Callback<absl::Status> done) override;

 private:
  const std::shared_ptr<replication::RaftNode> node_;
  const std::shared_ptr<storage::LogStore> store_;
  const std::vector<Executor*> shards_;
  Random& random_;
};

/// The transport of a node that has no peers.
class NoPeers final : public replication::PeerTransport {
 public:
  void Start(replication::PeerReceiver&) override {}
  void Stop(absl::AnyInvocable<void()> done) override { done(); }
  bool Send(const ReplicaId&, raft::Message) override { return false; }
  bool SendLiveness(NodeId, replication::LivenessMessage) override { return false; }
};

}  // namespace sluice::broker
