#include "common/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <tuple>

#include "common/config_tree.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "common/units.h"

namespace sluice {

using internal::ConfigState;
using internal::ConfigValue;
using Kind = internal::ConfigValue::Kind;

namespace {

constexpr size_t kSlipsMax = 2;  // in a word that is taken for another

std::string Joined(std::span<const std::string_view> words) {
  std::string out;
  for (const std::string_view word : words) out += Cat(out.empty() ? "" : ", ", word);
  return out;
}

// Edits (insert, drop, replace) from one word to the other.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j < row.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string PathOf(std::string_view parent, std::string_view key) {
  return parent.empty() ? std::string(key) : Cat(parent, ".", key);
}

// What `key`, which stands below `path` and has `rest` below it, was perhaps meant to be.
std::string Suggestion(const ConfigState& state, std::string_view path, std::string_view key, std::string_view rest,
                       const std::set<std::string, std::less<>>& known) {
  std::string_view best;
  // Two slips; of a short word no more than half of it, as the rest is what tells which word it was.
  size_t best_distance = 1 + std::min(kSlipsMax, key.size() / 2);
  for (const std::string& candidate : known) {
    const size_t distance = Distance(key, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  if (!best.empty()) {
    const std::string section = PathOf(path, best);
    const std::string whole = Cat(section, rest);
    return Cat("; did you mean \"", state.asked.contains(whole) ? whole : section, "\"?");
  }
  if (known.empty()) return "";
  std::vector<std::string_view> words(known.begin(), known.end());
  return Cat("; known here: ", Joined(words));
}

// The unknown key `entry` of the section `parent`, called `path`. What --set gave is named as it was given there: with
// `rest`, all keys below.
void AddUnknown(const ConfigState& state, const ConfigValue& parent, const std::string& path,
                const ConfigValue::Entry& entry, const ConfigValue& value, const std::string& rest,
                std::vector<internal::ConfigError>* errors) {
  if (value.overridden && !value.entries.empty()) {
    for (const ConfigValue::Entry& below : value.entries) {
      AddUnknown(state, parent, path, entry, *below.value, Cat(rest, ".", below.key), errors);
    }
    return;
  }
  errors->push_back({entry.line, entry.column,
                     Cat(state.Where(entry.line, entry.column, entry.value->overridden), ": ", PathOf(path, entry.key),
                         rest, ": unknown key", Suggestion(state, path, entry.key, rest, parent.known))});
}

void FindUnknown(const ConfigState& state, const ConfigValue& value, const std::string& path,
                 std::vector<internal::ConfigError>* errors) {
  for (size_t i = 0; i < value.items.size(); ++i) {
    FindUnknown(state, *value.items[i], Cat(path, "[", i, "]"), errors);
  }
  for (const ConfigValue::Entry& entry : value.entries) {
    if (value.any_key || value.known.contains(entry.key)) {
      FindUnknown(state, *entry.value, PathOf(path, entry.key), errors);
    } else {
      AddUnknown(state, value, path, entry, *entry.value, "", errors);
    }
  }
}

template <class T>
bool ParseWhole(std::string_view text, T* out) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *out);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

}  // namespace

bool ConfigNode::IsMap() const {
  return value_ != nullptr && value_->kind == Kind::kMap;
}
bool ConfigNode::IsList() const {
  return value_ != nullptr && value_->kind == Kind::kList;
}
bool ConfigNode::IsScalar() const {
  return value_ != nullptr && value_->kind == Kind::kScalar;
}

std::string ConfigNode::Location() const {
  return state_->Where(nearest_->line, nearest_->column, nearest_->overridden);
}

std::string ConfigNode::Below(std::string_view key) const {
  return PathOf(path_, key);
}

void ConfigNode::AddError(std::string_view message) const {
  const std::string name = path_.empty() ? "" : Cat(path_, ": ");
  state_->errors.push_back({nearest_->line, nearest_->column, Cat(Location(), ": ", name, message)});
}

void ConfigNode::AddError(std::string_view key, std::string_view message) const {
  Child(key).AddError(message);
}

// A section that is there must be a mapping; said once, however many keys are asked for.
bool ConfigNode::CheckMap() const {
  if (value_ == nullptr) return false;
  if (value_->kind == Kind::kMap) return true;
  if (!value_->complained) AddError(Cat("expected a mapping, found ", value_->KindName()));
  value_->complained = true;
  return false;
}

ConfigNode ConfigNode::Child(std::string_view key) const {
  state_->asked.insert(Below(key));
  if (CheckMap()) {
    value_->known.emplace(key);
    for (const ConfigValue::Entry& entry : value_->entries) {
      if (entry.key != key || entry.value->kind == Kind::kNull) continue;
      return ConfigNode(state_, entry.value.get(), entry.value.get(), Below(key));
    }
  }
  return ConfigNode(state_, nullptr, nearest_, Below(key));
}

bool ConfigNode::Has(std::string_view key) const {
  return Child(key).present();
}

void ConfigNode::Require(std::string_view key) const {
  if (!Has(key)) AddError(key, "is required");
}

std::optional<std::string_view> ConfigNode::Scalar(std::string_view key) const {
  const ConfigNode child = Child(key);
  if (!child.present()) return std::nullopt;
  if (child.IsScalar()) return child.value_->text;
  child.AddError(Cat("expected one value, found ", child.value_->KindName()));
  return std::nullopt;
}

std::optional<std::string> ConfigNode::OptionalString(std::string_view key) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return std::nullopt;
  return std::string(*text);
}

std::string ConfigNode::String(std::string_view key, std::string_view fallback) const {
  return std::string(Scalar(key).value_or(fallback));
}

bool ConfigNode::Bool(std::string_view key, bool fallback) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return fallback;
  if (*text == "true") return true;
  if (*text == "false") return false;
  AddError(key, Cat("expected true or false, found \"", *text, "\""));
  return fallback;
}

int64_t ConfigNode::Int(std::string_view key, int64_t fallback, ConfigRange<int64_t> range) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return fallback;
  int64_t value;
  if (!ParseWhole(*text, &value)) {
    AddError(key, Cat("expected a whole number, found \"", *text, "\""));
  } else if (value < range.min || value > range.max) {
    AddError(key, Cat(value, " is not between ", range.min, " and ", range.max));
  } else {
    return value;
  }
  return fallback;
}

double ConfigNode::Number(std::string_view key, double fallback, ConfigRange<double> range) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return fallback;
  double value;
  if (!ParseWhole(*text, &value) || !std::isfinite(value)) {
    AddError(key, Cat("expected a number, found \"", *text, "\""));
  } else if (value < range.min || value > range.max) {
    AddError(key, Cat(value, " is not between ", range.min, " and ", range.max));
  } else {
    return value;
  }
  return fallback;
}

absl::Duration ConfigNode::Duration(std::string_view key, absl::Duration fallback,
                                    ConfigRange<absl::Duration> range) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return fallback;
  int64_t bare;
  const bool milliseconds = key.ends_with("_ms") && ParseWhole(*text, &bare) && bare >= 0;
  const absl::StatusOr<absl::Duration> value = milliseconds ? absl::Milliseconds(bare) : ParseDuration(*text);
  if (!value.ok()) {
    AddError(key, Message(value.status()));
  } else if (*value < range.min || *value > range.max) {
    const bool open = range.max == absl::InfiniteDuration();
    AddError(key, Cat(*text, " is not ", open ? "at least " : "between ", DurationText(range.min), open ? "" : " and ",
                      open ? "" : DurationText(range.max)));
  } else {
    return *value;
  }
  return fallback;
}

int64_t ConfigNode::Size(std::string_view key, int64_t fallback, ConfigRange<int64_t> range) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return fallback;
  const absl::StatusOr<int64_t> value = ParseSize(*text);
  if (!value.ok()) {
    AddError(key, Message(value.status()));
  } else if (*value < range.min || *value > range.max) {
    AddError(key, Cat(*text, " is not between ", SizeText(range.min), " and ", SizeText(range.max)));
  } else {
    return *value;
  }
  return fallback;
}

std::optional<size_t> ConfigNode::Choice(std::string_view key, std::span<const std::string_view> names) const {
  const auto text = Scalar(key);
  if (!text.has_value()) return std::nullopt;
  const auto found = std::find(names.begin(), names.end(), *text);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  AddError(key, Cat("expected one of ", Joined(names), "; found \"", *text, "\""));
  return std::nullopt;
}

std::vector<std::string> ConfigNode::Strings(std::string_view key) const {
  const ConfigNode child = Child(key);
  if (child.IsScalar()) return {child.value_->text};
  std::vector<std::string> out;
  for (const ConfigNode& item : child.Items()) out.push_back(item.Text());
  return out;
}

std::vector<ConfigNode> ConfigNode::List(std::string_view key) const {
  return Child(key).Items();
}

std::vector<std::pair<std::string, std::string>> ConfigNode::StringMap(std::string_view key) const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [name, value] : Child(key).Entries()) out.emplace_back(name, value.Text());
  return out;
}

std::optional<std::pair<std::string, ConfigNode>> ConfigNode::OneOf(
    std::initializer_list<std::string_view> keys) const {
  if (value_ != nullptr && !CheckMap()) return std::nullopt;
  std::optional<std::pair<std::string, ConfigNode>> found;
  size_t count = 0;
  for (const std::string_view key : keys) {
    ConfigNode child = Child(key);
    if (!child.present()) continue;
    ++count;
    found.emplace(std::string(key), std::move(child));
  }
  if (count == 1) return found;
  const std::vector<std::string_view> names(keys);
  AddError(Cat("expected exactly one of ", Joined(names), "; found ", count));
  return std::nullopt;
}

std::vector<ConfigNode> ConfigNode::Items() const {
  std::vector<ConfigNode> out;
  if (value_ == nullptr) return out;
  if (value_->kind != Kind::kList) {
    AddError(Cat("expected a list, found ", value_->KindName()));
    return out;
  }
  for (size_t i = 0; i < value_->items.size(); ++i) {
    ConfigValue* const item = value_->items[i].get();
    out.push_back(ConfigNode(state_, item->kind == Kind::kNull ? nullptr : item, item, Cat(path_, "[", i, "]")));
  }
  return out;
}

std::vector<std::pair<std::string, ConfigNode>> ConfigNode::Entries() const {
  std::vector<std::pair<std::string, ConfigNode>> out;
  if (!CheckMap()) return out;
  value_->any_key = true;
  for (const ConfigValue::Entry& entry : value_->entries) {
    ConfigValue* const below = entry.value.get();
    out.emplace_back(entry.key,
                     ConfigNode(state_, below->kind == Kind::kNull ? nullptr : below, below, Below(entry.key)));
  }
  return out;
}

std::string ConfigNode::Text() const {
  if (IsScalar()) return value_->text;
  AddError(Cat("expected one value, found ", value_ == nullptr ? "nothing" : value_->KindName()));
  return "";
}

absl::StatusOr<ConfigFile> ConfigFile::Parse(std::string_view name, std::string_view text) {
  auto state = std::make_shared<ConfigState>();
  state->file = name;
  SLUICE_ASSIGN_OR_RETURN(state->root, internal::ParseYaml(name, text));
  if (state->root->kind == Kind::kNull) state->root->kind = Kind::kMap;
  if (state->root->kind != Kind::kMap) {
    return absl::InvalidArgumentError(Cat(state->Where(state->root->line, state->root->column, false),
                                          ": expected a mapping, found ", state->root->KindName()));
  }
  return ConfigFile(std::move(state));
}

absl::Status ConfigFile::Override(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(Cat("--set ", assignment, ": expected key=value"));
  }
  SLUICE_ASSIGN_OR_RETURN(auto value, internal::ParseYaml("--set", assignment.substr(equals + 1)));
  internal::MarkOverridden(value.get());
  ConfigValue* at = state_->root.get();
  std::string_view keys = assignment.substr(0, equals);
  while (true) {
    const size_t dot = keys.find('.');
    const std::string_view key = keys.substr(0, dot);
    if (key.empty()) return absl::InvalidArgumentError(Cat("--set ", assignment, ": an empty key"));
    if (at->kind == Kind::kNull) at->kind = Kind::kMap;
    if (at->kind != Kind::kMap) {
      return absl::InvalidArgumentError(Cat("--set ", assignment, ": ", key, " stands below what is no mapping"));
    }
    auto entry = std::find_if(at->entries.begin(), at->entries.end(), [&](const auto& e) { return e.key == key; });
    if (entry == at->entries.end()) {
      auto made = std::make_unique<ConfigValue>();
      made->overridden = true;
      entry = at->entries.insert(at->entries.end(), {std::string(key), 0, 0, std::move(made)});
    }
    if (dot == std::string_view::npos) {
      entry->value = std::move(value);
      return absl::OkStatus();
    }
    at = entry->value.get();
    keys.remove_prefix(dot + 1);
  }
}

ConfigNode ConfigFile::root() const {
  return ConfigNode(state_, state_->root.get(), state_->root.get(), "");
}

absl::Status ConfigFile::Finish() const {
  std::vector<internal::ConfigError> errors = state_->errors;
  FindUnknown(*state_, *state_->root, "", &errors);
  if (errors.empty()) return absl::OkStatus();
  const auto place = [](const internal::ConfigError& e) { return std::tie(e.line, e.column, e.text); };
  std::sort(errors.begin(), errors.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
  std::string text;
  for (size_t i = 0; i < errors.size(); ++i) {
    if (i > 0 && errors[i].text == errors[i - 1].text) continue;  // asked for twice
    text += Cat(text.empty() ? "" : "\n", errors[i].text);
  }
  return absl::InvalidArgumentError(text);
}

}  // namespace sluice
