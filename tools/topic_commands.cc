#include <CLI/CLI.hpp>

#include "common/text.h"
#include "tools/arguments.h"
#include "tools/context.h"
#include "tools/format.h"
#include "tools/json_writer.h"

namespace sluice::tools {
namespace {

struct Arguments {
  std::string name;
  int32_t partitions = 0;
  int32_t replicas = 0;
  std::vector<std::string> config;
  std::vector<std::string> unset;
  bool internal = false;
};

void WriteTopic(JsonWriter& json, const client::TopicInfo& topic) {
  json.Key("name").Bytes(topic.name).Key("id").Bytes(topic.id.ToString());
  json.Key("partitions").Int(topic.partitions).Key("replicas").Int(topic.replicas);
  json.Key("created_ms").Int(topic.created_ms).Key("config").BeginObject();
  for (const auto& [key, value] : topic.config) json.Key(key).Bytes(value);
  json.EndObject();
}

int ShowTopic(const Context& context, const client::TopicInfo& topic, std::string_view done) {
  if (context.json()) {
    JsonWriter json;
    json.BeginObject();
    WriteTopic(json, topic);
    Print(json.EndObject().Take() + "\n");
  } else {
    Print(Cat("topic ", topic.name, " ", done, ": ", topic.partitions,
              topic.partitions == 1 ? " partition" : " partitions", ", config ", PairsText(topic.config), "\n"));
  }
  return Finish();
}

// Connects, runs, and shows the topic that comes back.
template <class Call>
int Change(const Context& context, const std::string& name, std::string_view done, Call call) {
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  absl::StatusOr<client::TopicInfo> topic = call(*(*client)->NewAdmin());
  if (!topic.ok()) return Fail(Cat("topic ", name), topic.status());
  return ShowTopic(context, *topic, done);
}

int Create(const Context& context, const Arguments& arguments) {
  auto config = ParsePairs(arguments.config);
  if (!config.ok()) return Fail("--config", config.status());
  const client::TopicSpec spec{arguments.name, arguments.partitions, arguments.replicas, *config};
  return Change(context, arguments.name, "created", [&](client::Admin& admin) { return admin.CreateTopic(spec); });
}

int Alter(const Context& context, const Arguments& arguments) {
  auto config = ParsePairs(arguments.config);
  if (!config.ok()) return Fail("--config", config.status());
  if (config->empty() && arguments.unset.empty()) {
    return Fail("topic alter", absl::InvalidArgumentError("nothing to change: give --config key=value or --unset key"));
  }
  return Change(context, arguments.name, "altered",
                [&](client::Admin& admin) { return admin.AlterTopic(arguments.name, *config, arguments.unset); });
}

int List(const Context& context, const Arguments& arguments) {
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto topics = (*client)->NewAdmin()->ListTopics(arguments.internal);
  if (!topics.ok()) return Fail("topic list", topics.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject().Key("topics").BeginArray();
    for (const client::TopicInfo& topic : *topics) {
      json.BeginObject();
      WriteTopic(json, topic);
      json.EndObject();
    }
    Print(json.EndArray().EndObject().Take() + "\n");
    return Finish();
  }
  Table table({"NAME", "#PARTITIONS", "#REPLICAS", "CREATED", "CONFIG"});
  for (const client::TopicInfo& topic : *topics) {
    table.Row(
        {topic.name, Cat(topic.partitions), Cat(topic.replicas), TimeText(topic.created_ms), PairsText(topic.config)});
  }
  Print(table.Text());
  return Finish();
}

int Describe(const Context& context, const Arguments& arguments) {
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto described = (*client)->NewAdmin()->DescribeTopic(arguments.name);
  if (!described.ok()) return Fail(Cat("topic ", arguments.name), described.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject();
    WriteTopic(json, described->topic);
    json.Key("partition_list").BeginArray();
    for (const client::PartitionInfo& each : described->partitions) {
      json.BeginObject().Key("partition").Int(each.partition.value()).Key("leader_node").Int(each.leader_node.value());
      json.Key("leader").Bytes(each.leader).Key("leader_epoch").Int(each.leader_epoch.value());
      json.Key("replica_nodes").BeginArray();
      for (const NodeId node : each.replicas) json.Int(node.value());
      json.EndArray().Key("log_start_offset").Int(each.log_start.value());
      json.Key("high_watermark").Int(each.high_watermark.value()).Key("size_bytes").Int(each.size_bytes);
      if (!each.error.empty()) json.Key("error").Bytes(each.error);
      json.EndObject();
    }
    Print(json.EndArray().EndObject().Take() + "\n");
    return Finish();
  }
  const client::TopicInfo& topic = described->topic;
  Print(Cat("name      ", topic.name, "\nid        ", topic.id, "\nreplicas  ", topic.replicas, "\ncreated   ",
            TimeText(topic.created_ms), "\nconfig    ", PairsText(topic.config), "\n\n"));
  Table table({"#PARTITION", "LEADER", "#EPOCH", "REPLICAS", "#LOG START", "#HIGH WATERMARK", "#BYTES"});
  for (const client::PartitionInfo& each : described->partitions) {
    const std::string leader = each.leader_node == NodeId(0) ? "none" : Cat(each.leader_node, " (", each.leader, ")");
    std::string replicas;
    for (const NodeId node : each.replicas) replicas += Cat(replicas.empty() ? "" : ",", node);
    table.Row({Cat(each.partition), leader, Cat(each.leader_epoch), replicas.empty() ? "-" : replicas,
               Cat(each.log_start), Cat(each.high_watermark), Cat(each.size_bytes)});
  }
  Print(table.Text());
  for (const client::PartitionInfo& each : described->partitions) {
    if (!each.error.empty()) Print(Cat("\npartition ", each.partition, " is not served: ", each.error, "\n"));
  }
  return Finish();
}

int Delete(const Context& context, const Arguments& arguments) {
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  const absl::Status deleted = (*client)->NewAdmin()->DeleteTopic(arguments.name);
  if (!deleted.ok()) return Fail(Cat("topic ", arguments.name), deleted);
  if (context.json()) {
    Print(JsonWriter().BeginObject().Key("deleted").Bytes(arguments.name).EndObject().Take() + "\n");
  } else {
    Print(Cat("topic ", arguments.name, " deleted\n"));
  }
  return Finish();
}

}  // namespace

void AddTopicCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* topic = app.add_subcommand("topic", "Make, show, change and delete topics")->fallthrough();
  topic->require_subcommand(1);
  topic->footer("Example:\n  sluice topic create clicks --partitions 3");
  const auto add = [&](const char* verb, const char* about, const char* example,
                       int (*run)(const Context&, const Arguments&)) {
    CLI::App* command = topic->add_subcommand(verb, about)->fallthrough();
    command->footer(Cat("Example:\n  ", example));
    command->callback(
        [&context, arguments, run] { context.run = [&context, arguments, run] { return run(context, *arguments); }; });
    return command;
  };
  const auto named = [&](CLI::App* command) {
    command->add_option("NAME", arguments->name, "The topic")->required();
    return command;
  };

  CLI::App* create =
      named(add("create", "Make a topic",
                "sluice topic create clicks --partitions 3 --replicas 3 --config retention.ms=86400000", Create));
  create->add_option("--partitions", arguments->partitions, "How many partitions; the broker's default when left out")
      ->check(AtLeast(1));
  create->add_option("--replicas", arguments->replicas, "On how many nodes; 3 when left out, or as many as there are")
      ->check(AtLeast(1));
  create->add_option("--config", arguments->config, "A setting, key=value; may be repeated")->expected(1)->take_all();

  CLI::App* list = add("list", "List topics", "sluice --output json topic list", List);
  list->add_flag("--internal", arguments->internal, "Also those that begin with __");

  named(add("describe", "Show a topic and its partitions", "sluice topic describe clicks", Describe));

  CLI::App* alter = named(add("alter", "Change a topic's settings",
                              "sluice topic alter clicks --config retention.ms=3600000 --unset segment.bytes", Alter));
  alter->add_option("--config", arguments->config, "A setting, key=value; may be repeated")->expected(1)->take_all();
  alter->add_option("--unset", arguments->unset, "A setting that goes back to its default; may be repeated")
      ->expected(1)
      ->take_all();

  CLI::App* more =
      named(add("add-partitions", "Give a topic more partitions", "sluice topic add-partitions clicks --partitions 6",
                [](const Context& c, const Arguments& a) {
                  return Change(c, a.name, "changed",
                                [&](client::Admin& admin) { return admin.AddPartitions(a.name, a.partitions); });
                }));
  more->add_option("--partitions", arguments->partitions, "The new total")->required()->check(AtLeast(1));

  named(add("delete", "Delete a topic and all its records", "sluice topic delete clicks", Delete));
}

}  // namespace sluice::tools
