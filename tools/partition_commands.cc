#include <CLI/CLI.hpp>

#include "common/text.h"
#include "tools/arguments.h"
#include "tools/cluster_view.h"
#include "tools/context.h"

namespace sluice::tools {
namespace {

struct Arguments {
  client::PartitionFilter filter;
  std::string topic;
  int32_t node = 0;
  int32_t partition = 0;
};

int List(const Context& context, Arguments arguments) {
  arguments.filter.node = NodeId(arguments.node);
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto partitions = (*client)->NewAdmin()->ListPartitions(arguments.filter);
  if (!partitions.ok()) return Fail("partition list", partitions.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject();
    WritePartitions(json, *partitions);
    Print(json.EndObject().Take() + "\n");
  } else {
    Print(PartitionsTable(*partitions));
  }
  return Finish();
}

int Elect(const Context& context, const Arguments& arguments) {
  const client::TopicPartition partition{arguments.topic, PartitionId(arguments.partition)};
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto elected = (*client)->NewAdmin()->ElectLeader(partition, NodeId(arguments.node));
  if (!elected.ok()) return Fail(Cat("topic ", arguments.topic, ", partition ", partition.partition), elected.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject().Key("topic").Bytes(arguments.topic).Key("partition").Int(arguments.partition);
    json.Key("leader_node").Int(elected->leader_node.value()).Key("leader").Bytes(elected->leader);
    Print(json.Key("leader_epoch").Int(elected->leader_epoch.value()).EndObject().Take() + "\n");
  } else {
    Print(Cat("topic ", arguments.topic, ", partition ", arguments.partition, " is led by node ", elected->leader_node,
              " (", elected->leader, ") in epoch ", elected->leader_epoch, "\n"));
  }
  return Finish();
}

}  // namespace

void AddPartitionCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* partition = app.add_subcommand("partition", "How partitions stand, and who leads them")->fallthrough();
  partition->require_subcommand(1);
  partition->footer("Example:\n  sluice partition list --under-replicated");

  CLI::App* list = partition->add_subcommand("list", "List partitions with their replicas")->fallthrough();
  list->footer("Examples:\n  sluice partition list --topic clicks\n  sluice --output json partition list --leaderless");
  list->add_option("--topic", arguments->filter.topic, "Only this topic's");
  list->add_option("--node", arguments->node, "Only those with a replica on this node")->check(AtLeast(1));
  list->add_flag("--under-replicated", arguments->filter.under_replicated,
                 "Only those with fewer replicas in sync than there should be");
  list->add_flag("--leaderless", arguments->filter.leaderless, "Only those that nobody leads");
  list->callback([&context, arguments] { context.run = [&context, arguments] { return List(context, *arguments); }; });

  CLI::App* elect = partition->add_subcommand("elect", "Hand a partition's leadership to a replica")->fallthrough();
  elect->footer(
      "Examples:\n  sluice partition elect clicks --partition 0\n  sluice partition elect clicks --partition 0 --node "
      "3");
  elect->add_option("TOPIC", arguments->topic, "The topic")->required();
  elect->add_option("--partition", arguments->partition, "The partition")->required()->check(AtLeast(0));
  elect->add_option("--node", arguments->node, "Who is to lead; the preferred leader when left out")->check(AtLeast(1));
  elect->callback(
      [&context, arguments] { context.run = [&context, arguments] { return Elect(context, *arguments); }; });
}

}  // namespace sluice::tools
