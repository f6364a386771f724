#include "broker/read_quota.h"

#include <algorithm>

#include "broker/limits.h"

namespace sluice::broker {

ReadHold::~ReadHold() {
  std::unique_lock lock(quota_->mutex_);
  quota_->holds_.erase(place_);
  quota_->Change(std::move(lock), this, 0);
}

int64_t ReadHold::bytes() const {
  std::lock_guard lock(quota_->mutex_);
  return bytes_;
}

void ReadHold::Resize(int64_t bytes) {
  quota_->Change(std::unique_lock(quota_->mutex_), this, bytes);
}

bool ReadHold::Grow(int64_t need, int64_t wanted) {
  std::lock_guard lock(quota_->mutex_);
  if (!quota_->line_.empty() || quota_->free_bytes() < need) return false;
  const int64_t more = quota_->Share(need, wanted);
  bytes_ += more;
  quota_->bytes_ += more;
  return true;
}

int64_t ReadHold::Room() const {
  std::lock_guard lock(quota_->mutex_);
  return bytes_ + std::max<int64_t>(0, quota_->free_bytes());
}

void ReadHold::CallIn(absl::Duration after, absl::AnyInvocable<void()> let_go) {
  const absl::Duration due = quota_->clock_.Monotonic() + after;
  std::lock_guard lock(quota_->mutex_);
  if (std::exchange(called_in_, false)) quota_->called_in_bytes_ -= bytes_;
  due_ = due;
  let_go_.swap(let_go);
}

int64_t ReadQuota::Share(int64_t need, int64_t wanted) const {
  return std::max(need, std::min(wanted, free_bytes() / kReadShare));
}

ReadQuota::HoldPtr ReadQuota::Make(int64_t bytes) {
  HoldPtr hold(new ReadHold(shared_from_this()));
  hold->bytes_ = bytes;
  bytes_ += bytes;
  hold->place_ = holds_.insert(holds_.end(), hold.get());
  return hold;
}

ReadQuota::HoldPtr ReadQuota::TryTake(int64_t need, int64_t wanted) {
  need = std::min(need, bytes_max_);
  std::lock_guard lock(mutex_);
  if (!line_.empty() || free_bytes() < need) return nullptr;
  return Make(Share(need, wanted));
}

uint64_t ReadQuota::Wait(int64_t need, int64_t wanted, absl::AnyInvocable<void(HoldPtr)> ready) {
  Granted granted;
  uint64_t place = 0;
  {
    std::lock_guard lock(mutex_);
    place = ++places_made_;
    line_.emplace(place, Waiting{std::min(need, bytes_max_), wanted, std::move(ready)});
    Serve(&granted);
  }
  Tell(std::move(granted));
  return place;
}

void ReadQuota::Forget(uint64_t place) {
  Granted granted;
  std::map<uint64_t, Waiting>::node_type gone;  // destroyed without the lock
  {
    std::lock_guard lock(mutex_);
    gone = line_.extract(place);
    Serve(&granted);  // the first may have wanted more than those behind it
  }
  Tell(std::move(granted));
}

void ReadQuota::Reclaim() {
  const absl::Duration now = clock_.Monotonic();
  std::vector<absl::AnyInvocable<void()>> let_go;
  {
    std::lock_guard lock(mutex_);
    if (line_.empty()) return;
    int64_t missing = line_.begin()->second.need - free_bytes() - called_in_bytes_;
    for (ReadHold* hold : holds_) {
      if (missing <= 0) break;
      if (hold->let_go_ == nullptr || hold->due_ > now || hold->bytes_ == 0) continue;
      hold->called_in_ = true;
      called_in_bytes_ += hold->bytes_;
      ++called_in_;
      missing -= hold->bytes_;
      let_go.push_back(std::move(hold->let_go_));
      hold->let_go_ = nullptr;
    }
  }
  for (auto& one : let_go) one();
}

bool ReadQuota::contended() const {
  std::lock_guard lock(mutex_);
  return !line_.empty();
}

ReadQuotaStats ReadQuota::stats() const {
  std::lock_guard lock(mutex_);
  return {bytes_, bytes_max_, static_cast<int64_t>(line_.size()), called_in_};
}

void ReadQuota::Change(std::unique_lock<std::mutex> lock, ReadHold* hold, int64_t bytes) {
  const int64_t more = bytes - hold->bytes_;
  hold->bytes_ = bytes;
  bytes_ += more;
  if (hold->called_in_) called_in_bytes_ += more;
  if (more >= 0 || line_.empty()) return;
  Granted granted;
  Serve(&granted);
  lock.unlock();
  Tell(std::move(granted));
}

void ReadQuota::Serve(Granted* granted) {
  while (!line_.empty()) {
    Waiting& first = line_.begin()->second;
    if (free_bytes() < first.need) return;
    HoldPtr hold = Make(Share(first.need, first.wanted));
    granted->emplace_back(std::move(first.ready), std::move(hold));
    line_.erase(line_.begin());
  }
}

void ReadQuota::Tell(Granted granted) {
  for (auto& [ready, hold] : granted) ready(std::move(hold));
}

}  // namespace sluice::broker
