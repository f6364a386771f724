// Taking the server down while the broker answers on threads of its own.
#include <grpcpp/create_channel.h>

#include <catch2/catch.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "broker/rpc/server.h"
#include "broker/rpc/stub_broker.h"
#include "runtime/system.h"
#include "sluice/v1/log.grpc.pb.h"

namespace sluice::broker::rpc {
namespace {

/// Answers each append a moment later, on threads that nobody stops for the server's sake.
class BusyBroker final : public StubBroker {
 public:
  BusyBroker() {
    for (int i = 0; i < 3; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }
  ~BusyBroker() override { AnswerAll(); }
  /// Returns once everything is answered and the threads are gone.
  void AnswerAll() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    more_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  int taken() const {
    std::lock_guard lock(mutex_);
    return taken_;
  }

  void Produce(ProduceItem, const std::shared_ptr<ProduceSession>&, Callback<ProduceOutcome> done) override {
    {
      std::lock_guard lock(mutex_);
      ++taken_;
      waiting_.push_back(std::move(done));
    }
    more_.notify_one();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      more_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      auto done = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      done(Ack());
      lock.lock();
    }
  }

  mutable std::mutex mutex_;
  int taken_ = 0;
  std::condition_variable more_;
  std::deque<Callback<ProduceOutcome>> waiting_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

/// Counts on one thread's side and waits on the other's. Waiting in a loop took the processor from those waited for.
class Counter {
 public:
  void Add() {
    std::lock_guard lock(mutex_);
    ++count_;
    more_.notify_one();
  }
  void Await(int count) {
    std::unique_lock lock(mutex_);
    more_.wait(lock, [&] { return count_ >= count; });
  }
  int count() const {
    std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable more_;
  int count_ = 0;
};

TEST_CASE("The server goes down at once while appends are answered by other threads") {
  for (int round = 0; round < 30; ++round) {
    BusyBroker broker;
    runtime::SystemClock clock;
    ServerOptions options;
    options.address = "127.0.0.1:0";
    options.threads = 2;
    auto server = Server::Start(options, broker, clock);
    REQUIRE(server.ok());
    std::vector<std::thread> clients;
    Counter answered;
    Counter connected;
    for (int i = 0; i < 3; ++i) {
      clients.emplace_back([&, address = (*server)->address()] {
        grpc::ChannelArguments arguments;
        arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
        const auto stub =
            v1::Log::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
        grpc::ClientContext context;
        auto stream = stub->Produce(&context);
        std::thread reader([&] {
          v1::ProduceResponse response;
          for (bool first = true; stream->Read(&response); first = false) {
            answered.Add();
            if (first) connected.Add();
          }
        });
        v1::ProduceRequest request;
        v1::ProduceItem& item = *request.add_items();
        item.set_topic("t");
        item.add_records()->set_value("v");
        for (int n = 0; n < 200'000; ++n) {
          item.set_partition(n % 50);
          if (!stream->Write(request)) break;
        }
        reader.join();
        (void)stream->Finish();
      });
    }
    // Connections that are only being made are gRPC's: it gives them their 10 s.
    connected.Await(3);
    answered.Await(50 + round);
    (*server)->Shutdown(absl::ZeroDuration());
    for (auto& client : clients) client.join();
    broker.AnswerAll();
    CHECK((*server)->stats().calls_active == 0);
    CHECK((*server)->stats().inflight_bytes == 0);
  }
}

TEST_CASE("An append that is refused because the server goes down was not handed to the broker") {
  for (int round = 0; round < 100; ++round) {
    BusyBroker broker;
    runtime::SystemClock clock;
    ServerOptions options;
    options.address = "127.0.0.1:0";
    auto server = Server::Start(options, broker, clock);
    REQUIRE(server.ok());
    Counter appended;
    std::vector<std::thread> clients;
    for (int i = 0; i < 16; ++i) {
      clients.emplace_back([&, address = (*server)->address()] {
        grpc::ChannelArguments arguments;
        arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
        const auto stub =
            v1::Log::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
        v1::ProduceRequest request;
        request.add_items()->set_topic("t");
        request.mutable_items(0)->add_records()->set_value(std::string(1'000'000, 'v'));
        for (;;) {
          grpc::ClientContext context;
          v1::ProduceResponse response;
          if (!stub->Append(&context, request, &response).ok()) return;
          appended.Add();
        }
      });
    }
    appended.Await(10);
    (*server)->Shutdown(absl::Seconds(10));
    for (auto& client : clients) client.join();
    broker.AnswerAll();
    CHECK(broker.taken() == appended.count());
  }
}

}  // namespace
}  // namespace sluice::broker::rpc
