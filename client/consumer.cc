#include <algorithm>
#include <utility>

#include "client/await.h"
#include "client/client_impl.h"
#include "client/consumer_core.h"
#include "client/error.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::client {

ConsumerCore::ConsumerCore(std::shared_ptr<Core> core, ConsumerOptions options)
    : core_(std::move(core)), options_(options) {}

absl::Status ConsumerCore::Located(const Partition& partition, const absl::Status& status) {
  absl::Status located(status.code(), Cat("reading ", partition.source.topic, "/", partition.source.partition.value(),
                                          " from offset ", partition.fetch_offset.value(), ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { located.SetPayload(url, payload); });
  return located;
}

void ConsumerCore::Drop(Partition& partition) {
  fetched_bytes_ -= partition.fetched_bytes;
  partition.fetched_bytes = 0;
  partition.fetched.clear();
  partition.open = nullptr;
}

void ConsumerCore::Restart(Partition& partition, Offset offset) {
  Drop(partition);
  partition.position = offset;
  partition.fetch_offset = offset;
  partition.fetch = 0;
  partition.committed = Offset(0);
  partition.error = absl::OkStatus();
  partition.failing_since.reset();
  partition.not_before = absl::ZeroDuration();
  SchedulePump();
}

void ConsumerCore::Assign(const TopicPartition& source, Offset offset) {
  std::lock_guard lock(mutex_);
  retained_.clear();
  Partition& partition = partitions_[source];
  partition.source = source;
  Restart(partition, offset);
}

void ConsumerCore::Unassign(const TopicPartition& source) {
  std::lock_guard lock(mutex_);
  retained_.clear();
  auto found = partitions_.find(source);
  if (found == partitions_.end()) return;
  Drop(found->second);
  partitions_.erase(found);
}

absl::Status ConsumerCore::Seek(const TopicPartition& source, Offset offset) {
  std::lock_guard lock(mutex_);
  retained_.clear();
  auto found = partitions_.find(source);
  if (found == partitions_.end()) {
    return absl::FailedPreconditionError(Cat(source.topic, "/", source.partition.value(), " is not assigned"));
  }
  Restart(found->second, offset);
  return absl::OkStatus();
}

std::optional<Offset> ConsumerCore::Position(const TopicPartition& source) const {
  std::lock_guard lock(mutex_);
  auto found = partitions_.find(source);
  if (found == partitions_.end()) return std::nullopt;
  return found->second.position;
}

std::optional<Offset> ConsumerCore::HighWatermark(const TopicPartition& source) const {
  std::lock_guard lock(mutex_);
  auto found = partitions_.find(source);
  if (found == partitions_.end()) return std::nullopt;
  return found->second.high_watermark;
}

absl::Status ConsumerCore::SetPaused(const TopicPartition& source, bool paused) {
  std::lock_guard lock(mutex_);
  auto found = partitions_.find(source);
  if (found == partitions_.end()) {
    return absl::FailedPreconditionError(Cat(source.topic, "/", source.partition.value(), " is not assigned"));
  }
  found->second.paused = paused;
  if (!paused) SchedulePump();
  return absl::OkStatus();
}

// Moves the position past control batches, and past batches that compaction emptied.
void ConsumerCore::SkipControl(Partition& partition) {
  while (!partition.fetched.empty() && partition.open == nullptr) {
    const FetchedBatch& front = partition.fetched.front();
    if (!front.batch.is_control() && front.batch.record_count() > 0) return;
    partition.position = front.next_offset;
    partition.fetched_bytes -= front.batch.size_bytes();
    fetched_bytes_ -= front.batch.size_bytes();
    partition.fetched.pop_front();
  }
}

bool ConsumerCore::HasSomething(const Partition& partition) const {
  if (partition.paused) return false;
  return !partition.fetched.empty() || !partition.error.ok();
}

bool ConsumerCore::WaitForData(std::unique_lock<std::mutex>& lock, absl::Duration timeout) {
  auto something = [&] {
    return woken_ || closed_ || std::any_of(partitions_.begin(), partitions_.end(), [&](const auto& entry) {
             return HasSomething(entry.second);
           });
  };
  if (!something() && timeout > absl::ZeroDuration()) {
    SLUICE_CHECK(!core_->executor().IsCurrent()) << "a waiting poll on the client's own executor";
    changed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24))), something);
  }
  const bool woken = std::exchange(woken_, false);
  return !woken && something();
}

// The next partition with data, after the one served last; null when there is none. An error goes out once its turn
// comes, unless the caller already has records that it would lose.
absl::StatusOr<ConsumerCore::Partition*> ConsumerCore::NextReady(bool with_errors) {
  if (partitions_.empty()) return nullptr;
  auto at = last_served_.has_value() ? partitions_.upper_bound(*last_served_) : partitions_.begin();
  for (size_t i = 0; i < partitions_.size(); ++i, ++at) {
    if (at == partitions_.end()) at = partitions_.begin();
    Partition& partition = at->second;
    if (!HasSomething(partition)) continue;
    if (!partition.fetched.empty()) return &partition;
    if (!with_errors) continue;
    absl::Status error = std::exchange(partition.error, absl::OkStatus());
    partition.failing_since.reset();
    SchedulePump();
    return error;
  }
  return nullptr;
}

absl::Status ConsumerCore::TakeRecords(Partition& partition, size_t records_max, std::vector<ConsumedRecord>& out) {
  while (!partition.fetched.empty() && out.size() < records_max) {
    const FetchedBatch& front = partition.fetched.front();
    if (partition.open == nullptr) {
      absl::StatusOr<record::RecordReader> reader = record::RecordReader::Open(front.batch.view(), options_.decompress);
      if (!reader.ok()) return Located(partition, reader.status());
      partition.open = std::make_shared<OpenBatch>(OpenBatch{front.batch, *std::move(reader)});
    }
    if (retained_.empty() || retained_.back() != partition.open) retained_.push_back(partition.open);
    bool more = true;
    while (out.size() < records_max) {
      ConsumedRecord consumed{partition.source.topic, partition.source.partition, {}};
      absl::StatusOr<bool> next = partition.open->reader.Next(&consumed.record);
      if (!next.ok()) return Located(partition, next.status());
      more = *next;
      if (!more) break;
      if (consumed.record.offset < partition.position) continue;
      partition.position = consumed.record.offset + 1;
      out.push_back(std::move(consumed));
    }
    // The last record is out: the end itself need not be read to know that nothing is left to hand out.
    if (more && partition.position < front.batch.next_offset()) return absl::OkStatus();
    partition.position = front.next_offset;
    partition.fetched_bytes -= front.batch.size_bytes();
    fetched_bytes_ -= front.batch.size_bytes();
    partition.open = nullptr;
    partition.fetched.pop_front();
    SkipControl(partition);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ConsumedRecord>> ConsumerCore::Poll(absl::Duration timeout, size_t records_max) {
  std::unique_lock lock(mutex_);
  retained_.clear();
  std::vector<ConsumedRecord> out;
  if (!WaitForData(lock, timeout)) return out;
  // A damaged batch fails the poll that reaches it, after what came before it was handed out.
  while (out.size() < records_max) {
    absl::StatusOr<Partition*> partition = NextReady(/*with_errors=*/out.empty());
    if (!partition.ok()) return partition.status();
    if (*partition == nullptr) break;
    last_served_ = (*partition)->source;
    const size_t before = out.size();
    absl::Status taken = TakeRecords(**partition, records_max, out);
    if (!taken.ok()) {
      if (out.empty()) return taken;
      break;
    }
    if (out.size() == before && !(*partition)->fetched.empty()) break;
  }
  SchedulePump();
  return out;
}

absl::StatusOr<std::vector<ConsumedBatch>> ConsumerCore::PollBatches(absl::Duration timeout, size_t bytes_max) {
  std::unique_lock lock(mutex_);
  retained_.clear();
  std::vector<ConsumedBatch> out;
  if (!WaitForData(lock, timeout)) return out;
  absl::StatusOr<Partition*> next = NextReady(/*with_errors=*/true);
  if (!next.ok()) return next.status();
  if (*next != nullptr) {
    Partition& partition = **next;
    last_served_ = partition.source;
    size_t bytes = 0;
    while (!partition.fetched.empty() &&
           (out.empty() || bytes + partition.fetched.front().batch.size_bytes() <= bytes_max)) {
      FetchedBatch front = std::move(partition.fetched.front());
      partition.fetched.pop_front();
      partition.open = nullptr;
      const size_t size = front.batch.size_bytes();
      bytes += size;
      partition.fetched_bytes -= size;
      fetched_bytes_ -= size;
      const Offset first = std::max(partition.position, front.batch.base_offset());
      partition.position = front.next_offset;
      out.push_back({partition.source, std::move(front.batch), first, front.next_offset});
      SkipControl(partition);
      out.back().next_offset = partition.position;
    }
  }
  SchedulePump();
  return out;
}

void ConsumerCore::Wake() {
  std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_all();
}

void ConsumerCore::OnReady(absl::AnyInvocable<void()> ready) {
  auto shared = std::make_shared<absl::AnyInvocable<void()>>(std::move(ready));
  core_->executor().Post([self = shared_from_this(), shared] { self->ready_ = std::move(*shared); });
}

void ConsumerCore::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  ready_ = nullptr;
  partitions_.clear();
  retained_.clear();
}

namespace {

class ConsumerImpl : public Consumer {
 public:
  ConsumerImpl(std::shared_ptr<Core> core, ConsumerOptions options)
      : executor_(core->executor()), state_(std::make_shared<ConsumerCore>(std::move(core), options)) {}
  ~ConsumerImpl() override {
    RunOn(executor_, [this] { state_->Close(); });
  }
  void Assign(const TopicPartition& partition, Offset offset) override { state_->Assign(partition, offset); }
  void Unassign(const TopicPartition& partition) override { state_->Unassign(partition); }
  absl::Status Seek(const TopicPartition& partition, Offset offset) override { return state_->Seek(partition, offset); }
  std::optional<Offset> Position(const TopicPartition& p) const override { return state_->Position(p); }
  std::optional<Offset> HighWatermark(const TopicPartition& p) const override { return state_->HighWatermark(p); }
  absl::Status Pause(const TopicPartition& partition) override { return state_->SetPaused(partition, true); }
  absl::Status Resume(const TopicPartition& partition) override { return state_->SetPaused(partition, false); }
  absl::StatusOr<std::vector<ConsumedRecord>> Poll(absl::Duration timeout, size_t records_max) override {
    return state_->Poll(timeout, records_max);
  }
  absl::StatusOr<std::vector<ConsumedBatch>> PollBatches(absl::Duration timeout, size_t bytes_max) override {
    return state_->PollBatches(timeout, bytes_max);
  }
  void Wake() override { state_->Wake(); }
  void OnReady(absl::AnyInvocable<void()> ready) override { state_->OnReady(std::move(ready)); }

 private:
  Executor& executor_;
  const std::shared_ptr<ConsumerCore> state_;
};

}  // namespace

std::unique_ptr<Consumer> MakeConsumer(std::shared_ptr<Core> core, ConsumerOptions options) {
  return std::make_unique<ConsumerImpl>(std::move(core), options);
}

}  // namespace sluice::client
