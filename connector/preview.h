// What `sluice-connect test` shows of a pipeline: the first page of each slice, its records, and the columns that they
// would get in Parquet. Asks the API once and writes nothing anywhere.
#pragma once

#include <cstdint>
#include <ostream>

#include "absl/status/status.h"
#include "common/executor.h"
#include "common/log.h"
#include "connector/pipeline_config.h"
#include "connector/stop_signal.h"

namespace sluice::connector {

struct PreviewSeams {
  Clock* clock = nullptr;
  Random* random = nullptr;
  StopSignal* stop = nullptr;
  const Logger* log = nullptr;
};

/// Prints at most `records_max` records of each page to `out`.
absl::Status PreviewPipeline(const PipelineConfig& pipeline, int64_t records_max, const PreviewSeams& seams,
                             std::ostream& out);

}  // namespace sluice::connector
