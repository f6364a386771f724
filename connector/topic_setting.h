// The settings of topics that pipelines may name (docs/configuration.md), checked before a broker is asked: it would
// refuse them only when the pipeline runs.
//
// Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace sluice::connector {

/// What is wrong with the setting, in words; empty where nothing is.
std::string WrongTopicSetting(std::string_view key, std::string_view value);

}  // namespace sluice::connector
