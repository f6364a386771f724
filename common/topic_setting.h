// What the settings of a topic may be: names and values, as docs/configuration.md has them. The broker gives them their
// meaning; the connector checks those of its pipeline files, which a broker would refuse only when they run.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

/// The most that max.message.bytes may be: what a message between nodes may carry, so that every batch that is taken
/// can be replicated.
inline constexpr int64_t kTopicMessageBytesMax = int64_t{32} << 20;

/// All names, in order.
std::vector<std::string_view> TopicSettingNames();

/// Why there is no such setting, in words; empty where there is.
std::string UnknownTopicSetting(std::string_view key);
/// What is wrong with the setting, its name or its value, in words that do not repeat the name; empty where nothing is.
std::string WrongTopicSetting(std::string_view key, std::string_view value);

}  // namespace sluice
