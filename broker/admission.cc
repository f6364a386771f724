#include "broker/admission.h"

namespace sluice::broker {

CallGate::Pass CallGate::Enter() {
  if ((state_.fetch_add(1, std::memory_order_acq_rel) & kOpen) != 0) return Pass(shared_from_this());
  Leave();
  return {};
}

void CallGate::Close(absl::AnyInvocable<void()> drained) {
  {
    std::lock_guard lock(mutex_);
    drained_ = std::move(drained);
  }
  state_.fetch_add(1, std::memory_order_acq_rel);  // nobody is the last before this call is
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  Leave();
}

void CallGate::Leave() {
  if (state_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  // Closed, and the last one. Those turned away later come by here as well, and find nothing left to run.
  absl::AnyInvocable<void()> drained;
  {
    std::lock_guard lock(mutex_);
    drained = std::move(drained_);
    drained_ = nullptr;
  }
  if (drained) drained();
}

}  // namespace sluice::broker
