#include "broker/admission.h"

namespace sluice::broker {

CallGate::Pass CallGate::Enter() {
  std::lock_guard lock(mutex_);
  if (!open_.load(std::memory_order_relaxed)) return nullptr;
  ++inside_;
  return Pass(static_cast<void*>(this), [gate = shared_from_this()](void*) { gate->Leave(); });
}

void CallGate::Open() {
  std::lock_guard lock(mutex_);
  open_.store(true, std::memory_order_release);
}

void CallGate::Close(absl::AnyInvocable<void()> drained) {
  {
    std::lock_guard lock(mutex_);
    open_.store(false, std::memory_order_release);
    if (inside_ > 0) {
      drained_ = std::move(drained);
      return;
    }
  }
  drained();
}

void CallGate::Leave() {
  absl::AnyInvocable<void()> drained;
  {
    std::lock_guard lock(mutex_);
    if (--inside_ > 0 || open_.load(std::memory_order_relaxed)) return;
    drained = std::move(drained_);
    drained_ = nullptr;
  }
  if (drained) drained();
}

}  // namespace sluice::broker
