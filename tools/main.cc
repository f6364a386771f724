// `sluice`: the command line for operators and for people in a shell. docs/cli.md tells what it does.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "common/text.h"
#include "common/units.h"
#include "tools/arguments.h"
#include "tools/context.h"
#include "tools/json_writer.h"

namespace sluice::tools {
namespace {

int Version(const Context& context) {
  if (context.json()) {
    Print(JsonWriter().BeginObject().Key("version").Bytes(SLUICE_VERSION).EndObject().Take() + "\n");
  } else {
    Print("sluice " SLUICE_VERSION "\n");
  }
  return Finish();
}

int Run(int argc, char** argv) {
  Context context;
  CLI::App app("Sluice: topics, records and nodes from the command line", "sluice");
  app.require_subcommand(1);
  app.footer(
      "Examples:\n  sluice topic create clicks\n  echo hello | sluice produce clicks\n"
      "  sluice consume clicks --from earliest\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 not reachable, 4 not "
      "found, 5 refused, 130 interrupted.");
  app.add_option("--brokers", context.brokers, "Brokers to ask, host:port, with commas between; any may be down")
      ->envname("SLUICE_BROKERS")
      ->capture_default_str();
  app.add_option("--tls-ca", context.tls_ca,
                 "PEM file of the authorities that brokers' certificates come from; with it, TLS")
      ->envname("SLUICE_TLS_CA")
      ->check(CLI::ExistingFile);
  app.add_option("--output", context.output, "table for people, json for programs")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--timeout", context.timeout_text, "How long to wait for a broker: 500ms, 30s, 2m")
      ->capture_default_str();
  AddTopicCommands(app, context);
  AddProduceCommand(app, context);
  AddConsumeCommand(app, context);
  AddOffsetCommands(app, context);
  AddClusterCommands(app, context);
  AddPartitionCommands(app, context);
  AddLogCommands(app, context);
  app.set_version_flag("--version", "sluice " SLUICE_VERSION);
  CLI::App* help = app.add_subcommand("help", "Print this help");
  help->footer("Example:\n  sluice help");
  help->callback([&app, &context] {
    context.run = [&app] {
      Print(app.help());
      return Finish();
    };
  });
  CLI::App* version = app.add_subcommand("version", "Print the version")->fallthrough();
  version->footer("Example:\n  sluice version");
  version->callback([&context] { context.run = [&context] { return Version(context); }; });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (const std::string wrong = WrongCommand(app); !wrong.empty() && error.get_exit_code() != 0) {
      std::fprintf(stderr, "sluice: %s\n", wrong.c_str());
      return kWrongUsage;
    }
    // CLI11 has exit codes of its own; ours has one for all wrong usage.
    return app.exit(error) == 0 ? kDone : kWrongUsage;
  }
  absl::StatusOr<absl::Duration> timeout = ParseDuration(context.timeout_text);
  if (timeout.ok() && *timeout < absl::Milliseconds(1)) timeout = absl::InvalidArgumentError("must be at least 1ms");
  if (!timeout.ok()) return Fail("--timeout", timeout.status());
  context.timeout = *timeout;
  InstallSignalHandlers();
  return context.run();
}

}  // namespace
}  // namespace sluice::tools

int main(int argc, char** argv) {
  setenv("GRPC_VERBOSITY", "NONE", 0);  // what went wrong is said once, in our words
  return sluice::tools::Run(argc, argv);
}
