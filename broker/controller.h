// The controller: the state machine of group 0, whose records are ControllerChanges, at one of its replicas: leader,
// follower or learner. Every node has one. What is committed is applied here as it becomes known here; changes are made
// where the group's leader is, one after the other, each decided on the state that all before it have left.
//
// Always holds:
//  - the state is what the committed changes up to applied() make, in order. They are saved in that order, each in one
//    write with its index; only then observers hear of them, and WaitApplied answers;
//  - a change is decided where IsLeader: this replica leads in a term of which it has applied all that was there when
//    it began, so nobody else can have changed anything meanwhile;
//  - group 0's log is cut only below what is saved here; a replica that is behind the leader's log start gets a
//    snapshot of the state, which is saved in one write before its log begins anew;
//  - a deleted topic leaves a mark until this node's replicas of it are dropped, so that a restart goes on with it.
// What is committed and cannot be saved (a full disk) is in the state all the same; it is tried again each second, and
// nothing further is applied or decided before. What cannot be read or understood (DataLoss) ends the controller, and
// so does a log or a store that has failed, which takes nothing more until it is opened anew: observers hear OnFailure.
//
// Threads: everything is called on, and every callback and observer runs on, the controller's executor.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "broker/api.h"
#include "broker/cluster_state.h"
#include "broker/controller_record.h"
#include "broker/limits.h"
#include "broker/log_factory.h"
#include "broker/snapshot_transfer.h"
#include "common/executor.h"
#include "storage/meta/metadata_store.h"

namespace sluice::broker {

/// Group 0 as storage names it.
inline constexpr ReplicaId kControllerReplica{TopicId{}, PartitionId(0)};

/// What the whole cluster knows, and what of it this node has still to do.
struct ControllerState : ClusterState {
  DroppingMarks dropping;
};

/// Told in the order in which it happened. Must not add or remove observers.
class ControllerObserver {
 public:
  virtual ~ControllerObserver() = default;
  /// This was applied and saved. The state may be ahead of it by now.
  virtual void OnApplied(const ClusterDelta& /*delta*/) {}
  /// IsLeader began or ceased.
  virtual void OnLeadership(bool /*leads*/) {}
  /// Nothing is applied any more.
  virtual void OnFailure(const absl::Status& /*why*/) {}
};

struct ControllerOptions {
  /// Of group 0's log that are kept, where there are as many: beyond it whole segments below what is saved go.
  int64_t log_bytes = int64_t{8} << 20;
  size_t snapshot_piece_bytes = kSnapshotPieceBytes;
};

/// When a segment of group 0's log is closed: so that what is kept beyond log_bytes is a fraction of it.
LogSettings Group0Settings(int64_t log_bytes);

class Controller : private replication::StateMachine {
 public:
  /// Whom everything is borrowed from outlives the controller.
  struct Seams {
    Executor& executor;
    BlockingExecutor& blocking;
    Clock& clock;
    storage::MetadataStore& store;
    PeerCalls* calls = nullptr;  ///< Null: a node without peers.
  };

  explicit Controller(Seams seams, ControllerOptions options = {});
  ~Controller() override;

  /// Borrowed until the controller is gone; tells also what Start applies.
  void AddObserver(ControllerObserver* observer) { observers_.push_back(observer); }

  /// Loads the store, applies what `log` knows to be committed, and follows it from then on. DataLoss when either
  /// cannot be read, or the store is ahead of a log that leads.
  void Start(std::unique_ptr<PartitionLog> log, Callback<absl::Status> done);

  /// What to propose, given the state; nothing where the state is as it should be already; or why not.
  using Decision = absl::AnyInvocable<absl::StatusOr<std::optional<ControllerChange>>(const ControllerState& state)>;
  /// Runs `decide` once everything before is applied, proposes its change and answers once that is applied and saved:
  /// OK; what `decide` refused with; FailedPrecondition for a change that the cluster's feature level does not allow
  /// yet; Unavailable where this node does not lead, and the proposal's other errors, with nothing changed; Unknown
  /// when the outcome is not known or could not be saved.
  void Decide(Decision decide, Callback<absl::Status> done);
  /// As Decide, of a change that was checked against state() by the only one who makes such changes.
  void Change(ControllerChange change, Callback<absl::Status> done);
  /// Takes away the mark of a deleted topic. On any node. After an error it is taken away later.
  void ForgetDropped(const TopicId& id, Callback<absl::Status> done);
  /// Of a snapshot that this node has offered. Errors: as SnapshotTransfer::Answer.
  absl::StatusOr<std::string> AnswerSnapshotPiece(const SnapshotPieceRequest& request) {
    return snapshots_.Answer(request);
  }

  /// Answers once all below `offset` is applied and saved, and observers were told. Unavailable when it stops or fails
  /// before.
  void WaitApplied(Offset offset, Callback<absl::Status> done);
  /// From now on nobody waits: WaitApplied answers Unavailable, to those who are waiting too. For a node that is about
  /// to stop once its calls are answered, and that may be cut off from what they wait for.
  void GiveUpWaiting();

  const ControllerState& state() const { return state_; }
  /// One past the last offset of group 0's log that is in the state.
  Offset applied() const { return applied_; }
  /// Whether changes are taken here now.
  bool IsLeader() const;
  /// Who takes changes, as far as this node knows.
  std::optional<NodeId> leader() const;
  /// Whether this node's disk had no room for the last thing that it had to write here: a change, or what was
  /// committed. Where nothing has been tried for a minute since, that is forgotten.
  bool WritesRefused() const;
  const Clock& clock() const { return seams_.clock; }
  /// Null before Start has answered, and after Stop has.
  replication::RaftLog* log() const { return log_ == nullptr ? nullptr : &log_->log(); }

  void Stop(absl::AnyInvocable<void()> done);

 private:
  /// What is not known to be in the metadata store yet.
  struct Write {
    Offset applied;
    storage::MetadataChanges changes;
    ClusterDelta delta;
  };
  struct Pending {
    Decision decide;
    Callback<absl::Status> done;
  };

  /// Answers once all that is committed now is applied and saved.
  void CatchUp(Callback<absl::Status> done);
  void Pump();
  void PumpDone(absl::Status status);
  void ReadSome();
  absl::Status ApplyRead(const replication::ReadResult& read);
  absl::Status ApplyBatch(const record::Batch& batch, ClusterDelta* delta);
  void Save();
  void OnSaved(absl::Status saved);
  void Fail(const absl::Status& why);

  // replication::StateMachine
  absl::StatusOr<Offer> OfferSnapshot() override;
  void InstallSnapshot(NodeId from, Offset base_end, Bytes detail, Callback<absl::Status> done) override;
  void OnFetched(Offset base_end, absl::StatusOr<ClusterSnapshot> snapshot);
  absl::Status CheckSnapshot(const ClusterSnapshot& snapshot) const;
  void TakeSnapshot();
  void AnswerInstall(const absl::Status& status);
  /// Ends the fetch of a snapshot whose giver leads no more: who leads now offers another.
  void LeaveOldGiver();
  void WaitForMore();
  void WatchLeadership();
  void AnswerApplied();
  void RefuseWaiters(const absl::Status& why);
  void DecideNext();
  void DecideNow(Pending pending);
  /// Answers with `decided` once it is certain that this node led when it was; otherwise Unavailable.
  void Confirm(absl::Status decided, Callback<absl::Status> done);
  void Propose(const ControllerChange& change, Callback<absl::Status> done);
  absl::Status NotLeading() const;
  void NoteWrite(const absl::Status& written);

  const Seams seams_;
  const ControllerOptions options_;
  SnapshotTransfer snapshots_;
  std::vector<ControllerObserver*> observers_;
  std::unique_ptr<PartitionLog> log_;
  ControllerState state_;
  Offset applied_;
  Offset saved_;                    ///< Of what observers were told.
  std::shared_ptr<Write> unsaved_;  ///< In the state, not in the store; not changed while it is being written.
  std::vector<std::pair<TopicId, Callback<absl::Status>>> forgets_;  ///< Waiting for a write of their own.
  Callback<absl::Status> forgetting_;                                ///< Of the write that is unsaved_.

  std::optional<ClusterSnapshot> arrived_;  ///< Becomes the state once nothing is unsaved.
  Callback<absl::Status> installing_;       ///< Null: no snapshot is being installed.
  std::optional<Offset> install_saved_at_;  ///< What is being installed is answered once this is saved.

  bool started_ = false;
  bool stopped_ = false;
  bool gave_up_waiting_ = false;
  absl::Status failure_;
  bool pumping_ = false;
  std::vector<Callback<absl::Status>> caught_up_;  ///< Answered by the next PumpDone.
  std::multimap<Offset, Callback<absl::Status>> applied_waiters_;
  replication::ReplicatedLog::WaitId wait_ = 0;
  Executor::TimerId retry_timer_ = 0;

  std::optional<LeaderEpoch> leading_epoch_;  ///< In which this replica leads and has applied all that was there.
  bool awaiting_leadership_ = false;
  std::optional<absl::Duration> refused_at_;  ///< As the last write was, for want of room.
  std::deque<Pending> decisions_;
  bool deciding_ = false;
  /// Ends with the controller: what a log or an executor calls late finds nobody.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::broker
