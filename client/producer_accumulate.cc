#include <algorithm>
#include <utility>

#include "client/await.h"
#include "client/client_impl.h"
#include "client/error.h"
#include "client/producer_core.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::client {
namespace {

// What a record costs beside its bytes: its callback and its place in a list.
constexpr size_t kRecordOverheadBytes = 64;
constexpr size_t kSpareBuildersMax = 32;
constexpr absl::Duration kLookedAtLately = absl::Seconds(1);

}  // namespace

ProducerCore::ProducerCore(std::shared_ptr<Core> core, ProducerOptions options)
    : core_(std::move(core)), options_(options) {}

absl::Status ProducerCore::Send(const RecordToSend& record, Producer::Callback done) {
  const size_t memory =
      record::BatchBuilder::RecordBytesMax(record.key, record.value, record.headers) + kRecordOverheadBytes;
  if (memory > options_.memory_bytes) {
    return absl::InvalidArgumentError(Cat("a record of ", memory, " bytes can never be sent: the producer may hold ",
                                          options_.memory_bytes, " bytes in all"));
  }
  const int64_t timestamp_ms =
      record.timestamp_ms.has_value() ? *record.timestamp_ms : absl::ToUnixMillis(core_->clock().Wall());
  std::unique_lock lock(mutex_);
  SLUICE_RETURN_IF_ERROR(WaitForMemory(lock, memory));
  Topic& topic = TopicNamed(record.topic);
  const absl::Duration deadline = core_->clock().Monotonic() + options_.delivery_timeout;
  if (topic.routes != nullptr && !MayHaveBeenAdded(topic, record)) {
    SLUICE_RETURN_IF_ERROR(Place(topic, record, timestamp_ms, memory, deadline, done));
  } else {
    WaitingRecord waiting{record.partition, std::nullopt, std::nullopt, {},
                          timestamp_ms,     memory,       deadline,     std::move(done)};
    if (record.key.has_value()) waiting.key = std::string(*record.key);
    if (record.value.has_value()) waiting.value = std::string(*record.value);
    for (const record::Header& header : record.headers) {
      waiting.headers.emplace_back(header.key,
                                   header.value.has_value() ? std::optional<std::string>(*header.value) : std::nullopt);
    }
    topic.waiting.push_back(std::move(waiting));
    if (!topic.asking) {
      topic.asking = true;
      core_->executor().Post([self = shared_from_this(), &topic] {
        std::lock_guard ask(self->mutex_);
        self->Ask(topic);
      });
    }
  }
  memory_used_ += memory;
  ++outstanding_;
  StartTicking();
  return absl::OkStatus();
}

// A partition that was not there when the topic was last looked at may be there now.
bool ProducerCore::MayHaveBeenAdded(const Topic& topic, const RecordToSend& record) const {
  const auto count = static_cast<int64_t>(topic.routes->partitions.size());
  if (!record.partition.has_value() || record.partition->value() < count) return false;
  return core_->clock().Monotonic() - topic.routes->asked_at > kLookedAtLately;
}

absl::Status ProducerCore::WaitForMemory(std::unique_lock<std::mutex>& lock, size_t bytes) {
  auto fits = [&] { return closed_ || memory_used_ + bytes <= options_.memory_bytes; };
  if (!fits() && options_.block_max > absl::ZeroDuration() && !core_->executor().IsCurrent()) {
    memory_freed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(options_.block_max, absl::Hours(24))), fits);
  }
  if (closed_) return absl::FailedPreconditionError("the producer is closed");
  if (fits()) return absl::OkStatus();
  return absl::ResourceExhaustedError(Cat("the producer holds ", memory_used_, " of ", options_.memory_bytes,
                                          " bytes in records without a result; send slower or give it more"));
}

ProducerCore::Topic& ProducerCore::TopicNamed(std::string_view name) {
  if (last_topic_ != nullptr && last_topic_->name == name) return *last_topic_;
  auto found = topics_.find(name);
  if (found == topics_.end()) {
    auto topic = std::make_unique<Topic>();
    topic->name = std::string(name);
    // Many short-lived producers should not all begin with partition 0.
    topic->sticky = static_cast<uint32_t>(absl::ToUnixMicros(core_->clock().Wall()));
    found = topics_.emplace(topic->name, std::move(topic)).first;
  }
  last_topic_ = found->second.get();
  return *last_topic_;
}

absl::StatusOr<ProducerCore::Partition*> ProducerCore::Choose(Topic& topic, const RecordToSend& record) {
  const auto count = static_cast<int32_t>(topic.routes->partitions.size());
  if (count == 0) return absl::InternalError(Cat("topic ", topic.name, " has no partitions"));
  int32_t id = 0;
  if (record.partition.has_value()) {
    id = record.partition->value();
    if (id < 0 || id >= count) {
      ErrorDetail detail;
      detail.reason = Reason::kUnknownTopic;
      detail.topic = topic.name;
      detail.partition = id;
      detail.message = Cat("topic ", topic.name, " has no partition ", id, ": it has ", count, ", numbered from 0");
      return MakeError(detail);
    }
  } else if (record.key.has_value()) {
    id = PartitionForKey(*record.key, count).value();
  } else {
    id = static_cast<int32_t>(topic.sticky % static_cast<uint32_t>(count));
  }
  return topic.partitions[static_cast<size_t>(id)].get();
}

absl::Status ProducerCore::Place(Topic& topic, const RecordToSend& record, int64_t timestamp_ms, size_t memory,
                                 absl::Duration deadline, Producer::Callback& done) {
  SLUICE_ASSIGN_OR_RETURN(Partition * partition, Choose(topic, record));
  const size_t bytes = memory - kRecordOverheadBytes;
  bool wake = false;
  if (partition->open != nullptr && partition->open->builder->size_bytes() + bytes > options_.batch_bytes) {
    Seal(*partition);
    wake = true;
  }
  const bool opened = partition->open == nullptr;
  if (opened) {
    auto batch = std::make_unique<Batch>();
    if (spare_builders_.empty()) {
      batch->builder = std::make_unique<record::BatchBuilder>();
    } else {
      batch->builder = std::move(spare_builders_.back());
      spare_builders_.pop_back();
    }
    batch->deadline = deadline;
    partition->open = std::move(batch);
    partition->open_since = deadline - options_.delivery_timeout;
  }
  Batch& batch = *partition->open;
  absl::Status appended = batch.builder->Append(timestamp_ms, record.key, record.value, record.headers);
  if (!appended.ok()) {
    if (opened) partition->open = nullptr;
    if (wake) SchedulePump();
    return absl::InvalidArgumentError(Cat("the record cannot be encoded: ", appended.message()));
  }
  batch.records.push_back({std::move(done), timestamp_ms});
  batch.memory += memory;
  List(*partition);
  const bool idle = partition->ready.empty() && partition->in_flight.empty() && partition->retry.empty();
  if (batch.builder->size_bytes() >= options_.batch_bytes) {
    Seal(*partition);
    wake = true;
  } else if (opened && !idle && options_.linger > absl::ZeroDuration()) {
    WakeAt(partition->open_since + options_.linger);
  } else if (opened) {
    wake = true;
  }
  if (wake) SchedulePump();
  return absl::OkStatus();
}

void ProducerCore::Seal(Partition& partition) {
  partition.ready.push_back(std::move(partition.open));
  Topic& topic = *partition.topic;
  const size_t count = topic.routes == nullptr ? topic.partitions.size() : topic.routes->partitions.size();
  if (topic.sticky % count == static_cast<uint32_t>(partition.id)) ++topic.sticky;
}

void ProducerCore::PlaceWaiting(Topic& topic, std::vector<Refused>& refused) {
  std::deque<WaitingRecord> waiting = std::move(topic.waiting);
  topic.waiting.clear();
  for (WaitingRecord& each : waiting) {
    std::vector<record::Header> headers;
    for (const auto& [key, value] : each.headers) {
      headers.push_back({key, value.has_value() ? std::optional<std::string_view>(*value) : std::nullopt});
    }
    RecordToSend record{topic.name, each.partition, each.key, each.value, headers, each.timestamp_ms};
    absl::Status placed = Place(topic, record, each.timestamp_ms, each.memory, each.deadline, each.done);
    if (!placed.ok()) refused.push_back({std::move(each.done), std::move(placed), each.memory});
  }
}

void ProducerCore::List(Partition& partition) {
  if (partition.listed) return;
  partition.listed = true;
  pending_.push_back(&partition);
}

void ProducerCore::SchedulePump() {
  if (pump_posted_) return;
  pump_posted_ = true;
  core_->executor().Post([self = shared_from_this()] { self->Pump(); });
}

void ProducerCore::Spare(std::unique_ptr<record::BatchBuilder> builder) {
  if (spare_builders_.size() >= kSpareBuildersMax) return;
  builder->Reset();
  spare_builders_.push_back(std::move(builder));
}

void ProducerCore::Give(Results results, std::vector<Refused> refused) {
  if (results.empty() && refused.empty()) return;
  size_t memory = 0;
  auto records = static_cast<int64_t>(refused.size());
  for (Refused& each : refused) {
    memory += each.memory;
    each.done(each.status);
  }
  for (Result& result : results) {
    memory += result.batch->memory;
    records += static_cast<int64_t>(result.batch->records.size());
    int64_t delta = 0;
    for (PendingRecord& pending : result.batch->records) {
      if (!result.first.ok()) {
        pending.done(result.first.status());
        continue;
      }
      RecordResult own = *result.first;
      own.offset += delta++;
      if (!result.log_append_time) own.timestamp_ms = pending.timestamp_ms;
      pending.done(own);
    }
  }
  std::lock_guard lock(mutex_);
  for (Result& result : results) {
    if (result.batch->builder != nullptr) Spare(std::move(result.batch->builder));
  }
  memory_used_ -= memory;
  outstanding_ -= records;
  memory_freed_.notify_all();
  if (outstanding_ == 0) all_done_.notify_all();
}

absl::Status ProducerCore::Flush(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  ++flushing_;
  SchedulePump();
  const bool done =
      all_done_.wait_for(lock, absl::ToChronoNanoseconds(std::clamp(timeout, absl::ZeroDuration(), absl::Hours(24))),
                         [&] { return outstanding_ == 0; });
  --flushing_;
  if (done) return absl::OkStatus();
  return absl::DeadlineExceededError(Cat(outstanding_, " records have no result yet"));
}

size_t ProducerCore::memory_used() const {
  std::lock_guard lock(mutex_);
  return memory_used_;
}

namespace {

class ProducerImpl : public Producer {
 public:
  ProducerImpl(std::shared_ptr<Core> core, ProducerOptions options)
      : executor_(core->executor()), state_(std::make_shared<ProducerCore>(std::move(core), options)) {}
  ~ProducerImpl() override {
    RunOn(executor_, [this] { state_->Close(); });
  }
  absl::Status Send(const RecordToSend& record, Callback done) override {
    return state_->Send(record, std::move(done));
  }
  absl::Status Flush(absl::Duration timeout) override { return state_->Flush(timeout); }
  size_t memory_used() const override { return state_->memory_used(); }

 private:
  Executor& executor_;
  const std::shared_ptr<ProducerCore> state_;
};

}  // namespace

std::unique_ptr<Producer> MakeProducer(std::shared_ptr<Core> core, ProducerOptions options) {
  return std::make_unique<ProducerImpl>(std::move(core), options);
}

}  // namespace sluice::client
