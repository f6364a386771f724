// Durations and sizes as people write them in configuration and commands: `500ms`, `1h30m`, `7d`; `64MiB`, `1MB`,
// `4096`. Pure functions; INVALID_ARGUMENT says what was expected.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice {

/// One or more whole numbers, each with a unit, the largest unit first: ns us ms s m h d w. `0` needs no unit. Not
/// negative, and below 292 years so that it can be told in nanoseconds.
absl::StatusOr<absl::Duration> ParseDuration(std::string_view text);

/// The shortest exact form that ParseDuration reads back, such as "1h30m". Below a nanosecond is cut off.
std::string DurationText(absl::Duration duration);

/// A whole number and a unit: B, kB or KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024), or no unit
/// for bytes.
absl::StatusOr<int64_t> ParseSize(std::string_view text);

/// Exact where a unit divides it ("64MiB", "1500B"); what ParseSize reads back.
std::string SizeText(int64_t bytes);

/// For people: three digits and a binary unit, "1.46 KiB". Not read back.
std::string HumanSizeText(int64_t bytes);

}  // namespace sluice
