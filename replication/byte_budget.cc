#include "replication/byte_budget.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

namespace sluice::replication {

struct ByteBudget::Lease::State {
  struct Waiter {
    int64_t bytes;
    Executor* home;
    absl::AnyInvocable<void(Lease)> granted;
  };

  explicit State(int64_t bytes_max) : max(bytes_max) {}

  static void Serve(const std::shared_ptr<State>& self) {
    for (;;) {
      Waiter next;
      {
        std::lock_guard lock(self->mutex);
        if (self->waiters.empty() || self->used + self->waiters.front().bytes > self->max) return;
        next = std::move(self->waiters.front());
        self->waiters.pop_front();
        self->used += next.bytes;
      }
      Executor& home = *next.home;
      home.Post([lease = Lease(self, next.bytes), granted = std::move(next.granted)]() mutable {
        granted(std::move(lease));
      });
    }
  }

  const int64_t max;
  std::mutex mutex;
  int64_t used = 0;
  bool closed = false;
  std::deque<Waiter> waiters;
};

ByteBudget::Lease::Lease(std::shared_ptr<State> state, int64_t bytes) : state_(std::move(state)), bytes_(bytes) {}

ByteBudget::Lease::Lease(Lease&& other) noexcept
    : state_(std::move(other.state_)), bytes_(std::exchange(other.bytes_, 0)) {}

ByteBudget::Lease& ByteBudget::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    GiveBack();
    state_ = std::move(other.state_);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void ByteBudget::Lease::GiveBack() {
  const std::shared_ptr<State> state = std::move(state_);
  if (state == nullptr) return;
  {
    std::lock_guard lock(state->mutex);
    state->used -= std::exchange(bytes_, 0);
  }
  State::Serve(state);
}

void ByteBudget::Lease::Shrink(int64_t bytes) {
  if (state_ == nullptr || bytes >= bytes_) return;
  {
    std::lock_guard lock(state_->mutex);
    state_->used -= bytes_ - bytes;
    bytes_ = bytes;
  }
  State::Serve(state_);
}

ByteBudget::ByteBudget(int64_t bytes_max) : state_(std::make_shared<Lease::State>(bytes_max)) {}

void ByteBudget::Ask(int64_t bytes, Executor& home, absl::AnyInvocable<void(Lease)> granted) {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->closed) return;
    state_->waiters.push_back({std::clamp<int64_t>(bytes, 0, state_->max), &home, std::move(granted)});
  }
  Lease::State::Serve(state_);
}

void ByteBudget::Close() {
  std::deque<Lease::State::Waiter> waiters;
  std::lock_guard lock(state_->mutex);
  state_->closed = true;
  waiters.swap(state_->waiters);
}

int64_t ByteBudget::used() const {
  std::lock_guard lock(state_->mutex);
  return state_->used;
}

int64_t ByteBudget::waiting() const {
  std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->waiters.size());
}

}  // namespace sluice::replication
