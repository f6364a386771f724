#include <CLI/CLI.hpp>

#include "common/text.h"
#include "common/units.h"
#include "tools/context.h"
#include "tools/format.h"
#include "tools/json_writer.h"

namespace sluice::tools {
namespace {

void WriteNodes(JsonWriter& json, const client::ClusterInfo& cluster) {
  json.Key("nodes").BeginArray();
  for (const client::NodeInfo& node : cluster.nodes) {
    json.BeginObject().Key("id").Int(node.id.value()).Key("address").Bytes(node.address).Key("rack").Bytes(node.rack);
    json.Key("version").Bytes(node.version).Key("alive").Bool(node.alive).Key("started_ms").Int(node.started_ms);
    json.Key("disk_free_bytes").Int(node.disk_free_bytes).Key("disk_used_bytes").Int(node.disk_used_bytes).EndObject();
  }
  json.EndArray();
}

std::string NodesTable(const client::ClusterInfo& cluster) {
  Table table({"#NODE", "ADDRESS", "ALIVE", "VERSION", "STARTED", "#DISK USED", "#DISK FREE"});
  for (const client::NodeInfo& node : cluster.nodes) {
    table.Row({Cat(node.id), node.address, node.alive ? "yes" : "no", node.version, TimeText(node.started_ms),
               HumanSizeText(node.disk_used_bytes), HumanSizeText(node.disk_free_bytes)});
  }
  return table.Text();
}

int Show(const Context& context, bool nodes_only) {
  auto client = context.Connect();
  if (!client.ok()) return Fail("--brokers", client.status());
  auto cluster = (*client)->NewAdmin()->DescribeCluster();
  if (!cluster.ok()) return Fail(nodes_only ? "node list" : "cluster status", cluster.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject();
    if (!nodes_only) {
      json.Key("cluster_id").Bytes(cluster->cluster_id).Key("cluster_name").Bytes(cluster->cluster_name);
      json.Key("controller_node").Int(cluster->controller.value());
      json.Key("topics").Int(cluster->topics).Key("partitions").Int(cluster->partitions);
    }
    WriteNodes(json, *cluster);
    Print(json.EndObject().Take() + "\n");
    return Finish();
  }
  if (!nodes_only) {
    Print(Cat("cluster     ", cluster->cluster_name.empty() ? "-" : cluster->cluster_name, " (", cluster->cluster_id,
              ")\ncontroller  ",
              cluster->controller == NodeId(0) ? std::string("none") : Cat("node ", cluster->controller),
              "\ntopics      ", cluster->topics, "\npartitions  ", cluster->partitions, "\n\n"));
  }
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
