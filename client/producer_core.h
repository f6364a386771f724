// The producer's state and its two halves: taking records into batches (producer_accumulate.cc, any thread) and sending
// batches (producer_send.cc, and producer_routes.cc for where they go; the executor). Internal to the client.
//
// Always holds, per partition, in the order in which records were sent:  in_flight, retry, ready, open.
//   - in_flight is in the order of the broker's decisions, and of results. An answer is of a whole request, and comes
//     when all that is in it is decided: a later request's may come before. Then it waits for those before it; retry is
//     known not to have been written, and grows only while in_flight drains; only when that is empty does it move to
//     the front of ready.
//   - all of in_flight went to one broker: what follows goes to another only once it is empty.
// Threads: everything in Partition and Topic, and the counters, under mutex_; only the executor takes batches out of
// ready and touches brokers_, in_flight and retry (under mutex_ as well, since Send looks at them).
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "client/channel.h"
#include "client/core.h"
#include "client/producer.h"
#include "common/record/record.h"

namespace sluice::client {

class ProducerCore : public std::enable_shared_from_this<ProducerCore> {
 public:
  ProducerCore(std::shared_ptr<Core> core, ProducerOptions options);

  absl::Status Send(const RecordToSend& record, Producer::Callback done);
  absl::Status Flush(absl::Duration timeout);
  size_t memory_used() const;
  /// Gives every record its result. On the executor.
  void Close();

 private:
  struct PendingRecord {
    Producer::Callback done;
    int64_t timestamp_ms;
  };
  struct Batch {
    std::unique_ptr<record::BatchBuilder> builder;  // until it is encoded
    Bytes encoded;
    std::vector<PendingRecord> records;
    size_t memory = 0;
    absl::Duration deadline;
    absl::Duration sent_at;
    /// Of the broker, while an earlier batch of the partition waits for its own.
    std::optional<absl::StatusOr<RecordResult>> answer;
    bool log_append_time = false;
  };
  using BatchPtr = std::unique_ptr<Batch>;
  struct Topic;
  struct Partition {
    Topic* topic = nullptr;
    int32_t id = 0;
    BatchPtr open;
    absl::Duration open_since;
    std::deque<BatchPtr> ready;
    std::deque<BatchPtr> in_flight;
    std::deque<BatchPtr> retry;
    bool broken = false;      // something of it failed: send nothing until in_flight is empty
    bool reset_next = false;  // the next item lifts the broker's refusal
    absl::Duration not_before;
    int failures = 0;      // in a row; for the back-off
    absl::Status refusal;  // why the broker did not take the last batch; OK once it took one or the stream broke
    std::string sent_to;   // where in_flight went
    bool lost = false;     // its leader proved wrong: sends nothing until a question after lost_at is answered
    uint64_t lost_at = 0;
    bool listed = false;  // in pending_
  };
  struct WaitingRecord {  // its topic's partitions are not known yet
    std::optional<PartitionId> partition;
    std::optional<std::string> key, value;
    std::vector<std::pair<std::string, std::optional<std::string>>> headers;
    int64_t timestamp_ms;
    size_t memory;
    absl::Duration deadline;
    Producer::Callback done;
  };
  struct Topic {
    std::string name;
    Metadata::Routes routes;  // the last known; null before, and once the topic is gone
    std::vector<std::unique_ptr<Partition>> partitions;
    std::deque<WaitingRecord> waiting;
    bool asking = false;
    absl::Status last_error;  // of the last question for its routes
    uint32_t sticky = 0;
  };
  struct Request {
    uint64_t correlation_id;
    std::vector<std::pair<Partition*, Batch*>> items;
    int64_t bytes = 0;  // as encoded
  };
  struct Broker {
    std::string address;
    bool connecting = false;
    absl::Duration connecting_since;
    std::unique_ptr<Stream> stream;  // null: not connected
    std::deque<Request> requests;    // in the order sent
    absl::Duration not_before;
    absl::Status last_error;
  };
  // Results are given without the lock.
  struct Result {
    BatchPtr batch;
    absl::StatusOr<RecordResult> first;  // of the batch's first record
    bool log_append_time = false;
  };
  using Results = std::vector<Result>;
  struct Refused {  // a waiting record that got into no batch
    Producer::Callback done;
    absl::Status status;
    size_t memory;
  };

  // producer_accumulate.cc
  absl::Status WaitForMemory(std::unique_lock<std::mutex>& lock, size_t bytes);
  absl::Status Place(Topic& topic, const RecordToSend& record, int64_t timestamp_ms, size_t memory,
                     absl::Duration deadline, Producer::Callback& done);
  bool MayHaveBeenAdded(const Topic& topic, const RecordToSend& record) const;
  absl::StatusOr<Partition*> Choose(Topic& topic, const RecordToSend& record);
  void Seal(Partition& partition);
  void PlaceWaiting(Topic& topic, std::vector<Refused>& refused);
  Topic& TopicNamed(std::string_view name);
  void List(Partition& partition);
  void SchedulePump();
  // A record counts until its callback has run, so that Flush waits for that too.
  void Give(Results results, std::vector<Refused> refused = {});
  void Spare(std::unique_ptr<record::BatchBuilder> builder);

  // producer_send.cc and producer_routes.cc: all on the executor
  void Pump();
  std::string SendableTo(Partition& partition, absl::Duration now);
  bool SendRequest(Broker& broker, std::vector<Partition*>& partitions, Results& results,
                   std::unique_lock<std::mutex>& lock);
  void Connect(Broker& broker);
  void OpenStream(Broker& broker);
  void OnAnswer(Broker& broker, const Bytes& message);
  static bool WasAnsweredInFull(const absl::Status& status);
  static const Batch* Largest(const Request& request);
  void OnClose(Broker& broker, const absl::Status& status, size_t unsent);
  void Settle(Partition& partition, Results& results);
  void Fail(Partition& partition, BatchPtr batch, const absl::Status& error, Results& results);
  void Lose(Partition& partition, std::string_view leader);
  void LoseAllAt(const std::string& address);
  void Ask(Topic& topic);
  void OnRoutes(Topic& topic, const absl::StatusOr<Metadata::Routes>& routes);
  void TakeRoutes(Topic& topic, const Metadata::Routes& routes, Results& results);
  void FailTopic(Topic& topic, const absl::Status& why, Results& results, std::vector<Refused>& refused);
  void FailUnsent(Partition& partition, const absl::Status& why, Results& results);
  void WakeAt(absl::Duration when);
  void StartTicking();
  void Tick();
  void ExpirePartition(Partition& partition, absl::Duration now, Results& results,
                       std::map<std::string, absl::Duration>& overdue);
  absl::Status NotWritten(const Partition& partition) const;
  absl::Duration Backoff(int failures) const;

  const std::shared_ptr<Core> core_;
  const ProducerOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable memory_freed_;
  std::condition_variable all_done_;
  std::map<std::string, std::unique_ptr<Topic>, std::less<>> topics_;
  Topic* last_topic_ = nullptr;      // what most calls ask for again
  std::vector<Partition*> pending_;  // those with something to send, now or later
  std::vector<std::unique_ptr<record::BatchBuilder>> spare_builders_;
  size_t memory_used_ = 0;
  /// gRPC's cost is by the message: partitions are gathered up to this. Less once a broker has refused a message.
  size_t request_bytes_max_ = size_t{1} << 20;
  int64_t outstanding_ = 0;  // records without a result
  int flushing_ = 0;
  bool closed_ = false;
  bool pump_posted_ = false;
  absl::Duration wake_at_ = absl::InfiniteDuration();  // the earliest timer that will pump
  bool ticking_ = false;

  std::map<std::string, Broker> brokers_;  // by address; executor only
  uint64_t last_correlation_id_ = 0;
};

}  // namespace sluice::client
