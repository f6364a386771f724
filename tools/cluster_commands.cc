#include <CLI/CLI.hpp>

#include "tools/cluster_view.h"
#include "tools/context.h"

namespace sluice::tools {
namespace {

int Show(const Context& context, bool nodes_only) {
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto cluster = (*client)->NewAdmin()->DescribeCluster();
  if (!cluster.ok()) return Fail(nodes_only ? "node list" : "cluster status", cluster.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject();
    if (!nodes_only) WriteCluster(json, *cluster);
    WriteNodes(json, *cluster);
    Print(json.EndObject().Take() + "\n");
    return Finish();
  }
  if (!nodes_only) Print(ClusterText(*cluster) + "\n");
  Print(NodesTable(*cluster));
  return Finish();
}

}  // namespace

void AddClusterCommands(CLI::App& app, Context& context) {
  CLI::App* cluster = app.add_subcommand("cluster", "The cluster as a whole")->fallthrough();
  cluster->require_subcommand(1);
  cluster->footer("Example:\n  sluice cluster status");
  CLI::App* status = cluster->add_subcommand("status", "Show the cluster and its nodes")->fallthrough();
  status->footer("Example:\n  sluice --brokers 127.0.0.1:7400 cluster status");
  status->callback([&context] { context.run = [&context] { return Show(context, false); }; });

  CLI::App* node = app.add_subcommand("node", "The nodes of the cluster")->fallthrough();
  node->require_subcommand(1);
  node->footer("Example:\n  sluice node list");
  CLI::App* list = node->add_subcommand("list", "List nodes")->fallthrough();
  list->footer("Example:\n  sluice --output json node list");
  list->callback([&context] { context.run = [&context] { return Show(context, true); }; });
}

}  // namespace sluice::tools
