#include <CLI/CLI.hpp>

#include "runtime/posix_file_system.h"
#include "tools/context.h"
#include "tools/log_dump.h"

namespace sluice::tools {
namespace {

struct Arguments {
  std::string path;
  bool records = false;
};

int Dump(const Context& context, const Arguments& arguments) {
  runtime::PosixFileSystem fs;
  const absl::Status dumped = DumpLog(fs, arguments.path, {arguments.records}, [&context](const DumpLine& line) {
    Print((context.json() ? line.Json() : line.Text()) + "\n");
  });
  if (!dumped.ok()) return Fail("log dump", dumped);
  return Finish();
}

}  // namespace

void AddLogCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* log = app.add_subcommand("log", "A node's files, read without a broker")->fallthrough();
  log->require_subcommand(1);
  log->footer("Example:\n  sluice log dump ./sluice-data");
  CLI::App* dump = log->add_subcommand("dump", "Show segments and journal, and check every checksum")->fallthrough();
  dump->footer(
      "PATH is a data folder, its journal folder, a partition's folder, a segment (*.log) or a journal file "
      "(*.journal).\n"
      "Nothing is written; a data folder that a broker has open is refused. Exit code 1 when something is damaged.\n"
      "Examples:\n  sluice log dump ./sluice-data\n  sluice --output json log dump ./sluice-data --records");
  dump->add_option("PATH", arguments->path, "What to read")->required();
  dump->add_flag("--records", arguments->records, "Show the records of each batch");
  dump->callback([&context, arguments] { context.run = [&context, arguments] { return Dump(context, *arguments); }; });
}

}  // namespace sluice::tools
