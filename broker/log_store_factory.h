// The logs of a node's LogStore, one replica each, for the broker.
#pragma once

#include <memory>
#include <vector>

#include "broker/log_factory.h"
#include "common/executor.h"
#include "storage/log_store.h"

namespace sluice::broker {

/// Threads: Open and Drop on one executor at a time (the controller's), which is also where `random` is used.
class LogStoreFactory final : public LogFactory {
 public:
  /// All outlive the factory and the logs it opened. The store is stopped by its owner, after the broker.
  LogStoreFactory(std::shared_ptr<storage::LogStore> store, NodeId node, Clock& clock, Random& random)
      : store_(std::move(store)), node_(node), clock_(clock), random_(random) {}

  std::vector<ReplicaId> Replicas() const override { return store_->Replicas(); }
  void Open(const ReplicaId& replica, Executor& shard, const LogSettings& settings,
            Callback<absl::StatusOr<std::unique_ptr<PartitionLog>>> done) override;
  void Drop(const ReplicaId& replica, Executor& executor, Callback<absl::Status> done) override;

 private:
  const std::shared_ptr<storage::LogStore> store_;
  const NodeId node_;
  Clock& clock_;
  Random& random_;
};

}  // namespace sluice::broker
