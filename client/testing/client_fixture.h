// What the client's tests share: a client over a FakeBroker on a thread of its own.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/await.h"
#include "client/client.h"
#include "client/testing/fake_broker.h"
#include "client/thread_executor.h"

namespace sluice::client {

struct ClientFixture {
  ClientFixture() {
    ClientOptions options;
    options.brokers = {FakeBroker::kAddress};
    options.timeout = absl::Seconds(5);
    client = Create(options, {&executor, &executor, &broker}).value();
  }
  ~ClientFixture() { client = nullptr; }

  template <class F>
  void On(F run) {
    RunOn(executor, std::move(run));
  }
  void Topic(const std::string& name, int partitions = 1) {
    On([&] { broker.CreateTopic(name, partitions); });
  }
  std::vector<std::string> Values(const std::string& topic, int partition = 0) {
    std::vector<std::string> values;
    On([&] { values = broker.Values({topic, PartitionId(partition)}); });
    return values;
  }

  ThreadExecutor executor;
  FakeBroker broker{executor};
  std::unique_ptr<Client> client;
};

}  // namespace sluice::client
