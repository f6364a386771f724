#include "tools/format.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "common/units.h"

namespace sluice::tools {
namespace {

bool AllDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Columns, not bytes: each byte that begins a UTF-8 sequence.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

absl::StatusOr<int64_t> ParseTimeMs(std::string_view text, absl::Time now) {
  absl::Time time;
  std::string error;
  const std::string copy(text);
  if (absl::ParseTime(absl::RFC3339_full, copy, &time, &error) ||
      absl::ParseTime("%Y-%m-%d", copy, absl::UTCTimeZone(), &time, &error)) {
    return absl::ToUnixMillis(time);
  }
  absl::StatusOr<absl::Duration> ago = ParseDuration(text);
  if (ago.ok()) return absl::ToUnixMillis(now - *ago);
  return absl::InvalidArgumentError(
      Cat("\"", text, "\" is no time: write 2026-01-31T12:00:00Z, 2026-01-31, or how long ago, such as 2h"));
}

absl::StatusOr<StartPosition> ParseStart(std::string_view text, absl::Time now) {
  if (text == "earliest") return Earliest{};
  if (text == "latest") return Latest{};
  if (AllDigits(text)) {
    int64_t offset = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), offset);
    if (parsed.ec != std::errc()) return absl::InvalidArgumentError(Cat("offset ", text, " is too large"));
    return Offset(offset);
  }
  absl::StatusOr<int64_t> ms = ParseTimeMs(text, now);
  if (ms.ok()) return AtTime{*ms};
  return absl::InvalidArgumentError(
      Cat("\"", text, "\" is no place to start: write earliest, latest, an offset such as 42, a time such as ",
          "2026-01-31T12:00:00Z, or how long ago, such as 2h"));
}

absl::StatusOr<std::pair<std::string, std::string>> ParsePair(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(Cat("\"", text, "\" is not of the form key=value"));
  }
  return std::make_pair(text.substr(0, equals), text.substr(equals + 1));
}

absl::StatusOr<std::map<std::string, std::string>> ParsePairs(const std::vector<std::string>& texts) {
  std::map<std::string, std::string> pairs;
  for (const std::string& text : texts) {
    SLUICE_ASSIGN_OR_RETURN(auto pair, ParsePair(text));
    if (!pairs.insert(pair).second) return absl::InvalidArgumentError(Cat("\"", pair.first, "\" is given twice"));
  }
  return pairs;
}

std::string TimeText(int64_t ms) {
  if (ms < 0) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(ms), absl::UTCTimeZone());
}

std::string PairsText(const std::map<std::string, std::string>& pairs) {
  std::string text;
  for (const auto& [key, value] : pairs) text += Cat(text.empty() ? "" : " ", key, "=", value);
  return text.empty() ? "-" : text;
}

Table::Table(std::vector<std::string> headings) {
  for (std::string& heading : headings) {
    right_.push_back(heading.front() == '#');
    if (right_.back()) heading.erase(0, 1);
  }
  rows_.push_back(std::move(headings));
}

void Table::Row(std::vector<std::string> cells) {
  SLUICE_CHECK(cells.size() == right_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Text() const {
  std::vector<size_t> widths(right_.size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - Width(row[i]), ' ');
      if (i > 0) line += "  ";
      line += right_[i] ? padding + row[i] : row[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace sluice::tools
