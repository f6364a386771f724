#include "connector/worker.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <thread>
#include <utility>

#include "client/error.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "connector/http/retry.h"
#include "connector/messages.h"
#include "connector/source/http_source.h"
#include "connector/topic_state_store.h"
#include "runtime/system.h"

namespace sluice::connector {
namespace {

constexpr absl::Duration kStep = absl::Milliseconds(200);
/// A sink that made steps for so long was sound, though it had nothing to commit. A call that took long before it
/// failed does not count, nor does Finish: it reads anew what was not committed.
constexpr absl::Duration kSound = absl::Minutes(1);
/// A sink that needs longer for a chunk than `give_up_after` is not given up for one passing fault or two.
constexpr int kTriesMin = 3;
/// What a configuration causes stays so however often it is tried.
bool IsForGood(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
}

/// What someone else has to change first: worth an end where nobody waits for it, and long pauses elsewhere.
bool NeedsHelp(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) || absl::IsNotFound(status) ||
         absl::IsDataLoss(status);
}

absl::Status Keep(absl::Status first, const absl::Status& next) {
  // A stop is the least interesting of several ends.
  if (first.ok() || (absl::IsCancelled(first) && !next.ok())) return next;
  return first;
}

}  // namespace

struct Worker::Pipeline {
  explicit Pipeline(PipelineConfig pipeline) : config(std::move(pipeline)) {
    for (size_t i = 0; i < config.source.slices.size(); ++i) slices.push_back(std::make_unique<SourceProgress>());
    sinks.resize(config.sinks.size());
  }

  struct SinkState {
    SinkProgress before;  // of sinks that failed and were made anew
    SinkProgress now;
    int64_t retries = 0;
    bool failed = false;
  };
  const PipelineConfig config;
  std::vector<std::unique_ptr<SourceProgress>> slices;
  std::atomic<bool> sources_done{false};
  int32_t partitions = 0;
  mutable std::mutex mutex;
  std::vector<SinkState> sinks;  // guarded by mutex
};

Worker::Worker(std::vector<PipelineConfig> pipelines, Options options, Seams seams) : options_(options), seams_(seams) {
  for (PipelineConfig& pipeline : pipelines) pipelines_.push_back(std::make_unique<Pipeline>(std::move(pipeline)));
}

Worker::~Worker() = default;

bool Worker::ready() const {
  return ready_;
}

absl::Status Worker::EnsureTopic(const client::TopicSpec& spec, int32_t partitions_min) {
  const std::unique_ptr<client::Admin> admin = seams_.client->NewAdmin();
  absl::StatusOr<client::TopicDescription> found = admin->DescribeTopic(spec.name);
  if (absl::IsNotFound(found.status())) {
    const absl::StatusOr<client::TopicInfo> made = admin->CreateTopic(spec);
    if (made.ok() || absl::IsAlreadyExists(made.status())) return absl::OkStatus();
    return made.status();
  }
  SLUICE_RETURN_IF_ERROR(found.status());
  if (found->topic.partitions >= partitions_min) return absl::OkStatus();
  return admin->AddPartitions(spec.name, partitions_min).status();
}

absl::Status Worker::PrepareTopic(Pipeline& pipeline) {
  const TopicConfig& topic = pipeline.config.topic;
  const auto slices = static_cast<int32_t>(pipeline.config.source.slices.size());
  SLUICE_RETURN_IF_ERROR(EnsureTopic(
      {.name = topic.name, .partitions = slices, .replicas = 0, .config = topic.config, .internal = false}, slices));
  SLUICE_ASSIGN_OR_RETURN(const client::TopicDescription made, seams_.client->NewAdmin()->DescribeTopic(topic.name));
  pipeline.partitions = made.topic.partitions;
  return absl::OkStatus();
}

absl::Status Worker::AwaitTopic(Pipeline& pipeline) {
  runtime::SystemRandom random;
  const absl::Duration until = seams_.clock->Monotonic() + options_.give_up_after;
  for (int retry = 0;; ++retry) {
    absl::Status status = Located(
        Cat("pipeline ", pipeline.config.name, " (", pipeline.config.file, "), topic ", pipeline.config.topic.name),
        PrepareTopic(pipeline));
    if (status.ok() || IsForGood(status)) return status;
    if (seams_.stop->stopped()) return absl::CancelledError("stopped");
    if (options_.once && (NeedsHelp(status) || seams_.clock->Monotonic() > until)) return status;
    seams_.log->Warn("the topic is not there yet", {{"pipeline", pipeline.config.name}, {"why", Message(status)}});
    if (!seams_.stop->Sleep(http::Backoff(options_.backoff, retry, random))) return absl::CancelledError("stopped");
  }
}

/// Until the broker has answered once.
absl::Status Worker::Connect() {
  const absl::Duration until = seams_.clock->Monotonic() + options_.connect_wait;
  for (;;) {
    absl::Status status = EnsureTopic({.name = std::string(kStateTopic),
                                       .partitions = 1,
                                       .replicas = 0,
                                       .config = {{"retention.ms", "-1"}, {"retention.bytes", "-1"}},
                                       .internal = true},
                                      1);
    if (status.ok()) return status;
    if (seams_.stop->stopped()) return absl::CancelledError("stopped");
    const bool passing =
        absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || client::IsOutcomeUnknown(status);
    if (!passing || seams_.clock->Monotonic() > until) return status;
    seams_.log->Warn("the broker is not reachable yet", {{"error", status}});
    if (!seams_.stop->Sleep(absl::Seconds(1))) return absl::CancelledError("stopped");
  }
}

absl::Status Worker::Run() {
  // Blocking calls of the client have time limits of up to 30 s: more than whoever stops us wants to wait.
  struct Watch {
    std::mutex mutex;
    std::condition_variable changed;
    bool stopping = false;
    bool ended = false;
  };
  const auto watch = std::make_shared<Watch>();
  seams_.stop->OnStop([watch] {
    const std::lock_guard lock(watch->mutex);
    watch->stopping = true;
    watch->changed.notify_all();
  });
  std::thread canceller([this, watch] {
    std::unique_lock lock(watch->mutex);
    watch->changed.wait(lock, [&] { return watch->stopping || watch->ended; });
    const auto grace = absl::ToChronoNanoseconds(options_.stop_grace);
    if (!watch->changed.wait_for(lock, grace, [&] { return watch->ended; })) seams_.client->Cancel();
  });
  absl::Status end = RunAll();
  {
    const std::lock_guard lock(watch->mutex);
    watch->ended = true;
    watch->changed.notify_all();
  }
  canceller.join();
  return end;
}

absl::Status Worker::RunAll() {
  SLUICE_RETURN_IF_ERROR(Connect());
  state_random_ = std::make_unique<runtime::SystemRandom>();
  state_ = std::make_unique<TopicStateStore>(OpenPartitionLog(*seams_.client, std::string(kStateTopic), PartitionId(0)),
                                             *seams_.clock, *state_random_, *seams_.stop);
  ready_ = true;
  std::vector<absl::Status> ends(pipelines_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < pipelines_.size(); ++i) {
    threads.emplace_back([this, i, &ends] {
      ends[i] = RunPipeline(*pipelines_[i]);
      // An error after the stop says no more than that things were cut short.
      if (!ends[i].ok() && seams_.stop->stopped()) ends[i] = absl::CancelledError("stopped");
      if (ends[i].ok() || absl::IsCancelled(ends[i])) return;
      seams_.log->Error("the pipeline failed", {{"pipeline", pipelines_[i]->config.name}, {"error", ends[i]}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  ready_ = false;
  absl::Status end;
  for (const absl::Status& status : ends) end = Keep(std::move(end), status);
  return end;
}

absl::Status Worker::RunPipeline(Pipeline& pipeline) {
  SLUICE_RETURN_IF_ERROR(AwaitTopic(pipeline));
  std::vector<absl::Status> sources(pipeline.slices.size()), sinks(pipeline.sinks.size());
  std::vector<std::thread> source_threads, sink_threads;
  for (size_t i = 0; i < sources.size(); ++i) {
    source_threads.emplace_back([this, &pipeline, &sources, i] { sources[i] = RunSlice(pipeline, i); });
  }
  for (size_t i = 0; i < sinks.size(); ++i) {
    sink_threads.emplace_back([this, &pipeline, &sinks, i] { sinks[i] = RunSink(pipeline, i); });
  }
  for (std::thread& thread : source_threads) thread.join();
  // Also after a source's failure: what did arrive is drained.
  pipeline.sources_done = true;
  for (std::thread& thread : sink_threads) thread.join();
  absl::Status end;
  for (const absl::Status& status : sources) end = Keep(std::move(end), status);
  for (const absl::Status& status : sinks) end = Keep(std::move(end), status);
  return end;
}

// --- Source ---

absl::Status Worker::RunSlice(Pipeline& pipeline, size_t index) {
  const PipelineConfig& config = pipeline.config;
  const SliceConfig& slice = config.source.slices[index];
  const Logger log = seams_.log->With({{"pipeline", config.name}, {"slice", slice.name}});
  SourceProgress& progress = *pipeline.slices[index];
  runtime::SystemRandom random;
  HttpSource source(
      config.source, slice, config.topic.key,
      {.clock = seams_.clock,
       .random = &random,
       .stop = seams_.stop,
       .on_retry = [&](const absl::Status& why, absl::Duration wait) {
         ++progress.retries;
         log.Warn("the API is asked again", {{"why", Message(why)}, {"wait", absl::FormatDuration(wait)}});
       }});
  const auto topic = OpenPartitionLog(*seams_.client, config.topic.name, PartitionId(static_cast<int32_t>(index)));
  DeadLetterQueue dead_letters(DeadLettersOf(*seams_.client, config.topic.name));
  SlicePuller puller({.pipeline = config.name,
                      .slice = slice.name,
                      .incremental = config.source.incremental,
                      .once = !config.source.every.has_value(),
                      .codec = config.topic.codec,
                      .retry_max = options_.give_up_after},
                     {.log = topic.get(),
                      .state = state_.get(),
                      .dead_letters = &dead_letters,
                      .pages = &source,
                      .clock = seams_.clock,
                      .random = &random,
                      .stop = seams_.stop,
                      .progress = &progress,
                      .on_retry = [&](const absl::Status& why) {
                        log.Warn("reading the topic's end again", {{"why", Message(why)}});
                      }});
  for (;;) {
    const absl::Duration started = seams_.clock->Monotonic();
    SLUICE_RETURN_IF_ERROR(PullUntilDone(pipeline, index, puller));
    if (options_.once || !config.source.every) return absl::OkStatus();
    const absl::Duration left = *config.source.every - (seams_.clock->Monotonic() - started);
    if (!seams_.stop->Sleep(std::max(left, absl::ZeroDuration()))) return absl::CancelledError("stopped");
  }
}

/// One pull. A worker that stays tries again until it works; `once` tells the error.
absl::Status Worker::PullUntilDone(Pipeline& pipeline, size_t index, SlicePuller& puller) {
  runtime::SystemRandom random;
  for (int retry = 0;; ++retry) {
    absl::Status status = Located(
        Cat("pipeline ", pipeline.config.name, ", slice ", pipeline.config.source.slices[index].name), puller.Pull());
    if (status.ok() || absl::IsCancelled(status) || options_.once) return status;
    const absl::Duration wait = http::Backoff(options_.long_backoff, retry, random);
    seams_.log->Error("the pull failed", {{"pipeline", pipeline.config.name},
                                          {"slice", pipeline.config.source.slices[index].name},
                                          {"error", status},
                                          {"again_in", absl::FormatDuration(wait)}});
    if (!seams_.stop->Sleep(wait)) return absl::CancelledError("stopped");
  }
}

// --- Sinks ---

absl::Status Worker::RunSink(Pipeline& pipeline, size_t index) {
  const NamedSink& config = pipeline.config.sinks[index];
  const Logger log = seams_.log->With({{"pipeline", pipeline.config.name}, {"sink", config.name}});
  runtime::SystemRandom random;
  absl::Duration failing_since = seams_.clock->Monotonic();
  int64_t records_before = -1;
  for (int retry = 0;; ++retry) {
    const absl::Duration started = seams_.clock->Monotonic();
    absl::Duration last_step = started;
    absl::Status status = DriveSink(pipeline, index, &last_step);
    const int64_t records = KeepCounts(pipeline, index, status);
    if (status.ok() || absl::IsCancelled(status)) return status;
    const absl::Duration now = seams_.clock->Monotonic();
    if (records != records_before || last_step - started > kSound) {
      records_before = records;
      failing_since = now;
      retry = 0;
    }
    const bool help = NeedsHelp(status);
    const bool too_long = retry + 1 >= kTriesMin && now - failing_since > options_.give_up_after;
    const bool give_up = IsForGood(status) || (options_.once && (help || too_long));
    if (give_up) {
      log.Error("the sink failed", {{"why", Message(status)}});
      return Located(Cat("pipeline ", pipeline.config.name, ", sink ", config.name), status);
    }
    const absl::Duration wait = http::Backoff(help ? options_.long_backoff : options_.backoff, retry, random);
    log.Warn("the sink starts again", {{"why", Message(status)}, {"wait", absl::FormatDuration(wait)}});
    if (!seams_.stop->Sleep(wait)) return absl::CancelledError("stopped");
  }
}

/// A sink that ended hands its counts to the one that takes over; the records so far, dead letters among them.
int64_t Worker::KeepCounts(Pipeline& pipeline, size_t index, const absl::Status& end) {
  const std::lock_guard lock(pipeline.mutex);
  Pipeline::SinkState& state = pipeline.sinks[index];
  state.before.records += state.now.records;
  state.before.files += state.now.files;
  state.before.file_bytes += state.now.file_bytes;
  state.before.dead_letters += state.now.dead_letters;
  state.now = {.lag_records = state.now.lag_records};  // what is not committed yet is no less for it
  state.failed = !end.ok() && !absl::IsCancelled(end);
  if (state.failed) ++state.retries;
  return state.before.records + state.before.dead_letters;
}

absl::Status Worker::DriveSink(Pipeline& pipeline, size_t index, absl::Duration* last_step) {
  const absl::Status status = DriveSinkUnlocated(pipeline, index, last_step);
  const std::string& at = pipeline.config.sinks[index].config.at;
  return at.empty() ? status : Located(at, status);
}

absl::Status Worker::DriveSinkUnlocated(Pipeline& pipeline, size_t index, absl::Duration* last_step) {
  const NamedSink& config = pipeline.config.sinks[index];
  SLUICE_ASSIGN_OR_RETURN(
      const std::unique_ptr<FileSink> sink,
      MakeFileSink({.pipeline = pipeline.config.name,
                    .name = config.name,
                    .topic = pipeline.config.topic.name,
                    .partitions = pipeline.partitions,
                    .config = config.config},
                   {.client = seams_.client, .state = state_.get(), .clock = seams_.clock, .files = seams_.files}));
  // What was done before an error, too. Where the topic ends may not have been told yet: then it is where it was.
  const auto report = [&](absl::Status status) {
    const std::lock_guard lock(pipeline.mutex);
    Pipeline::SinkState& state = pipeline.sinks[index];
    const std::optional<int64_t> lag_before = state.now.lag_records;
    state.now = sink->progress();
    if (!state.now.lag_records.has_value()) state.now.lag_records = lag_before;
    if (status.ok()) state.failed = false;
    return status;
  };
  SLUICE_RETURN_IF_ERROR(report(sink->Open()));
  while (!seams_.stop->stopped()) {
    // With `once` the sources end before the sinks do: everything that Finish has to read is committed by then.
    const bool last = options_.once && pipeline.sources_done;
    absl::Status status = report(last ? sink->Finish([&] { (void)report(absl::OkStatus()); }) : sink->Step(kStep));
    if (last || !status.ok()) return status;
    *last_step = seams_.clock->Monotonic();
  }
  return absl::CancelledError("stopped");
}

// --- Status ---

std::vector<PipelineStatus> Worker::Status() const {
  std::vector<PipelineStatus> all;
  for (const auto& pipeline : pipelines_) {
    PipelineStatus status{
        .name = pipeline->config.name, .topic = pipeline->config.topic.name, .slices = {}, .sinks = {}};
    for (size_t i = 0; i < pipeline->slices.size(); ++i) {
      const SourceProgress& progress = *pipeline->slices[i];
      PipelineStatus::Part part;
      part.name = pipeline->config.source.slices[i].name;
      part.records = progress.records;
      part.bytes = progress.bytes;
      part.pages = progress.pages;
      part.pulls = progress.pulls;
      part.skipped = progress.skipped;
      part.dead_letters = progress.dead_letters;
      part.retries = progress.retries;
      status.slices.push_back(std::move(part));
    }
    const std::lock_guard lock(pipeline->mutex);
    for (size_t i = 0; i < pipeline->sinks.size(); ++i) {
      const Pipeline::SinkState& sink = pipeline->sinks[i];
      PipelineStatus::Part part;
      part.name = pipeline->config.sinks[i].name;
      part.records = sink.before.records + sink.now.records;
      part.bytes = sink.before.file_bytes + sink.now.file_bytes;
      part.files = sink.before.files + sink.now.files;
      part.dead_letters = sink.before.dead_letters + sink.now.dead_letters;
      part.lag = sink.now.lag_records.value_or(-1);
      part.retries = sink.retries;
      part.failed = sink.failed;
      status.sinks.push_back(std::move(part));
    }
    all.push_back(std::move(status));
  }
  return all;
}

std::string MetricsText(const std::vector<PipelineStatus>& pipelines) {
  using Part = PipelineStatus::Part;
  struct Metric {
    const char* name;
    const char* type;
    const char* help;
    int64_t Part::*value;
    bool sink;
  };
  static constexpr Metric kMetrics[] = {
      {"source_records_total", "counter", "Records written to the topic.", &Part::records, false},
      {"source_bytes_total", "counter", "Bytes of record values written to the topic.", &Part::bytes, false},
      {"source_pages_total", "counter", "Pages fetched from the API.", &Part::pages, false},
      {"source_pulls_total", "counter", "Pulls completed.", &Part::pulls, false},
      {"source_skipped_records_total", "counter", "Records that the API sent again.", &Part::skipped, false},
      {"source_dead_letters_total", "counter", "Records too large for the topic.", &Part::dead_letters, false},
      {"source_retries_total", "counter", "Tries repeated, of the API and of the topic.", &Part::retries, false},
      {"sink_records_total", "counter", "Records in committed files.", &Part::records, true},
      {"sink_file_bytes_total", "counter", "Bytes of committed files.", &Part::bytes, true},
      {"sink_files_total", "counter", "Files committed.", &Part::files, true},
      {"sink_dead_letters_total", "counter", "Records written to the dead letter topic.", &Part::dead_letters, true},
      {"sink_lag_records", "gauge",
       "Offsets between the committed files and the end of the topic; absent until it is known.", &Part::lag, true},
      {"sink_restarts_total", "counter", "Ends of the sink by an error.", &Part::retries, true},
      {"sink_failed", "gauge", "1 while the sink waits after an error, or has ended by one.", &Part::failed, true},
  };
  std::string text;
  for (const Metric& metric : kMetrics) {
    text += Cat("# HELP sluice_connect_", metric.name, " ", metric.help, "\n# TYPE sluice_connect_", metric.name, " ",
                metric.type, "\n");
    for (const PipelineStatus& pipeline : pipelines) {
      for (const Part& part : metric.sink ? pipeline.sinks : pipeline.slices) {
        if (part.*metric.value < 0) continue;  // not known yet
        text += Cat("sluice_connect_", metric.name, "{pipeline=\"", pipeline.name, "\",",
                    metric.sink ? "sink" : "slice", "=\"", part.name, "\"} ", part.*metric.value, "\n");
      }
    }
  }
  return text;
}

}  // namespace sluice::connector
