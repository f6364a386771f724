// SingleReplicaLog: a ReplicatedLog with one replica, its own disk being the quorum. It writes what a cluster's leader
// would (a new epoch each time it opens, a leader-change batch as that epoch's first entry, control batches for
// log-start advances), so that offsets and files mean the same once Raft stands here.
//
// Always holds: high_watermark() is what the journal has made durable, and does not move before this epoch's first
// entry is; a proposal is answered with success only then. Threads: as ReplicatedLog; on the log's home executor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "common/executor.h"
#include "replication/replicated_log.h"
#include "storage/log.h"
#include "storage/retention.h"

namespace sluice::replication {

class SingleReplicaLog final : public ReplicatedLog, public std::enable_shared_from_this<SingleReplicaLog> {
 public:
  /// Bumps the term, appends the leader-change batch, and answers with the log once that is committed: it then leads
  /// and serves. Errors: what the storage says; Unknown when the journal failed. Call on the log's home executor.
  static void Open(std::shared_ptr<storage::Log> log, NodeId node, Clock& clock,
                   Callback<absl::StatusOr<std::shared_ptr<SingleReplicaLog>>> done);
  ~SingleReplicaLog() override = default;

  /// Answers what is pending with Unavailable (reads) or Unknown (proposals), wakes waiters; later calls get
  /// Unavailable. The storage log is not stopped.
  void Stop();

  void Propose(record::PendingBatch batch, std::optional<Offset> expected_base_offset,
               Callback<absl::StatusOr<Committed>> done) override;
  void Read(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) override;
  WaitId WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake) override;
  void CancelWait(WaitId id) override;
  void AdvanceLogStart(Offset offset, Callback<absl::StatusOr<Offset>> done) override;
  void FindTimestamp(int64_t timestamp_ms, Callback<absl::StatusOr<std::optional<TimestampOffset>>> done) override;
  void ReadBarrier(Callback<absl::Status> done) override;

  LogBounds bounds() const override;
  LeaderEpoch leader_epoch() const override { return epoch_; }
  bool IsLeader() const override { return !stopped_; }
  std::optional<NodeId> leader() const override { return stopped_ ? std::nullopt : std::optional(node_); }
  Offset last_data_offset_end() const override;
  int64_t size_bytes() const override { return log_->size_bytes(); }

  /// Deletes what `policy` says is too old or too much; answers the log start.
  void ApplyRetention(const storage::RetentionPolicy& policy, Callback<absl::StatusOr<Offset>> done);
  storage::Log& storage_log() { return *log_; }

 private:
  SingleReplicaLog(std::shared_ptr<storage::Log> log, NodeId node, Clock& clock);
  void Lead(Callback<absl::Status> done);
  /// Runs later on the home executor.
  template <class T>
  void Answer(Callback<T> done, T result);
  /// Keeps `done` so that Stop can answer it; returns what gives it the true answer.
  template <class T>
  Callback<absl::StatusOr<T>> Track(Callback<absl::StatusOr<T>> done, absl::Status on_stop);
  void ReadStored(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done);
  void OnCommitted(Offset end, bool data);
  void WakeWaiters();
  int64_t NowMs() const;

  const std::shared_ptr<storage::Log> log_;
  Executor& home_;
  Clock& clock_;
  const NodeId node_;
  LeaderEpoch epoch_;
  Offset high_watermark_;
  Offset log_start_;   ///< Of what is durable, as bounds() tells it.
  int advancing_ = 0;  ///< Log starts that are not durable yet; the storage refuses to read below them.
  std::vector<absl::AnyInvocable<void()>> behind_advance_;  ///< Reads that met one.
  std::optional<Offset> data_end_;                          ///< Of the last committed data batch.
  bool stopped_ = true;                                     ///< Until open.

  WaitId next_wait_ = 1;
  std::map<std::pair<Offset, WaitId>, absl::AnyInvocable<void()>> waiters_;
  std::map<WaitId, Offset> wait_offsets_;

  uint64_t next_pending_ = 1;
  std::map<uint64_t, absl::AnyInvocable<void()>> pending_;  ///< What Stop runs for each call under way.
};

}  // namespace sluice::replication
