// The controller: the state machine of group 0, a one-voter ReplicatedLog whose records are ControllerChanges.
//
// Always holds: the state is what the committed changes up to applied() make, in order; each is in the metadata store,
// in one write with that index, before it is answered. A deleted topic leaves a mark until its replicas are dropped, so
// that a restart goes on with it.
// Threads: everything is called on, and every callback runs on, the controller's executor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "broker/api.h"
#include "broker/cluster_state.h"
#include "broker/controller_record.h"
#include "broker/log_factory.h"
#include "common/executor.h"
#include "storage/meta/metadata_store.h"

namespace sluice::broker {

/// Group 0 as storage names it.
inline constexpr ReplicaId kControllerReplica{TopicId{}, PartitionId(0)};

/// What the whole cluster knows, and what of it this node has still to do.
struct ControllerState : ClusterState {
  DroppingMarks dropping;
};

class Controller {
 public:
  /// Whom everything is borrowed from outlives the controller.
  struct Seams {
    Executor& executor;
    BlockingExecutor& blocking;
    Clock& clock;
    storage::MetadataStore& store;
  };

  explicit Controller(Seams seams) : seams_(seams) {}

  /// Loads the store, then replays `log` from the applied index. DataLoss when either cannot be read, or the store is
  /// ahead of the log.
  void Start(std::unique_ptr<PartitionLog> log, Callback<absl::Status> done);

  /// Proposes one change and answers once it is applied: OK, or the proposal's error with nothing changed, or Unknown
  /// when the outcome is not known or it could not be applied. The caller waits for the answer before the next change,
  /// and has checked the change against state().
  void Change(ControllerChange change, Callback<absl::Status> done);
  /// Takes away the mark of a deleted topic. As Change: one at a time.
  void ForgetDropped(const TopicId& id, Callback<absl::Status> done);

  const ControllerState& state() const { return state_; }
  /// One past the last offset of group 0's log that is in the state.
  Offset applied() const { return applied_; }
  /// Null before Start has answered.
  replication::ReplicatedLog* log() const { return log_ == nullptr ? nullptr : &log_->log(); }

  void Stop(absl::AnyInvocable<void()> done);

 private:
  /// A change of the metadata store that is not known to be in it yet.
  struct Write {
    Offset applied;
    storage::MetadataChanges changes;
  };
  /// Applies what is committed and not applied yet.
  void CatchUp(Callback<absl::Status> done);
  absl::Status ApplyBatch(const record::Batch& batch, ClusterDelta* delta);
  void Save(Callback<absl::Status> done);

  const Seams seams_;
  std::unique_ptr<PartitionLog> log_;
  ControllerState state_;
  Offset applied_;
  std::shared_ptr<Write> unsaved_;  // in the state, not in the store: the disk was full
  bool stopped_ = false;
};

}  // namespace sluice::broker
