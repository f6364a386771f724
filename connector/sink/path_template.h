// The template of the folders that a sink writes below its target: literal text and
//   {event_time:FORMAT}   the record's event time, in UTC
//   {ingest_time:FORMAT}  the record's timestamp in the topic, in UTC
//   {topic} {partition}
// FORMAT is strftime's (absl::FormatTime), for example "dt={event_time:%Y-%m-%d}/hour={event_time:%H}".
//
// Immutable once parsed; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"

namespace sluice::connector {

class PathTemplate {
 public:
  /// INVALID_ARGUMENT says what is wrong at which character. Refused: unknown names, a time without a format, "..",
  /// a leading or trailing slash, a format whose result would hold a slash next to nothing.
  static absl::StatusOr<PathTemplate> Parse(std::string_view text);

  bool uses_event_time() const { return uses_event_time_; }
  /// Folder path without leading or trailing slash; empty for an empty template. Times in ms since 1970.
  std::string Render(std::string_view topic, PartitionId partition, int64_t ingest_time_ms,
                     int64_t event_time_ms) const;

 private:
  enum class Kind { kText, kEventTime, kIngestTime, kTopic, kPartition };
  struct Part {
    Kind kind;
    std::string text;  // literal, or the format
  };
  static absl::StatusOr<Part> ParseField(std::string_view field, size_t at);

  std::vector<Part> parts_;
  bool uses_event_time_ = false;
};

/// "<topic>-<partition>-<first offset, 20 digits>-<last offset, 20 digits>.<extension>"
std::string SinkFileName(std::string_view topic, PartitionId partition, Offset first, Offset last,
                         std::string_view extension);

}  // namespace sluice::connector
