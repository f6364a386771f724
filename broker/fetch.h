// One fetch over many partitions: reads them one after the other within the request's bytes, and, when that is not
// enough, waits on all of them at once to be woken by a commit.
//
// Always holds: the callback runs once; when it has, nothing waits on a partition any more. What is read is counted by
// ReadQuota from before the read on; who waits, on a partition or for memory, holds none unless a part of what was
// asked for is there already, and then it answers with that part as soon as others want the memory. Threads: Start and
// Cancel from any; the state belongs to the home executor, each partition is asked on its shard.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "broker/admission.h"
#include "broker/api.h"
#include "broker/partition.h"
#include "broker/read_quota.h"
#include "common/executor.h"

namespace sluice::broker {

class FetchOperation final : public FetchCall, public std::enable_shared_from_this<FetchOperation> {
 public:
  /// Where an item goes: a partition, or the error why there is none.
  struct Route {
    std::shared_ptr<Partition> partition;
    std::optional<Error> error;
  };

  /// `routes` are the spec's items in order. `waiting` counts the fetches that wait for records, of all the node.
  FetchOperation(FetchSpec spec, std::vector<Route> routes, Executor& home,
                 std::shared_ptr<std::atomic<int64_t>> waiting, std::shared_ptr<ReadQuota> memory, CallGate::Pass pass,
                 Callback<std::vector<FetchOutcome>> done);

  void Start();
  void Cancel() override;

 private:
  /// A wait that was asked for; everything in it belongs to the partition's shard.
  struct Waiter {
    replication::ReplicatedLog::WaitId id = 0;
    bool over = false;  // woken or given up
  };
  struct Item {
    std::shared_ptr<Partition> partition;
    int64_t bytes_max = 0;
    int64_t bytes = 0;  // read so far
    LeaderEpoch client_epoch;
    bool to_read = false;
    bool full = false;               // has what it may have
    std::shared_ptr<Waiter> waiter;  // null: not waiting
  };

  /// Takes memory for what there is to read, then reads it.
  void BeginRound();
  void WaitForMemory(int64_t need);
  void ArmMemoryTimer();
  void OnMemory(std::shared_ptr<ReadHold> hold);
  void GiveUpMemory();
  void ReadNext();
  void OnRead(size_t index, PartitionRead read);
  void TakeBatches(size_t index, std::vector<record::Batch> batches, Offset next_offset);
  void AfterRound();
  void Wait(size_t index);
  void OnWake(size_t index, const std::shared_ptr<Waiter>& waiter);
  void Finish();

  const FetchSpec spec_;
  Executor& home_;
  const std::shared_ptr<std::atomic<int64_t>> waiting_;
  const std::shared_ptr<ReadQuota> memory_;

  // Home only.
  std::vector<Item> items_;
  std::vector<FetchOutcome> outcomes_;
  int64_t bytes_ = 0;
  std::shared_ptr<ReadHold> hold_;  // of at least bytes_, but for a batch larger than its partition said
  int64_t round_bytes_max_ = 0;     // of the round: the spec's, or what memory there was
  uint64_t memory_place_ = 0;       // in the quota's line; 0: not waiting there
  Executor::TimerId memory_timer_ = 0;
  absl::Duration memory_waited_;
  bool reading_ = false;
  bool answer_now_ = false;  // an error, the deadline or Cancel: no more waiting
  bool counted_waiting_ = false;
  bool finished_ = false;
  Executor::TimerId deadline_ = 0;
  CallGate::Pass pass_;
  Callback<std::vector<FetchOutcome>> done_;
};

}  // namespace sluice::broker
