// Configuration is text that people and other programs wrote: read, asked for with every type, and finished, whatever
// it is.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/config.h"

namespace {

void AskForEverything(const sluice::ConfigNode& node, int depth) {
  if (depth > 8) return;
  for (const auto& item : node.IsList() ? node.Items() : std::vector<sluice::ConfigNode>())
    AskForEverything(item, depth + 1);
  for (const auto& [key, value] : node.Entries()) {
    node.Int(key, 0, {-5, 5});
    node.Number(key, 0);
    node.Bool(key, false);
    node.Size(key, 0);
    node.Duration(key, absl::ZeroDuration());
    node.Strings(key);
    AskForEverything(value, depth + 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto file = sluice::ConfigFile::Parse("fuzz.yaml", text);
  if (!file.ok()) return 0;
  (void)file->Override(text.substr(0, text.find('\n')));
  file->root().Child("a").Int("b", 1);
  (void)file->Finish();
  AskForEverything(file->root(), 0);
  (void)file->Finish();
  return 0;
}
