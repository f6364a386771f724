// EpochHistory: which leader epoch wrote which part of the log. It is all that Raft needs to know of a log to compare
// it with another: within an epoch one leader wrote each offset once, so the same epoch at the same offset means the
// same batch, and everything before it is the same too (Log Matching, Raft paper section 5.3).
//
// A place in a log is an end: the offset after a batch. It is named together with the epoch of that batch.
//
// Always holds: epochs and their starts ascend; every start is below end(); start() <= end().
// Threads: one at a time. A value type.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"

namespace sluice::raft {

/// When an epoch's first batch begins.
struct EpochStart {
  LeaderEpoch epoch;
  Offset start;
  bool operator==(const EpochStart&) const = default;
};

/// The place after a batch. Epoch 0 at offset 0 is the empty log; elsewhere epoch 0 is "not known".
struct LogPlace {
  LeaderEpoch epoch;
  Offset end;
  bool operator==(const LogPlace&) const = default;
};

/// What is known of the epoch of the batch before a log.
struct BaseEpoch {
  LeaderEpoch exact;    ///< 0: not known.
  LeaderEpoch at_most;  ///< It is not later than this; 0: not known either.
  bool operator==(const BaseEpoch&) const = default;
};

class EpochHistory {
 public:
  EpochHistory() = default;
  /// `base` tells of the batch before `start`. Epochs may begin below `start`. InvalidArgument when they do not ascend,
  /// begin at or beyond `end`, or leave a gap after `start`.
  static absl::StatusOr<EpochHistory> Make(Offset start, Offset end, BaseEpoch base, std::vector<EpochStart> epochs);

  Offset start() const { return start_; }
  Offset end() const { return end_; }
  bool empty() const { return start_ == end_; }
  const std::vector<EpochStart>& epochs() const { return epochs_; }

  /// Epoch of the batch that ends at (or spans) `end`; nullopt outside [start, end] and where it is not known.
  std::optional<LeaderEpoch> EpochBefore(Offset end) const;
  /// Epoch at an offset; nullopt outside [start, end).
  std::optional<LeaderEpoch> EpochAt(Offset offset) const;
  /// The end of the log; its epoch is 0 when not known.
  LogPlace Last() const { return {EpochBefore(end_).value_or(LeaderEpoch(0)), end_}; }
  /// The end of the log with the latest epoch that its last batch can have; what a candidate's log is compared with.
  LogPlace LastAtMost() const;
  /// Of the batch before start().
  BaseEpoch base() const;
  /// Where the largest epoch at or below `epoch` ends; nullopt when the log holds none.
  std::optional<LogPlace> EndOf(LeaderEpoch epoch) const;

  /// One more batch, at end().
  void Append(LeaderEpoch epoch, Offset next_offset);
  /// `new_end` in [start, end].
  void Truncate(Offset new_end);
  /// The log start moves up; at most to end().
  void SetStart(Offset start);
  /// An empty log that begins at `start`.
  void Reset(Offset start, BaseEpoch base);

 private:
  Offset start_;
  Offset end_;
  BaseEpoch base_;  ///< Where epochs_ does not tell.
  std::vector<EpochStart> epochs_;
};

}  // namespace sluice::raft
