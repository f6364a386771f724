#include "broker/clock_watch.h"

namespace sluice::broker {

bool ClockWatch::Look() {
  const absl::Time origin = Origin();
  const absl::Duration now = clock_.Monotonic();
  while (!jumps_.empty() && now - jumps_.front().at >= kBelievedAfter) {
    believed_ = jumps_.front().origin;
    jumps_.pop_front();
  }
  // Taken back.
  while (!jumps_.empty() && jumps_.back().origin - origin > kJump) jumps_.pop_back();
  bool found = false;
  if (origin - believed_ <= kJump) {
    believed_ = origin;
    jumps_.clear();
  } else if (jumps_.empty() || origin - jumps_.back().origin > kJump) {
    found = true;
    jumps_.push_back({.origin = origin, .at = now});
  } else {
    jumps_.back().origin = origin;
  }
  ahead_ = origin - believed_;
  return found;
}

}  // namespace sluice::broker
