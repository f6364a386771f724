// What the commands of `sluice` share: the options that stand before the noun, exit codes, and how an error is told.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace CLI {
class App;
}

namespace sluice::tools {

enum ExitCode : int {
  kDone = 0,
  kFailed = 1,
  kWrongUsage = 2,
  kNotReachable = 3,
  kNotFound = 4,
  kRefused = 5,
  kInterrupted = 130,
};

int ExitCodeOf(const absl::Status& status);

struct Context {
  std::string brokers = "127.0.0.1:7400";
  std::string tls_ca;  // a file; empty: no TLS
  std::string output = "table";
  std::string timeout_text = "30s";
  absl::Duration timeout;  // parsed before a command runs
  /// Set by the command line that was parsed; its result is the exit code.
  std::function<int()> run;

  bool json() const { return output == "json"; }
  absl::StatusOr<std::unique_ptr<client::Client>> Connect() const;
};

/// Prints "sluice: <what>: <message>" to stderr and gives the exit code that belongs to it.
int Fail(std::string_view what, const absl::Status& status);

/// The same of a Connect that failed: what named it wrong was --tls-ca or --brokers.
int FailConnect(const Context& context, const absl::Status& status);

/// Writes all of `text` to standard output; false when that is not possible any more.
bool Print(std::string_view text);
/// Standard output at the end of a command: a failure to write it is a failure of the command.
int Finish();

/// Whether SIGINT or SIGTERM came since EndGently; a second signal ends the process.
bool Interrupted();
/// Before any thread starts: SIGINT and SIGTERM end the process at once, with kInterrupted.
void InstallSignalHandlers();
/// From here on the command ends by itself once it is Interrupted: called before the part that has something to finish.
void EndGently();

// Each adds its nouns and verbs to the command line.
void AddTopicCommands(CLI::App& app, Context& context);
void AddProduceCommand(CLI::App& app, Context& context);
void AddConsumeCommand(CLI::App& app, Context& context);
void AddOffsetCommands(CLI::App& app, Context& context);
void AddClusterCommands(CLI::App& app, Context& context);
void AddPartitionCommands(CLI::App& app, Context& context);
void AddLogCommands(CLI::App& app, Context& context);

}  // namespace sluice::tools
