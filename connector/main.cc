// sluice-connect: pulls HTTP APIs into topics and drains topics to files, as pipeline files say.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not reachable, 4 not found, 5 refused, 130
// interrupted.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "client/client.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "common/units.h"
#include "connector/messages.h"
#include "connector/pipeline_config.h"
#include "connector/preview.h"
#include "connector/sink/sink.h"
#include "connector/worker.h"
#include "runtime/http_listener.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"

namespace sluice::connector {
namespace {

constexpr int kFailed = 1, kWrongUse = 2, kInterrupted = 130;
constexpr uint16_t kHttpPort = 7410;

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
      return kWrongUse;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return 3;
    case absl::StatusCode::kNotFound:
      return 4;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
      return 5;
    case absl::StatusCode::kCancelled:
      return kInterrupted;
    default:
      return kFailed;
  }
}

struct Flags {
  std::vector<std::string> paths;
  std::string brokers;
  std::string tls_ca;  // a file; empty: no TLS
  std::string http;    // empty: the default, and no harm when it is taken
  bool http_insecure = false;
  bool once = false;
  int64_t records_max = 10;
  std::string give_up_after = "2m";
};

/// All pipelines of the arguments, with the errors of all files together.
absl::StatusOr<std::vector<PipelineConfig>> LoadAll(const std::vector<std::string>& paths) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> files, PipelineFiles(paths));
  std::vector<PipelineConfig> pipelines;
  std::string errors;
  for (const std::string& file : files) {
    PipelineConfig read;
    absl::StatusOr<PipelineConfig> pipeline = LoadPipeline(file, SecretSource::OfThisProcess(), &read);
    if (!pipeline.ok()) {
      errors += Cat(errors.empty() ? "" : "\n", Message(pipeline.status()));
      pipelines.push_back(std::move(read));  // for what CheckTogether finds in it
    } else {
      pipelines.push_back(*std::move(pipeline));
    }
  }
  if (const absl::Status together = CheckTogether(pipelines); !together.ok()) {
    errors += Cat(errors.empty() ? "" : "\n", Message(together));
  }
  if (!errors.empty()) return absl::InvalidArgumentError(errors);
  return pipelines;
}

std::string Summary(const PipelineStatus& pipeline) {
  int64_t records = 0, pages = 0, dead_letters = 0;
  for (const PipelineStatus::Part& slice : pipeline.slices) {
    records += slice.records;
    pages += slice.pages;
    dead_letters += slice.dead_letters;
  }
  std::string text = Cat(pipeline.name, ": ", pages, " pages, ", records, " records -> ", pipeline.topic);
  if (dead_letters > 0) text += Cat(", ", dead_letters, " dead letters");
  for (const PipelineStatus::Part& sink : pipeline.sinks) {
    text += Cat("; ", sink.name, ": ", sink.records, " records, ", sink.files, " files, ", HumanSizeText(sink.bytes));
    if (sink.dead_letters > 0) text += Cat(", ", sink.dead_letters, " dead letters");
  }
  return text;
}

/// Draws what the worker has done so far, one line a pipeline, until it goes.
class Progress {
 public:
  explicit Progress(const Worker& worker) : worker_(worker), on_(isatty(STDERR_FILENO) != 0) {
    if (on_) thread_ = std::thread([this] { Draw(); });
  }
  ~Progress() {
    stop_.Stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Draw() {
    size_t lines = 0;
    while (stop_.Sleep(absl::Milliseconds(250))) {
      if (!worker_.ready()) continue;
      std::string text = lines > 0 ? Cat("\x1b[", lines, "A") : std::string();
      const std::vector<PipelineStatus> pipelines = worker_.Status();
      for (const PipelineStatus& pipeline : pipelines) text += Cat("\r\x1b[2K", Summary(pipeline), "\n");
      lines = pipelines.size();
      std::fwrite(text.data(), 1, text.size(), stderr);
    }
  }
  const Worker& worker_;
  const bool on_;
  StopSignal stop_;
  std::thread thread_;
};

/// Starts what /metrics, /healthz and /readyz answer from. A second worker on the machine does without, unless told a
/// port.
absl::StatusOr<std::unique_ptr<runtime::HttpListener>> Listen(const Flags& flags, const Worker& worker,
                                                              const Logger& log) {
  runtime::HttpListenerOptions options;
  options.port = kHttpPort;
  if (!flags.http.empty()) {
    const size_t colon = flags.http.rfind(':');
    const std::string port = colon == std::string::npos ? flags.http : flags.http.substr(colon + 1);
    if (colon != std::string::npos) options.host = flags.http.substr(0, colon);
    char* end = nullptr;
    const long number = std::strtol(port.c_str(), &end, 10);
    if (port.empty() || *end != '\0' || number < 0 || number > 65535) {
      return absl::InvalidArgumentError(Cat("--http: '", flags.http, "' is not HOST:PORT"));
    }
    const bool loopback = options.host == "127.0.0.1" || options.host == "localhost" || options.host == "::1";
    if (!loopback && !flags.http_insecure) {
      return absl::InvalidArgumentError(
          "--http: only a loopback address, because nothing protects this port, unless --http-insecure is given");
    }
    options.port = static_cast<uint16_t>(number);
  }
  auto listener = std::make_unique<runtime::HttpListener>(options);
  listener->Handle("/metrics", [&worker](const runtime::HttpRequest&, runtime::HttpRespond respond) {
    respond({.status = 200, .content_type = "text/plain; version=0.0.4", .body = MetricsText(worker.Status())});
  });
  listener->Handle("/healthz", [](const runtime::HttpRequest&, runtime::HttpRespond respond) {
    respond({.status = 200, .content_type = "text/plain; charset=utf-8", .body = "ok\n"});
  });
  listener->Handle("/readyz", [&worker](const runtime::HttpRequest&, runtime::HttpRespond respond) {
    const bool ready = worker.ready();
    respond({.status = ready ? 200 : 503,
             .content_type = "text/plain; charset=utf-8",
             .body = ready ? "ready\n" : "not ready\n"});
  });
  const absl::Status started = listener->Start();
  if (started.ok()) return listener;
  if (!flags.http.empty()) return Located("--http", started);
  log.Warn("no metrics: the port is taken; another can be named with --http", {{"error", Message(started)}});
  return std::unique_ptr<runtime::HttpListener>();
}

/// Stops on the first signal, cleanly. What cannot be interrupted (an upload to S3) does not hold up the end, and
/// neither does anything after a second signal: whatever is cut short then, the next start goes on from what is
/// written, as after a crash.
class SignalWatch {
 public:
  SignalWatch(runtime::TerminationSignals& signals, StopSignal& stop)
      : thread_([this, &signals, &stop] {
          signals.Wait();
          if (ended_.stopped()) return;
          stop.Stop();
          late_ = std::thread([this] {
            if (ended_.Sleep(kStopTime)) End();
          });
          signals.Wait();
          if (!ended_.stopped()) End();
        }) {}
  ~SignalWatch() {
    ended_.Stop();
    runtime::TerminationSignals::Raise();
    thread_.join();
    if (late_.joinable()) late_.join();
  }

 private:
  static constexpr absl::Duration kStopTime = absl::Milliseconds(1800);
  [[noreturn]] static void End() {
    std::cerr << "sluice-connect: stopped without waiting for what was under way\n";
    _exit(kInterrupted);
  }
  StopSignal ended_;
  std::thread late_;
  std::thread thread_;
};

absl::Status RunWorker(const Flags& flags, const Logger& log, runtime::TerminationSignals& signals) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<PipelineConfig> pipelines, LoadAll(flags.paths));
  client::ClientOptions options;
  SLUICE_ASSIGN_OR_RETURN(options.brokers, client::ParseBrokers(flags.brokers));
  options.tls_ca_file = flags.tls_ca;
  const absl::StatusOr<absl::Duration> give_up_after = ParseDuration(flags.give_up_after);
  if (!give_up_after.ok()) return Located("--give-up-after", give_up_after.status());
  // A call that goes on for longer would keep the worker from giving up in time.
  if (flags.once) options.timeout = std::clamp(*give_up_after, absl::Seconds(1), options.timeout);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> client, client::Connect(options));

  runtime::SystemClock clock;
  runtime::PosixFileSystem files;
  StopSignal stop;
  absl::Status end;
  {
    Worker worker(std::move(pipelines),
                  {.once = flags.once,
                   .give_up_after = *give_up_after,
                   .connect_wait = std::min(*give_up_after, absl::Seconds(30))},
                  {.client = client.get(), .clock = &clock, .files = &files, .stop = &stop, .log = &log});
    SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<runtime::HttpListener> listener, Listen(flags, worker, log));
    {
      const SignalWatch watch(signals, stop);
      const Progress progress(worker);
      end = worker.Run();
    }
    for (const PipelineStatus& pipeline : worker.Status()) std::cout << Summary(pipeline) << "\n";
    std::cout.flush();
  }
  ShutDownTargets();
  return end;
}

absl::Status Lint(const Flags& flags) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<PipelineConfig> pipelines, LoadAll(flags.paths));
  for (const PipelineConfig& pipeline : pipelines) std::cout << pipeline.file << ": ok\n";
  return absl::OkStatus();
}

absl::Status Test(const Flags& flags, const Logger& log, runtime::TerminationSignals& signals) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<PipelineConfig> pipelines, LoadAll(flags.paths));
  runtime::SystemClock clock;
  runtime::SystemRandom random;
  StopSignal stop;
  const SignalWatch watch(signals, stop);
  for (const PipelineConfig& pipeline : pipelines) {
    SLUICE_RETURN_IF_ERROR(PreviewPipeline(
        pipeline, flags.records_max, {.clock = &clock, .random = &random, .stop = &stop, .log = &log}, std::cout));
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Pulls HTTP APIs into Sluice's topics and drains topics to files and S3", "sluice-connect");
  app.set_version_flag("--version", std::string("sluice-connect ") + SLUICE_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n  sluice-connect lint quakes.yaml\n  sluice-connect test quakes.yaml\n  sluice-connect run "
      "quakes.yaml\n\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not reachable, 4 not found, 5 refused, 130 "
      "interrupted.");
  Flags flags;
  const char* brokers = std::getenv("SLUICE_BROKERS");
  flags.brokers = brokers != nullptr ? brokers : "127.0.0.1:7400";

  CLI::App* run = app.add_subcommand("run", "Run pipelines in the foreground until Ctrl-C");
  run->footer(
      "Examples:\n  sluice-connect run quakes.yaml --once\n  sluice-connect run pipelines/ quakes.yaml --brokers "
      "10.0.0.1:7400,10.0.0.2:7400");
  run->add_option("PATH", flags.paths, "Pipeline files, or folders of them")->required();
  run->add_flag("--once", flags.once, "Pull until the API has no more pages, drain the sinks, and end");
  run->add_option("--brokers", flags.brokers, "HOST:PORT,… (also SLUICE_BROKERS)")->capture_default_str();
  run->add_option("--tls-ca", flags.tls_ca,
                  "PEM file of the authorities that brokers' certificates come from; with it, TLS")
      ->envname("SLUICE_TLS_CA")
      ->check(CLI::ExistingFile);
  run->add_option(
         "--give-up-after", flags.give_up_after,
         "With --once: how long the broker or a sink may keep failing; without: how long to wait for the first "
         "connection, at most 30s")
      ->capture_default_str();
  run->add_option("--http", flags.http, "HOST:PORT of metrics and health (127.0.0.1:7410; port 0: any)");
  run->add_flag("--http-insecure", flags.http_insecure, "Let --http name an address that other machines can reach");
  CLI::App* lint = app.add_subcommand("lint", "Check pipeline files; tells all errors, with line and key");
  lint->footer("Example:\n  sluice-connect lint quakes.yaml pipelines/");
  lint->add_option("PATH", flags.paths, "Pipeline files, or folders of them")->required();
  CLI::App* test = app.add_subcommand("test", "Fetch one page, print its records and schema, write nothing");
  test->footer("Example:\n  sluice-connect test quakes.yaml --records 3");
  test->add_option("PATH", flags.paths, "Pipeline files, or folders of them")->required();
  test->add_option("--records", flags.records_max, "Records to print")
      ->check(CLI::Validator(
          [](std::string& text) {
            const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
            return digits ? std::string() : Cat("expected a whole number, at least 0, got \"", text, "\"");
          },
          ""))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongUse;
  }

  const absl::StatusOr<LogLevel> level = ChooseLogLevel(std::getenv("SLUICE_LOG"), LogLevel::kWarn);
  if (!level.ok()) {
    std::cerr << "sluice-connect: " << Message(level.status()) << "\n";
    return kWrongUse;
  }
  LogOptions log_options;
  log_options.level = *level;
  const Logger log(std::move(log_options));
  runtime::TerminationSignals signals;  // before any thread starts
  const absl::Status status = run->parsed()    ? RunWorker(flags, log, signals)
                              : lint->parsed() ? Lint(flags)
                                               : Test(flags, log, signals);
  if (!status.ok() && !absl::IsCancelled(status)) std::cerr << "sluice-connect: " << Message(status) << "\n";
  return ExitCode(status);
}

}  // namespace
}  // namespace sluice::connector

int main(int argc, char** argv) {
  setenv("GRPC_VERBOSITY", "NONE", 0);  // what went wrong is said once, in our words
  return sluice::connector::Main(argc, argv);
}
