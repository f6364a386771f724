// A cluster of fake brokers under real clients, for tests; all in one process. Included by tests only.
#pragma once

#include <catch2/catch.hpp>
#include <thread>
#include "client/error.h"
#include "client/testing/client_fixture.h"
#include "common/record/record.h"

namespace sluice::client {

constexpr char kA[] = "fake:7400";  // FakeBroker::kAddress
constexpr char kB[] = "b:7400";
constexpr char kC[] = "c:7400";

struct ClusterFixture {
  ClusterFixture() : ClusterFixture({kA, kB}) {}
  explicit ClusterFixture(std::vector<std::string> bootstrap) {
    ClientOptions options;
    options.brokers = std::move(bootstrap);
    options.timeout = absl::Seconds(10);
    client = Create(options, {&executor, &executor, &broker}).value();
    On([&] {
      broker.AddNode(kB);
      broker.AddNode(kC);
      broker.CreateTopic("t", 3);
    });
  }
  ~ClusterFixture() {
    producer = nullptr;
    consumer = nullptr;
    client = nullptr;
  }

  template <class F>
  void On(F run) {
    RunOn(executor, std::move(run));
  }
  static TopicPartition Part(int partition) { return {"t", PartitionId(partition)}; }
  void Lead(int partition, const std::string& address) {
    On([&] { broker.Lead(Part(partition), address); });
  }
  void Kill(const std::string& address) {
    On([&] { broker.Kill(address); });
  }
  std::vector<std::string> Values(int partition) {
    std::vector<std::string> values;
    On([&] { values = broker.Values(Part(partition)); });
    return values;
  }

  void MakeProducer(ProducerOptions options = {}) { producer = client->NewProducer(options); }
  void Send(int partition, const std::string& value) {
    RecordToSend record;
    record.topic = "t";
    record.partition = PartitionId(partition);
    record.value = value;
    REQUIRE(producer
                ->Send(record,
                       [this, value](const absl::StatusOr<RecordResult>& result) {
                         std::lock_guard lock(mutex);
                         CHECK(results.emplace(value, result.status()).second);
                       })
                .ok());
  }
  // Many batches, several of them under way at once.
  std::vector<std::string> SendMany(int partition, int count, const std::string& prefix = "r") {
    std::vector<std::string> values;
    for (int i = 0; i < count; ++i) {
      values.push_back(prefix + std::to_string(partition) + "-" + std::to_string(i) + std::string(80, '.'));
      Send(partition, values.back());
    }
    return values;
  }
  static ProducerOptions SmallBatches() {
    ProducerOptions options;
    options.batch_bytes = 100;
    return options;
  }
  void Flush() { REQUIRE(producer->Flush(absl::Seconds(20)) == absl::OkStatus()); }
  std::optional<absl::Status> ResultOf(const std::string& value) {
    std::lock_guard lock(mutex);
    const auto found = results.find(value);
    if (found == results.end()) return std::nullopt;
    return found->second;
  }
  template <class F>
  bool Eventually(F holds) {
    for (int i = 0; i < 1000; ++i) {
      bool now = false;
      On([&] { now = holds(); });
      if (now) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  bool Acknowledged(const std::string& value) {
    return Eventually([&] { return ResultOf(value).has_value() && ResultOf(value)->ok(); });
  }

  std::vector<std::string> Read(size_t count) {
    std::vector<std::string> out;
    for (int empty = 0; out.size() < count && empty < 3;) {
      auto polled = consumer->Poll(absl::Seconds(5));
      REQUIRE(polled.status() == absl::OkStatus());
      if (polled->empty()) ++empty;
      for (const ConsumedRecord& each : *polled) out.emplace_back(*each.record.value);
    }
    return out;
  }
  static Bytes BatchOf(const std::string& value) {
    record::BatchBuilder builder;
    REQUIRE(builder.Append(1, std::nullopt, value).ok());
    return builder.Build().value().Freeze();
  }

  std::mutex mutex;
  std::map<std::string, absl::Status> results;
  ThreadExecutor executor;
  FakeBroker broker{executor};
  std::unique_ptr<Client> client;
  std::unique_ptr<Producer> producer;
  std::unique_ptr<Consumer> consumer;
};

struct Moment {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  bool Within(int ms) const { return std::chrono::steady_clock::now() - start < std::chrono::milliseconds(ms); }
};

}  // namespace sluice::client
