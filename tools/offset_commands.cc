#include <CLI/CLI.hpp>
#include <charconv>

#include "absl/time/clock.h"
#include "common/text.h"
#include "tools/arguments.h"
#include "tools/context.h"
#include "tools/format.h"
#include "tools/json_writer.h"

namespace sluice::tools {
namespace {

using Kind = client::OffsetQuery::Kind;

struct Arguments {
  std::string topic;
  std::string time;
  int32_t partition = -1;
  std::string before;
};

std::string OffsetText(const std::optional<Offset>& offset) {
  return offset.has_value() ? Cat(*offset) : "-";
}

void WriteOffset(JsonWriter& json, std::string_view key, const std::optional<Offset>& offset) {
  json.Key(key);
  offset.has_value() ? json.Int(offset->value()) : json.Null();
}

int Offsets(const Context& context, const Arguments& arguments) {
  const bool by_time = !arguments.time.empty();
  int64_t time_ms = 0;
  if (by_time) {
    auto parsed = ParseTimeMs(arguments.time, absl::Now());
    if (!parsed.ok()) return Fail("--time", parsed.status());
    time_ms = *parsed;
  }
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto admin = (*client)->NewAdmin();
  auto described = admin->DescribeTopic(arguments.topic);
  if (!described.ok()) return Fail(Cat("topic ", arguments.topic), described.status());
  Table table(by_time ? std::vector<std::string>{"#PARTITION", "#OFFSET", "TIMESTAMP"}
                      : std::vector<std::string>{"#PARTITION", "#EARLIEST", "#LATEST", "#LATEST DATA", "#LOG END"});
  JsonWriter json;
  json.BeginObject().Key("topic").Bytes(arguments.topic).Key("partitions").BeginArray();
  for (int32_t i = 0; i < described->topic.partitions; ++i) {
    const PartitionId partition(i);
    std::vector<client::OffsetQuery> queries;
    if (by_time) {
      queries = {{arguments.topic, partition, Kind::kTimestamp, time_ms}};
    } else {
      for (Kind kind : {Kind::kEarliest, Kind::kLatest, Kind::kLatestData})
        queries.push_back({arguments.topic, partition, kind, 0});
    }
    auto answers = admin->ListOffsets(queries);
    if (!answers.ok()) return Fail(Cat("topic ", arguments.topic, ", partition ", i), answers.status());
    json.BeginObject().Key("partition").Int(i);
    if (by_time) {
      const client::OffsetAnswer& found = answers->front();
      WriteOffset(json, "offset", found.offset);
      found.offset.has_value() ? json.Key("timestamp_ms").Int(found.timestamp_ms) : json.Key("timestamp_ms").Null();
      table.Row({Cat(i), OffsetText(found.offset), TimeText(found.timestamp_ms)});
    } else {
      WriteOffset(json, "earliest", (*answers)[0].offset);
      WriteOffset(json, "latest", (*answers)[1].offset);
      WriteOffset(json, "latest_data", (*answers)[2].offset);
      json.Key("log_end").Int((*answers)[1].log_end.value());
      table.Row({Cat(i), OffsetText((*answers)[0].offset), OffsetText((*answers)[1].offset),
                 OffsetText((*answers)[2].offset), Cat((*answers)[1].log_end)});
    }
    json.EndObject();
  }
  Print(context.json() ? json.EndArray().EndObject().Take() + "\n" : table.Text());
  return Finish();
}

int DeleteRecords(const Context& context, const Arguments& arguments) {
  std::optional<Offset> before;
  if (arguments.before != "latest") {
    int64_t offset = -1;
    const char* end = arguments.before.data() + arguments.before.size();
    const auto parsed = std::from_chars(arguments.before.data(), end, offset);
    if (parsed.ec != std::errc() || parsed.ptr != end || offset < 0) {
      return Fail("--before",
                  absl::InvalidArgumentError(Cat("\"", arguments.before, "\" is neither an offset nor latest")));
    }
    before = Offset(offset);
  }
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto start = (*client)->NewAdmin()->DeleteRecords({arguments.topic, PartitionId(arguments.partition)}, before);
  if (!start.ok()) return Fail(Cat("topic ", arguments.topic, ", partition ", arguments.partition), start.status());
  if (context.json()) {
    JsonWriter json;
    json.BeginObject().Key("topic").Bytes(arguments.topic).Key("partition").Int(arguments.partition);
    Print(json.Key("log_start_offset").Int(start->value()).EndObject().Take() + "\n");
  } else {
    Print(Cat("topic ", arguments.topic, ", partition ", arguments.partition, " now begins at offset ", *start, "\n"));
  }
  return Finish();
}

}  // namespace

void AddOffsetCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* offsets = app.add_subcommand("offsets", "Where a topic's partitions begin and end")->fallthrough();
  offsets->footer("Examples:\n  sluice offsets clicks\n  sluice offsets clicks --time 2026-01-31T12:00:00Z");
  offsets->add_option("TOPIC", arguments->topic, "The topic")->required();
  offsets->add_option("--time", arguments->time, "The first record at or after this time, or how long ago");
  offsets->callback(
      [&context, arguments] { context.run = [&context, arguments] { return Offsets(context, *arguments); }; });

  CLI::App* records = app.add_subcommand("records", "Records of a partition")->fallthrough();
  records->require_subcommand(1);
  records->footer("Example:\n  sluice records delete clicks --partition 0 --before 1000");
  CLI::App* remove = records->add_subcommand("delete", "Delete a partition's records up to an offset")->fallthrough();
  remove->footer("Example:\n  sluice records delete clicks --partition 0 --before 1000");
  remove->add_option("TOPIC", arguments->topic, "The topic")->required();
  remove->add_option("--partition", arguments->partition, "The partition")->required()->check(AtLeast(0));
  remove->add_option("--before", arguments->before, "Records below this offset go; latest: all of them")->required();
  remove->callback(
      [&context, arguments] { context.run = [&context, arguments] { return DeleteRecords(context, *arguments); }; });
}

}  // namespace sluice::tools
