// Configuration from YAML, checked to the last key. A reader asks for the keys it knows, with their types, ranges and
// defaults; whatever is in the file and was never asked for is an error, and all errors are reported together, each
// with file, line, column and the key's full name:
//
//   SLUICE_ASSIGN_OR_RETURN(ConfigFile file, ConfigFile::Parse("node.yaml", text));
//   ConfigNode storage = file.root().Child("storage");
//   options.segment_bytes = storage.Size("segment_bytes", 1 << 30, {1 << 20, int64_t{1} << 40});
//   options.sync_wait = storage.Duration("sync_wait", absl::Milliseconds(1));
//   SLUICE_RETURN_IF_ERROR(file.Finish());   // only now are the values to be trusted
//
// A getter answers its default when the key is absent or null, and also when its value is wrong: the error is noted and
// comes out of Finish. Asking for keys of an absent section is fine and gives defaults.
// Threads: a file and its nodes belong to one thread. Nodes stay valid while any node or the file lives.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice {

namespace internal {
struct ConfigState;
struct ConfigValue;
}  // namespace internal

/// Both ends are allowed.
template <class T>
struct ConfigRange {
  T min;
  T max;
};

/// A value in the file, or one that is not there. Cheap to copy.
class ConfigNode {
 public:
  bool present() const { return value_ != nullptr; }
  bool IsMap() const;
  bool IsList() const;
  bool IsScalar() const;
  /// Full name, such as "sinks[0].raw.to"; empty at the root.
  const std::string& path() const { return path_; }
  /// "file:line:column", of the nearest section that is there when this is absent.
  std::string Location() const;

  // ---- keys of a mapping; noted as known whether present or not

  /// Present and not null.
  bool Has(std::string_view key) const;
  /// Notes an error when the key is absent or null.
  void Require(std::string_view key) const;
  /// The value as it is, for a mapping or a list; absent when it is not there.
  ConfigNode Child(std::string_view key) const;

  std::string String(std::string_view key, std::string_view fallback) const;
  std::optional<std::string> OptionalString(std::string_view key) const;
  bool Bool(std::string_view key, bool fallback) const;
  int64_t Int(std::string_view key, int64_t fallback,
              ConfigRange<int64_t> range = {std::numeric_limits<int64_t>::min(),
                                            std::numeric_limits<int64_t>::max()}) const;
  double Number(std::string_view key, double fallback,
                ConfigRange<double> range = {std::numeric_limits<double>::lowest(),
                                             std::numeric_limits<double>::max()}) const;
  /// With a unit ("500ms"); where the key ends in "_ms", a whole number of milliseconds will do.
  absl::Duration Duration(std::string_view key, absl::Duration fallback,
                          ConfigRange<absl::Duration> range = {absl::ZeroDuration(), absl::InfiniteDuration()}) const;
  /// Bytes, with a unit ("64MiB") or without.
  int64_t Size(std::string_view key, int64_t fallback,
               ConfigRange<int64_t> range = {0, std::numeric_limits<int64_t>::max()}) const;
  /// One of a few words.
  template <class E>
  E Enum(std::string_view key, E fallback, std::initializer_list<std::pair<std::string_view, E>> words) const {
    std::vector<std::string_view> names;
    for (const auto& word : words) names.push_back(word.first);
    const std::optional<size_t> chosen = Choice(key, names);
    return chosen.has_value() ? (words.begin() + *chosen)->second : fallback;
  }
  /// A list of strings; a single string is a list of one. Empty when absent.
  std::vector<std::string> Strings(std::string_view key) const;
  /// Elements of a list; empty when absent.
  std::vector<ConfigNode> List(std::string_view key) const;
  /// A mapping from names of the user's own choosing to strings, in the file's order; empty when absent.
  std::vector<std::pair<std::string, std::string>> StringMap(std::string_view key) const;
  /// Which one of `keys` this mapping has, and its value. An error, and nothing, when there is none or more than one.
  std::optional<std::pair<std::string, ConfigNode>> OneOf(std::initializer_list<std::string_view> keys) const;

  // ---- of the value itself

  /// Elements of this list, or all entries of this mapping whose keys are the user's own. Empty when absent.
  std::vector<ConfigNode> Items() const;
  std::vector<std::pair<std::string, ConfigNode>> Entries() const;
  /// This scalar's text; an error and "" when it is none.
  std::string Text() const;

  /// Notes an error at this value, or at the value of `key`, for what only the caller can judge.
  void AddError(std::string_view message) const;
  void AddError(std::string_view key, std::string_view message) const;

 private:
  friend class ConfigFile;
  ConfigNode(std::shared_ptr<internal::ConfigState> state, internal::ConfigValue* value, internal::ConfigValue* nearest,
             std::string path)
      : state_(std::move(state)), value_(value), nearest_(nearest), path_(std::move(path)) {}
  // The text of `key`'s scalar; nullopt (with an error noted where it is no scalar) when there is none.
  std::optional<std::string_view> Scalar(std::string_view key) const;
  std::optional<size_t> Choice(std::string_view key, std::span<const std::string_view> names) const;
  std::string Below(std::string_view key) const;
  bool CheckMap() const;

  std::shared_ptr<internal::ConfigState> state_;
  internal::ConfigValue* value_;
  internal::ConfigValue* nearest_;  // where to point when value_ is absent; never null
  std::string path_;
};

class ConfigFile {
 public:
  /// `name` is for messages. INVALID_ARGUMENT with line and column for what is no YAML, duplicate keys, keys that are
  /// no words, more than one document, or a root that is no mapping; an empty file is an empty mapping.
  static absl::StatusOr<ConfigFile> Parse(std::string_view name, std::string_view text);

  /// Sets one value over the file's, as `--set a.b=value` does; the value is YAML. Call before reading.
  absl::Status Override(std::string_view assignment);

  ConfigNode root() const;

  /// OK, or INVALID_ARGUMENT with one line for each error in the file's order. Unknown keys are found out here, so call
  /// it after everything was read. May be called again after more reading.
  absl::Status Finish() const;

 private:
  explicit ConfigFile(std::shared_ptr<internal::ConfigState> state) : state_(std::move(state)) {}
  std::shared_ptr<internal::ConfigState> state_;
};

}  // namespace sluice
