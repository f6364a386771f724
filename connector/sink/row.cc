#include "connector/sink/row.h"

#include <simdjson.h>

#include <charconv>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "common/text.h"
#include "connector/source/json_text.h"

namespace sluice::connector {

namespace {

namespace ondemand = simdjson::ondemand;

absl::Status NotJson(simdjson::error_code error) {
  return absl::InvalidArgumentError(Cat("not valid JSON: ", simdjson::error_message(error)));
}

// One value, checked whole and without white space, behind which simdjson may read: on-demand parsing gives raw tokens,
// so that numbers keep every digit, and checks only what it is asked for, so JsonDocument checks first.
class Parser {
 public:
  absl::Status Load(std::string_view value) {
    auto document = JsonDocument::Parse(value);
    if (!document.ok()) return document.status();
    const std::string& text = document->text();
    if (buffer_.size() < text.size() + simdjson::SIMDJSON_PADDING) {
      buffer_.resize(2 * text.size() + simdjson::SIMDJSON_PADDING);
    }
    std::memcpy(buffer_.data(), text.data(), text.size());
    std::memset(buffer_.data() + text.size(), 0, simdjson::SIMDJSON_PADDING);
    size_ = text.size();
    return absl::OkStatus();
  }
  // The document loaded last as an object; views of it hold until the next load.
  absl::Status Object(ondemand::document* document, ondemand::object* object) {
    if (buffer_.empty() || buffer_[0] != '{') return absl::InvalidArgumentError("the record is not a JSON object");
    if (auto error = parser_.iterate(buffer_.data(), size_, buffer_.size()).get(*document)) return NotJson(error);
    if (auto error = document->get_object().get(*object)) return NotJson(error);
    return absl::OkStatus();
  }

 private:
  std::vector<char> buffer_;
  size_t size_ = 0;
  ondemand::parser parser_;
};

// The key as it is written, with its quotes and escapes.
std::string_view QuotedKey(ondemand::field& field) {
  const char* const begin = field.key().raw() - 1;
  const char* end = begin + 1;
  for (; *end != '"'; ++end) {
    if (*end == '\\') ++end;
  }
  return {begin, static_cast<size_t>(end + 1 - begin)};
}

// The raw text of any value. Consumes it.
template <class Value>
simdjson::error_code RawText(Value& value, std::string_view* text) {
  ondemand::json_type type;
  if (auto error = value.type().get(type)) return error;
  if (type == ondemand::json_type::object) {
    ondemand::object object;
    if (auto error = value.get_object().get(object)) return error;
    return object.raw_json().get(*text);
  }
  if (type == ondemand::json_type::array) {
    ondemand::array array;
    if (auto error = value.get_array().get(array)) return error;
    return array.raw_json().get(*text);
  }
  *text = value.raw_json_token();
  return simdjson::SUCCESS;
}

bool Integer(std::string_view token, int64_t* out) {
  const auto result = std::from_chars(token.data(), token.data() + token.size(), *out);
  return result.ec == std::errc() && result.ptr == token.data() + token.size();
}

bool Double(std::string_view token, double* out) {
  const auto result = std::from_chars(token.data(), token.data() + token.size(), *out);
  return result.ec == std::errc() && result.ptr == token.data() + token.size();
}

bool ParseDays(std::string_view text, int64_t* days) {
  absl::CivilDay day;
  if (text.size() != 10 || !absl::ParseCivilTime(std::string(text), &day)) return false;
  *days = day - absl::CivilDay(1970, 1, 1);
  return true;
}

std::string Shown(std::string_view token) {
  return token.size() <= 60 ? std::string(token) : Cat(token.substr(0, 60), "…");
}

void AppendMember(std::string_view quoted_key, std::string_view text, std::string* object) {
  object->push_back(object->empty() ? '{' : ',');
  object->append(quoted_key).append(":").append(text);
}

}  // namespace

bool ParseRfc3339Ms(std::string_view text, int64_t* ms) {
  // Cheap refusal of what is plainly no time: most strings.
  if (text.size() < 19 || text.size() > 40 || text[4] != '-' || text[7] != '-' || text[13] != ':') return false;
  absl::Time time;
  std::string normal(text);
  if (normal[10] == ' ') normal[10] = 'T';
  if (!absl::ParseTime(absl::RFC3339_full, normal, &time, nullptr)) return false;
  *ms = absl::ToUnixMillis(time);
  return true;
}

// ---- RowReader ----------------------------------------------------------------------------------------------------

struct RowReader::Impl {
  // The columns' pointers as a tree: what is not in it is "extra".
  struct Node {
    std::map<std::string, Node, std::less<>> children;
    int column = -1;
  };

  Schema schema;
  Node root;
  Parser parser;
  std::vector<Cell> cells;
  std::string extra;

  absl::Status Wrong(int column, std::string_view found) const {
    const ColumnConfig& c = schema[static_cast<size_t>(column)];
    return absl::InvalidArgumentError(
        Cat("column '", c.name, "' (", c.from, "): ", Shown(found), " is no ", ColumnTypeName(c.type)));
  }

  absl::Status Number(std::string_view token, int column, Cell* cell) const {
    const ColumnType type = schema[static_cast<size_t>(column)].type;
    if (type == ColumnType::kDouble) {
      if (!Double(token, &cell->number)) return Wrong(column, token);
      cell->kind = Cell::Kind::kDouble;
      return absl::OkStatus();
    }
    if (!Integer(token, &cell->integer)) return Wrong(column, token);
    if (type == ColumnType::kInt32 &&
        (cell->integer < std::numeric_limits<int32_t>::min() || cell->integer > std::numeric_limits<int32_t>::max())) {
      return Wrong(column, token);
    }
    cell->kind = Cell::Kind::kInteger;
    return absl::OkStatus();
  }

  absl::Status String(ondemand::value& value, int column, Cell* cell) const {
    const std::string_view token = value.raw_json_token();
    std::string_view text;
    if (auto error = value.get_string().get(text)) return NotJson(error);
    const ColumnType type = schema[static_cast<size_t>(column)].type;
    bool fits = false;
    if (type == ColumnType::kString) {
      cell->text = text;
      cell->kind = Cell::Kind::kText;
      return absl::OkStatus();
    }
    if (type == ColumnType::kTimestamp) fits = ParseRfc3339Ms(text, &cell->integer);
    if (type == ColumnType::kDate) fits = ParseDays(text, &cell->integer);
    if (!fits) return Wrong(column, token);
    cell->kind = Cell::Kind::kInteger;
    return absl::OkStatus();
  }

  absl::Status Fill(ondemand::value& value, int column) {
    Cell* cell = &cells[static_cast<size_t>(column)];
    *cell = Cell();
    ondemand::json_type type;
    if (auto error = value.type().get(type)) return NotJson(error);
    if (type == ondemand::json_type::null) return absl::OkStatus();
    const ColumnType wanted = schema[static_cast<size_t>(column)].type;
    if (wanted == ColumnType::kJson) {
      if (auto error = RawText(value, &cell->text)) return NotJson(error);
      cell->kind = Cell::Kind::kText;
      return absl::OkStatus();
    }
    switch (type) {
      case ondemand::json_type::number:
        if (wanted == ColumnType::kInt32 || wanted == ColumnType::kInt64 || wanted == ColumnType::kDouble ||
            wanted == ColumnType::kTimestampMs) {
          return Number(value.raw_json_token(), column, cell);
        }
        break;
      case ondemand::json_type::boolean:
        if (wanted == ColumnType::kBool) {
          cell->integer = value.raw_json_token() == "true" ? 1 : 0;
          cell->kind = Cell::Kind::kInteger;
          return absl::OkStatus();
        }
        break;
      case ondemand::json_type::string:
        if (wanted == ColumnType::kString || wanted == ColumnType::kTimestamp || wanted == ColumnType::kDate) {
          return String(value, column, cell);
        }
        break;
      default:
        break;
    }
    std::string_view text;
    if (auto error = RawText(value, &text)) return NotJson(error);
    return Wrong(column, text);
  }

  // The value of a column; a JSON column may have others that point inside it, and then keeps the whole text as well.
  absl::Status Take(ondemand::value& value, const Node& node) {
    ondemand::json_type type;
    if (auto error = value.type().get(type)) return NotJson(error);
    const bool walks =
        !node.children.empty() && (type == ondemand::json_type::object || type == ondemand::json_type::array);
    if (!walks) return Fill(value, node.column);
    Cell* cell = &cells[static_cast<size_t>(node.column)];
    cell->kind = Cell::Kind::kText;
    if (type == ondemand::json_type::object) {
      ondemand::object object;
      if (auto error = value.get_object().get(object)) return NotJson(error);
      if (auto error = object.raw_json().get(cell->text)) return NotJson(error);
      object.reset();
      std::string covered;
      return Walk(object, node, &covered);
    }
    ondemand::array array;
    if (auto error = value.get_array().get(array)) return NotJson(error);
    if (auto error = array.raw_json().get(cell->text)) return NotJson(error);
    array.reset();
    bool all_taken = true;
    return WalkArray(array, node, &all_taken);
  }

  // One member of an object: into a column, deeper, or to `rest`.
  absl::Status Member(ondemand::field& field, const Node& node, std::string* rest) {
    const std::string_view quoted = QuotedKey(field);
    std::string_view key;
    if (auto error = field.unescaped_key().get(key)) return NotJson(error);
    ondemand::value value = field.value();
    const auto child = node.children.find(key);
    if (child == node.children.end()) {
      std::string_view text;
      if (auto error = RawText(value, &text)) return NotJson(error);
      AppendMember(quoted, text, rest);
      return absl::OkStatus();
    }
    if (child->second.column >= 0) return Take(value, child->second);
    ondemand::json_type type;
    if (auto error = value.type().get(type)) return NotJson(error);
    if (type == ondemand::json_type::object) {
      ondemand::object object;
      if (auto error = value.get_object().get(object)) return NotJson(error);
      std::string inner;
      if (absl::Status status = Walk(object, child->second, &inner); !status.ok()) return status;
      if (!inner.empty()) AppendMember(quoted, inner, rest);
      return absl::OkStatus();
    }
    std::string_view text;
    if (type == ondemand::json_type::array) {
      ondemand::array array;
      if (auto error = value.get_array().get(array)) return NotJson(error);
      bool all_taken = true;
      if (absl::Status status = WalkArray(array, child->second, &all_taken); !status.ok()) return status;
      if (all_taken) return absl::OkStatus();
      array.reset();
      if (auto error = array.raw_json().get(text)) return NotJson(error);
    } else if (auto error = RawText(value, &text)) {
      return NotJson(error);
    }
    AppendMember(quoted, text, rest);
    return absl::OkStatus();
  }

  absl::Status Walk(ondemand::object& object, const Node& node, std::string* rest) {
    for (auto result : object) {
      ondemand::field field;
      if (auto error = std::move(result).get(field)) return NotJson(error);
      if (absl::Status status = Member(field, node, rest); !status.ok()) return status;
    }
    if (!rest->empty()) rest->push_back('}');
    return absl::OkStatus();
  }

  absl::Status WalkArray(ondemand::array& array, const Node& node, bool* all_taken) {
    size_t index = 0;
    for (auto result : array) {
      ondemand::value value;
      // NOLINTNEXTLINE(performance-move-const-arg): get() is for values that nobody else has.
      if (auto error = std::move(result).get(value)) return NotJson(error);
      const auto child = node.children.find(std::to_string(index++));
      if (child == node.children.end()) {
        *all_taken = false;
        continue;
      }
      if (child->second.column >= 0) {
        if (absl::Status status = Take(value, child->second); !status.ok()) return status;
        continue;
      }
      ondemand::json_type type;
      if (auto error = value.type().get(type)) return NotJson(error);
      std::string inner;
      if (type == ondemand::json_type::object) {
        ondemand::object object;
        if (auto error = value.get_object().get(object)) return NotJson(error);
        if (absl::Status status = Walk(object, child->second, &inner); !status.ok()) return status;
        if (!inner.empty()) *all_taken = false;
      } else if (type == ondemand::json_type::array) {
        ondemand::array nested;
        if (auto error = value.get_array().get(nested)) return NotJson(error);
        if (absl::Status status = WalkArray(nested, child->second, all_taken); !status.ok()) return status;
      } else {
        *all_taken = false;
      }
    }
    return absl::OkStatus();
  }
};

RowReader::RowReader(const Schema& schema) : impl_(std::make_unique<Impl>()) {
  impl_->schema = schema;
  impl_->cells.resize(schema.size());
  for (size_t i = 0; i < schema.size(); ++i) {
    Impl::Node* node = &impl_->root;
    const std::vector<std::string> tokens = *ParseJsonPointer(schema[i].from);
    for (const std::string& token : tokens) node = &node->children[token];
    node->column = static_cast<int>(i);
  }
}

RowReader::~RowReader() = default;

absl::Span<const Cell> RowReader::cells() const {
  return impl_->cells;
}
std::string_view RowReader::extra() const {
  return impl_->extra;
}

absl::Status RowReader::Read(std::string_view value) {
  std::fill(impl_->cells.begin(), impl_->cells.end(), Cell());
  impl_->extra.clear();
  if (absl::Status status = impl_->parser.Load(value); !status.ok()) return status;
  ondemand::document document;
  ondemand::object object;
  if (absl::Status status = impl_->parser.Object(&document, &object); !status.ok()) return status;
  return impl_->Walk(object, impl_->root, &impl_->extra);
}

// ---- SchemaInference ----------------------------------------------------------------------------------------------

struct SchemaInference::Impl {
  struct Field {
    std::string name;
    std::optional<ColumnType> type;  // none: only nulls so far
  };
  Parser parser;
  std::vector<Field> fields;
  std::map<std::string, size_t, std::less<>> index;

  // None for null.
  static std::optional<ColumnType> TypeOf(ondemand::value& value) {
    ondemand::json_type type;
    std::string_view text;
    int64_t number = 0;
    if (value.type().get(type)) return std::nullopt;
    switch (type) {
      case ondemand::json_type::null:
        return std::nullopt;
      case ondemand::json_type::boolean:
        return ColumnType::kBool;
      case ondemand::json_type::number:
        text = value.raw_json_token();
        if (Integer(text, &number)) return ColumnType::kInt64;
        // A whole number beyond int64 keeps every digit as text.
        return text.find_first_of(".eE") == std::string_view::npos ? ColumnType::kJson : ColumnType::kDouble;
      case ondemand::json_type::string:
        if (value.get_string().get(text)) return ColumnType::kString;
        return ParseRfc3339Ms(text, &number) ? ColumnType::kTimestamp : ColumnType::kString;
      default:
        return ColumnType::kJson;
    }
  }

  static ColumnType Join(ColumnType a, ColumnType b) {
    if (a == b) return a;
    const auto is_number = [](ColumnType t) { return t == ColumnType::kInt64 || t == ColumnType::kDouble; };
    const auto is_text = [](ColumnType t) { return t == ColumnType::kString || t == ColumnType::kTimestamp; };
    if (is_number(a) && is_number(b)) return ColumnType::kDouble;
    if (is_text(a) && is_text(b)) return ColumnType::kString;
    return ColumnType::kJson;
  }
};

SchemaInference::SchemaInference() : impl_(std::make_unique<Impl>()) {}
SchemaInference::~SchemaInference() = default;

void SchemaInference::Add(std::string_view value) {
  ondemand::document document;
  ondemand::object object;
  if (!impl_->parser.Load(value).ok() || !impl_->parser.Object(&document, &object).ok()) return;
  for (auto result : object) {
    ondemand::field field;
    std::string_view key;
    if (std::move(result).get(field) || field.unescaped_key().get(key)) return;
    auto at = impl_->index.find(key);
    if (at == impl_->index.end()) {
      at = impl_->index.emplace(std::string(key), impl_->fields.size()).first;
      impl_->fields.push_back({std::string(key), std::nullopt});
    }
    const std::optional<ColumnType> seen = Impl::TypeOf(field.value());
    std::optional<ColumnType>& type = impl_->fields[at->second].type;
    if (seen.has_value()) type = type.has_value() ? Impl::Join(*type, *seen) : *seen;
  }
}

Schema SchemaInference::Finish() const {
  Schema schema;
  for (const Impl::Field& field : impl_->fields) {
    if (!field.type.has_value()) continue;
    std::string pointer = "/";
    for (char c : field.name) {
      if (c == '~')
        pointer += "~0";
      else if (c == '/')
        pointer += "~1";
      else
        pointer.push_back(c);
    }
    // A field that has the name of one of the sink's own columns stays in `_extra`.
    if (CheckSchema({{field.name, pointer, *field.type}}).ok()) schema.push_back({field.name, pointer, *field.type});
  }
  return schema;
}

// ---- EventTimeReader, JsonMinifier
// -----------------------------------------------------------------------------------

absl::StatusOr<int64_t> EventTimeReader::Read(std::string_view value) const {
  // Beyond the years 0 to 9999 a folder name would no longer sort, and time arithmetic could overflow.
  constexpr int64_t kMsMin = -62'167'219'200'000;
  constexpr int64_t kMsMax = 253'402'300'799'999;
  auto document = JsonDocument::Parse(value);
  if (!document.ok()) return document.status();
  const std::optional<JsonValue> at = At(document->root(), pointer_);
  if (!at.has_value()) return absl::InvalidArgumentError(Cat("no event time at ", pointer_));
  int64_t ms = 0;
  double number = 0;
  bool fits = false;
  if (at->kind == JsonValue::Kind::kString) {
    fits = ParseRfc3339Ms(at->Text(), &ms);
  } else if (at->kind == JsonValue::Kind::kNumber && Double(at->raw, &number)) {
    if (number > -1e11 && number < 1e11) number *= 1000;
    fits = number >= static_cast<double>(kMsMin) && number <= static_cast<double>(kMsMax);
    ms = fits ? static_cast<int64_t>(number) : 0;
  }
  if (!fits || ms < kMsMin || ms > kMsMax) {
    return absl::InvalidArgumentError(
        Cat("event time at ", pointer_, ": ", Shown(at->raw), " is neither an RFC 3339 time nor ms or s since 1970"));
  }
  return ms;
}

}  // namespace sluice::connector
