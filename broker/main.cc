// sluiced: a broker node. Reads its configuration, runs the node (node_process.h), and waits for a signal.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "broker/data_folder.h"
#include "broker/node_config.h"
#include "broker/node_process.h"
#include "broker/rpc/grpc_log.h"
#include "broker/rpc/tls.h"
#include "common/log.h"
#include "common/text.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"

namespace sluice::broker {
namespace {

constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;
constexpr int kExitWrong = 2;  // usage or configuration

// Descriptors: of a client's connection, and of all the rest, whose part is no less than half where there are few.
constexpr int64_t kFilesPerConnection = 2;
constexpr int64_t kFilesOther = 1024;

struct Arguments {
  std::string config;
  std::string check_config;
  std::vector<std::string> overrides;
  bool init = false;
};

// Before anything is made on the disk: what a start would stumble over later.
absl::Status CheckFiles(const NodeConfig& config) {
  for (const auto& [key, files] :
       {std::pair{"listen.tls", &config.listen_tls}, std::pair{"peer.tls", &config.peer_tls}}) {
    if (!files->has_value()) continue;
    const absl::Status good = rpc::CheckTlsFiles(**files);
    if (!good.ok()) return absl::InvalidArgumentError(Cat(key, ": ", Message(good)));
  }
  return absl::OkStatus();
}

// `sluiced init`: makes the data folder of a new cluster's first node.
int Init(const NodeConfig& config) {
  runtime::PosixFileSystem files;
  runtime::SystemRandom random;
  const absl::StatusOr<DataFolder> folder = OpenDataFolder(files, config.data_dir, config.id, random);
  if (!folder.ok()) {
    std::cerr << "sluiced: " << Message(folder.status()) << "\n";
    return kExitFailed;
  }
  if (!folder->created) {
    std::cerr << "sluiced: " << config.data_dir << " is the folder of node " << folder->node_id << " already"
              << (folder->cluster_id.IsNil() ? std::string(", which is to join a cluster")
                                             : Cat(", of cluster ", folder->cluster_id))
              << "; nothing is changed\n";
    return kExitFailed;
  }
  std::cout << "made " << config.data_dir << " for node " << folder->node_id << ", the first of cluster "
            << folder->cluster_id
            << "\nStart it with the same configuration; then the other nodes, each with a node.id "
            << "of its own and cluster.seeds: [" << config.advertise_peer << "]\n";
  return kExitDone;
}

int Run(const NodeConfig& config, runtime::TerminationSignals& signals) {
  const absl::StatusOr<LogLevel> level = ChooseLogLevel(std::getenv("SLUICE_LOG"), config.log_level);
  if (!level.ok()) {
    std::cerr << "sluiced: " << Message(level.status()) << "\n";
    return kExitWrong;
  }
  const Logger log({.level = *level, .format = config.log_format, .write = {}, .now = {}});
  rpc::RouteGrpcLog(log);
  NodeConfig taken = config;
  const int64_t files = runtime::RaiseFileLimit();
  const int64_t connections = std::max({files - kFilesOther, files / 2, kFilesPerConnection}) / kFilesPerConnection;
  if (connections < config.connections_max) {
    taken.connections_max = static_cast<int32_t>(connections);
    log.Warn("the limit of open files is low for limits.connections: fewer are taken, so that storage has files left",
             {{"open_files_max", files},
              {"configured", config.connections_max},
              {"connections_max", taken.connections_max}});
  }
  NodeProcess node(taken, log);
  const absl::Status status = node.Start(signals);
  if (absl::IsCancelled(status)) {
    log.Info("stopping", {{"why", status}});
    node.Stop();
    return kExitDone;
  }
  if (!status.ok()) {
    log.Error("cannot start", {{"error", status}});
    node.Stop();
    std::cerr << "sluiced: " << Message(status) << "\n";
    return kExitFailed;
  }
  const int signal_number = signals.Wait();
  log.Info("stopping", {{"signal", signal_number}});
  node.Stop();
  if (const absl::Status refused = node.Refused(); !refused.ok()) {
    std::cerr << "sluiced: " << Message(refused) << "\n";
    return kExitFailed;
  }
  log.Info("stopped");
  return kExitDone;
}

int Main(int argc, char** argv) {
  runtime::TuneMalloc();
  runtime::TerminationSignals signals;
  Arguments arguments;
  CLI::App app(
      "sluiced: a node of the Sluice log broker. Without --config: one node, data in ./sluice-data, loopback only.");
  app.set_version_flag("--version", "sluiced " SLUICE_VERSION);
  app.add_option("--config", arguments.config, "configuration file (docs/configuration.md)");
  app.add_option("--check-config", arguments.check_config, "check a configuration file and end");
  app.add_option("--set", arguments.overrides, "key=value over the file's; may be given again")->take_all();
  app.footer(
      "Examples:\n  sluiced\n  sluiced --config node.yaml --set listen.grpc=127.0.0.1:7500\n"
      "  sluiced --check-config node.yaml\n  sluiced init --config node.yaml");
  std::vector<std::string> behind_init;
  CLI::App* init = app.add_subcommand("init", "make the data folder of a new cluster's first node")->fallthrough();
  init->add_option("--config", arguments.config, "configuration file (docs/configuration.md)");
  init->add_option("--set", behind_init, "key=value over the file's; may be given again")->take_all();
  init->footer("Example:\n  sluiced init --config node.yaml --set node.data_dir=./node-1");
  init->callback([&] { arguments.init = true; });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitWrong;
  }
  arguments.overrides.insert(arguments.overrides.end(), behind_init.begin(), behind_init.end());
  runtime::PosixFileSystem files;
  const bool check = !arguments.check_config.empty();
  const absl::StatusOr<NodeConfig> config =
      LoadNodeConfig(files, check ? arguments.check_config : arguments.config, arguments.overrides);
  if (!config.ok()) {
    std::cerr << Message(config.status()) << "\n";
    return kExitWrong;
  }
  if (const absl::Status good = CheckFiles(*config); !good.ok()) {
    std::cerr << "sluiced: " << Message(good) << "\n";
    return kExitWrong;
  }
  if (check) {
    std::cout << arguments.check_config << ": good\n";
    return kExitDone;
  }
  return arguments.init ? Init(*config) : Run(*config, signals);
}

}  // namespace
}  // namespace sluice::broker

int main(int argc, char** argv) {
  return sluice::broker::Main(argc, argv);
}
