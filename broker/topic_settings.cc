#include "broker/topic_settings.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "common/text.h"
#include "common/topic_setting.h"

namespace sluice::broker {
namespace {

using Setter = void (*)(const std::string& text, int64_t number, TopicSettings* settings);

const std::map<std::string, Setter>& Setters() {
  static const auto* const setters = new std::map<std::string, Setter>{
      // There is only one of either.
      {"cleanup.policy", [](const std::string&, int64_t, TopicSettings*) {}},
      {"durability", [](const std::string&, int64_t, TopicSettings*) {}},
      {"max.message.bytes",
       [](const std::string&, int64_t number, TopicSettings* settings) { settings->message_bytes_max = number; }},
      {"message.timestamp.type",
       [](const std::string& text, int64_t, TopicSettings* settings) {
         settings->timestamp_type =
             text == "LogAppendTime" ? TimestampType::kLogAppendTime : TimestampType::kCreateTime;
       }},
      {"retention.bytes",
       [](const std::string&, int64_t number, TopicSettings* settings) {
         settings->retention_bytes = number < 0 ? std::nullopt : std::optional<int64_t>(number);
       }},
      {"retention.ms",
       [](const std::string&, int64_t number, TopicSettings* settings) {
         settings->retention_age =
             number < 0 ? std::nullopt : std::optional<absl::Duration>(absl::Milliseconds(number));
       }},
      {"segment.bytes",
       [](const std::string&, int64_t number, TopicSettings* settings) { settings->segment_bytes = number; }},
      {"segment.ms", [](const std::string&, int64_t number,
                        TopicSettings* settings) { settings->segment_age = absl::Milliseconds(number); }},
  };
  return *setters;
}

absl::Status Wrong(std::string_view key, std::string_view why) {
  return absl::InvalidArgumentError(Cat(key, ": ", why));
}

}  // namespace

absl::Status CheckDurability(std::string_view value) {
  const std::string wrong = WrongTopicSetting("durability", value);
  return wrong.empty() ? absl::OkStatus() : Wrong("durability", wrong);
}

absl::StatusOr<TopicSettings> ParseTopicSettings(const TopicConfig& config, const TopicSettings& defaults) {
  TopicSettings settings = defaults;
  for (const auto& [key, text] : config) {
    const auto setter = Setters().find(key);
    if (setter == Setters().end()) return Wrong(key, UnknownTopicSetting(key));
    // The bounds of a number were checked when it was set; those of an earlier version were others.
    int64_t number = 0;
    if (!absl::SimpleAtoi(text, &number)) {
      if (const std::string wrong = WrongTopicSetting(key, text); !wrong.empty()) return Wrong(key, wrong);
    }
    setter->second(text, number, &settings);
  }
  if (settings.message_bytes_max > settings.segment_bytes) {
    return absl::InvalidArgumentError(Cat("max.message.bytes: ", settings.message_bytes_max,
                                          " is more than segment.bytes, ", settings.segment_bytes));
  }
  return settings;
}

bool IsInternalTopic(std::string_view name) {
  return name.starts_with("__");
}

bool IsProgramTopic(std::string_view name) {
  return name == "__connect_state" || name == "__connect_runs";
}

absl::Status CheckTopicName(std::string_view name, bool internal) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  if (name.empty() || name.size() > 249 || !std::all_of(name.begin(), name.end(), allowed) || name == "." ||
      name == "..") {
    // Not quoted back in full: it may be megabytes long.
    return absl::InvalidArgumentError(Cat("topic name \"", name.substr(0, 64), name.size() > 64 ? "..." : "",
                                          "\": expected 1 to 249 of A-Z a-z 0-9 . _ - and not \".\" or \"..\""));
  }
  if (IsInternalTopic(name) != internal) {
    return absl::InvalidArgumentError(Cat("topic name \"", name, "\": names that begin with \"__\" are ",
                                          internal ? "what internal topics need" : "kept for the broker's own topics"));
  }
  return absl::OkStatus();
}

}  // namespace sluice::broker
