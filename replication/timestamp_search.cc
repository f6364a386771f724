#include "replication/timestamp_search.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/record/record.h"
#include "common/status_macros.h"

namespace sluice::replication {
namespace {

constexpr int64_t kScanBytes = 1 << 20;

using Done = Callback<absl::StatusOr<std::optional<TimestampOffset>>>;

/// The first record of `batch` at or after both.
absl::StatusOr<std::optional<TimestampOffset>> FirstRecordFrom(const record::Batch& batch, int64_t timestamp_ms,
                                                               Offset from) {
  SLUICE_ASSIGN_OR_RETURN(auto reader, record::RecordReader::Open(batch.view()));
  record::Record record;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.Next(&record));
    if (!more) return std::nullopt;
    if (record.timestamp_ms >= timestamp_ms && record.offset >= from) {
      return TimestampOffset{record.offset, record.timestamp_ms};
    }
  }
}

void Scan(const std::shared_ptr<storage::Log>& log, int64_t timestamp_ms, Offset from, ReadableRange readable,
          Done done) {
  const std::optional<LogBounds> bounds = readable();
  if (!bounds) return done(std::nullopt);
  from = std::max(from, log->log_start());
  if (from >= bounds->high_watermark) return done(std::nullopt);
  log->Read(from, bounds->high_watermark, kScanBytes,
            [log, timestamp_ms, from, readable = std::move(readable),
             done = std::move(done)](absl::StatusOr<std::vector<record::Batch>> batches) mutable {
              if (!batches.ok()) return done(batches.status());
              const std::optional<LogBounds> now = readable();
              Offset next = from;
              for (const record::Batch& batch : *batches) {
                next = batch.next_offset();
                if (batch.is_control() || batch.max_timestamp_ms() < timestamp_ms) continue;
                auto found = FirstRecordFrom(batch, timestamp_ms, now ? now->log_start : from);
                if (!found.ok() || found->has_value()) return done(std::move(found));
              }
              if (next == from) return done(std::nullopt);
              Scan(log, timestamp_ms, next, std::move(readable), std::move(done));
            });
}

}  // namespace

void SearchTimestamp(const std::shared_ptr<storage::Log>& log, int64_t timestamp_ms, ReadableRange readable,
                     Done done) {
  log->SeekTimestamp(timestamp_ms, [log, timestamp_ms, readable = std::move(readable),
                                    done = std::move(done)](absl::StatusOr<Offset> from) mutable {
    if (!from.ok()) return done(from.status());
    Scan(log, timestamp_ms, *from, std::move(readable), std::move(done));
  });
}

}  // namespace sluice::replication
