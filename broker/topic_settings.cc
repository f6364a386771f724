#include "broker/topic_settings.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr int64_t kNoBound = std::numeric_limits<int64_t>::max();

absl::StatusOr<int64_t> Integer(const std::string& key, const std::string& text, int64_t least, int64_t most) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < least || value > most) {
    const std::string range = most == kNoBound ? Cat("at least ", least) : Cat("from ", least, " to ", most);
    return absl::InvalidArgumentError(Cat(key, ": expected a whole number ", range, ", got \"", text, "\""));
  }
  return value;
}

using Setter = absl::Status (*)(const std::string& key, const std::string& text, TopicSettings* settings);

absl::Status OneOf(const std::string& key, const std::string& text, std::string_view expected) {
  return absl::InvalidArgumentError(Cat(key, ": expected ", expected, ", got \"", text, "\""));
}

const std::map<std::string, Setter>& Setters() {
  static const auto* const setters = new std::map<std::string, Setter>{
      {"cleanup.policy",
       [](const std::string& key, const std::string& text, TopicSettings*) {
         return text == "delete" ? absl::OkStatus() : OneOf(key, text, "\"delete\"");
       }},
      {"durability", [](const std::string&, const std::string& text, TopicSettings*) { return CheckDurability(text); }},
      {"max.message.bytes",
       [](const std::string& key, const std::string& text, TopicSettings* settings) {
         // The upper bound is what one gRPC message may carry beside a batch.
         SLUICE_ASSIGN_OR_RETURN(settings->message_bytes_max, Integer(key, text, 1024, int64_t{64} << 20));
         return absl::OkStatus();
       }},
      {"message.timestamp.type",
       [](const std::string& key, const std::string& text, TopicSettings* settings) {
         if (text == "CreateTime") {
           settings->timestamp_type = TimestampType::kCreateTime;
         } else if (text == "LogAppendTime") {
           settings->timestamp_type = TimestampType::kLogAppendTime;
         } else {
           return OneOf(key, text, "\"CreateTime\" or \"LogAppendTime\"");
         }
         return absl::OkStatus();
       }},
      {"retention.bytes",
       [](const std::string& key, const std::string& text, TopicSettings* settings) {
         SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, Integer(key, text, -1, kNoBound));
         settings->retention_bytes = bytes < 0 ? std::nullopt : std::optional<int64_t>(bytes);
         return absl::OkStatus();
       }},
      {"retention.ms",
       [](const std::string& key, const std::string& text, TopicSettings* settings) {
         SLUICE_ASSIGN_OR_RETURN(const int64_t ms, Integer(key, text, -1, kNoBound));
         settings->retention_age = ms < 0 ? std::nullopt : std::optional<absl::Duration>(absl::Milliseconds(ms));
         return absl::OkStatus();
       }},
      {"segment.bytes",
       [](const std::string& key, const std::string& text, TopicSettings* settings) {
         SLUICE_ASSIGN_OR_RETURN(settings->segment_bytes, Integer(key, text, int64_t{1} << 20, int64_t{1} << 30));
         return absl::OkStatus();
       }},
      {"segment.ms",
       [](const std::string& key, const std::string& text, TopicSettings* settings) {
         SLUICE_ASSIGN_OR_RETURN(const int64_t ms, Integer(key, text, 1000, kNoBound));
         settings->segment_age = absl::Milliseconds(ms);
         return absl::OkStatus();
       }},
  };
  return *setters;
}

}  // namespace

absl::Status CheckDurability(std::string_view value) {
  if (value == "quorum") return absl::OkStatus();
  if (value == "replicated") {
    return absl::InvalidArgumentError(
        "durability: \"replicated\", a record that only memory has, is acknowledged by no node: use \"quorum\"");
  }
  return absl::InvalidArgumentError(Cat("durability: expected \"quorum\", got \"", value, "\""));
}

absl::StatusOr<TopicSettings> ParseTopicSettings(const TopicConfig& config, const TopicSettings& defaults) {
  TopicSettings settings = defaults;
  for (const auto& [key, text] : config) {
    const auto setter = Setters().find(key);
    if (setter == Setters().end()) {
      std::string known;
      for (const auto& [name, unused] : Setters()) known += Cat(known.empty() ? "" : ", ", name);
      return absl::InvalidArgumentError(Cat("unknown topic setting \"", key, "\"; known are ", known));
    }
    SLUICE_RETURN_IF_ERROR(setter->second(key, text, &settings));
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
