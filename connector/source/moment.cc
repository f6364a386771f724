#include "connector/source/moment.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "common/text.h"
#include "connector/source/json_text.h"

namespace sluice::connector {
namespace {

constexpr double kMillisFrom = 1e11;  // as seconds that would be the year 5138

struct Value {
  bool number = false;
  std::string text;  // of a number its raw text
  std::optional<absl::Time> time;
};

Value Read(std::string_view raw) {
  Value value;
  if (!raw.empty() && raw.front() == '"') {
    value.text = JsonValue{.kind = JsonValue::Kind::kString, .raw = raw}.Text();
    absl::Time time;
    if (absl::ParseTime(absl::RFC3339_full, value.text, &time, nullptr) ||
        absl::ParseTime("%Y-%m-%dT%H:%M:%E*S", value.text, &time, nullptr) ||
        absl::ParseTime("%Y-%m-%d", value.text, &time, nullptr)) {
      value.time = time;
    }
    return value;
  }
  value.number = true;
  value.text = std::string(raw);
  return value;
}

double AsDouble(const std::string& digits) {
  double number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

bool IsInteger(std::string_view digits) {
  if (digits.starts_with('-')) digits.remove_prefix(1);
  return !digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos;
}

std::optional<absl::Time> TimeOf(const Value& value) {
  if (!value.number) return value.time;
  const double number = AsDouble(value.text);
  int64_t whole = 0;
  const auto [end, error] = std::from_chars(value.text.data(), value.text.data() + value.text.size(), whole);
  const bool exact = error == std::errc() && end == value.text.data() + value.text.size();
  if (std::fabs(number) >= kMillisFrom) {
    return exact ? absl::FromUnixMillis(whole) : absl::UnixEpoch() + absl::Milliseconds(number);
  }
  return exact ? absl::FromUnixSeconds(whole) : absl::UnixEpoch() + absl::Seconds(number);
}

int Sign(int comparison) {
  return comparison < 0 ? -1 : comparison > 0 ? 1 : 0;
}

/// Integers of any length by their digits; anything else as doubles.
int CompareNumbers(const std::string& a, const std::string& b) {
  if (!IsInteger(a) || !IsInteger(b)) {
    const double left = AsDouble(a), right = AsDouble(b);
    return left < right ? -1 : left > right ? 1 : 0;
  }
  const bool minus = a.starts_with('-');
  if (minus != b.starts_with('-')) return AsDouble(a) == AsDouble(b) ? 0 : minus ? -1 : 1;
  const int magnitude = a.size() != b.size() ? (a.size() < b.size() ? -1 : 1) : Sign(a.compare(b));
  return minus ? -magnitude : magnitude;
}

}  // namespace

bool IsCursorValue(std::string_view raw) {
  return !raw.empty() &&
         (raw.front() == '"' || raw.front() == '-' || std::isdigit(static_cast<unsigned char>(raw.front())));
}

std::string CursorValueOfStart(std::string_view start) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::Parse(start);
  if (document.ok() && document->root().kind == JsonValue::Kind::kNumber) return document->text();
  return JsonQuote(start);
}

absl::StatusOr<int> CompareCursorValues(std::string_view a, std::string_view b) {
  if (IsCursorValue(a) && IsCursorValue(b)) {
    const Value left = Read(a), right = Read(b);
    if (left.number && right.number) return CompareNumbers(left.text, right.text);
    if (left.time || right.time) {
      const auto left_time = TimeOf(left), right_time = TimeOf(right);
      if (left_time && right_time) return *left_time < *right_time ? -1 : *left_time > *right_time ? 1 : 0;
    } else if (!left.number && !right.number) {
      return Sign(left.text.compare(right.text));
    }
  }
  return absl::InvalidArgumentError(
      Cat("the cursor's field has no order between ", a.substr(0, 100), " and ", b.substr(0, 100)));
}

absl::StatusOr<std::string> FormatCursorValue(std::string_view raw, IncrementalConfig::Format format) {
  const Value value = Read(raw);
  if (format == IncrementalConfig::Format::kAsIs) return value.text;
  const std::optional<absl::Time> time = TimeOf(value);
  if (!time) return absl::InvalidArgumentError(Cat("the cursor's value ", raw.substr(0, 100), " is not a time"));
  switch (format) {
    case IncrementalConfig::Format::kEpochSeconds:
      return std::to_string(absl::ToUnixSeconds(*time));
    case IncrementalConfig::Format::kEpochMillis:
      return std::to_string(absl::ToUnixMillis(*time));
    default:
      return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", *time, absl::UTCTimeZone());
  }
}

}  // namespace sluice::connector
