// JSON text, written piece by piece into a string: exact escaping, integers with every digit, no spaces. Bytes that are
// not UTF-8 become {"base64": "..."}, so that nothing is ever lost or changed by printing it.
//
// The caller pairs Begin with End and gives a Key before each value inside an object; a CHECK stops what does not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::tools {

/// Strict: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view bytes);
/// RFC 4648, with padding.
std::string Base64(std::string_view bytes);
std::string HexText(std::string_view bytes);

class JsonWriter {
 public:
  JsonWriter& BeginObject() { return Open('{', '}'); }
  JsonWriter& EndObject() { return Close('}'); }
  JsonWriter& BeginArray() { return Open('[', ']'); }
  JsonWriter& EndArray() { return Close(']'); }
  JsonWriter& Key(std::string_view key);
  JsonWriter& Int(int64_t value);
  JsonWriter& Bool(bool value);
  JsonWriter& Null();
  /// A string, or an object with base64 when the bytes are not UTF-8.
  JsonWriter& Bytes(std::string_view bytes);
  JsonWriter& BytesOrNull(const std::optional<std::string_view>& bytes) {
    return bytes.has_value() ? Bytes(*bytes) : Null();
  }

  /// The text so far; complete once every Begin has its End.
  const std::string& text() const { return text_; }
  std::string Take();

 private:
  JsonWriter& Open(char open, char close);
  JsonWriter& Close(char close);
  void BeforeValue();
  void Quote(std::string_view text);

  std::string text_;
  std::vector<char> open_;  // what closes each open object or array
  bool first_ = true;       // nothing stands in the innermost one yet
  bool after_key_ = false;
};

}  // namespace sluice::tools
