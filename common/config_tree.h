// What config.h reads from: YAML as a tree of our own that remembers where each value stood and which keys were asked
// for. Only config.cc and config_tree.cc include it; yaml-cpp stays in the latter.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::internal {

struct ConfigValue {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry {
    std::string key;
    int line;
    int column;
    std::unique_ptr<ConfigValue> value;
  };

  std::string_view KindName() const;

  Kind kind = Kind::kNull;
  int line = 0;  // from 1; 0 when it is in no file
  int column = 0;
  bool overridden = false;  // came from --set
  std::string text;         // of a scalar
  std::vector<std::unique_ptr<ConfigValue>> items;
  std::vector<Entry> entries;  // in the file's order, keys unique

  std::set<std::string, std::less<>> known;  // keys that were asked for
  bool any_key = false;                      // keys are the user's own
  bool complained = false;                   // was told to be of the wrong kind
};

struct ConfigError {
  int line;
  int column;
  std::string text;
};

struct ConfigState {
  std::string Where(int line, int column, bool overridden) const;

  std::string file;
  std::unique_ptr<ConfigValue> root;
  std::vector<ConfigError> errors;
  std::set<std::string, std::less<>> asked;  // full names, also of what is in no section that is there
};

/// One document. Bounded in bytes, depth and number of values, so that aliases cannot multiply into all of memory.
absl::StatusOr<std::unique_ptr<ConfigValue>> ParseYaml(std::string_view name, std::string_view text);

/// This value and everything in it.
void MarkOverridden(ConfigValue* value);

}  // namespace sluice::internal
