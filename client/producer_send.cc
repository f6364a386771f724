#include <algorithm>
#include <utility>

#include "client/error.h"
#include "client/leader_calls.h"
#include "client/producer_core.h"
#include "client/producer_wire.h"
#include "client/wire.h"
#include "common/check.h"
#include "common/text.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr absl::Duration kBackoffMax = absl::Seconds(1);
// An attempt to connect that takes this long: perhaps another broker leads by now.
constexpr absl::Duration kConnectSlow = absl::Milliseconds(500);

bool MayTryAgain(const absl::Status& error) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(error);
  if (!detail.has_value() || detail->reason == Reason::kOutcomeUnknown) return false;
  return detail->retriable || detail->reason == Reason::kSequenceBroken || IsLeaderTrouble(error);
}

}  // namespace

absl::Duration ProducerCore::Backoff(int failures) const {
  return std::min(kBackoffMax, options_.retry_backoff * (1 << std::clamp(failures - 1, 0, 10)));
}

void ProducerCore::WakeAt(absl::Duration when) {
  if (wake_at_ <= when) return;
  wake_at_ = when;
  core_->executor().PostAfter(when - core_->clock().Monotonic(), [self = shared_from_this(), when] {
    std::lock_guard lock(self->mutex_);
    if (self->wake_at_ == when) self->wake_at_ = absl::InfiniteDuration();
    if (!self->closed_) self->SchedulePump();
  });
}

// Where the partition's next batch may go now; empty: nothing to send, or not now. Closes the open batch when it is
// time.
std::string ProducerCore::SendableTo(Partition& partition, absl::Duration now) {
  Topic& topic = *partition.topic;
  if (partition.broken) {
    if (!partition.in_flight.empty()) return {};
    if (now < partition.not_before) {
      WakeAt(partition.not_before);
      return {};
    }
    partition.broken = false;
    partition.reset_next = true;
    while (!partition.retry.empty()) {
      partition.ready.push_front(std::move(partition.retry.back()));
      partition.retry.pop_back();
    }
  }
  if (partition.ready.empty() && partition.open != nullptr) {
    const absl::Duration due = partition.open_since + options_.linger;
    if (partition.in_flight.empty() || flushing_ > 0 || now >= due) {
      Seal(partition);
    } else {
      WakeAt(due);
    }
  }
  if (partition.ready.empty()) return {};
  if (topic.routes == nullptr || partition.lost) {
    if (!topic.asking) Ask(topic);
    return {};
  }
  absl::StatusOr<std::string> leader = LeaderOf(*topic.routes, topic.name, partition.id);
  if (!leader.ok()) {
    Lose(partition, {});
    Ask(topic);
    return {};
  }
  if (!partition.in_flight.empty() && partition.sent_to != *leader) return {};
  return *leader;
}

void ProducerCore::Pump() {
  Results results;
  {
    std::unique_lock lock(mutex_);
    pump_posted_ = false;
    if (closed_) return;
    const absl::Duration now = core_->clock().Monotonic();
    std::map<std::string, std::vector<Partition*>> by_leader;
    std::vector<Partition*> still;
    for (Partition* partition : std::exchange(pending_, {})) {
      std::string leader = SendableTo(*partition, now);
      if (!leader.empty()) by_leader[std::move(leader)].push_back(partition);
      partition->listed = partition->open != nullptr || !partition->ready.empty() || !partition->retry.empty();
      if (partition->listed) still.push_back(partition);
    }
    pending_.insert(pending_.end(), still.begin(), still.end());
    for (auto& [address, partitions] : by_leader) {
      Broker& broker = brokers_[address];
      broker.address = address;
      if (broker.stream == nullptr) {
        Connect(broker);
        continue;
      }
      while (!partitions.empty() && broker.requests.size() < static_cast<size_t>(options_.requests_in_flight_max)) {
        if (!SendRequest(broker, partitions, results, lock)) break;
      }
    }
  }
  Give(std::move(results));
}

// One request with at most one batch of each partition; partitions without more leave the list. False when the stream
// went away meanwhile.
bool ProducerCore::SendRequest(Broker& broker, std::vector<Partition*>& partitions, Results& results,
                               std::unique_lock<std::mutex>& lock) {
  Request request{++last_correlation_id_, {}, 0};
  size_t bytes = 0;
  for (Partition* partition : partitions) {
    const Batch& next = *partition->ready.front();
    const size_t size = next.builder != nullptr ? next.builder->size_bytes() : next.encoded.size();
    // One batch always goes, however large.
    if (!request.items.empty() && bytes + size > request_bytes_max_) break;
    bytes += size;
    BatchPtr batch = std::move(partition->ready.front());
    partition->ready.pop_front();
    // The session that it comes back to may still refuse it for what failed there before.
    if (!partition->sent_to.empty() && partition->sent_to != broker.address) partition->reset_next = true;
    partition->sent_to = broker.address;
    batch->sent_at = core_->clock().Monotonic();
    request.items.emplace_back(partition, batch.get());
    partition->in_flight.push_back(std::move(batch));
  }
  // Only the executor touches what is in flight, so encoding, which may compress, needs no lock.
  lock.unlock();
  std::vector<std::pair<Partition*, absl::Status>> unbuilt;
  for (auto& [partition, batch] : request.items) {
    if (batch->builder == nullptr) continue;
    absl::StatusOr<record::PendingBatch> built = batch->builder->Build(options_.codec, options_.codec_level);
    if (!built.ok()) {
      unbuilt.emplace_back(partition, built.status());
      continue;
    }
    batch->encoded = std::move(*built).Freeze();
    std::lock_guard relock(mutex_);
    Spare(std::move(batch->builder));
  }
  lock.lock();
  for (auto& [partition, status] : unbuilt) {
    // It is the newest of its partition in flight.
    results.push_back({std::move(partition->in_flight.back()), status, false});
    partition->in_flight.pop_back();
    std::erase_if(request.items, [p = partition](const auto& item) { return item.first == p; });
  }
  std::erase_if(partitions, [](Partition* partition) { return partition->ready.empty(); });
  if (request.items.empty()) return true;
  std::vector<ProduceItemToSend> items;
  for (auto& [partition, batch] : request.items) {
    items.push_back({partition->topic->name, partition->id, batch->encoded, std::nullopt,
                     std::exchange(partition->reset_next, false)});
  }
  std::vector<Bytes> pieces = EncodeProduceRequest(request.correlation_id, items);
  for (const Bytes& piece : pieces) request.bytes += static_cast<int64_t>(piece.size());
  broker.stream->Send(std::move(pieces));
  broker.requests.push_back(std::move(request));
  return true;
}

void ProducerCore::Connect(Broker& broker) {
  if (broker.connecting) return;
  const absl::Duration now = core_->clock().Monotonic();
  if (now < broker.not_before) return WakeAt(broker.not_before);
  broker.connecting = true;
  broker.connecting_since = now;
  core_->ChannelTo(broker.address)
      .Connect(core_->options().connect_timeout, [self = shared_from_this(), &broker](const absl::Status& status) {
        std::lock_guard lock(self->mutex_);
        broker.connecting = false;
        if (self->closed_) return;
        broker.last_error = status;
        if (status.ok()) {
          self->OpenStream(broker);
        } else {
          broker.not_before = self->core_->clock().Monotonic() + self->Backoff(3);
          self->LoseAllAt(broker.address);
        }
        self->SchedulePump();
      });
}

void ProducerCore::OpenStream(Broker& broker) {
  Stream::Callbacks callbacks;
  std::weak_ptr<ProducerCore> weak = weak_from_this();
  callbacks.on_message = [weak, &broker](const Bytes& message) {
    if (auto self = weak.lock()) self->OnAnswer(broker, message);
  };
  callbacks.on_close = [weak, &broker](const absl::Status& status, size_t unsent) {
    if (auto self = weak.lock()) self->OnClose(broker, status, unsent);
  };
  broker.stream = core_->ChannelTo(broker.address).OpenStream("/sluice.v1.Log/Produce", std::move(callbacks));
}

void ProducerCore::OnAnswer(Broker& broker, const Bytes& message) {
  absl::StatusOr<v1::ProduceResponse> response = ParseAs<v1::ProduceResponse>(message);
  Results results;
  bool understood = response.ok();
  {
    std::unique_lock lock(mutex_);
    if (closed_) return;
    auto found = broker.requests.end();
    if (understood) {
      found = std::find_if(broker.requests.begin(), broker.requests.end(), [&](const Request& request) {
        return request.correlation_id == response->correlation_id();
      });
      understood =
          found != broker.requests.end() && found->items.size() == static_cast<size_t>(response->results_size());
    }
    if (understood) {
      for (size_t i = 0; i < found->items.size(); ++i) {
        const auto& [partition, batch] = found->items[i];
        const v1::ProduceResult& result = response->results(static_cast<int>(i));
        if (result.has_error()) {
          batch->answer.emplace(ItemError(result.error()));
        } else {
          batch->answer.emplace(
              RecordResult{PartitionId(partition->id), Offset(result.base_offset()), result.log_append_time_ms()});
          batch->log_append_time = result.log_append_time_ms() >= 0;
        }
      }
      for (const auto& [partition, batch] : found->items) Settle(*partition, results);
      broker.requests.erase(found);
      SchedulePump();
    }
  }
  Give(std::move(results));
  if (!understood) OnClose(broker, absl::InternalError("the broker's answer does not belong to a request"), 0);
}

// What is answered, up to the first that is not.
void ProducerCore::Settle(Partition& partition, Results& results) {
  while (!partition.in_flight.empty() && partition.in_flight.front()->answer.has_value()) {
    BatchPtr batch = std::move(partition.in_flight.front());
    partition.in_flight.pop_front();
    absl::StatusOr<RecordResult> answer = *std::exchange(batch->answer, std::nullopt);
    if (!answer.ok()) {
      Fail(partition, std::move(batch), answer.status(), results);
      continue;
    }
    partition.failures = 0;
    partition.refusal = absl::OkStatus();
    const bool log_append_time = batch->log_append_time;
    results.push_back({std::move(batch), *std::move(answer), log_append_time});
  }
}

// A batch that the broker answered with an error. Everything of its partition that is in flight behind it will be
// refused.
void ProducerCore::Fail(Partition& partition, BatchPtr batch, const absl::Status& error, Results& results) {
  const absl::Duration now = core_->clock().Monotonic();
  const bool first = !std::exchange(partition.broken, true);
  if (first) partition.not_before = now + Backoff(++partition.failures);
  List(partition);
  const bool again = MayTryAgain(error);
  if (!again || batch->deadline <= now) {
    results.push_back({std::move(batch), error, false});
    // What is behind a batch that can never be written need not wait.
    if (partition.retry.empty() && !again) partition.not_before = now;
    return;
  }
  const ErrorDetail detail = *GetErrorDetail(error);
  if (detail.reason != Reason::kSequenceBroken) partition.refusal = error;
  if (IsLeaderTrouble(error)) {
    // No pause of its own: a hint is followed at once, and the answer to a question comes when it comes.
    partition.not_before = now;
    Metadata& metadata = core_->metadata();
    if (metadata.Follow(partition.topic->name, partition.id, partition.sent_to, detail.leader)) {
      partition.topic->routes = metadata.Known(partition.topic->name);
    } else {
      Lose(partition, {});
    }
  }
  partition.retry.push_back(std::move(batch));
}

// A broker that ends a stream by itself, because it stops or cannot serve, answers first what it took, and takes no
// more: what has no answer then was not written.
bool ProducerCore::WasAnsweredInFull(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->reason == Reason::kNotAvailable && detail->retriable;
}

const ProducerCore::Batch* ProducerCore::Largest(const Request& request) {
  const auto smaller = [](const auto& a, const auto& b) { return a.second->encoded.size() < b.second->encoded.size(); };
  return std::max_element(request.items.begin(), request.items.end(), smaller)->second;
}

void ProducerCore::OnClose(Broker& broker, const absl::Status& status, size_t unsent) {
  Results results;
  {
    std::unique_lock lock(mutex_);
    if (closed_) return;
    broker.stream = nullptr;
    broker.last_error =
        status.ok() ? absl::UnavailableError(Cat("broker ", broker.address, " ended the stream")) : status;
    const absl::Duration now = core_->clock().Monotonic();
    broker.not_before = now + Backoff(1);
    std::deque<Request> requests = std::exchange(broker.requests, {});
    size_t sent = WasAnsweredInFull(status) ? 0 : requests.size() - std::min(unsent, requests.size());
    // Refused for its size before anybody looked at it; what came behind it was not even read.
    const std::optional<OversizeRefusal> oversize = GetOversizeRefusal(status);
    const Batch* too_large = nullptr;
    for (size_t i = 0; oversize.has_value() && i < sent; ++i) {
      if (requests[i].bytes != oversize->bytes) continue;
      sent = i;
      const Batch* largest = Largest(requests[i]);
      const auto bytes_max = static_cast<size_t>(oversize->bytes_max);
      if (requests[i].items.size() == 1 || largest->encoded.size() > bytes_max) {
        too_large = largest;
      } else {
        // Only together they were too much.
        request_bytes_max_ = std::min(request_bytes_max_, bytes_max) / 2;
      }
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      for (auto& [partition, raw] : requests[i].items) {
        // What was answered out of turn stands between those that were not.
        Settle(*partition, results);
        SLUICE_CHECK(partition->in_flight.front().get() == raw) << partition->topic->name << "/" << partition->id;
        BatchPtr batch = std::move(partition->in_flight.front());
        partition->in_flight.pop_front();
        if (!partition->broken) partition->not_before = now + Backoff(++partition->failures);
        partition->broken = true;
        partition->refusal = absl::OkStatus();
        List(*partition);
        Lose(*partition, broker.address);
        if (raw == too_large) {
          results.push_back(
              {std::move(batch), TooLargeToSend(*oversize, partition->topic->name, partition->id), false});
        } else if (i >= sent) {
          partition->retry.push_back(std::move(batch));
        } else {
          results.push_back({std::move(batch),
                             OutcomeUnknown(broker.last_error.ToString(), partition->topic->name, partition->id),
                             false});
        }
        Settle(*partition, results);
      }
    }
    SchedulePump();
  }
  Give(std::move(results));
}

void ProducerCore::StartTicking() {
  if (ticking_) return;
  ticking_ = true;
  core_->executor().PostAfter(std::min(kTick, options_.delivery_timeout / 4),
                              [self = shared_from_this()] { self->Tick(); });
}

absl::Status ProducerCore::NotWritten(const Partition& partition) const {
  const Topic& topic = *partition.topic;
  std::string why = Cat("the record for ", topic.name, "/", partition.id, " was not written: no broker took it within ",
                        absl::FormatDuration(options_.delivery_timeout));
  if (!partition.refusal.ok()) why += Cat("; ", partition.refusal.message());
  if (topic.routes != nullptr) {
    const absl::StatusOr<std::string> leader = LeaderOf(*topic.routes, topic.name, partition.id);
    if (!leader.ok()) why += Cat("; ", leader.status().message());
  }
  if (!topic.last_error.ok()) why += Cat("; ", topic.last_error.message());
  for (const auto& [address, broker] : brokers_) {
    if (broker.stream == nullptr && !broker.last_error.ok()) why += Cat("; ", broker.last_error.message());
  }
  std::optional<ErrorDetail> refusal = GetErrorDetail(partition.refusal);
  if (!refusal.has_value()) return absl::UnavailableError(why);
  refusal->message = std::move(why);
  return MakeError(*refusal);
}

void ProducerCore::ExpirePartition(Partition& partition, absl::Duration now, Results& results,
                                   std::map<std::string, absl::Duration>& overdue) {
  if (!partition.in_flight.empty()) {
    const Batch& oldest = *partition.in_flight.front();
    if (std::min(oldest.deadline, oldest.sent_at + options_.request_timeout) <= now) {
      overdue.emplace(partition.sent_to, now - oldest.sent_at);
    }
  }
  for (auto* queue : {&partition.retry, &partition.ready}) {
    while (!queue->empty() && queue->front()->deadline <= now) {
      results.push_back({std::move(queue->front()), NotWritten(partition), false});
      queue->pop_front();
    }
  }
  if (partition.open != nullptr && partition.open->deadline <= now) {
    results.push_back({std::move(partition.open), NotWritten(partition), false});
  }
}

void ProducerCore::Tick() {
  Results results;
  std::map<std::string, absl::Duration> overdue;
  std::vector<Refused> late;
  {
    std::unique_lock lock(mutex_);
    ticking_ = false;
    if (closed_ || outstanding_ == 0) return;
    const absl::Duration now = core_->clock().Monotonic();
    for (auto& [address, broker] : brokers_) {
      if (!broker.connecting || now - broker.connecting_since < kConnectSlow) continue;
      broker.connecting_since = now;
      LoseAllAt(address);
      SchedulePump();
    }
    for (auto& [name, topic] : topics_) {
      for (auto& partition : topic->partitions) ExpirePartition(*partition, now, results, overdue);
      const bool old = topic->routes != nullptr && now - topic->routes->asked_at > core_->options().metadata_age_max;
      if (old && !topic->asking) Ask(*topic);
      while (!topic->waiting.empty() && topic->waiting.front().deadline <= now) {
        WaitingRecord waiting = std::move(topic->waiting.front());
        topic->waiting.pop_front();
        late.push_back(
            {std::move(waiting.done),
             absl::UnavailableError(
                 Cat("the record for ", name, " was not written: the topic's leaders could not be learned within ",
                     absl::FormatDuration(options_.delivery_timeout), "; ", topic->last_error.message())),
             waiting.memory});
      }
    }
    StartTicking();
  }
  Give(std::move(results), std::move(late));
  for (const auto& [address, waited] : overdue) {
    // The broker may still write what it has: all of it is unknown, and the stream ends, so that no late answer and no
    // batch behind the overdue one can confuse the order.
    Broker& broker = brokers_[address];
    if (broker.stream == nullptr) continue;
    OnClose(broker,
            absl::DeadlineExceededError(
                Cat("broker ", address, " did not answer within ", absl::FormatDuration(absl::Trunc(waited, kTick)))),
            0);
  }
}

void ProducerCore::Close() {
  Results results;
  std::vector<Refused> waiting;
  {
    std::unique_lock lock(mutex_);
    closed_ = true;
    const absl::Status not_written = absl::CancelledError("the record was not written: the producer was closed");
    for (auto& [name, topic] : topics_) {
      for (auto& partition : topic->partitions) {
        for (BatchPtr& batch : partition->in_flight) {
          absl::StatusOr<RecordResult> result = batch->answer.has_value()
                                                    ? *std::move(batch->answer)
                                                    : OutcomeUnknown("the producer was closed", name, partition->id);
          const bool log_append_time = batch->log_append_time;
          results.push_back({std::move(batch), std::move(result), log_append_time});
        }
        if (partition->open != nullptr) partition->ready.push_back(std::move(partition->open));
        for (auto* queue : {&partition->retry, &partition->ready}) {
          for (BatchPtr& batch : *queue) results.push_back({std::move(batch), not_written, false});
          queue->clear();
        }
        partition->in_flight.clear();
      }
      for (WaitingRecord& each : std::exchange(topic->waiting, {})) {
        waiting.push_back({std::move(each.done), not_written, each.memory});
      }
    }
    for (auto& [address, broker] : brokers_) broker.stream = nullptr;
    memory_freed_.notify_all();
  }
  Give(std::move(results), std::move(waiting));
}

}  // namespace sluice::client
