// The first record at or after a time, in a log's committed part.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "replication/replicated_log.h"
#include "storage/log.h"

namespace sluice::replication {

/// What may be read of the log, as it is when asked; nullopt once it is not served any more.
using ReadableRange = std::function<std::optional<LogBounds>()>;

/// Answers nullopt when no committed record is at or after `timestamp_ms`, or the log is served no more. On the log's
/// home; `done` never inside the call.
void SearchTimestamp(const std::shared_ptr<storage::Log>& log, int64_t timestamp_ms, ReadableRange readable,
                     Callback<absl::StatusOr<std::optional<TimestampOffset>>> done);

}  // namespace sluice::replication
