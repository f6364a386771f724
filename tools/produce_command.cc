#include <unistd.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "client/error.h"
#include "common/text.h"
#include "tools/arguments.h"
#include "tools/context.h"
#include "tools/format.h"
#include "tools/json_writer.h"
#include "tools/line_reader.h"

namespace sluice::tools {
namespace {

constexpr size_t kLineBytesMax = size_t{32} << 20;
// Results that wait for an earlier record's, so that output keeps the input's order; reading waits beyond it.
constexpr size_t kResultsMax = 200000;

struct Arguments {
  std::string topic;
  std::string key_separator;
  int32_t partition = -1;
  std::vector<std::string> headers;
  std::string codec = "none";
};

void WriteResult(JsonWriter& json, const std::string& topic, int64_t line,
                 const absl::StatusOr<client::RecordResult>& result) {
  json.BeginObject().Key("topic").Bytes(topic);
  if (result.ok()) {
    json.Key("partition").Int(result->partition.value()).Key("offset").Int(result->offset.value());
    json.Key("timestamp_ms").Int(result->timestamp_ms);
  } else {
    const auto detail = client::GetErrorDetail(result.status());
    json.Key("offset").Null().Key("line").Int(line).Key("error").BeginObject();
    json.Key("code").Bytes(absl::StatusCodeToString(result.status().code()));
    json.Key("reason").Bytes(client::ReasonName(detail.has_value() ? detail->reason : client::Reason::kUnknown));
    json.Key("message").Bytes(Message(result.status())).EndObject();
  }
  json.EndObject();
}

// Results of records, printed in the order of the input by a thread of its own: the callbacks that bring them must not
// block, and reading the input must not keep an acknowledgement from being seen.
class Results {
 public:
  Results(std::string topic, bool json) : topic_(std::move(topic)), json_(json), thread_([this] { Run(); }) {}
  ~Results() { End(); }

  /// The next record's place; waits while too many are open.
  uint64_t Open() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return slots_.size() < kResultsMax; });
    slots_.emplace_back();
    return first_ + slots_.size() - 1;
  }
  void Give(uint64_t number, absl::StatusOr<client::RecordResult> result) {
    std::lock_guard lock(mutex_);
    if (!result.ok()) failed_ = true;
    slots_[number - first_] = std::move(result);
    if (number == first_) changed_.notify_all();
  }
  bool failed() const {
    std::lock_guard lock(mutex_);
    return failed_;
  }
  /// After the last result.
  void End() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

  // After End.
  int64_t acknowledged() const { return acknowledged_; }
  int64_t refused() const { return refused_; }
  const absl::Status& first_error() const { return first_error_; }
  int64_t first_error_line() const { return first_error_line_; }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ending_ || (!slots_.empty() && slots_.front().has_value()); });
      std::vector<absl::StatusOr<client::RecordResult>> ready;
      const uint64_t first = first_;
      while (!slots_.empty() && slots_.front().has_value()) {
        ready.push_back(*std::move(slots_.front()));
        slots_.pop_front();
        ++first_;
      }
      if (ready.empty() && ending_) return;
      changed_.notify_all();
      lock.unlock();
      Show(first, ready);
      lock.lock();
    }
  }

  void Show(uint64_t first, const std::vector<absl::StatusOr<client::RecordResult>>& ready) {
    std::string text;
    int64_t line = static_cast<int64_t>(first);
    for (const auto& result : ready) {
      ++line;
      if (result.ok()) {
        ++acknowledged_;
      } else if (++refused_ == 1) {
        first_error_ = result.status();
        first_error_line_ = line;
      }
      if (!json_) continue;
      JsonWriter json;
      WriteResult(json, topic_, line, result);
      text += json.Take() + "\n";
    }
    Print(text);
    std::fflush(stdout);
  }

  const std::string topic_;
  const bool json_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::optional<absl::StatusOr<client::RecordResult>>> slots_;
  uint64_t first_ = 0;  // number of slots_.front()
  bool failed_ = false;
  bool ending_ = false;
  int64_t acknowledged_ = 0;
  int64_t refused_ = 0;
  int64_t first_error_line_ = 0;
  absl::Status first_error_;
  std::thread thread_;  // last: it uses all the others
};

// Sends every line; stops at the first error, its own or a record's.
absl::Status SendLines(client::Producer& producer, Results& results, const Arguments& arguments,
                       const std::vector<std::pair<std::string, std::string>>& headers) {
  std::vector<record::Header> views;
  views.reserve(headers.size());
  for (const auto& [key, value] : headers) views.push_back({key, value});
  LineReader reader(STDIN_FILENO, kLineBytesMax, [&] { return Interrupted() || results.failed(); });
  std::string_view line;
  while (true) {
    absl::StatusOr<bool> more = reader.Next(&line);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    client::RecordToSend record;
    record.topic = arguments.topic;
    record.headers = views;
    record.value = line;
    if (arguments.partition >= 0) record.partition = PartitionId(arguments.partition);
    if (!arguments.key_separator.empty()) {
      const size_t at = line.find(arguments.key_separator);
      if (at == std::string_view::npos) {
        return absl::InvalidArgumentError(
            Cat("line ", reader.line_number(), " of the input has no key separator \"", arguments.key_separator, "\""));
      }
      record.key = line.substr(0, at);
      record.value = line.substr(at + arguments.key_separator.size());
    }
    const uint64_t number = results.Open();
    const absl::Status taken = producer.Send(record, [&results, number](absl::StatusOr<client::RecordResult> result) {
      results.Give(number, std::move(result));
    });
    if (!taken.ok()) results.Give(number, taken);
  }
}

int Produce(const Context& context, const Arguments& arguments) {
  std::vector<std::pair<std::string, std::string>> headers;
  for (const std::string& text : arguments.headers) {
    auto pair = ParsePair(text);
    if (!pair.ok()) return Fail("--header", pair.status());
    headers.push_back(*std::move(pair));
  }
  auto client = context.Connect();
  if (!client.ok()) return FailConnect(context, client.status());
  // Asked first, so that a wrong name or a dead broker is told before any input is taken.
  auto described = (*client)->NewAdmin()->DescribeTopic(arguments.topic);
  if (!described.ok()) return Fail(Cat("topic ", arguments.topic), described.status());
  if (arguments.partition >= described->topic.partitions) {
    return Fail(Cat("topic ", arguments.topic),
                absl::NotFoundError(Cat("no partition ", arguments.partition, ": it has ", described->topic.partitions,
                                        ", numbered from 0")));
  }
  EndGently();
  client::ProducerOptions options;
  options.codec = *record::ParseCodec(arguments.codec);
  options.delivery_timeout = context.timeout;
  options.block_max = context.timeout + absl::Seconds(5);
  Results results(arguments.topic, context.json());
  auto producer = (*client)->NewProducer(options);
  const absl::Status sent = SendLines(*producer, results, arguments, headers);
  const absl::Status flushed = producer->Flush(context.timeout + absl::Seconds(5));
  producer = nullptr;  // whatever is left gets its result here
  results.End();
  int code = kDone;
  if (!results.first_error().ok()) {
    code = Fail(Cat("line ", results.first_error_line(), " of the input"), results.first_error());
    Fail("produce", absl::AbortedError(Cat(results.refused(), results.refused() == 1 ? " record was" : " records were",
                                           " not acknowledged, ", results.acknowledged(), " were; stopped")));
  }
  if (code == kDone && !sent.ok()) code = Fail("produce", sent);
  if (code == kDone && !flushed.ok()) code = Fail("produce", flushed);
  if (!context.json())
    Print(Cat(results.acknowledged(), results.acknowledged() == 1 ? " record" : " records", " written to ",
              arguments.topic, "\n"));
  const int finished = Finish();
  return code != kDone ? code : finished;
}

}  // namespace

void AddProduceCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("produce", "Write records, one a line from standard input")->fallthrough();
  command->footer(
      "Examples:\n  seq 10 | sluice produce numbers\n"
      "  echo 'u1:hello' | sluice produce clicks --key-sep : --header source=shell --codec zstd\n"
      "  sluice --output json produce clicks < lines.txt     # one object a record, in order, with its offset");
  command->add_option("TOPIC", arguments->topic, "The topic")->required();
  command
      ->add_option("--key-sep", arguments->key_separator,
                   "What separates key and value in a line; without it there is no key")
      ->check(CLI::Validator(
          [](std::string& text) {
            return text.empty() ? std::string("it is empty; leave --key-sep out for records without a key")
                                : std::string();
          },
          ""));
  command
      ->add_option("--partition", arguments->partition,
                   "The partition; by key (or in turn, without a key) when left out")
      ->check(AtLeast(0));
  command->add_option("--header", arguments->headers, "A header of every record, key=value; may be repeated")
      ->expected(1)
      ->take_all();
  command->add_option("--codec", arguments->codec, "Compression of the batches")
      ->check(CLI::IsMember({"none", "gzip", "snappy", "lz4", "zstd"}))
      ->capture_default_str();
  command->callback(
      [&context, arguments] { context.run = [&context, arguments] { return Produce(context, *arguments); }; });
}

}  // namespace sluice::tools
