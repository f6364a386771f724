// Log.Produce and Log.Append.
#include <grpcpp/support/slice.h>

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "absl/container/inlined_vector.h"

#include "broker/rpc/handlers.h"
#include "common/record/record.h"

namespace sluice::broker::rpc {
namespace {

struct PartitionKey {
  std::string topic;
  int32_t partition;
  bool operator==(const PartitionKey&) const = default;
};

struct PartitionKeyHash {
  size_t operator()(const PartitionKey& key) const {
    return std::hash<std::string>()(key.topic) * 31 + static_cast<size_t>(key.partition);
  }
};

// One request between its arrival and its answer.
struct Request {
  uint64_t correlation_id;
  int64_t bytes;
  absl::Duration arrived;
  size_t unanswered;
  struct Item {
    std::string topic;
    int32_t partition;
    std::optional<ProduceOutcome> outcome;
  };
  std::vector<Item> items;
};

// One item on its way through its partition.
struct Slot {
  std::shared_ptr<Request> request;
  size_t index;
  std::optional<ProduceOutcome> outcome;
};

class ProduceHandler final : public Handler, public std::enable_shared_from_this<ProduceHandler> {
 public:
  ProduceHandler(Services& services, std::shared_ptr<Call> call, bool stream)
      : services_(services), call_(std::move(call)), stream_(stream) {}

  void OnStart() override {
    session_ = services_.broker.NewSession();
    ReadOrWait();
  }

  void OnMessage(grpc::ByteBuffer message) override;
  void OnReadsDone() override {
    std::unique_lock lock(mutex_);
    const bool nothing = !stream_ && received_ == 0;
    if (nothing && !ending_) failure_ = MakeError(Reason::kInvalidArgument, "the request has no message");
    ending_ = true;
    FinishIfAnswered(std::move(lock));
  }
  void OnDrain() override { Refuse(MakeError(Reason::kNotAvailable, "the node is shutting down", true)); }
  void OnGone() override {
    std::lock_guard lock(mutex_);
    ending_ = true;
    gone_ = true;
  }

 private:
  // What one partition of this stream waits for: answers are given in the order of the items, also those that never
  // reached the broker.
  struct Partition {
    bool broken = false;  // an item was refused here, before the broker saw it
    std::deque<std::shared_ptr<Slot>> slots;
  };
  using Partitions = std::unordered_map<PartitionKey, Partition, PartitionKeyHash>;

  void Submit(const std::shared_ptr<Request>& request, size_t index, ProduceEnvelopeItem item);
  Result<ProduceItem> Prepare(ProduceEnvelopeItem item);
  void Settle(const PartitionKey& key, const std::shared_ptr<Slot>& slot, ProduceOutcome outcome);
  /// Writes what is answered, unless another thread is at it, which then takes this in.
  void WriteAnswers(std::unique_lock<std::mutex> lock);
  void WriteAnswer(const Request& request);
  void Refuse(Error error);
  void ReadOrWait();
  /// Ends the call where nothing more is to come. Leaves the lock.
  void FinishIfAnswered(std::unique_lock<std::mutex> lock);

  Services& services_;
  const std::shared_ptr<Call> call_;
  const bool stream_;
  std::shared_ptr<ProduceSession> session_;

  std::mutex mutex_;
  Partitions partitions_;  // only those with items under way or broken
  size_t broken_ = 0;
  int received_ = 0;
  int unanswered_ = 0;                              // not written yet
  std::vector<std::shared_ptr<Request>> answered_;  // complete, in the order they leave
  bool writing_ = false;                            // a thread is writing answers, without the lock
  bool paused_ = false;                             // the next read waits for answers
  bool ending_ = false;                             // no more requests are read
  bool gone_ = false;
  std::optional<Error> failure_;  // what the call ends with, once all is answered
};

void ProduceHandler::OnMessage(grpc::ByteBuffer message) {
  const auto bytes = static_cast<int64_t>(message.Length());
  {
    // It was on its way when the call was refused: who was told so must not find it written.
    std::lock_guard lock(mutex_);
    if (ending_) return;
    ++received_;
    ++unanswered_;
  }
  services_.budget.Add(bytes);
  // Asked for before this one is looked at, so that the client sends the next meanwhile.
  if (stream_) ReadOrWait();
  std::vector<grpc::Slice> slices;
  absl::StatusOr<ProduceEnvelope> envelope = absl::InvalidArgumentError("the message cannot be read");
  if (message.Dump(&slices).ok()) {
    std::vector<std::string_view> views;
    views.reserve(slices.size());
    for (const grpc::Slice& slice : slices) {
      views.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    envelope = ParseProduceRequest(views, [this](const std::string& topic, int32_t partition, size_t batch_bytes) {
      return services_.broker.PlaceOf(*session_, topic, PartitionId(partition), batch_bytes);
    });
  }
  slices.clear();
  message.Clear();  // the batches have memory of their own now
  if (!envelope.ok()) {
    {
      std::lock_guard lock(mutex_);
      --unanswered_;
    }
    services_.budget.Release(bytes);
    return Refuse(MakeError(Reason::kInvalidArgument, std::string(envelope.status().message())));
  }

  auto request = std::make_shared<Request>(
      Request{envelope->correlation_id, bytes, services_.clock.Monotonic(), envelope->items.size(), {}});
  for (const ProduceEnvelopeItem& item : envelope->items) {
    request->items.push_back({item.topic, item.partition, std::nullopt});
  }
  {
    std::unique_lock lock(mutex_);
    if (request->items.empty()) {
      answered_.push_back(request);
      WriteAnswers(std::move(lock));
    }
  }
  for (size_t i = 0; i < request->items.size(); ++i) Submit(request, i, std::move(envelope->items[i]));
}

// Turns an item into what the broker takes: the one place where a client's batch is verified.
Result<ProduceItem> ProduceHandler::Prepare(ProduceEnvelopeItem item) {
  if (item.partition < 0) return MakeError(Reason::kInvalidArgument, "partition: must not be negative");
  if (item.batch && !item.records.empty()) {
    return MakeError(Reason::kInvalidArgument, "an item has either `batch` or `records`, not both");
  }
  auto make = [&](record::PendingBatch batch) {
    ProduceItem out{std::move(item.topic), PartitionId(item.partition), std::move(batch)};
    if (item.expected_base_offset) out.expected_base_offset = Offset(*item.expected_base_offset);
    out.leader_epoch = LeaderEpoch(item.leader_epoch);
    out.reset = item.reset;
    return out;
  };
  if (item.batch) {
    auto batch = record::PendingBatch::FromClient(*std::move(item.batch));
    if (!batch.ok()) return MakeError(Reason::kCorruptBatch, std::string(batch.status().message()));
    return make(*std::move(batch));
  }
  if (item.records.empty()) return MakeError(Reason::kInvalidArgument, "an item needs `batch` or `records`");
  auto batch = BuildBatch(item.records, absl::ToUnixMillis(services_.clock.Wall()));
  if (!batch.ok()) return std::move(batch).error();
  return make(std::move(batch).value());
}

void ProduceHandler::Submit(const std::shared_ptr<Request>& request, size_t index, ProduceEnvelopeItem item) {
  const PartitionKey key{item.topic, item.partition};
  const bool reset = item.reset;
  auto slot = std::make_shared<Slot>(Slot{request, index, std::nullopt});
  bool refused = false;
  {
    std::lock_guard lock(mutex_);
    Partition& partition = partitions_[key];
    partition.slots.push_back(slot);
    if (reset && std::exchange(partition.broken, false)) --broken_;
    refused = partition.broken;
  }
  auto prepared = refused ? Result<ProduceItem>(MakeError(
                                Reason::kSequenceBroken,
                                "an earlier item of this partition was refused on this stream; set `reset` to go on"))
                          : Prepare(std::move(item));
  if (prepared.ok()) {
    services_.broker.Produce(std::move(prepared).value(), session_,
                             [self = shared_from_this(), key, slot](ProduceOutcome outcome) {
                               self->Settle(key, slot, std::move(outcome));
                             });
    return;
  }
  Error error = std::move(prepared).error();
  error.topic = key.topic;
  error.partition = PartitionId(key.partition);
  bool flood = false;
  {
    std::lock_guard lock(mutex_);
    Partition& partition = partitions_[key];
    if (!std::exchange(partition.broken, true)) ++broken_;
    flood = broken_ > kBrokenMax;
  }
  Settle(key, slot, std::move(error));
  if (flood) Refuse(MakeError(Reason::kQuota, "too many partitions of this stream stand refused; open another"));
}

void ProduceHandler::Settle(const PartitionKey& key, const std::shared_ptr<Slot>& slot, ProduceOutcome outcome) {
  std::unique_lock lock(mutex_);
  slot->outcome.emplace(std::move(outcome));
  const auto found = partitions_.find(key);
  Partition& partition = found->second;
  while (!partition.slots.empty() && partition.slots.front()->outcome) {
    const std::shared_ptr<Slot> first = std::move(partition.slots.front());
    partition.slots.pop_front();
    first->request->items[first->index].outcome = std::move(first->outcome);
    if (--first->request->unanswered == 0) answered_.push_back(first->request);
  }
  if (partition.slots.empty() && !partition.broken) partitions_.erase(found);
  WriteAnswers(std::move(lock));
}

// One thread at a time, so that answers leave in the order they were complete; and without the lock, which the call's
// thread and all shards want.
void ProduceHandler::WriteAnswers(std::unique_lock<std::mutex> lock) {
  if (writing_ || answered_.empty()) return;
  writing_ = true;
  while (!answered_.empty()) {
    const auto answered = std::exchange(answered_, {});
    lock.unlock();
    int64_t bytes = 0;
    for (const auto& request : answered) {
      WriteAnswer(*request);
      bytes += request->bytes;
    }
    services_.budget.Release(bytes);  // may wake this handler or another
    lock.lock();
    unanswered_ -= static_cast<int>(answered.size());
  }
  writing_ = false;
  const bool resume = paused_ && unanswered_ < kUnansweredMax;
  if (resume) paused_ = false;
  FinishIfAnswered(std::move(lock));
  if (resume) ReadOrWait();
}

void ProduceHandler::WriteAnswer(const Request& request) {
  absl::InlinedVector<ProduceAnswerItem, 4> items;
  for (const Request::Item& item : request.items) items.push_back({item.topic, item.partition, &*item.outcome});
  grpc::ByteBuffer answer = ToByteBuffer(EncodeProduceResponse(request.correlation_id, items));
  services_.produce_latency.Observe(services_.clock.Monotonic() - request.arrived);
  if (stream_) {
    call_->Write(answer);
  } else {
    call_->Reply(answer);
  }
}

void ProduceHandler::Refuse(Error error) {
  std::unique_lock lock(mutex_);
  if (!ending_) failure_ = std::move(error);
  ending_ = true;
  FinishIfAnswered(std::move(lock));
}

void ProduceHandler::ReadOrWait() {
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    if (unanswered_ >= kUnansweredMax) {
      paused_ = true;
      return;
    }
  }
  // The handler may be gone by then: its call ignores the read.
  if (services_.budget.AdmitOrWait([self = shared_from_this()] { self->ReadOrWait(); })) call_->ReadNext();
}

void ProduceHandler::FinishIfAnswered(std::unique_lock<std::mutex> lock) {
  if (!ending_ || gone_ || unanswered_ > 0) return;
  const std::optional<Error> failure = failure_;
  lock.unlock();
  if (failure) return call_->Fail(*failure);
  call_->Finish(grpc::Status::OK);
}

}  // namespace

std::shared_ptr<Handler> MakeProduceHandler(Services& services, std::shared_ptr<Call> call, bool stream) {
  return std::make_shared<ProduceHandler>(services, std::move(call), stream);
}

}  // namespace sluice::broker::rpc
