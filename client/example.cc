// A program that uses the client: writes a few records, waits until they are acknowledged, and reads them back.
//
//   example [host:port] [topic]
//
// The topic must exist (sluice topic create example).
#include <cstdio>
#include <mutex>
#include <string>

#include "client/client.h"
#include "client/error.h"

namespace {

using sluice::Offset;
using sluice::PartitionId;
namespace client = sluice::client;

int Fail(const char* what, const absl::Status& status) {
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  return 1;
}

int Run(const std::string& broker, const std::string& topic) {
  client::ClientOptions options;
  options.brokers = {broker};
  auto connected = client::Connect(options);
  if (!connected.ok()) return Fail("connect", connected.status());
  client::Client& cluster = **connected;

  // Write. Results come on the client's thread, so what they touch needs a lock.
  std::mutex mutex;
  absl::Status failed;
  std::optional<client::RecordResult> first;
  auto producer = cluster.NewProducer();
  for (int i = 0; i < 10; ++i) {
    const std::string value = "record " + std::to_string(i);
    client::RecordToSend record;
    record.topic = topic;
    record.key = "example";  // one key, so one partition, so one order
    record.value = value;
    const absl::Status taken = producer->Send(record, [&](absl::StatusOr<client::RecordResult> result) {
      std::lock_guard lock(mutex);
      if (!result.ok()) failed = result.status();
      if (result.ok() && !first.has_value()) first = *result;
    });
    if (!taken.ok()) return Fail("send", taken);
  }
  if (absl::Status flushed = producer->Flush(absl::Seconds(30)); !flushed.ok()) return Fail("flush", flushed);
  {
    std::lock_guard lock(mutex);
    if (client::IsOutcomeUnknown(failed)) std::fprintf(stderr, "it is unknown whether a record was written\n");
    if (!failed.ok()) return Fail("write", failed);
  }
  std::printf("written to partition %d from offset %lld on\n", first->partition.value(),
              static_cast<long long>(first->offset.value()));

  // Read them back.
  auto consumer = cluster.NewConsumer();
  consumer->Assign({topic, first->partition}, first->offset);
  for (int left = 10; left > 0;) {
    auto records = consumer->Poll(absl::Seconds(1));
    if (!records.ok()) return Fail("read", records.status());
    for (const client::ConsumedRecord& each : *records) {
      const std::string value(each.record.value.value_or("null"));
      std::printf("%lld: %s\n", static_cast<long long>(each.record.offset.value()), value.c_str());
      --left;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return Run(argc > 1 ? argv[1] : "127.0.0.1:7400", argc > 2 ? argv[2] : "example");
}
