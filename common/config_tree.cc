#include "common/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <sstream>
#include <utility>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::internal {

namespace {

constexpr size_t kTextBytesMax = size_t{4} << 20;
constexpr int kDepthMax = 64;
constexpr size_t kValuesMax = 200000;

// Learns where a document starts and forgets the rest.
struct DocumentStart : YAML::EventHandler {
  void OnDocumentStart(const YAML::Mark& at) override { mark = at; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
  YAML::Mark mark;
};

struct Converter {
  std::string_view file;
  size_t values = 0;

  absl::Status Refuse(const YAML::Mark& mark, std::string_view what) const {
    return absl::InvalidArgumentError(Cat(file, ":", mark.line + 1, ":", mark.column + 1, ": ", what));
  }

  absl::Status Convert(const YAML::Node& node, int depth, ConfigValue* out) {
    if (depth > kDepthMax) return Refuse(node.Mark(), Cat("nested deeper than ", kDepthMax));
    if (++values > kValuesMax) return Refuse(node.Mark(), Cat("more than ", kValuesMax, " values"));
    out->line = node.Mark().line + 1;
    out->column = node.Mark().column + 1;
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return absl::OkStatus();
      case YAML::NodeType::Scalar:
        out->kind = ConfigValue::Kind::kScalar;
        out->text = node.Scalar();
        return absl::OkStatus();
      case YAML::NodeType::Sequence:
        out->kind = ConfigValue::Kind::kList;
        for (const YAML::Node& item : node) {
          out->items.push_back(std::make_unique<ConfigValue>());
          SLUICE_RETURN_IF_ERROR(Convert(item, depth + 1, out->items.back().get()));
        }
        return absl::OkStatus();
      case YAML::NodeType::Map:
        out->kind = ConfigValue::Kind::kMap;
        return ConvertEntries(node, depth, out);
    }
    return Refuse(node.Mark(), "of no known kind");
  }

  absl::Status ConvertEntries(const YAML::Node& node, int depth, ConfigValue* out) {
    std::set<std::string> seen;
    for (const auto& pair : node) {
      const YAML::Mark mark = pair.first.Mark();
      if (!pair.first.IsScalar()) return Refuse(mark, "a key must be a word");
      const std::string& key = pair.first.Scalar();
      if (!seen.insert(key).second) return Refuse(mark, Cat("\"", key, "\" stands here twice"));
      out->entries.push_back({key, mark.line + 1, mark.column + 1, std::make_unique<ConfigValue>()});
      SLUICE_RETURN_IF_ERROR(Convert(pair.second, depth + 1, out->entries.back().value.get()));
    }
    return absl::OkStatus();
  }
};

}  // namespace

std::string_view ConfigValue::KindName() const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return "one value";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a mapping";
  }
  return "nothing";
}

std::string ConfigState::Where(int line, int column, bool overridden) const {
  if (overridden) return "--set";
  return line == 0 ? file : Cat(file, ":", line, ":", column);
}

absl::StatusOr<std::unique_ptr<ConfigValue>> ParseYaml(std::string_view name, std::string_view text) {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(Cat(name, ": ", text.size(), " bytes, at most ", kTextBytesMax));
  }
  auto root = std::make_unique<ConfigValue>();
  try {
    const std::string owned(text);
    Converter converter{name};
    std::istringstream in(owned);
    YAML::Parser parser(in);
    DocumentStart start;
    if (!parser.HandleNextDocument(start)) return root;
    // Not LoadAll: on text that opens with a comma it makes documents without end.
    if (parser.HandleNextDocument(start)) return converter.Refuse(start.mark, "expected the end of the one document");
    SLUICE_RETURN_IF_ERROR(converter.Convert(YAML::Load(owned), 0, root.get()));
  } catch (const YAML::Exception& e) {
    if (e.mark.is_null()) return absl::InvalidArgumentError(Cat(name, ": ", e.msg));
    return absl::InvalidArgumentError(Cat(name, ":", e.mark.line + 1, ":", e.mark.column + 1, ": ", e.msg));
  }
  return root;
}

void MarkOverridden(ConfigValue* value) {
  value->overridden = true;
  value->line = 0;
  value->column = 0;
  for (const auto& item : value->items) MarkOverridden(item.get());
  for (auto& entry : value->entries) {
    entry.line = 0;
    entry.column = 0;
    MarkOverridden(entry.value.get());
  }
}

}  // namespace sluice::internal
