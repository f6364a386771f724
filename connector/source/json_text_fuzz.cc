// A page is text that someone else wrote: checked, cut into records and looked into by pointer, whatever it is.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "connector/source/json_text.h"

using sluice::connector::At;
using sluice::connector::Elements;
using sluice::connector::JsonDocument;
using sluice::connector::JsonQuote;
using sluice::connector::JsonValue;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // The first line is a pointer, the rest the document.
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string_view pointer = text.substr(0, line);
  const auto document = JsonDocument::Parse(text.substr(std::min(line + 1, text.size())));
  if (!document.ok()) return 0;
  const auto again = JsonDocument::Parse(document->text());
  SLUICE_CHECK(again.ok() && again->text() == document->text()) << "what was sound is not";
  if (const auto found = At(document->root(), pointer)) {
    SLUICE_CHECK(sluice::connector::ParseJsonPointer(pointer).ok()) << "what is no pointer found something";
    SLUICE_CHECK(JsonDocument::Parse(found->raw).ok()) << "a part of what is sound is not";
    const std::string content = found->Text();
    if (found->kind == JsonValue::Kind::kString) {
      const auto quoted = JsonDocument::Parse(JsonQuote(content));
      SLUICE_CHECK(quoted.ok() && quoted->root().Text() == content) << "a string is not what it was";
    }
  }
  size_t bytes = 2;
  const auto elements = Elements(document->root());
  for (const JsonValue& element : elements) {
    SLUICE_CHECK(JsonDocument::Parse(element.raw).ok()) << "an element of what is sound is not";
    bytes += element.raw.size() + 1;
  }
  if (!elements.empty()) SLUICE_CHECK(bytes - 1 == document->text().size()) << "something was left out";
  return 0;
}
