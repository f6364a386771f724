#include "broker/fetch.h"

#include <algorithm>
#include <utility>

namespace sluice::broker {

FetchOperation::FetchOperation(FetchSpec spec, std::vector<Route> routes, Executor& home,
                               std::shared_ptr<std::atomic<int64_t>> waiting, CallGate::Pass pass,
                               Callback<std::vector<FetchOutcome>> done)
    : spec_(std::move(spec)),
      home_(home),
      waiting_(std::move(waiting)),
      items_(routes.size()),
      outcomes_(routes.size()),
      pass_(std::move(pass)),
      done_(std::move(done)) {
  for (size_t i = 0; i < routes.size(); ++i) {
    const FetchItem& asked = spec_.items[i];
    outcomes_[i].topic = asked.topic;
    outcomes_[i].partition = asked.partition;
    outcomes_[i].next_offset = asked.offset;
    outcomes_[i].error = std::move(routes[i].error);
    if (outcomes_[i].error.has_value()) {
      answer_now_ = true;
      continue;
    }
    items_[i].partition = std::move(routes[i].partition);
    items_[i].bytes_max = asked.bytes_max > 0 ? std::min(asked.bytes_max, spec_.bytes_max) : spec_.bytes_max;
    items_[i].client_epoch = asked.leader_epoch;
    items_[i].to_read = true;
  }
}

void FetchOperation::Start() {
  home_.Post([self = shared_from_this()] {
    self->reading_ = true;
    self->ReadNext();
  });
}

void FetchOperation::Cancel() {
  home_.Post([self = shared_from_this()] {
    self->answer_now_ = true;
    if (!self->reading_) self->Finish();
  });
}

void FetchOperation::ReadNext() {
  const auto next = std::find_if(items_.begin(), items_.end(), [](const Item& item) { return item.to_read; });
  const int64_t room = spec_.bytes_max - bytes_;
  if (next == items_.end() || (room <= 0 && bytes_ > 0)) return AfterRound();
  next->to_read = false;
  const auto index = static_cast<size_t>(next - items_.begin());
  const int64_t bytes_max = std::max<int64_t>(1, std::min(room, next->bytes_max - next->bytes));
  Executor& shard = next->partition->shard();
  auto ask = [self = shared_from_this(), partition = next->partition, index, bytes_max,
              offset = outcomes_[index].next_offset, epoch = next->client_epoch] {
    partition->Read(offset, bytes_max, epoch, [self, partition, index](PartitionRead read) {
      if (&partition->shard() == &self->home_) return self->OnRead(index, std::move(read));
      self->home_.Post([self, index, read = std::move(read)]() mutable { self->OnRead(index, std::move(read)); });
    });
  };
  if (&shard == &home_) return ask();
  shard.Post(std::move(ask));
}

void FetchOperation::OnRead(size_t index, PartitionRead read) {
  FetchOutcome& outcome = outcomes_[index];
  if (read.error.has_value()) {
    answer_now_ = true;
    // What an earlier round found is good; the error is met again by who reads on.
    if (outcome.batches.empty()) outcome.error = std::move(read.error);
    items_[index].full = true;
  } else {
    outcome.high_watermark = read.bounds.high_watermark;
    outcome.log_start = read.bounds.log_start;
    outcome.leader_epoch = read.leader_epoch;
    TakeBatches(index, std::move(read.batches), read.next_offset);
  }
  ReadNext();
}

// A log answers one batch at least, however large; that is for the first of a request only.
void FetchOperation::TakeBatches(size_t index, std::vector<record::Batch> batches, Offset next_offset) {
  Item& item = items_[index];
  FetchOutcome& outcome = outcomes_[index];
  for (auto& batch : batches) {
    const auto size = static_cast<int64_t>(batch.size_bytes());
    if (bytes_ > 0 && (bytes_ + size > spec_.bytes_max || (item.bytes > 0 && item.bytes + size > item.bytes_max))) {
      item.full = true;
      return;
    }
    bytes_ += size;
    item.bytes += size;
    outcome.next_offset = batch.next_offset();
    outcome.batches.push_back(std::move(batch));
  }
  outcome.next_offset = next_offset;
  if (item.bytes >= item.bytes_max) item.full = true;
}

void FetchOperation::AfterRound() {
  reading_ = false;
  const bool can_wait = std::any_of(items_.begin(), items_.end(),
                                    [](const Item& item) { return item.partition != nullptr && !item.full; });
  const int64_t enough = std::min(spec_.bytes_min, spec_.bytes_max);
  if (answer_now_ || bytes_ >= enough || !can_wait || spec_.wait_max <= absl::ZeroDuration()) return Finish();
  if (!counted_waiting_) {
    counted_waiting_ = true;
    waiting_->fetch_add(1, std::memory_order_relaxed);
    if (spec_.wait_max < absl::InfiniteDuration()) {
      deadline_ = home_.PostAfter(spec_.wait_max, [self = shared_from_this()] {
        self->deadline_ = 0;
        self->answer_now_ = true;
        if (!self->reading_) self->Finish();
      });
    }
  }
  for (size_t i = 0; i < items_.size(); ++i) {
    if (items_[i].partition != nullptr && !items_[i].full && items_[i].waiter == nullptr) Wait(i);
  }
}

void FetchOperation::Wait(size_t index) {
  auto waiter = std::make_shared<Waiter>();
  items_[index].waiter = waiter;
  auto ask = [self = shared_from_this(), partition = items_[index].partition, index, waiter,
              offset = outcomes_[index].next_offset] {
    if (waiter->over) return;
    waiter->id = partition->WaitForCommit(offset, [self, index, waiter] {
      waiter->over = true;
      self->home_.Post([self, index, waiter] { self->OnWake(index, waiter); });
    });
  };
  Executor& shard = items_[index].partition->shard();
  if (&shard == &home_) return ask();
  shard.Post(std::move(ask));
}

void FetchOperation::OnWake(size_t index, const std::shared_ptr<Waiter>& waiter) {
  if (finished_ || items_[index].waiter != waiter) return;
  items_[index].waiter = nullptr;
  items_[index].to_read = true;
  if (reading_) return;  // the round under way takes it in
  reading_ = true;
  ReadNext();
}

void FetchOperation::Finish() {
  if (finished_) return;
  finished_ = true;
  if (deadline_ != 0) home_.Cancel(deadline_);
  deadline_ = 0;
  if (counted_waiting_) waiting_->fetch_sub(1, std::memory_order_relaxed);
  for (Item& item : items_) {
    if (item.waiter == nullptr) continue;
    item.partition->shard().Post([partition = item.partition, waiter = std::move(item.waiter)] {
      if (!waiter->over) partition->CancelWait(waiter->id);
      waiter->over = true;
    });
  }
  done_(std::move(outcomes_));
  done_ = nullptr;
  pass_ = {};
}

}  // namespace sluice::broker
