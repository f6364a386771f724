// A pipeline is a file that people and other programs wrote: read or refused, whatever it is. What was read holds what
// pipeline_config.h promises, and the folders of its sinks stay below their target.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"
#include "connector/pipeline_config.h"
#include "connector/sink/path_template.h"

using namespace sluice;             // NOLINT(google-build-using-namespace)
using namespace sluice::connector;  // NOLINT(google-build-using-namespace)

namespace {

SecretSource Secrets() {
  return {.environment = [](const std::string& name) -> std::optional<std::string> {
            if (name.size() % 2 == 0) return std::nullopt;
            return "secret of " + name;
          },
          .file = [](const std::string& path) -> absl::StatusOr<std::string> {
            if (path.size() % 2 == 0) return absl::NotFoundError(path);
            return "secret in a file\n";
          }};
}

void TryPath(std::string_view text) {
  const auto path = PathTemplate::Parse(text);
  if (!path.ok()) return;
  for (const int64_t ms : {int64_t{0}, int64_t{1'700'000'000'000}, int64_t{-1}, int64_t{253'402'300'799'999}}) {
    const std::string folder = path->Render("topic", PartitionId(3), ms, ms);
    if (folder.empty()) continue;
    SLUICE_CHECK(folder.front() != '/' && folder.back() != '/') << folder;
    SLUICE_CHECK(("/" + folder + "/").find("/../") == std::string::npos) << folder;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  TryPath(text);
  PipelineConfig read;
  const auto pipeline = ParsePipeline("fuzz.yaml", text, Secrets(), &read);
  (void)CheckTogether({read, read}).ok();
  if (!pipeline.ok()) return 0;
  SLUICE_CHECK(!pipeline->name.empty() && !pipeline->topic.name.empty() && !pipeline->source.slices.empty());
  for (const std::string& pointer : {pipeline->source.records, pipeline->topic.key.value_or("")}) {
    SLUICE_CHECK(pointer.empty() || pointer.front() == '/') << pointer;
  }
  for (const NamedSink& sink : pipeline->sinks) {
    SLUICE_CHECK(PathTemplate::Parse(sink.config.path).ok()) << sink.config.path;
    TryPath(sink.config.path);
  }
  return 0;
}
