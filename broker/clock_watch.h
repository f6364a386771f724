// Whether a node's wall clock has jumped, as far as the node itself can tell: by its monotonic clock. What deletes by
// age asks, for a clock that is set hours ahead by mistake would delete what is not old.
//
// Threads: one executor.
#pragma once

#include <deque>

#include "absl/time/time.h"
#include "common/executor.h"

namespace sluice::broker {

/// Takes the clock for right where it begins, when it goes back, and where it goes forward by little between two looks.
/// Each jump forward is believed once it has stood for a day of the machine's being awake.
class ClockWatch {
 public:
  static constexpr absl::Duration kJump = absl::Minutes(10);
  static constexpr absl::Duration kBelievedAfter = absl::Hours(24);

  explicit ClockWatch(const Clock& clock) : clock_(clock), believed_(Origin()) {}

  /// Compares the clocks; to be called each minute or so. Whether a new jump was found.
  bool Look();
  /// By how much the wall clock is ahead of what is believed, as of the last look.
  absl::Duration ahead() const { return ahead_; }

 private:
  struct Jump {
    absl::Time origin;
    absl::Duration at;  ///< Monotonic.
  };
  /// When the monotonic clock would have begun.
  absl::Time Origin() const { return clock_.Wall() - clock_.Monotonic(); }

  const Clock& clock_;
  absl::Time believed_;
  std::deque<Jump> jumps_;  ///< Not believed yet, in order.
  absl::Duration ahead_ = absl::ZeroDuration();
};

}  // namespace sluice::broker
