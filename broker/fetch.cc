#include "broker/fetch.h"

#include <algorithm>
#include <utility>

#include "broker/error.h"
#include "broker/limits.h"
#include "common/text.h"

namespace sluice::broker {

FetchOperation::FetchOperation(FetchSpec spec, std::vector<Route> routes, Executor& home,
                               std::shared_ptr<std::atomic<int64_t>> waiting, std::shared_ptr<ReadQuota> memory,
                               CallGate::Pass pass, Callback<std::vector<FetchOutcome>> done)
    : spec_(std::move(spec)),
      home_(home),
      waiting_(std::move(waiting)),
      memory_(std::move(memory)),
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
  home_.Post([self = shared_from_this()] { self->BeginRound(); });
}

void FetchOperation::Cancel() {
  home_.Post([self = shared_from_this()] {
    self->answer_now_ = true;
    if (!self->reading_) self->Finish();
  });
}

void FetchOperation::BeginRound() {
  int64_t need = 0;
  for (const Item& item : items_) {
    if (item.to_read) need = std::max(need, item.partition->batch_bytes_max());
  }
  reading_ = true;
  round_bytes_max_ = spec_.bytes_max;
  if (need == 0) return ReadNext();
  if (hold_ == nullptr) {
    hold_ = memory_->TryTake(need, spec_.bytes_max);
    if (hold_ == nullptr) return WaitForMemory(need);
  } else if (!hold_->Grow(need, spec_.bytes_max - bytes_)) {
    answer_now_ = true;  // with what it has: nobody waits for memory while holding some
    return AfterRound();
  }
  round_bytes_max_ = std::min(spec_.bytes_max, hold_->bytes());
  ReadNext();
}

void FetchOperation::WaitForMemory(int64_t need) {
  reading_ = false;
  if (answer_now_) return Finish();
  memory_waited_ = absl::ZeroDuration();
  // The grant may come at once, and from any thread. Timers keep the operation alive meanwhile.
  ArmMemoryTimer();
  memory_place_ = memory_->Wait(
      need, spec_.bytes_max, [weak = weak_from_this(), &home = home_](std::shared_ptr<ReadHold> hold) mutable {
        const auto self = weak.lock();
        if (self == nullptr) return;
        home.Post([self, hold = std::move(hold)]() mutable { self->OnMemory(std::move(hold)); });
      });
  memory_->Reclaim();
}

void FetchOperation::ArmMemoryTimer() {
  const absl::Duration step = std::min(kReadReclaimEvery, spec_.memory_wait_max - memory_waited_);
  memory_timer_ = home_.PostAfter(step, [self = shared_from_this(), step] {
    self->memory_timer_ = 0;
    self->memory_waited_ += step;
    if (self->memory_waited_ >= self->spec_.memory_wait_max) return self->GiveUpMemory();
    self->ArmMemoryTimer();
    self->memory_->Reclaim();
  });
}

void FetchOperation::OnMemory(std::shared_ptr<ReadHold> hold) {
  if (memory_place_ == 0) return;  // given up meanwhile
  memory_place_ = 0;
  home_.Cancel(memory_timer_);
  memory_timer_ = 0;
  hold_ = std::move(hold);
  round_bytes_max_ = std::min(spec_.bytes_max, hold_->bytes());
  reading_ = true;
  ReadNext();
}

void FetchOperation::GiveUpMemory() {
  for (size_t i = 0; i < items_.size(); ++i) {
    if (!items_[i].to_read) continue;
    outcomes_[i].error = MakeError(
        Reason::kQuota,
        Cat("answers that other readers have not taken yet fill limits.read_bytes, ", memory_->stats().bytes_max),
        outcomes_[i].topic, outcomes_[i].partition);
  }
  Finish();
}

void FetchOperation::ReadNext() {
  const auto next = std::find_if(items_.begin(), items_.end(), [](const Item& item) { return item.to_read; });
  const int64_t room = round_bytes_max_ - bytes_;
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
    if (bytes_ > 0 && (bytes_ + size > round_bytes_max_ || (item.bytes > 0 && item.bytes + size > item.bytes_max))) {
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
  if (bytes_ == 0) {
    hold_ = nullptr;
  } else {
    hold_->Resize(bytes_);
    if (memory_->contended()) answer_now_ = true;
  }
  const bool can_wait = std::any_of(items_.begin(), items_.end(),
                                    [](const Item& item) { return item.partition != nullptr && !item.full; });
  const int64_t enough = std::min(spec_.bytes_min, spec_.bytes_max);
  if (answer_now_ || bytes_ >= enough || !can_wait || spec_.wait_max <= absl::ZeroDuration()) return Finish();
  if (hold_ != nullptr) {
    hold_->CallIn(absl::ZeroDuration(), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Cancel();
    });
  }
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
  if (reading_ || memory_place_ != 0) return;  // the round under way takes it in
  BeginRound();
}

void FetchOperation::Finish() {
  if (finished_) return;
  finished_ = true;
  if (deadline_ != 0) home_.Cancel(deadline_);
  deadline_ = 0;
  if (memory_place_ != 0) {
    memory_->Forget(std::exchange(memory_place_, 0));
    home_.Cancel(memory_timer_);
  }
  if (hold_ != nullptr) {
    for (FetchOutcome& outcome : outcomes_) {
      if (!outcome.batches.empty()) outcome.memory = hold_;
    }
    hold_ = nullptr;
  }
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
