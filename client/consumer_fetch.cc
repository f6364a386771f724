#include <algorithm>
#include <utility>

#include "client/consumer_core.h"
#include "client/error.h"
#include "client/wire.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {
namespace {

bool MayTryAgain(const absl::Status& status) {
  if (std::optional<ErrorDetail> detail = GetErrorDetail(status); detail.has_value()) return detail->retriable;
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
}

}  // namespace

absl::StatusOr<std::vector<FetchedBatch>> CutBatches(const Bytes& bytes, Offset wanted, Offset next_offset) {
  std::vector<FetchedBatch> batches;
  Offset expected = wanted;
  for (size_t at = 0; at < bytes.size();) {
    SLUICE_ASSIGN_OR_RETURN(const size_t size, record::BatchView::PeekSize(bytes.view().substr(at)));
    if (size > bytes.size() - at) return absl::DataLossError("the broker's answer ends inside a batch");
    SLUICE_ASSIGN_OR_RETURN(record::Batch batch, record::Batch::FromStored(bytes.Slice(at, size)));
    at += size;
    if (batch.last_offset() < wanted && batches.empty()) continue;
    const bool follows = batches.empty() ? batch.base_offset() <= expected : batch.base_offset() == expected;
    if (!follows) {
      return absl::DataLossError(Cat("offsets ", expected.value(), " to ", batch.base_offset().value() - 1,
                                     " are missing from the broker's answer"));
    }
    expected = batch.next_offset();
    batches.push_back({std::move(batch), expected});
  }
  // Control batches come too, so that nothing is ever skipped without its batch.
  if (next_offset != std::max(expected, wanted)) {
    return absl::DataLossError(
        Cat("the broker says to read on at ", next_offset, " where its answer ends before ", expected));
  }
  return batches;
}

void ConsumerCore::SchedulePump() {
  if (pump_posted_ || closed_) return;
  pump_posted_ = true;
  core_->executor().Post([self = shared_from_this()] { self->Pump(); });
}

// Starts one fetch a topic for its partitions that want data and have no fetch under way.
void ConsumerCore::Pump() {
  std::map<std::string, std::vector<Ask>> by_topic;
  {
    std::lock_guard lock(mutex_);
    pump_posted_ = false;
    if (closed_) return;
    const absl::Duration now = core_->clock().Monotonic();
    for (auto& [source, partition] : partitions_) {
      const bool wants = !partition.paused && !partition.fetching && partition.error.ok() &&
                         partition.fetched_bytes < static_cast<size_t>(options_.fetch_bytes_max) &&
                         fetched_bytes_ < options_.memory_bytes;
      if (!wants || now < partition.not_before) continue;
      partition.fetching = true;
      by_topic[source.topic].push_back({source, partition.fetch_offset, partition.generation});
    }
  }
  for (auto& [topic, asks] : by_topic) Fetch(std::move(asks));
}

// Splits a topic's partitions by leader.
void ConsumerCore::Fetch(std::vector<Ask> asks) {
  const std::string topic = asks.front().source.topic;
  const absl::Duration asked_at = core_->clock().Monotonic();
  core_->FindTopic(topic, std::min(core_->options().timeout, options_.broker_timeout),
                   [self = shared_from_this(), asks = std::move(asks),
                    asked_at](absl::StatusOr<std::shared_ptr<const TopicRoutes>> routes) {
                     if (!routes.ok()) return self->OnAnswer(asks, asked_at, routes.status());
                     std::map<std::string, std::vector<Ask>> by_leader;
                     for (const Ask& ask : asks) {
                       absl::StatusOr<std::string> leader =
                           LeaderOf(**routes, ask.source.topic, ask.source.partition.value());
                       if (leader.ok()) {
                         by_leader[*leader].push_back(ask);
                       } else {
                         self->OnAnswer({ask}, asked_at, leader.status());
                       }
                     }
                     for (auto& [leader, own] : by_leader) self->FetchFrom(leader, std::move(own));
                   });
}

void ConsumerCore::FetchFrom(const std::string& leader, std::vector<Ask> asks) {
  v1::FetchRequest request;
  request.set_max_wait_ms(static_cast<int32_t>(absl::ToInt64Milliseconds(options_.fetch_wait_max)));
  request.set_min_bytes(options_.fetch_bytes_min);
  const size_t room = std::max<size_t>(options_.memory_bytes, static_cast<size_t>(options_.fetch_bytes_max));
  request.set_max_bytes(static_cast<int32_t>(
      std::min<size_t>({room, asks.size() * static_cast<size_t>(options_.fetch_bytes_max), size_t{32} << 20})));
  for (const Ask& ask : asks) {
    v1::FetchItem& item = *request.add_items();
    item.set_topic(ask.source.topic);
    item.set_partition(ask.source.partition.value());
    item.set_offset(ask.offset.value());
    item.set_max_bytes(options_.fetch_bytes_max);
  }
  const absl::Duration asked_at = core_->clock().Monotonic();
  core_->CallAt(leader, "/sluice.v1.Log/Fetch", Serialize(request), options_.fetch_wait_max + options_.broker_timeout,
                [self = shared_from_this(), asks = std::move(asks), asked_at](absl::StatusOr<Bytes> answer) {
                  self->OnAnswer(asks, asked_at, std::move(answer));
                });
}

ConsumerCore::Partition* ConsumerCore::Current(const Ask& ask) {
  auto found = partitions_.find(ask.source);
  if (found == partitions_.end() || found->second.generation != ask.generation) return nullptr;
  return &found->second;
}

void ConsumerCore::OnAnswer(const std::vector<Ask>& asks, absl::Duration asked_at, absl::StatusOr<Bytes> answer) {
  absl::StatusOr<v1::FetchResponse> response = v1::FetchResponse();
  if (!answer.ok()) {
    response = answer.status();
  } else {
    response = ParseAs<v1::FetchResponse>(*answer);
    if (response.ok() && static_cast<size_t>(response->results_size()) != asks.size()) {
      response = absl::InternalError("the broker answered another number of partitions than asked");
    }
  }
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    for (size_t i = 0; i < asks.size(); ++i) {
      Partition* partition = Current(asks[i]);
      if (partition == nullptr) continue;
      partition->fetching = false;
      if (!response.ok()) {
        Failed(*partition, response.status(), asked_at);
        continue;
      }
      v1::FetchResult& result = *response->mutable_results(static_cast<int>(i));
      if (result.has_error()) {
        Failed(*partition, ItemError(result.error()), asked_at);
        continue;
      }
      absl::StatusOr<std::vector<FetchedBatch>> batches =
          CutBatches(Bytes::Adopt(std::move(*result.mutable_batches())), asks[i].offset, Offset(result.next_offset()));
      if (!batches.ok()) {
        Failed(*partition, batches.status(), asked_at);
        continue;
      }
      partition->failing_since.reset();
      partition->high_watermark = Offset(result.high_watermark());
      partition->fetch_offset = Offset(result.next_offset());
      for (FetchedBatch& batch : *batches) {
        partition->fetched_bytes += batch.batch.size_bytes();
        fetched_bytes_ += batch.batch.size_bytes();
        partition->fetched.push_back(std::move(batch));
      }
      SkipControl(*partition);
      if (partition->fetched.empty()) partition->position = partition->fetch_offset;
    }
    SchedulePump();
  }
  Notify();
}

void ConsumerCore::Failed(Partition& partition, const absl::Status& status, absl::Duration since) {
  const absl::Duration now = core_->clock().Monotonic();
  if (!partition.failing_since.has_value()) partition.failing_since = since;
  core_->ForgetTopic(partition.source.topic);
  if (core_->closed() || !MayTryAgain(status)) {
    partition.error = Located(partition, status);
  } else if (now - *partition.failing_since >= options_.broker_timeout) {
    partition.error =
        Located(partition, absl::Status(status.code(), Cat("no answer for ",
                                                           absl::FormatDuration(absl::Trunc(
                                                               now - *partition.failing_since, absl::Milliseconds(1))),
                                                           ": ", status.message())));
  } else {
    partition.not_before = now + options_.retry_backoff;
    core_->executor().PostAfter(options_.retry_backoff, [self = shared_from_this()] {
      std::lock_guard lock(self->mutex_);
      self->SchedulePump();
    });
  }
}

void ConsumerCore::Notify() {
  changed_.notify_all();
  if (ready_) ready_();
}

}  // namespace sluice::client
