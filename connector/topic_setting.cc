#include "connector/topic_setting.h"

#include <charconv>
#include <cstdint>
#include <limits>

#include "common/text.h"

namespace sluice::connector {
namespace {

struct SettingRange {
  std::string_view key;
  int64_t least;
  int64_t most;
};
constexpr SettingRange kNumbers[] = {{"max.message.bytes", 1024, int64_t{32} << 20},
                                     {"retention.bytes", -1, std::numeric_limits<int64_t>::max()},
                                     {"retention.ms", -1, std::numeric_limits<int64_t>::max()},
                                     {"segment.bytes", int64_t{1} << 20, int64_t{1} << 30},
                                     {"segment.ms", 1000, std::numeric_limits<int64_t>::max()}};
struct SettingWords {
  std::string_view key;
  std::string_view one;
  std::string_view other;
};
constexpr SettingWords kWords[] = {{"cleanup.policy", "delete", "delete"},
                                   {"durability", "quorum", "quorum"},
                                   {"message.timestamp.type", "CreateTime", "LogAppendTime"}};

}  // namespace

std::string WrongTopicSetting(std::string_view key, std::string_view value) {
  std::string known;
  for (const SettingRange& each : kNumbers) {
    known += Cat(known.empty() ? "" : ", ", each.key);
    if (each.key != key) continue;
    int64_t number = 0;
    const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
    const bool whole = parsed.ec == std::errc() && parsed.ptr == value.data() + value.size();
    if (whole && number >= each.least && number <= each.most) return {};
    const bool open = each.most == std::numeric_limits<int64_t>::max();
    return Cat("expected a whole number ", open ? "at least " : "from ", each.least, open ? "" : " to ",
               open ? "" : Cat(each.most), ", found \"", value, "\"");
  }
  for (const SettingWords& each : kWords) {
    known += Cat(", ", each.key);
    if (each.key != key) continue;
    if (value == each.one || value == each.other) return {};
    return Cat("expected ", each.one, each.one == each.other ? "" : " or ", each.one == each.other ? "" : each.other,
               ", found \"", value, "\"");
  }
  return Cat("no setting of a topic; known are ", known);
}

}  // namespace sluice::connector
