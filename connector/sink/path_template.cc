#include "connector/sink/path_template.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/text.h"

namespace sluice::connector {

namespace {

absl::Status Wrong(size_t at, std::string_view what) {
  return absl::InvalidArgumentError(Cat("path template, character ", at + 1, ": ", what));
}

std::string FormatMs(const std::string& format, int64_t ms) {
  return absl::FormatTime(format, absl::FromUnixMillis(ms), absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<PathTemplate::Part> PathTemplate::ParseField(std::string_view field, size_t at) {
  const size_t colon = field.find(':');
  const std::string_view name = field.substr(0, colon);
  const std::string_view format = colon == std::string_view::npos ? "" : field.substr(colon + 1);
  if (field == "topic") return Part{Kind::kTopic, ""};
  if (field == "partition") return Part{Kind::kPartition, ""};
  const bool event = name == "event_time";
  if (!event && name != "ingest_time") {
    return Wrong(at, Cat("unknown field {", field, "}; known: event_time, ingest_time, topic, partition"));
  }
  if (format.empty()) {
    return Wrong(at, Cat("{", field, "} needs a format, such as {", name, ":%Y-%m-%d}"));
  }
  return Part{event ? Kind::kEventTime : Kind::kIngestTime, std::string(format)};
}

absl::StatusOr<PathTemplate> PathTemplate::Parse(std::string_view text) {
  PathTemplate made;
  if (!text.empty() && (text.front() == '/' || text.back() == '/')) {
    return Wrong(text.front() == '/' ? 0 : text.size() - 1, "must not begin or end with '/'");
  }
  for (size_t at = 0; at < text.size();) {
    const size_t open = text.find_first_of("{}", at);
    if (open == std::string_view::npos || open > at) {
      const size_t end = open == std::string_view::npos ? text.size() : open;
      made.parts_.push_back({Kind::kText, std::string(text.substr(at, end - at))});
      at = end;
      continue;
    }
    if (text[open] == '}') return Wrong(open, "'}' without '{'");
    const size_t close = text.find('}', open);
    if (close == std::string_view::npos) return Wrong(open, "'{' without '}'");
    auto part = ParseField(text.substr(open + 1, close - open - 1), open);
    if (!part.ok()) return part.status();
    made.uses_event_time_ = made.uses_event_time_ || part->kind == Kind::kEventTime;
    made.parts_.push_back(*std::move(part));
    at = close + 1;
  }
  const std::string sample = made.Render("topic", PartitionId(0), 0, 0);
  for (size_t begin = 0; !sample.empty() && begin <= sample.size();) {
    const size_t end = std::min(sample.find('/', begin), sample.size());
    const std::string_view folder = std::string_view(sample).substr(begin, end - begin);
    if (folder.empty() || folder == "." || folder == "..") {
      return Wrong(0, Cat("gives the folder '", folder, "' (in ", sample, ")"));
    }
    begin = end + 1;
  }
  return made;
}

std::string PathTemplate::Render(std::string_view topic, PartitionId partition, int64_t ingest_time_ms,
                                 int64_t event_time_ms) const {
  std::string out;
  for (const Part& part : parts_) {
    switch (part.kind) {
      case Kind::kText:
        out += part.text;
        break;
      case Kind::kEventTime:
        out += FormatMs(part.text, event_time_ms);
        break;
      case Kind::kIngestTime:
        out += FormatMs(part.text, ingest_time_ms);
        break;
      case Kind::kTopic:
        out += topic;
        break;
      case Kind::kPartition:
        out += std::to_string(partition.value());
        break;
    }
  }
  return out;
}

std::string SinkFileName(std::string_view topic, PartitionId partition, Offset first, Offset last,
                         std::string_view extension) {
  return Cat(topic, "-", partition, "-", absl::StrFormat("%020d-%020d", first.value(), last.value()), ".", extension);
}

}  // namespace sluice::connector
