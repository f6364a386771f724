// Which part of a log retention would delete. Pure: the leader asks, then replicates the answer as a log-start advance,
// so that every replica deletes the same.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/types.h"
#include "storage/log.h"

namespace sluice::storage {

/// -1: without bound.
struct RetentionPolicy {
  int64_t retention_ms = -1;     ///< retention.ms: a segment goes when its latest record is older.
  int64_t retention_bytes = -1;  ///< retention.bytes: the oldest segments go while the rest has at least this much.
};

struct RetentionDecision {
  Offset log_start;            ///< The new one; the present one when there is nothing to delete.
  bool closes_active = false;  ///< The active segment goes too: call Log::CloseActiveSegment before the advance.
};

/// Whole segments only, never beyond `high_watermark`, and nothing of a log whose data ends at `log_start` already
/// (then only control batches are left, and deleting them would add another). Segments without a
/// timestamp (of control batches alone) go only with what follows them.
RetentionDecision DecideRetention(absl::Span<const SegmentInfo> segments, const RetentionPolicy& policy, int64_t now_ms,
                                  Offset log_start, Offset high_watermark, Offset data_end);

}  // namespace sluice::storage
