// Values of an incremental cursor's field: put in order, and put into the form that the API's parameter wants.
//
// A value travels as its raw JSON text (`1700000000000`, `"2026-01-01T00:00:00Z"`). Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "connector/pipeline_config.h"

namespace sluice::connector {

/// Negative, zero or positive as `a` comes before, with or after `b`. Numbers compare as numbers, whatever their
/// digits; RFC 3339 times (and dates) as times; a number beside a time as seconds since 1970, or milliseconds from
/// 10^11 on; other strings byte by byte. INVALID_ARGUMENT for what has no order (a word beside a number, null, an
/// object).
absl::StatusOr<int> CompareCursorValues(std::string_view a, std::string_view b);

/// What to send for `value`. INVALID_ARGUMENT when it is no time and the format needs one.
absl::StatusOr<std::string> FormatCursorValue(std::string_view value, IncrementalConfig::Format format);

/// Whether it can be a cursor's value: a number or a string.
bool IsCursorValue(std::string_view raw);

/// What the configuration's `start` means: a number where it is one, else a string.
std::string CursorValueOfStart(std::string_view start);

}  // namespace sluice::connector
