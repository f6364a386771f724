// The consumer's state: partitions with what was fetched ahead, and the fetches under way. Internal to the client.
//
// Threads: everything under mutex_; fetches are started and answered on the executor, polls happen on the caller's
// thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/consumer.h"
#include "client/core.h"

namespace sluice::v1 {
class FetchResult;
}

namespace sluice::client {

/// One data or control batch of a fetch, and where reading goes on behind it.
struct FetchedBatch {
  record::Batch batch;
  Offset next_offset;
};

/// Cuts the bytes of one fetch answer into batches and checks that they carry on from `wanted` without a gap: the first
/// covers it (or begins there), each begins where the one before ended. DATA_LOSS names what does not hold. Batches
/// wholly below `wanted` are left out.
absl::StatusOr<std::vector<FetchedBatch>> CutBatches(const Bytes& bytes, Offset wanted, Offset next_offset);

class ConsumerCore : public std::enable_shared_from_this<ConsumerCore> {
 public:
  ConsumerCore(std::shared_ptr<Core> core, ConsumerOptions options);

  void Assign(const TopicPartition& source, Offset offset);
  void Unassign(const TopicPartition& source);
  absl::Status Seek(const TopicPartition& source, Offset offset);
  std::optional<Offset> Position(const TopicPartition& source) const;
  std::optional<Offset> HighWatermark(const TopicPartition& source) const;
  absl::Status SetPaused(const TopicPartition& source, bool paused);
  absl::StatusOr<std::vector<ConsumedRecord>> Poll(absl::Duration timeout, size_t records_max);
  absl::StatusOr<std::vector<ConsumedBatch>> PollBatches(absl::Duration timeout, size_t bytes_max);
  void Wake();
  void OnReady(absl::AnyInvocable<void()> ready);
  void Close();

 private:
  // A batch whose records are being handed out.
  struct OpenBatch {
    record::Batch batch;
    record::RecordReader reader;
  };
  struct Partition {
    TopicPartition source;
    Offset position;
    Offset fetch_offset;
    std::deque<FetchedBatch> fetched;
    std::shared_ptr<OpenBatch> open;  // of fetched.front()
    size_t fetched_bytes = 0;
    std::optional<Offset> high_watermark;
    Offset committed;  // the highest that any leader said
    bool paused = false;
    uint64_t fetch = 0;  // the fetch under way; 0: none. The answer of another is thrown away
    bool lost = false;   // its leader proved wrong: asks for it again, by a question after lost_at
    uint64_t lost_at = 0;
    absl::Status error;  // given to the next poll, once what was fetched before it is handed out
    std::optional<absl::Duration> failing_since;
    absl::Duration not_before;
  };
  using Partitions = std::map<TopicPartition, Partition>;
  struct Ask {  // one partition of a fetch
    TopicPartition source;
    Offset offset;
    uint64_t fetch;
    bool lost;
    uint64_t lost_at;
  };
  // A fetch under way, for the timer that watches it.
  struct UnderWay {
    std::string leader;
    std::vector<Ask> asks;
    Executor::TimerId timer = 0;
  };

  void Restart(Partition& partition, Offset offset);
  void SkipControl(Partition& partition);
  void Drop(Partition& partition);
  bool WaitForData(std::unique_lock<std::mutex>& lock, absl::Duration timeout);
  bool HasSomething(const Partition& partition) const;
  absl::StatusOr<Partition*> NextReady(bool with_errors);
  absl::Status TakeRecords(Partition& partition, size_t records_max, std::vector<ConsumedRecord>& out);
  static absl::Status Located(const Partition& partition, const absl::Status& status);

  // On the executor.
  void SchedulePump();
  void Pump();
  void Fetch(std::vector<Ask> asks);
  void Split(const std::vector<Ask>& asks, absl::Duration asked_at, const absl::StatusOr<Metadata::Routes>& routes);
  void FetchFrom(const std::string& leader, std::vector<Ask> asks);
  void WatchLeader(const std::shared_ptr<UnderWay>& fetch, absl::Duration after);
  /// Whether somebody still waits for it.
  bool LeaveSilent(const UnderWay& fetch, const absl::StatusOr<Metadata::Routes>& routes);
  /// `leader`: whom the asks went to; empty for a question about the leaders.
  void OnAnswer(const std::vector<Ask>& asks, absl::Duration asked_at, const std::string& leader,
                absl::StatusOr<Bytes> answer);
  absl::Status Take(Partition& partition, const Ask& ask, v1::FetchResult& result);
  void Failed(Partition& partition, const absl::Status& status, absl::Duration since, const std::string& leader);
  bool Again(Partition& partition, const absl::Status& status, const std::string& leader, absl::Duration* pause);
  Partition* Current(const Ask& ask);
  void Notify();

  const std::shared_ptr<Core> core_;
  const ConsumerOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Partitions partitions_;
  std::optional<TopicPartition> last_served_;         // the next poll begins behind it, so that none starves
  std::vector<std::shared_ptr<OpenBatch>> retained_;  // what the views of the last poll point into
  size_t fetched_bytes_ = 0;
  uint64_t last_fetch_ = 0;
  absl::AnyInvocable<void()> ready_;
  bool pump_posted_ = false;
  bool woken_ = false;
  bool closed_ = false;
};

}  // namespace sluice::client
