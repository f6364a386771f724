#include "common/topic_setting.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "common/text.h"

namespace sluice {
namespace {

constexpr int64_t kNoBound = std::numeric_limits<int64_t>::max();

// A whole number in a range or, where `words` are given, one of them.
struct Rule {
  std::string_view key;
  int64_t least = 0;
  int64_t most = 0;
  std::string_view words[2] = {};
};

// By name.
constexpr Rule kRules[] = {{.key = "cleanup.policy", .words = {"delete"}},
                           {.key = "durability", .words = {"quorum"}},
                           {.key = "max.message.bytes", .least = 1024, .most = kTopicMessageBytesMax},
                           {.key = "message.timestamp.type", .words = {"CreateTime", "LogAppendTime"}},
                           {.key = "retention.bytes", .least = -1, .most = kNoBound},
                           {.key = "retention.ms", .least = -1, .most = kNoBound},
                           {.key = "segment.bytes", .least = int64_t{1} << 20, .most = int64_t{1} << 30},
                           {.key = "segment.ms", .least = 1000, .most = kNoBound}};

// What is asked for in good faith, and what holds instead.
struct Instead {
  std::string_view key;
  std::string_view value;  // empty: there is no such key
  std::string_view holds;
};
constexpr Instead kInstead[] = {
    {"min.insync.replicas", "",
     "no setting of a topic, as it cannot be less or more: an append is answered once a majority of the partition's "
     "replicas has it on disk"},
    {"durability", "replicated",
     "\"replicated\", a record that only memory has, is acknowledged by no node: use \"quorum\""},
};

const Rule* Find(std::string_view key) {
  const auto* const found =
      std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& r) { return r.key == key; });
  return found == std::end(kRules) ? nullptr : found;
}

std::string WhatHolds(std::string_view key, std::string_view value) {
  for (const Instead& each : kInstead) {
    if (each.key == key && each.value == value) return std::string(each.holds);
  }
  return {};
}

}  // namespace

std::vector<std::string_view> TopicSettingNames() {
  std::vector<std::string_view> names;
  for (const Rule& rule : kRules) names.push_back(rule.key);
  return names;
}

std::string UnknownTopicSetting(std::string_view key) {
  if (Find(key) != nullptr) return {};
  if (std::string holds = WhatHolds(key, ""); !holds.empty()) return holds;
  std::string known;
  for (const Rule& rule : kRules) known += Cat(known.empty() ? "" : ", ", rule.key);
  return Cat("no setting of a topic; known are ", known);
}

std::string WrongTopicSetting(std::string_view key, std::string_view value) {
  const Rule* const rule = Find(key);
  if (rule == nullptr) return UnknownTopicSetting(key);
  if (std::string holds = WhatHolds(key, value); !holds.empty()) return holds;
  const auto& [one, other] = rule->words;
  if (!one.empty()) {
    if (value == one || (value == other && !other.empty())) return {};
    return Cat("expected ", one, other.empty() ? "" : " or ", other, ", found \"", value, "\"");
  }
  int64_t number = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == value.data() + value.size();
  if (whole && number >= rule->least && number <= rule->most) return {};
  return Cat("expected a whole number ",
             rule->most == kNoBound ? Cat("of at least ", rule->least) : Cat("from ", rule->least, " to ", rule->most),
             ", found \"", value, "\"");
}

}  // namespace sluice
