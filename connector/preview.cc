#include "connector/preview.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/messages.h"
#include "connector/sink/row.h"
#include "connector/source/http_source.h"
#include "connector/source/moment.h"

namespace sluice::connector {
namespace {

absl::Status PrintSchema(const NamedSink& sink, const std::vector<PageRecord>& records, std::ostream& out) {
  Schema schema = sink.config.columns;
  if (sink.config.infer_schema) {
    SchemaInference inference;
    for (const PageRecord& record : records) inference.Add(record.value);
    schema = inference.Finish();
  }
  SLUICE_RETURN_IF_ERROR(CheckSchema(schema));
  out << "schema of " << sink.name << (sink.config.infer_schema ? " (inferred from this page):\n" : ":\n");
  for (const ColumnConfig& column : schema) {
    out << "  " << column.name << ": " << ColumnTypeName(column.type) << " from " << column.from << "\n";
  }
  // What would be a dead letter is better known before the first run.
  RowReader reader(schema);
  int64_t refused = 0;
  std::string first;
  for (const PageRecord& record : records) {
    const absl::Status fits = reader.Read(record.value);
    if (fits.ok()) continue;
    if (refused++ == 0) first = std::string(Message(fits));
  }
  if (refused > 0)
    out << "  " << refused << " records do not fit and would be dead letters; the first: " << first << "\n";
  return absl::OkStatus();
}

}  // namespace

absl::Status PreviewPipeline(const PipelineConfig& pipeline, int64_t records_max, const PreviewSeams& seams,
                             std::ostream& out) {
  for (const SliceConfig& slice : pipeline.source.slices) {
    HttpSource source(
        pipeline.source, slice, pipeline.topic.key,
        {.clock = seams.clock,
         .random = seams.random,
         .stop = seams.stop,
         .on_retry = [&](const absl::Status& why, absl::Duration wait) {
           seams.log->Warn("the API is asked again", {{"why", Message(why)}, {"wait", absl::FormatDuration(wait)}});
         }});
    PageAsk ask;
    const auto& incremental = pipeline.source.incremental;
    if (incremental && !incremental->start.empty()) ask.from = CursorValueOfStart(incremental->start);
    const absl::StatusOr<Page> fetched = source.Fetch(ask);
    if (!fetched.ok()) return Located(Cat("pipeline ", pipeline.name, ", slice ", slice.name), fetched.status());
    const Page& page = *fetched;
    out << "pipeline " << pipeline.name << ", slice " << slice.name << ": " << page.records.size()
        << " records on the first page, " << (page.last ? "the last one" : "more to come") << "\n";
    const auto shown = std::min<size_t>(page.records.size(), static_cast<size_t>(std::max<int64_t>(records_max, 0)));
    for (size_t i = 0; i < shown; ++i) {
      const PageRecord& record = page.records[i];
      out << (record.key ? Cat("key ", *record.key, ": ") : std::string()) << record.value << "\n";
    }
    for (const NamedSink& sink : pipeline.sinks) {
      if (sink.config.kind == SinkKind::kParquet) SLUICE_RETURN_IF_ERROR(PrintSchema(sink, page.records, out));
    }
  }
  out.flush();
  return absl::OkStatus();
}

}  // namespace sluice::connector
