// Partition: one partition's place in the broker: admission before the log of this node's replica, and what clients may
// ask of it. Of a partition that has no replica here only who has one is known: it refers to them.
//
// Always holds: after an item of a session was refused or failed here, no later item of that session reaches the log
// until one carries reset, so that a client's order is the log's order; the log's callbacks, and the callers', never
// run inside the call that takes them.
// Threads: made on any thread; everything else is called on, and every callback runs on, the shard's executor. The log
// is destroyed on the shard by Stop; what is left may be destroyed anywhere.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "broker/address_book.h"
#include "broker/admission.h"
#include "broker/api.h"
#include "broker/log_factory.h"
#include "broker/topic_settings.h"
#include "common/executor.h"

namespace sluice::broker {

/// One session's standing with one partition.
///
/// A reset clears the refusals of all items sent before it, those not answered yet among them: what fails later, and
/// was sent before the last reset, breaks nothing any more. So the rule follows from the order sent, not from when the
/// log happens to answer.
///
/// What was taken under one leader epoch may yet turn out to be overwritten, while what follows under the next one is
/// not: so while items of an earlier epoch are not answered, nothing is taken under a later one.
/// Only the partition's shard touches it, once the lane was handed to it.
struct SessionLane {
  bool broken = false;
  uint64_t resets = 0;
  uint64_t unanswered = 0;  ///< In the log, since the last reset.
  LeaderEpoch epoch;        ///< Under which they were taken.
};

/// An append as the shard gets it.
struct PartitionAppend {
  std::optional<record::PendingBatch> batch;  ///< Absent when memory ran out: only to be refused, in order.
  std::optional<Offset> expected_base_offset;
  LeaderEpoch leader_epoch;
  bool reset = false;
  std::shared_ptr<SessionLane> lane;
  MemoryQuota::Hold hold;
  Callback<ProduceOutcome> done;
};

struct PartitionRead {
  std::optional<Error> error;
  std::vector<record::Batch> batches;
  Offset next_offset;
  replication::LogBounds bounds;
  LeaderEpoch leader_epoch;
};

class Partition : public std::enable_shared_from_this<Partition> {
 public:
  /// How long an append waits where its partition has no leader in place: several times what a hand-over takes, and
  /// short beside what a client waits.
  static constexpr absl::Duration kLeaderWaitMax = absl::Milliseconds(250);

  /// What all partitions of a node share; outlives them.
  struct Node {
    Clock& clock;
    MemoryQuota& memory;
    const DiskWatermarks& disk;
    NodeId id;
    std::string address;  ///< host:port for clients.
    const AddressBook& addresses;
    const FullNodes* full = nullptr;  ///< Of the other nodes; null where there are none.
  };
  /// What it is, whatever became of its log.
  struct Identity {
    ReplicaId replica;
    std::string topic;
    TopicSettings settings;
    std::vector<NodeId> replicas;  ///< By preference, as group 0 has them.
  };

  Partition(const Node& node, Identity identity, Executor& shard, std::unique_ptr<PartitionLog> log);

  /// One whose log cannot be opened: everything asked of it is answered with `why`. Where a majority of the replicas is
  /// on other nodes clients are sent there. Else DATA_LOSS lasts; of anything else the answer is retriable, as it is
  /// tried again.
  Partition(const Node& node, Identity identity, Executor& shard, const absl::Status& why);

  /// One without a replica on this node: everything asked of it is answered with where to ask.
  Partition(const Node& node, Identity identity, Executor& shard);

  const ReplicaId& replica() const { return replica_; }
  const std::string& topic() const { return topic_; }
  Executor& shard() const { return shard_; }
  /// Whether this node has no replica of it.
  bool remote() const { return remote_; }
  const std::vector<NodeId>& replicas() const { return replicas_; }
  /// The largest batch that can be expected here; any thread. Before the process started the setting may have been
  /// larger.
  int64_t batch_bytes_max() const { return batch_bytes_max_.load(std::memory_order_relaxed); }

  /// Where within a block the memory of the next batch to append had better begin; any thread.
  size_t PlaceOf(size_t bytes) { return append_place_ == nullptr ? 0 : append_place_->Next(bytes); }
  /// Where the partition has no leader in place, first waits up to kLeaderWaitMax for it, once for each time without:
  /// told to go elsewhere at once, clients would come to whoever is to lead before it does, and be sent back.
  void Append(PartitionAppend append);

  /// Committed batches from `offset`; empty, and without error, at the end of the log.
  void Read(Offset offset, int64_t bytes_max, LeaderEpoch client_epoch, Callback<PartitionRead> done);
  /// Runs `wake` once records after `offset` are committed, or the partition stops. 0 when it has stopped: no wake.
  replication::ReplicatedLog::WaitId WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake);
  void CancelWait(replication::ReplicatedLog::WaitId id);

  void ListOffsets(const ListOffsetsItem& item, Callback<ListOffsetsOutcome> done);
  void DeleteRecords(Offset before, Callback<DeleteRecordsOutcome> done);

  void ApplySettings(const TopicSettings& settings);
  /// Moves the log start up to where the settings let it.
  void EnforceRetention(absl::Duration clock_ahead);
  PartitionStats stats() const;
  PartitionInfo info() const;
  /// For operators: what info tells, and how each replica stands.
  PartitionStatus status() const;
  /// Asks to lead until somebody does: the preferred leader of a new partition, whose other replicas may not be there
  /// yet.
  void CampaignUntilLed() { CampaignAgain(absl::Milliseconds(10)); }
  /// Hands leadership over; whether it worked shows in info(). Errors: as RaftLog::TransferLeadership
  /// (FailedPrecondition for one that cannot read its log), NotFound for a node that has no voter here.
  absl::Status TransferLeadership(NodeId to);

  /// Answers what waits for the log as Stop will, and serves no more: for a stop that has waited long enough.
  void GiveUpWaiting();
  /// Refuses what comes from now on with `reason`, answers what is pending, closes the log, then runs `done`. Once.
  void Stop(Reason reason, std::string why, absl::AnyInvocable<void()> done);

 private:
  replication::RaftLog& log() const { return log_->log(); }
  Error Fail(Reason reason, std::string message) const;
  /// Where what is appended could not be committed: a majority needs nodes whose disks are full.
  std::optional<Error> NoRoomForMajority() const;
  /// That this node does not lead, and who does.
  Error NotLeader() const;
  Error FailedHere() const;
  /// Whether the partition can be served while this replica is of no use.
  bool OthersAreMajority() const { return replicas_.size() > 2; }
  /// What a failed proposal or read means here and now.
  Error ProposalFailed(const absl::Status& status) const;
  Error ReadFailed(const absl::Status& status, const replication::LogBounds& bounds) const;
  std::vector<ReplicaStatus> ReplicaStatuses() const;
  void CampaignAgain(absl::Duration next);
  std::optional<Error> CheckServing(LeaderEpoch client_epoch) const;
  std::optional<Error> Admit(const PartitionAppend& append) const;
  /// Until a leader is in place, behind whatever waits for one already.
  void Hold(PartitionAppend append);
  bool MayWaitForLeader() const;
  void ReleaseHeld();
  void AppendNow(PartitionAppend append);
  void Propose(PartitionAppend append);
  void AnswerOffset(ListOffsetsOutcome outcome, const ListOffsetsItem& item, Callback<ListOffsetsOutcome> done);
  /// Later, here: no callback runs inside the call that takes it.
  template <class T>
  void Answer(Callback<T> done, T value) {
    shard_.Post([done = std::move(done), value = std::move(value)]() mutable { done(std::move(value)); });
  }

  const Node& node_;
  const ReplicaId replica_;
  const std::string topic_;
  const std::vector<NodeId> replicas_;
  Executor& shard_;

  TopicSettings settings_;
  std::atomic<int64_t> batch_bytes_max_;
  const std::shared_ptr<storage::AppendPlace> append_place_;  // null where there is no log
  std::unique_ptr<PartitionLog> log_;                         // null once stopped, and where it failed
  const bool failed_ = false;                                 // with the stop's reason
  const bool remote_ = false;
  bool stopping_ = false;
  Reason stop_reason_ = Reason::kNotAvailable;
  std::string stop_why_;
  bool retention_running_ = false;
  std::vector<PartitionAppend> held_;  // in the order in which they came
  Executor::TimerId held_timer_ = 0;   // runs while anything is held
  bool awaits_settled_ = false;        // a wait began without a leader; the log will tell when there is one
  PartitionStats stats_;               // the counters only
};

}  // namespace sluice::broker
