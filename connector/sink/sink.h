// FileSink: drains one topic into files below a folder or an S3 prefix, each offset into exactly one committed file or
// one dead letter, across crashes of the connector.
//
// How (docs/sinks.md, "Exactly once into files"): per partition, a chunk is a run of whole batches [first, next).
// When the roll limits close a chunk, a Plan (range, schema, where dead letters start) is written to the state store
// BEFORE any of its files can be seen. The files of a chunk are a pure function of (range, schema, configuration),
// names and bytes; so after a crash the plan is simply carried out again, over the same names. Then Put(committed)
// closes it. A second connector on the same sink is fenced by the state store's versions.
//
// Threads: one thread calls; calls block. Memory, however many partitions: Options::memory_bytes, the consumer's
// buffer, one batch unpacked, 4 MiB of dead letters, and for each file that is open (16 raw or 4 Parquet, of one chunk)
// its buffer or row group; and up to 10 MiB until the process ends for each S3 upload that could be neither finished
// nor aborted: the server was away (each outage, then, costs those of the files that were open), or the key is without
// s3:AbortMultipartUpload.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "connector/sink/sink_config.h"
#include "connector/state_store.h"

namespace sluice::connector {

/// What a sink has done since it was made, by chunks of which all is done and known to be; for progress and metrics. A
/// chunk whose commit was in doubt when the sink ended is counted by nobody.
struct SinkProgress {
  int64_t records = 0;  ///< in committed files
  int64_t dead_letters = 0;
  int64_t files = 0;
  int64_t file_bytes = 0;
  /// Offsets between what is committed and the topic's end as it was last seen; nothing before that was asked for.
  std::optional<int64_t> lag_records;
};

class FileSink {
 public:
  struct Options {
    std::string pipeline;  ///< name of the pipeline
    std::string name;      ///< of the sink within it: "raw-0", "parquet-1"
    std::string topic;
    int32_t partitions = 1;
    SinkConfig config;
    int64_t memory_bytes = int64_t{16} << 20;  ///< batches kept from planning to writing; beyond it they are read again
  };
  struct Seams {
    client::Client* client = nullptr;
    StateStore* state = nullptr;
    Clock* clock = nullptr;
    FileSystem* files = nullptr;  ///< for file:// targets
  };

  virtual ~FileSink() = default;
  /// Carries out plans that a crash left open and starts reading where the last commit ended. Call first, once. An S3
  /// server is asked for its bucket, after the topic for its end.
  virtual absl::Status Open() = 0;
  /// Waits at most `timeout` for new batches, takes them into chunks, and writes the chunks that are due.
  virtual absl::Status Step(absl::Duration timeout) = 0;
  /// Reads up to the high watermarks as they are now and writes everything, whatever the roll limits. It may take as
  /// long as there is much to read; `after_each_step` may ask for progress().
  virtual absl::Status Finish(absl::FunctionRef<void()> after_each_step) = 0;
  /// Makes a waiting Step return. Thread-safe.
  virtual void Wake() = 0;
  virtual SinkProgress progress() const = 0;
};

/// INVALID_ARGUMENT names the wrong field of `options.config`; an `endpoint` that is none is told by Open. The seams
/// must outlive the sink.
absl::StatusOr<std::unique_ptr<FileSink>> MakeFileSink(FileSink::Options options, const FileSink::Seams& seams);

/// Call once before main returns when any S3 target was made; harmless otherwise. (Arrow's S3 must be finalized before
/// the process exits.)
void ShutDownTargets();

}  // namespace sluice::connector
