// A worker: runs pipelines in this process, each slice of a source and each sink on a thread of its own.
//
// Source and sinks of a pipeline know nothing of each other: the topic lies between them. A sink that fails is made
// anew from what the state store says; a source goes on from the position in the topic. No pipeline waits for another,
// and none ends because another failed. With `once` the sources pull
// until the API has no more pages, then the sinks drain the topic to its end. Threads: Run blocks; Status may be asked
// from any thread meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/log.h"
#include "connector/http/retry.h"
#include "connector/pipeline_config.h"
#include "connector/sink/sink.h"
#include "connector/source/slice_puller.h"
#include "connector/stop_signal.h"

namespace sluice::connector {

/// What one pipeline has done since the worker started.
struct PipelineStatus {
  struct Part {
    std::string name;  // of the slice or the sink
    int64_t records = 0;
    int64_t bytes = 0;
    int64_t pages = 0;    // slices
    int64_t pulls = 0;    // slices
    int64_t skipped = 0;  // slices
    int64_t files = 0;    // sinks
    int64_t dead_letters = 0;
    int64_t lag = -1;  // sinks; less than 0 while it is not known
    int64_t retries = 0;
    int64_t failed = 0;  // sinks: 1 or 0
  };
  std::string name;
  std::string topic;
  std::vector<Part> slices;
  std::vector<Part> sinks;
};

class Worker {
 public:
  struct Options {
    bool once = false;
    /// How long the broker or a sink may keep failing before `once` gives up.
    absl::Duration give_up_after = absl::Minutes(2);
    /// How long to wait for the first connection.
    absl::Duration connect_wait = absl::Seconds(30);
    /// After a stop calls under way get so long to end by themselves; then they are cancelled.
    absl::Duration stop_grace = absl::Seconds(1);
    /// Pauses of what may pass by itself, and of what someone has to mend.
    http::RetryPolicy backoff{.backoff_first = absl::Milliseconds(200), .backoff_max = absl::Seconds(15)};
    http::RetryPolicy long_backoff{.backoff_first = absl::Seconds(5), .backoff_max = absl::Minutes(5)};
  };
  struct Seams {
    client::Client* client = nullptr;
    Clock* clock = nullptr;
    FileSystem* files = nullptr;
    StopSignal* stop = nullptr;
    const Logger* log = nullptr;
  };
  Worker(std::vector<PipelineConfig> pipelines, Options options, Seams seams);
  ~Worker();

  /// Until stopped, or with `once` until everything is drained. The first pipeline's error, when one failed; CANCELLED
  /// soon after a stop: the client is cancelled then, so it serves nobody else any more.
  absl::Status Run();
  std::vector<PipelineStatus> Status() const;
  /// Whether the broker was reached and the pipelines run.
  bool ready() const;

 private:
  struct Pipeline;
  absl::Status Connect();
  absl::Status RunAll();
  absl::Status EnsureTopic(const client::TopicSpec& spec, int32_t partitions_min);
  absl::Status PrepareTopic(Pipeline& pipeline);
  absl::Status AwaitTopic(Pipeline& pipeline);
  absl::Status RunPipeline(Pipeline& pipeline);
  absl::Status RunSlice(Pipeline& pipeline, size_t index);
  absl::Status PullUntilDone(Pipeline& pipeline, size_t index, SlicePuller& puller);
  absl::Status RunSink(Pipeline& pipeline, size_t index);
  int64_t KeepCounts(Pipeline& pipeline, size_t index, const absl::Status& end);
  /// `last_step`: when a step was made last, if any.
  absl::Status DriveSink(Pipeline& pipeline, size_t index, absl::Duration* last_step);
  absl::Status DriveSinkUnlocated(Pipeline& pipeline, size_t index, absl::Duration* last_step);

  const Options options_;
  const Seams seams_;
  std::vector<std::unique_ptr<Pipeline>> pipelines_;
  std::unique_ptr<StateStore> state_;
  std::unique_ptr<Random> state_random_;
  std::atomic<bool> ready_{false};
};

/// Prometheus text of what Status answered.
std::string MetricsText(const std::vector<PipelineStatus>& pipelines);

}  // namespace sluice::connector
