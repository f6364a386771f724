#include "common/units.h"

#include <charconv>
#include <cstdio>
#include <iterator>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice {

namespace {

struct Unit {
  std::string_view name;
  int64_t of;
};

// Largest first.
constexpr Unit kTimes[] = {{"w", int64_t{7} * 86400 * 1000000000},
                           {"d", int64_t{86400} * 1000000000},
                           {"h", int64_t{3600} * 1000000000},
                           {"m", int64_t{60} * 1000000000},
                           {"s", 1000000000},
                           {"ms", 1000000},
                           {"us", 1000},
                           {"ns", 1}};

constexpr Unit kSizes[] = {{"TiB", int64_t{1} << 40},
                           {"TB", 1000000000000},
                           {"GiB", int64_t{1} << 30},
                           {"GB", 1000000000},
                           {"MiB", 1 << 20},
                           {"MB", 1000000},
                           {"KiB", 1 << 10},
                           {"KB", 1000},
                           {"kB", 1000},
                           {"B", 1},
                           {"", 1}};

absl::Status NotA(std::string_view what, std::string_view text) {
  return absl::InvalidArgumentError(Cat("expected ", what, ", found \"", text, "\""));
}

// Takes "<digits><letters>" off the front; false when there is none or the number is too large.
bool TakePart(std::string_view* text, int64_t* number, std::string_view* unit) {
  const auto parsed = std::from_chars(text->data(), text->data() + text->size(), *number);
  if (parsed.ec != std::errc() || *number < 0 || text->front() == '-') return false;
  text->remove_prefix(static_cast<size_t>(parsed.ptr - text->data()));
  size_t letters = 0;
  while (letters < text->size() && ((*text)[letters] < '0' || (*text)[letters] > '9')) ++letters;
  *unit = text->substr(0, letters);
  text->remove_prefix(letters);
  return true;
}

const Unit* Find(const Unit* begin, const Unit* end, std::string_view name) {
  for (const Unit* unit = begin; unit != end; ++unit) {
    if (unit->name == name) return unit;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<absl::Duration> ParseDuration(std::string_view text) {
  constexpr std::string_view kExpected = "a duration such as 500ms, 5m, 1h30m or 7d";
  if (text == "0") return absl::ZeroDuration();
  std::string_view rest = text;
  if (rest.empty()) return NotA(kExpected, text);
  const Unit* before = nullptr;
  int64_t total = 0;
  while (!rest.empty()) {
    int64_t number;
    std::string_view name;
    if (!TakePart(&rest, &number, &name)) return NotA(kExpected, text);
    const Unit* unit = Find(std::begin(kTimes), std::end(kTimes), name);
    if (unit == nullptr || (before != nullptr && unit <= before)) return NotA(kExpected, text);
    int64_t part;
    if (__builtin_mul_overflow(number, unit->of, &part) || __builtin_add_overflow(total, part, &total)) {
      return NotA("a duration below 292 years", text);
    }
    before = unit;
  }
  return absl::Nanoseconds(total);
}

std::string DurationText(absl::Duration duration) {
  int64_t rest = absl::ToInt64Nanoseconds(duration);
  if (rest == 0) return "0";
  std::string out = rest < 0 ? "-" : "";
  for (const Unit& unit : kTimes) {
    const int64_t count = rest / unit.of;
    if (count == 0) continue;
    out += Cat(count < 0 ? -count : count, unit.name);
    rest %= unit.of;
  }
  return out;
}

absl::StatusOr<int64_t> ParseSize(std::string_view text) {
  constexpr std::string_view kExpected = "a size such as 4096, 64KiB, 1MB or 2GiB";
  std::string_view rest = text;
  int64_t number;
  std::string_view name;
  if (rest.empty() || !TakePart(&rest, &number, &name) || !rest.empty()) return NotA(kExpected, text);
  const Unit* unit = Find(std::begin(kSizes), std::end(kSizes), name);
  if (unit == nullptr) return NotA(kExpected, text);
  int64_t bytes;
  if (__builtin_mul_overflow(number, unit->of, &bytes)) return NotA("a size below 8 EiB", text);
  return bytes;
}

std::string SizeText(int64_t bytes) {
  if (bytes == 0) return "0B";
  for (const Unit& unit : kSizes) {
    if (bytes % unit.of == 0) return Cat(bytes / unit.of, unit.name);
  }
  return Cat(bytes, "B");
}

std::string HumanSizeText(int64_t bytes) {
  constexpr std::string_view kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t step = 0;
  while ((value >= 999.5 || value <= -999.5) && step + 1 < std::size(kNames)) {
    value /= 1024;
    ++step;
  }
  char text[32];
  std::snprintf(text, sizeof(text), step == 0 ? "%.0f" : (value < 9.995 ? "%.2f" : (value < 99.95 ? "%.1f" : "%.0f")),
                value);
  return Cat(text, " ", kNames[step]);
}

}  // namespace sluice
