#include "connector/source/json_text.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>

#include "common/text.h"

namespace sluice::connector {
namespace {

constexpr int kDepthMax = 512;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
bool IsHex(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/// Checks one text and copies it without white space.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) { out_.reserve(text.size()); }

  absl::StatusOr<std::string> Run() && {
    if (!Value(0)) return Failed();
    Space();
    if (at_ < text_.size()) {
      Fail("something follows the value");
      return Failed();
    }
    return std::move(out_);
  }

 private:
  bool Fail(std::string_view why) {
    if (why_.empty()) why_ = why;
    return false;
  }
  absl::Status Failed() const {
    return absl::InvalidArgumentError(Cat("not valid JSON at byte ", at_, " of ", text_.size(), ": ",
                                          at_ >= text_.size() ? "it ends too early" : why_));
  }
  void Space() {
    while (at_ < text_.size() && IsSpace(text_[at_])) ++at_;
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Take(char c) {
    if (Peek() != c || at_ >= text_.size()) return false;
    out_.push_back(c);
    ++at_;
    return true;
  }

  bool Value(int depth) {
    if (depth > kDepthMax) return Fail("nested too deeply");
    Space();
    switch (Peek()) {
      case '{':
        return Object(depth);
      case '[':
        return Array(depth);
      case '"':
        return String();
      case 't':
        return Word("true");
      case 'f':
        return Word("false");
      case 'n':
        return Word("null");
      default:
        return Number();
    }
  }

  bool Object(int depth) {
    Take('{');
    Space();
    if (Take('}')) return true;
    for (;;) {
      Space();
      if (Peek() != '"') return Fail("a key was expected");
      if (!String()) return false;
      Space();
      if (!Take(':')) return Fail("':' was expected");
      if (!Value(depth + 1)) return false;
      Space();
      if (Take('}')) return true;
      if (!Take(',')) return Fail("',' or '}' was expected");
    }
  }

  bool Array(int depth) {
    Take('[');
    Space();
    if (Take(']')) return true;
    for (;;) {
      if (!Value(depth + 1)) return false;
      Space();
      if (Take(']')) return true;
      if (!Take(',')) return Fail("',' or ']' was expected");
    }
  }

  bool String() {
    const size_t start = at_++;
    for (; at_ < text_.size(); ++at_) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        out_.append(text_.substr(start, at_ - start));
        return true;
      }
      if (c < 0x20) return Fail("a control character inside a string");
      if (c == '\\' && !Escape()) return Fail("an unknown escape inside a string");
    }
    return Fail("a string does not end");
  }

  /// Leaves at_ at the escape's last character.
  bool Escape() {
    ++at_;
    if (at_ >= text_.size()) return false;
    if (text_[at_] == 'u') {
      for (int i = 0; i < 4; ++i) {
        ++at_;
        if (at_ >= text_.size() || !IsHex(text_[at_])) return false;
      }
      return true;
    }
    return std::string_view("\"\\/bfnrt").find(text_[at_]) != std::string_view::npos;
  }

  bool Word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return Fail("no value begins like this");
    out_.append(word);
    at_ += word.size();
    return true;
  }

  bool Digits() {
    if (!IsDigit(Peek())) return Fail("a digit was expected");
    while (IsDigit(Peek())) ++at_;
    return true;
  }

  bool Number() {
    const size_t start = at_;
    if (Peek() == '-') ++at_;
    if (!IsDigit(Peek())) return Fail("no value begins like this");
    if (Peek() == '0') {
      ++at_;
    } else if (!Digits()) {
      return false;
    }
    if (Peek() == '.') {
      ++at_;
      if (!Digits()) return false;
    }
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (Peek() == '+' || Peek() == '-') ++at_;
      if (!Digits()) return false;
    }
    out_.append(text_.substr(start, at_ - start));
    return true;
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::string out_;
  std::string_view why_;
};

/// Where the value that begins at `at` ends, in sound text.
size_t EndOf(std::string_view text, size_t at) {
  int depth = 0;
  for (;;) {
    const char c = text[at++];
    if (c == '"') {
      for (; text[at] != '"'; ++at) {
        if (text[at] == '\\') ++at;
      }
      ++at;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (depth == 0) {
      while (at < text.size() && text[at] != ',' && text[at] != ']' && text[at] != '}') ++at;
    }
    if (depth == 0) return at;
  }
}

JsonValue Make(std::string_view raw) {
  JsonValue value{.kind = JsonValue::Kind::kNumber, .raw = raw};
  switch (raw.front()) {
    case '{':
      value.kind = JsonValue::Kind::kObject;
      break;
    case '[':
      value.kind = JsonValue::Kind::kArray;
      break;
    case '"':
      value.kind = JsonValue::Kind::kString;
      break;
    case 't':
    case 'f':
      value.kind = JsonValue::Kind::kBool;
      break;
    case 'n':
      value.kind = JsonValue::Kind::kNull;
      break;
    default:
      break;
  }
  return value;
}

void AppendUtf8(std::string* out, uint32_t c) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static constexpr unsigned char kLead[] = {0, 0xc0, 0xe0, 0xf0};
  out->push_back(static_cast<char>(kLead[more] | (c >> (6 * more))));
  for (int i = more - 1; i >= 0; --i) out->push_back(static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3f)));
}

uint32_t Hex4(std::string_view text) {
  uint32_t value = 0;
  std::from_chars(text.data(), text.data() + 4, value, 16);
  return value;
}

/// The characters of a sound string; a surrogate without its other half becomes U+FFFD.
std::string Unescape(std::string_view raw) {
  const std::string_view body = raw.substr(1, raw.size() - 2);
  std::string out;
  out.reserve(body.size());
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\') {
      out.push_back(body[i]);
      continue;
    }
    const char c = body[++i];
    if (c != 'u') {
      static constexpr std::string_view kFrom = "bfnrt", kTo = "\b\f\n\r\t";
      const size_t at = kFrom.find(c);
      out.push_back(at == std::string_view::npos ? c : kTo[at]);
      continue;
    }
    uint32_t code = Hex4(body.substr(i + 1));
    i += 4;
    if (code >= 0xd800 && code < 0xe000) {
      const bool pair =
          code < 0xdc00 && body.substr(i + 1, 2) == "\\u" && (Hex4(body.substr(i + 3)) & 0xfc00) == 0xdc00;
      if (pair) {
        code = 0x10000 + ((code - 0xd800) << 10) + (Hex4(body.substr(i + 3)) - 0xdc00);
        i += 6;
      } else {
        code = 0xfffd;
      }
    }
    AppendUtf8(&out, code);
  }
  return out;
}

std::optional<JsonValue> Member(std::string_view object, const std::string& key) {
  std::optional<JsonValue> found;
  size_t at = 1;
  while (object[at] != '}') {
    const size_t key_end = EndOf(object, at);
    const std::string_view raw_key = object.substr(at, key_end - at);
    const size_t value_end = EndOf(object, key_end + 1);
    const bool plain = raw_key.find('\\') == std::string_view::npos;
    if (plain ? raw_key.substr(1, raw_key.size() - 2) == key : Unescape(raw_key) == key) {
      found = Make(object.substr(key_end + 1, value_end - key_end - 1));
    }
    at = value_end + (object[value_end] == ',' ? 1 : 0);
  }
  return found;
}

}  // namespace

std::string JsonValue::Text() const {
  return kind == Kind::kString ? Unescape(raw) : std::string(raw);
}

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text) {
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    return absl::InvalidArgumentError("not valid JSON: its text is not UTF-8");
  }
  absl::StatusOr<std::string> sound = Scanner(text).Run();
  if (!sound.ok()) return sound.status();
  return JsonDocument(*std::move(sound));
}

JsonValue JsonDocument::root() const {
  return Make(text_);
}

absl::StatusOr<std::vector<std::string>> ParseJsonPointer(std::string_view pointer) {
  if (pointer.empty()) return std::vector<std::string>{};
  if (pointer.front() != '/') {
    return absl::InvalidArgumentError(Cat("JSON pointer '", pointer, "' must begin with '/'"));
  }
  std::vector<std::string> tokens;
  for (size_t begin = 1; begin <= pointer.size();) {
    const size_t end = std::min(pointer.find('/', begin), pointer.size());
    const std::string_view raw = pointer.substr(begin, end - begin);
    begin = end + 1;
    std::string token;
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '~') {
        token.push_back(raw[i]);
      } else if (i + 1 < raw.size() && (raw[i + 1] == '0' || raw[i + 1] == '1')) {
        token.push_back(raw[++i] == '0' ? '~' : '/');
      } else {
        return absl::InvalidArgumentError(Cat("JSON pointer '", pointer, "': '~' must be followed by 0 or 1"));
      }
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::optional<JsonValue> At(const JsonValue& value, std::string_view pointer) {
  const absl::StatusOr<std::vector<std::string>> parts = ParseJsonPointer(pointer);
  if (!parts.ok()) return std::nullopt;
  std::optional<JsonValue> here = value;
  for (const std::string& part : *parts) {
    if (here->kind == JsonValue::Kind::kObject) {
      here = Member(here->raw, part);
    } else if (here->kind == JsonValue::Kind::kArray) {
      size_t index = 0;
      const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool number = error == std::errc() && end == part.data() + part.size() && (part == "0" || part[0] != '0');
      const std::vector<JsonValue> elements = number ? Elements(*here) : std::vector<JsonValue>();
      here = index < elements.size() ? std::optional(elements[index]) : std::nullopt;
    } else {
      here = std::nullopt;
    }
    if (!here) break;
  }
  return here;
}

std::vector<JsonValue> Elements(const JsonValue& array) {
  std::vector<JsonValue> elements;
  if (array.kind != JsonValue::Kind::kArray) return elements;
  size_t at = 1;
  while (array.raw[at] != ']') {
    const size_t end = EndOf(array.raw, at);
    elements.push_back(Make(array.raw.substr(at, end - at)));
    at = end + (array.raw[end] == ',' ? 1 : 0);
  }
  return elements;
}

std::string JsonQuote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += Cat("\\u", Hex{static_cast<unsigned char>(c), 4});
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

}  // namespace sluice::connector
