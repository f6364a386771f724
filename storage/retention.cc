#include "storage/retention.h"

namespace sluice::storage {

RetentionDecision DecideRetention(absl::Span<const SegmentInfo> segments, const RetentionPolicy& policy, int64_t now_ms,
                                  Offset log_start, Offset high_watermark, Offset data_end) {
  RetentionDecision decision{log_start, false};
  if (data_end <= log_start) return decision;
  int64_t bytes = 0;
  for (const SegmentInfo& segment : segments) bytes += segment.size_bytes;
  for (const SegmentInfo& segment : segments) {
    if (segment.next_offset > high_watermark) break;
    const bool too_old = policy.retention_ms >= 0 && segment.max_timestamp_ms >= 0 &&
                         segment.max_timestamp_ms < now_ms - policy.retention_ms;
    const bool too_much =
        !segment.active && policy.retention_bytes >= 0 && bytes - segment.size_bytes >= policy.retention_bytes;
    // One of control batches alone neither ages nor stands in the way: it goes with what follows it.
    const bool ageless = policy.retention_ms >= 0 && segment.max_timestamp_ms < 0;
    if (!too_old && !too_much && !ageless) break;
    bytes -= segment.size_bytes;
    if (!too_old && !too_much) continue;
    if (segment.next_offset > decision.log_start) decision.log_start = segment.next_offset;
    decision.closes_active = segment.active;
  }
  return decision;
}

}  // namespace sluice::storage
