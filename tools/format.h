// What the commands read from their arguments and print: positions, key=value pairs, times, tables. Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/types.h"

namespace sluice::tools {

struct Earliest {};
struct Latest {};
struct AtTime {
  int64_t ms;
};
using StartPosition = std::variant<Earliest, Latest, Offset, AtTime>;

/// "earliest", "latest", an offset (digits), or a time.
absl::StatusOr<StartPosition> ParseStart(std::string_view text, absl::Time now);
/// RFC 3339 ("2026-01-31T12:00:00Z", with zone), a date ("2026-01-31", UTC), or how long ago ("2h").
absl::StatusOr<int64_t> ParseTimeMs(std::string_view text, absl::Time now);
/// "k=v"; the value may be empty and may hold more "=".
absl::StatusOr<std::pair<std::string, std::string>> ParsePair(const std::string& text);
absl::StatusOr<std::map<std::string, std::string>> ParsePairs(const std::vector<std::string>& texts);

/// "2026-01-31T12:00:00.123Z"; "-" for a negative time.
std::string TimeText(int64_t ms);
/// "a=1 b=2"; "-" when there are none.
std::string PairsText(const std::map<std::string, std::string>& pairs);

/// Columns as wide as their widest cell, two spaces between, numbers to the right.
class Table {
 public:
  /// A heading that begins with '#' (not printed) makes a column of numbers.
  explicit Table(std::vector<std::string> headings);
  void Row(std::vector<std::string> cells);
  std::string Text() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // headings first
};

}  // namespace sluice::tools
