#include <algorithm>
#include <utility>

#include "client/consumer_core.h"
#include "client/error.h"
#include "client/leader_calls.h"
#include "client/wire.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {
namespace {

// A leader that is silent for this long beyond what it was told to wait may not be one any more.
constexpr absl::Duration kSilenceMax = absl::Seconds(2);

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

// Starts fetches for the partitions that want data and have none under way: one a topic, and those whose leader has to
// be found again apart, so that they hold up nobody.
void ConsumerCore::Pump() {
  std::map<std::pair<std::string, bool>, std::vector<Ask>> by_topic;
  {
    std::lock_guard lock(mutex_);
    pump_posted_ = false;
    if (closed_) return;
    const absl::Duration now = core_->clock().Monotonic();
    for (auto& [source, partition] : partitions_) {
      const bool wants = !partition.paused && partition.fetch == 0 && partition.error.ok() &&
                         partition.fetched_bytes < static_cast<size_t>(options_.fetch_bytes_max) &&
                         fetched_bytes_ < options_.memory_bytes;
      if (!wants || now < partition.not_before) continue;
      partition.fetch = ++last_fetch_;
      by_topic[{source.topic, partition.lost}].push_back(
          {source, partition.fetch_offset, partition.fetch, partition.lost, partition.lost_at});
    }
  }
  for (auto& [topic, asks] : by_topic) Fetch(std::move(asks));
}

void ConsumerCore::Fetch(std::vector<Ask> asks) {
  const std::string topic = asks.front().source.topic;
  const bool lost = asks.front().lost;
  uint64_t since = 0;
  for (const Ask& ask : asks) since = std::max(since, ask.lost_at);
  const absl::Duration timeout = std::min(core_->options().timeout, options_.broker_timeout);
  auto split = [self = shared_from_this(), asks = std::move(asks), asked_at = core_->clock().Monotonic()](
                   const absl::StatusOr<Metadata::Routes>& routes) { self->Split(asks, asked_at, routes); };
  if (lost) {
    core_->metadata().Refresh(topic, since, timeout, std::move(split));
  } else {
    core_->metadata().Find(topic, timeout, std::move(split));
  }
}

void ConsumerCore::Split(const std::vector<Ask>& asks, absl::Duration asked_at,
                         const absl::StatusOr<Metadata::Routes>& routes) {
  if (!routes.ok()) return OnAnswer(asks, asked_at, {}, routes.status());
  std::map<std::string, std::vector<Ask>> by_leader;
  for (const Ask& ask : asks) {
    absl::StatusOr<std::string> leader = LeaderOf(**routes, ask.source.topic, ask.source.partition.value());
    if (leader.ok()) {
      by_leader[*leader].push_back(ask);
    } else {
      OnAnswer({ask}, asked_at, {}, leader.status());
    }
  }
  for (auto& [leader, own] : by_leader) FetchFrom(leader, std::move(own));
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
  auto fetch = std::make_shared<UnderWay>();
  fetch->leader = leader;
  fetch->asks = std::move(asks);
  WatchLeader(fetch, options_.fetch_wait_max + kSilenceMax);
  core_->CallAt(leader, "/sluice.v1.Log/Fetch", Serialize(request), options_.fetch_wait_max + options_.broker_timeout,
                [self = shared_from_this(), fetch, asked_at](absl::StatusOr<Bytes> answer) {
                  self->core_->executor().Cancel(fetch->timer);
                  fetch->timer = 0;
                  self->OnAnswer(fetch->asks, asked_at, fetch->leader, std::move(answer));
                });
}

// A leader that hangs, or is cut off, answers nothing, while another may have taken its place.
void ConsumerCore::WatchLeader(const std::shared_ptr<UnderWay>& fetch, absl::Duration after) {
  fetch->timer = core_->executor().PostAfter(after, [weak = weak_from_this(), fetch] {
    const auto self = weak.lock();
    if (self == nullptr || self->core_->closed()) return;
    Metadata& metadata = self->core_->metadata();
    metadata.Refresh(fetch->asks.front().source.topic, metadata.last_question(), self->core_->options().timeout,
                     [self, fetch](const absl::StatusOr<Metadata::Routes>& routes) {
                       if (fetch->timer == 0) return;  // answered meanwhile
                       if (self->LeaveSilent(*fetch, routes)) self->WatchLeader(fetch, kSilenceMax);
                     });
  });
}

bool ConsumerCore::LeaveSilent(const UnderWay& fetch, const absl::StatusOr<Metadata::Routes>& routes) {
  std::lock_guard lock(mutex_);
  if (closed_) return false;
  bool waiting = false;
  for (const Ask& ask : fetch.asks) {
    Partition* partition = Current(ask);
    if (partition == nullptr) continue;
    const absl::StatusOr<std::string> leader =
        routes.ok() ? LeaderOf(**routes, ask.source.topic, ask.source.partition.value()) : routes.status();
    if (leader.ok() && *leader != fetch.leader) {
      partition->fetch = 0;
      SchedulePump();
    } else {
      waiting = true;
    }
  }
  return waiting;
}

ConsumerCore::Partition* ConsumerCore::Current(const Ask& ask) {
  auto found = partitions_.find(ask.source);
  if (found == partitions_.end() || found->second.fetch != ask.fetch) return nullptr;
  return &found->second;
}

void ConsumerCore::OnAnswer(const std::vector<Ask>& asks, absl::Duration asked_at, const std::string& leader,
                            absl::StatusOr<Bytes> answer) {
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
      partition->fetch = 0;
      absl::Status status = response.status();
      if (status.ok()) status = Take(*partition, asks[i], *response->mutable_results(static_cast<int>(i)));
      if (!status.ok()) Failed(*partition, status, asked_at, leader);
    }
    SchedulePump();
  }
  Notify();
}

absl::Status ConsumerCore::Take(Partition& partition, const Ask& ask, v1::FetchResult& result) {
  if (result.has_error()) return ItemError(result.error());
  SLUICE_ASSIGN_OR_RETURN(
      std::vector<FetchedBatch> batches,
      CutBatches(Bytes::Adopt(std::move(*result.mutable_batches())), ask.offset, Offset(result.next_offset())));
  partition.failing_since.reset();
  partition.lost = false;
  partition.high_watermark = Offset(result.high_watermark());
  partition.committed = std::max(partition.committed, *partition.high_watermark);
  partition.fetch_offset = Offset(result.next_offset());
  for (FetchedBatch& batch : batches) {
    partition.fetched_bytes += batch.batch.size_bytes();
    fetched_bytes_ += batch.batch.size_bytes();
    partition.fetched.push_back(std::move(batch));
  }
  SkipControl(partition);
  if (partition.fetched.empty()) partition.position = partition.fetch_offset;
  return absl::OkStatus();
}

// Whether a later fetch may go better, after a pause; looks for the leader again where it may be another.
bool ConsumerCore::Again(Partition& partition, const absl::Status& status, const std::string& leader,
                         absl::Duration* pause) {
  if (core_->closed()) return false;
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  // The answer to a question about leaders is the cluster's own word.
  const bool final_word = leader.empty() && absl::IsNotFound(status) && partition.lost;
  if (IsLeaderTrouble(status) && !final_word) {
    const std::string hint = detail.has_value() ? detail->leader : "";
    const TopicPartition& source = partition.source;
    Metadata& metadata = core_->metadata();
    const bool followed = !leader.empty() && metadata.Follow(source.topic, source.partition.value(), leader, hint);
    partition.lost = !followed;
    if (partition.lost) partition.lost_at = metadata.last_question();
    // The pace of questions is kept where they are asked.
    if (!detail.has_value()) *pause = options_.retry_backoff;
    return true;
  }
  // Below what a leader said is committed nothing is ever missing: this one has yet to learn of it.
  const bool behind =
      absl::IsOutOfRange(status) && detail.has_value() && Offset(detail->high_watermark) < partition.fetch_offset &&
      Offset(detail->log_start_offset) <= partition.fetch_offset && partition.committed >= partition.fetch_offset;
  *pause = options_.retry_backoff;
  return behind || (detail.has_value() && detail->retriable);
}

void ConsumerCore::Failed(Partition& partition, const absl::Status& status, absl::Duration since,
                          const std::string& leader) {
  const absl::Duration now = core_->clock().Monotonic();
  if (!partition.failing_since.has_value()) partition.failing_since = since;
  absl::Duration pause;
  if (!Again(partition, status, leader, &pause)) {
    partition.error = Located(partition, status);
  } else if (now - *partition.failing_since >= options_.broker_timeout) {
    partition.error =
        Located(partition, absl::Status(status.code(), Cat("no answer for ",
                                                           absl::FormatDuration(absl::Trunc(
                                                               now - *partition.failing_since, absl::Milliseconds(1))),
                                                           ": ", status.message())));
  } else if (pause > absl::ZeroDuration()) {
    partition.not_before = now + pause;
    core_->executor().PostAfter(pause, [self = shared_from_this()] {
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
