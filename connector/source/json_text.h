// JSON as text: checked completely, taken apart by JSON pointer, never turned into numbers, so that each digit of each
// number survives and what is written is what the API said.
//
// A scanner of our own, because the libraries at hand either refuse a number that fits no machine type, or do not check
// what they skip; here a page is accepted only when all of it is sound. Strings are checked by simdjson's UTF-8
// validator. Pure functions; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::connector {

/// A value somewhere in a document; `raw` borrows from it.
struct JsonValue {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  /// As it stands in the document, quotes included.
  std::string_view raw;

  /// Of a string its characters, of anything else `raw`.
  std::string Text() const;
};

/// One sound JSON text without white space outside strings.
class JsonDocument {
 public:
  /// INVALID_ARGUMENT says what is wrong and at which byte: anything that RFC 8259 does not allow, wrong UTF-8, more
  /// than one value, a depth beyond 512.
  static absl::StatusOr<JsonDocument> Parse(std::string_view text);

  const std::string& text() const { return text_; }
  JsonValue root() const;

 private:
  explicit JsonDocument(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

/// The parts of a JSON pointer, unescaped; none for the empty pointer, which is the whole document. INVALID_ARGUMENT
/// for what is neither empty nor '/' and parts with '~' only in "~0" and "~1" (RFC 6901).
absl::StatusOr<std::vector<std::string>> ParseJsonPointer(std::string_view pointer);

// The rest takes values of a JsonDocument: sound and without white space.

/// What stands at `pointer` below `value`; none when there is nothing, or the pointer is none. Of keys that come twice
/// the last counts.
std::optional<JsonValue> At(const JsonValue& value, std::string_view pointer);
/// Elements of an array, in order; empty for any other kind.
std::vector<JsonValue> Elements(const JsonValue& array);

/// `text` as a JSON string, quotes included.
std::string JsonQuote(std::string_view text);

}  // namespace sluice::connector
