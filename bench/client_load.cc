// sluice-load: load through the client library, as a program that uses Sluice would make it; one line of JSON at the
// end. It stands beside the same loads of other brokers' clients (bench/peer.py) and fills logs for other measurements.
//
//   sluice-load produce --topic T [--records N] [--bytes B] [--rate R]   closed loop, or open at R records a second
//   sluice-load consume --topic T [--records N]                         from the start of every partition
//
// Latencies: of a closed loop from Send to the result; of an open one from the moment the record should have been sent.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/client.h"
#include "client/error.h"
#include "runtime/system.h"

namespace sluice::bench {
namespace {

using Time = std::chrono::steady_clock::time_point;

struct LoadOptions {
  std::string brokers = "127.0.0.1:7400";
  std::string topic;
  int64_t records = 1'000'000;
  size_t bytes = 1000;
  double rate = 0;
  int64_t batch_bytes = 256 << 10;
  int64_t linger_ms = 5;
  int in_flight = 16;
  int64_t memory_bytes = 64 << 20;
};

double Seconds(Time from, Time to) {
  return std::chrono::duration<double>(to - from).count();
}

double CpuSeconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "sluice-load: %s\n", status.ToString().c_str());
  return 1;
}

// What came back. Results arrive on the client's thread, one at a time.
struct Results {
  std::vector<float> latencies_ms;
  int64_t failed = 0;
  int64_t unknown = 0;
  absl::Status first_error;
};

double Percentile(const std::vector<float>& ordered, double share) {
  if (ordered.empty()) return 0;
  return ordered[static_cast<size_t>(share * static_cast<double>(ordered.size() - 1))];
}

void WaitUntil(Time due) {
  // The kernel wakes a sleeper some 50 us late; the rest is waited out, so that the load is what it claims to be.
  const auto left = due - std::chrono::steady_clock::now();
  if (left > std::chrono::microseconds(100)) std::this_thread::sleep_for(left - std::chrono::microseconds(60));
  while (std::chrono::steady_clock::now() < due) {
  }
}

int Produce(client::Client& cluster, const LoadOptions& options) {
  std::string value(options.bytes, '\0');
  std::minstd_rand random(1);
  for (char& byte : value) byte = static_cast<char>('A' + random() % 26);
  client::ProducerOptions how;
  how.batch_bytes = static_cast<size_t>(options.batch_bytes);
  how.linger = absl::Milliseconds(options.linger_ms);
  how.requests_in_flight_max = options.in_flight;
  how.memory_bytes = static_cast<size_t>(options.memory_bytes);

  Results results;
  results.latencies_ms.reserve(static_cast<size_t>(options.records));
  auto producer = cluster.NewProducer(how);
  client::RecordToSend record;
  record.topic = options.topic;
  record.value = value;
  const double cpu_before = CpuSeconds();
  const Time began = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < options.records; ++i) {
    Time since = std::chrono::steady_clock::now();
    if (options.rate > 0) {
      since = began + std::chrono::nanoseconds(static_cast<int64_t>(static_cast<double>(i) / options.rate * 1e9));
      WaitUntil(since);
    }
    const absl::Status taken = producer->Send(record, [&results, since](absl::StatusOr<client::RecordResult> result) {
      if (result.ok()) {
        results.latencies_ms.push_back(static_cast<float>(Seconds(since, std::chrono::steady_clock::now()) * 1e3));
        return;
      }
      (client::IsOutcomeUnknown(result.status()) ? results.unknown : results.failed) += 1;
      if (results.first_error.ok()) results.first_error = result.status();
    });
    if (!taken.ok()) return Fail(taken);
  }
  if (absl::Status flushed = producer->Flush(absl::Minutes(2)); !flushed.ok()) return Fail(flushed);
  const double seconds = Seconds(began, std::chrono::steady_clock::now());
  const double cpu = CpuSeconds() - cpu_before;

  // Every result is in: nothing writes to `results` any more.
  std::vector<float>& latencies = results.latencies_ms;
  std::sort(latencies.begin(), latencies.end());
  const auto done = static_cast<double>(latencies.size());
  std::printf(
      "{\"records\":%zu,\"failed\":%lld,\"unknown\":%lld,\"seconds\":%.3f,\"records_per_s\":%.0f,\"mb_per_s\":%.1f,"
      "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,\"client_cpu_s\":%.2f}\n",
      latencies.size(), static_cast<long long>(results.failed), static_cast<long long>(results.unknown), seconds,
      done / seconds, done * static_cast<double>(options.bytes) / seconds / 1e6, Percentile(latencies, 0.5),
      Percentile(latencies, 0.99), Percentile(latencies, 0.999), Percentile(latencies, 1), cpu);
  return results.first_error.ok() ? 0 : Fail(results.first_error);
}

int Consume(client::Client& cluster, const LoadOptions& options) {
  auto topic = cluster.NewAdmin()->DescribeTopic(options.topic);
  if (!topic.ok()) return Fail(topic.status());
  auto consumer = cluster.NewConsumer();
  for (const client::PartitionInfo& each : topic->partitions) {
    consumer->Assign({options.topic, each.partition}, each.log_start);
  }
  const double cpu_before = CpuSeconds();
  const Time began = std::chrono::steady_clock::now();
  int64_t records = 0;
  int64_t bytes = 0;
  while (records < options.records) {
    auto polled = consumer->Poll(absl::Seconds(5), 10'000);
    if (!polled.ok()) return Fail(polled.status());
    if (polled->empty()) return Fail(absl::OutOfRangeError("the topic has fewer records"));
    for (const client::ConsumedRecord& each : *polled) {
      ++records;
      bytes += static_cast<int64_t>(each.record.value.value_or("").size());
    }
  }
  const double seconds = Seconds(began, std::chrono::steady_clock::now());
  std::printf("{\"records\":%lld,\"seconds\":%.3f,\"records_per_s\":%.0f,\"mb_per_s\":%.1f,\"client_cpu_s\":%.2f}\n",
              static_cast<long long>(records), seconds, static_cast<double>(records) / seconds,
              static_cast<double>(bytes) / seconds / 1e6, CpuSeconds() - cpu_before);
  return 0;
}

int Main(int argc, char** argv) {
  LoadOptions options;
  CLI::App app{"Load through the client library; prints one line of JSON."};
  app.require_subcommand(1);
  app.add_option("--brokers", options.brokers, "host:port of brokers, comma separated")->capture_default_str();
  CLI::App* produce = app.add_subcommand("produce", "write records");
  CLI::App* consume = app.add_subcommand("consume", "read them from the start");
  for (CLI::App* each : {produce, consume}) {
    each->add_option("--topic", options.topic, "an existing topic")->required();
    each->add_option("--records", options.records, "how many")->capture_default_str();
  }
  produce->add_option("--bytes", options.bytes, "of each value")->capture_default_str();
  produce->add_option("--rate", options.rate, "records a second, open loop; 0: as many as go");
  produce->add_option("--batch-bytes", options.batch_bytes)->capture_default_str();
  produce->add_option("--linger-ms", options.linger_ms)->capture_default_str();
  produce->add_option("--in-flight", options.in_flight, "requests to one broker")->capture_default_str();
  produce->add_option("--memory-bytes", options.memory_bytes, "of records without a result")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  auto brokers = client::ParseBrokers(options.brokers);
  if (!brokers.ok()) return Fail(brokers.status());
  client::ClientOptions how;
  how.brokers = *brokers;
  auto cluster = client::Connect(std::move(how));
  if (!cluster.ok()) return Fail(cluster.status());
  return produce->parsed() ? Produce(**cluster, options) : Consume(**cluster, options);
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  sluice::runtime::TuneMalloc();
  return sluice::bench::Main(argc, argv);
}
