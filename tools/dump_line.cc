#include "common/text.h"
#include "tools/json_writer.h"
#include "tools/log_dump.h"

namespace sluice::tools {
namespace {

struct ValueWriter {
  void operator()(int64_t number) const { json.Int(number); }
  void operator()(const std::string& bytes) const { json.Bytes(bytes); }
  void operator()(std::monostate) const { json.Null(); }
  void operator()(const DumpHeaders& headers) const {
    json.BeginArray();
    for (const auto& [key, value] : headers) {
      json.BeginObject().Key("key").Bytes(key).Key("value").BytesOrNull(value).EndObject();
    }
    json.EndArray();
  }
  JsonWriter& json;
};

void WriteValue(JsonWriter& json, const DumpValue& value) {
  std::visit(ValueWriter{json}, value);
}

}  // namespace

std::string DumpLine::Text() const {
  std::string text = kind;
  for (const auto& [name, value] : fields) {
    if (const auto* headers = std::get_if<DumpHeaders>(&value);
        std::holds_alternative<std::monostate>(value) || (headers != nullptr && headers->empty())) {
      continue;
    }
    const auto* words = std::get_if<std::string>(&value);
    text += Cat("  ", name, "=");
    if (words != nullptr && words->find_first_of(" \n\t\"=") == std::string::npos && IsUtf8(*words)) {
      text += *words;
    } else {
      JsonWriter json;
      WriteValue(json, value);
      text += json.Take();
    }
  }
  return text;
}

std::string DumpLine::Json() const {
  JsonWriter json;
  json.BeginObject().Key("kind").Bytes(kind);
  for (const auto& [name, value] : fields) WriteValue(json.Key(name), value);
  return json.EndObject().Take();
}

}  // namespace sluice::tools
