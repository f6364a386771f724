#include "broker/clock_watch.h"

namespace sluice::broker {

bool ClockWatch::Look() {
  const absl::Time origin = Origin();
  const absl::Duration now = clock_.Monotonic();
  bool found = false;
  if (origin - (jump_.has_value() ? jump_->origin : believed_) > kJump) {
    found = true;
    jump_ = Jump{.origin = origin, .at = now};
  }
  if (origin - believed_ <= kJump || (jump_.has_value() && now - jump_->at >= kBelievedAfter)) {
    believed_ = origin;
    jump_.reset();
  }
  ahead_ = origin - believed_;
  return found;
}

}  // namespace sluice::broker
