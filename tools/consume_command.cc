#include <unistd.h>

#include <CLI/CLI.hpp>
#include <limits>

#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "tools/arguments.h"
#include "tools/context.h"
#include "tools/format.h"
#include "tools/json_writer.h"

namespace sluice::tools {
namespace {

constexpr absl::Duration kPollWait = absl::Milliseconds(200);

struct Arguments {
  std::string topic;
  std::string from = "latest";
  int32_t partition = -1;
  int64_t max = std::numeric_limits<int64_t>::max();
  bool follow = false;
  std::string format;  // empty: as --output says
};

struct Range {
  client::TopicPartition source;
  Offset from;
  Offset end;  // of what was committed at the start; ignored with --follow
};

absl::StatusOr<Offset> OffsetAt(client::Admin& admin, const client::TopicPartition& source,
                                const StartPosition& position) {
  client::OffsetQuery query{source.topic, source.partition, client::OffsetQuery::Kind::kLatest, 0};
  if (const Offset* offset = std::get_if<Offset>(&position)) return *offset;
  if (std::holds_alternative<Earliest>(position)) query.kind = client::OffsetQuery::Kind::kEarliest;
  if (const AtTime* at = std::get_if<AtTime>(&position)) {
    query.kind = client::OffsetQuery::Kind::kTimestamp;
    query.timestamp_ms = at->ms;
  }
  SLUICE_ASSIGN_OR_RETURN(client::OffsetAnswer answer, admin.ListOffset(query));
  if (answer.offset.has_value()) return *answer.offset;
  // Nothing is that late yet: what comes from now on.
  query.kind = client::OffsetQuery::Kind::kLatest;
  SLUICE_ASSIGN_OR_RETURN(answer, admin.ListOffset(query));
  return answer.offset.value_or(Offset(0));
}

// An offset that somebody gave: one that is not there is a mistake, not an empty answer. The end itself is fine.
absl::Status CheckReadable(client::Admin& admin, const Range& range) {
  SLUICE_ASSIGN_OR_RETURN(const Offset start, OffsetAt(admin, range.source, Earliest{}));
  if (range.from >= start && range.from <= range.end) return absl::OkStatus();
  const bool gone = range.from < start;
  return absl::OutOfRangeError(
      Cat(range.source.topic, "/", range.source.partition, ": offset ", range.from, " is out of range: readable are ",
          start, " to ", range.end, "; ",
          gone ? "--from earliest begins with the first record that is left" : "--from latest begins at the end"));
}

absl::StatusOr<std::vector<Range>> FindRanges(client::Admin& admin, const Arguments& arguments,
                                              const StartPosition& start) {
  SLUICE_ASSIGN_OR_RETURN(const client::TopicDescription described, admin.DescribeTopic(arguments.topic));
  const int32_t count = described.topic.partitions;
  if (arguments.partition >= count) {
    return absl::NotFoundError(Cat("no partition ", arguments.partition, ": it has ", count, ", numbered from 0"));
  }
  if (std::holds_alternative<Offset>(start) && arguments.partition < 0 && count > 1) {
    return absl::InvalidArgumentError(
        Cat("it has ", count, " partitions, and an offset means one of them: give --partition"));
  }
  std::vector<Range> ranges;
  for (int32_t i = 0; i < count; ++i) {
    if (arguments.partition >= 0 && arguments.partition != i) continue;
    Range range{{arguments.topic, PartitionId(i)}, Offset(0), Offset(0)};
    SLUICE_ASSIGN_OR_RETURN(range.end, OffsetAt(admin, range.source, Latest{}));
    SLUICE_ASSIGN_OR_RETURN(range.from, OffsetAt(admin, range.source, start));
    if (std::holds_alternative<Offset>(start)) SLUICE_RETURN_IF_ERROR(CheckReadable(admin, range));
    ranges.push_back(range);
  }
  return ranges;
}

void AppendRecord(const client::ConsumedRecord& consumed, const std::string& format, std::string* out) {
  const record::Record& record = consumed.record;
  if (format == "raw") {
    out->append(record.value.value_or(""));
  } else if (format == "hex") {
    out->append(HexText(record.value.value_or("")));
  } else {
    JsonWriter json;
    json.BeginObject().Key("topic").Bytes(consumed.topic).Key("partition").Int(consumed.partition.value());
    json.Key("offset").Int(record.offset.value()).Key("timestamp_ms").Int(record.timestamp_ms);
    json.Key("key").BytesOrNull(record.key).Key("value").BytesOrNull(record.value).Key("headers").BeginArray();
    for (const record::Header& header : record.headers) {
      json.BeginObject().Key("key").Bytes(header.key).Key("value").BytesOrNull(header.value).EndObject();
    }
    out->append(json.EndArray().EndObject().Take());
  }
  out->push_back('\n');
}

// Whether every partition has been read up to its end.
bool AllRead(const client::Consumer& consumer, const std::vector<Range>& ranges) {
  for (const Range& range : ranges) {
    if (consumer.Position(range.source).value_or(range.end) < range.end) return false;
  }
  return true;
}

absl::Status Read(client::Consumer& consumer, const std::vector<Range>& ranges, const Arguments& arguments,
                  const std::string& format) {
  const bool flush_each = arguments.follow || isatty(STDOUT_FILENO) != 0;
  int64_t left = arguments.max;
  std::string text;
  for (const Range& range : ranges) {
    if (arguments.follow || range.from < range.end) consumer.Assign(range.source, range.from);
  }
  while (left > 0 && !Interrupted() && (arguments.follow || !AllRead(consumer, ranges))) {
    SLUICE_ASSIGN_OR_RETURN(auto records, consumer.Poll(kPollWait, static_cast<size_t>(std::min<int64_t>(left, 1000))));
    text.clear();
    for (const client::ConsumedRecord& each : records) {
      // Ranges stand in the order of partitions, or there is one.
      const Range& range = ranges.size() == 1 ? ranges.front() : ranges[static_cast<size_t>(each.partition.value())];
      if (!arguments.follow && each.record.offset >= range.end) continue;
      AppendRecord(each, format, &text);
      --left;
    }
    if (!Print(text)) return absl::OkStatus();  // Finish tells it
    if (flush_each && !text.empty()) std::fflush(stdout);
  }
  return absl::OkStatus();
}

int Consume(const Context& context, const Arguments& arguments) {
  auto start = ParseStart(arguments.from, absl::Now());
  if (!start.ok()) return Fail("--from", start.status());
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  auto ranges = FindRanges(*(*client)->NewAdmin(), arguments, *start);
  if (!ranges.ok()) return Fail(Cat("topic ", arguments.topic), ranges.status());
  EndGently();
  client::ConsumerOptions options;
  options.broker_timeout = context.timeout;
  auto consumer = (*client)->NewConsumer(options);
  const std::string format = !arguments.format.empty() ? arguments.format : context.json() ? "json" : "raw";
  const absl::Status read = Read(*consumer, *ranges, arguments, format);
  if (!read.ok()) return Fail("consume", read);
  return Finish();
}

}  // namespace

void AddConsumeCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("consume", "Print records")->fallthrough();
  command->footer(
      "Without --follow it ends at what was committed when it began.\nExamples:\n"
      "  sluice consume clicks --from earliest\n"
      "  sluice consume clicks --from 2h --follow --format json\n"
      "  sluice consume clicks --from 42 --partition 0 --max 1 --format hex");
  command->add_option("TOPIC", arguments->topic, "The topic")->required();
  command->add_option("--from", arguments->from, "earliest, latest, an offset, a time, or how long ago")
      ->capture_default_str();
  command->add_option("--partition", arguments->partition, "One partition; all when left out")->check(AtLeast(0));
  command->add_option("--max", arguments->max, "End after this many records")->check(AtLeast(1));
  command->add_flag("--follow", arguments->follow, "Wait for more at the end, until interrupted");
  command->add_option("--format", arguments->format, "raw (values), json (whole records) or hex (values)")
      ->check(CLI::IsMember({"raw", "json", "hex"}));
  command->callback(
      [&context, arguments] { context.run = [&context, arguments] { return Consume(context, *arguments); }; });
}

}  // namespace sluice::tools
