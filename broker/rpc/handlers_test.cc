// Handlers between a client's stream and a broker that answers on other threads, at moments of the test's choosing.
#include <grpcpp/create_channel.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "broker/rpc/server.h"
#include "broker/rpc/stub_broker.h"
#include "runtime/system.h"
#include "sluice/v1/log.grpc.pb.h"

namespace sluice::broker::rpc {
namespace {

struct Served {
  explicit Served(Broker& broker, const Clock& clock) {
    ServerOptions options;
    options.address = "127.0.0.1:0";
    server = *Server::Start(options, broker, clock);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    log = v1::Log::NewStub(grpc::CreateCustomChannel(server->address(), grpc::InsecureChannelCredentials(), arguments));
  }
  ~Served() { server->Shutdown(absl::Seconds(2)); }
  std::unique_ptr<Server> server;
  std::unique_ptr<v1::Log::Stub> log;
};

/// A thread that asks for the time may be held up until the test lets it go.
class HoldingClock final : public Clock {
 public:
  absl::Duration Monotonic() const override {
    if (held == std::this_thread::get_id()) {
      reached.set_value();
      go_on.get_future().wait();
    }
    return absl::Seconds(1);
  }
  absl::Time Wall() const override { return absl::UnixEpoch() + absl::Seconds(1); }

  std::atomic<std::thread::id> held;
  mutable std::promise<void> reached;
  mutable std::promise<void> go_on;
};

class KeepingBroker final : public StubBroker {
 public:
  void Produce(ProduceItem, const std::shared_ptr<ProduceSession>&, Callback<ProduceOutcome> done) override {
    std::lock_guard lock(mutex_);
    kept_.push_back(std::move(done));
    more_.notify_all();
  }
  Callback<ProduceOutcome> Take() {
    std::unique_lock lock(mutex_);
    more_.wait(lock, [this] { return !kept_.empty(); });
    auto first = std::move(kept_.front());
    kept_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<Callback<ProduceOutcome>> kept_;
};

TEST_CASE("While one answer of a stream is being written, others come in without waiting, and all leave in order") {
  KeepingBroker broker;
  HoldingClock clock;
  Served served(broker, clock);
  grpc::ClientContext context;
  auto stream = served.log->Produce(&context);
  constexpr int kRequests = 3;
  for (int i = 0; i < kRequests; ++i) {
    v1::ProduceRequest request;
    request.set_correlation_id(static_cast<uint64_t>(i));
    request.add_items()->set_topic("t");
    request.mutable_items(0)->set_partition(i);  // partitions do not wait for each other
    request.mutable_items(0)->add_records();
    REQUIRE(stream->Write(request));
  }
  std::vector<Callback<ProduceOutcome>> answers;
  for (int i = 0; i < kRequests; ++i) answers.push_back(broker.Take());
  std::thread writer([&] {
    clock.held = std::this_thread::get_id();
    answers[0](StubBroker::Ack());
  });
  clock.reached.get_future().wait();
  clock.held = std::thread::id();
  // On a thread of its own: were it to wait, the test would fail rather than hang.
  auto others = std::async(std::launch::async, [&] {
    answers[1](StubBroker::Ack());
    answers[2](StubBroker::Ack());
  });
  CHECK(others.wait_for(std::chrono::seconds(5)) == std::future_status::ready);
  clock.go_on.set_value();
  writer.join();
  others.wait();
  stream->WritesDone();
  v1::ProduceResponse response;
  for (int i = 0; i < kRequests; ++i) {
    REQUIRE(stream->Read(&response));
    CHECK(response.correlation_id() == static_cast<uint64_t>(i));
  }
  CHECK(!stream->Read(&response));
  CHECK(stream->Finish().ok());
}

/// Keeps fetches waiting, and the thread that asks for the second in its call until let go.
class HoldingFetches final : public StubBroker {
 public:
  struct Fetching final : FetchCall {
    void Cancel() override { cancelled.set_value(); }
    std::promise<void> cancelled;
  };
  FetchHandle Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) override {
    const int call = ++calls;
    if (call == 1) {
      FetchOutcome outcome;
      outcome.topic = spec.items[0].topic;
      // On another thread, as every answer: its end asks for the second.
      answering = std::thread([done = std::move(done), outcome]() mutable { done({outcome}); });
      return std::make_shared<Fetching>();
    }
    if (call == 2) {
      second = std::make_shared<Fetching>();
      keep = std::move(done);
      asked.set_value();
      go_on.get_future().wait();
      return second;
    }
    return std::make_shared<Fetching>();
  }

  std::atomic<int> calls = 0;
  std::thread answering;
  std::promise<void> asked;
  std::promise<void> go_on;
  std::shared_ptr<Fetching> second;
  Callback<std::vector<FetchOutcome>> keep;
};

TEST_CASE("A partition that is unassigned while its fetch is being asked for does not keep that waiting") {
  HoldingFetches broker;
  runtime::SystemClock clock;
  Served served(broker, clock);
  grpc::ClientContext context;
  auto stream = served.log->Consume(&context);
  v1::ConsumeRequest request;
  request.set_credit_bytes(1 << 20);
  request.add_assign()->set_topic("t");
  REQUIRE(stream->Write(request));
  broker.asked.get_future().wait();
  v1::ConsumeRequest unassign;
  unassign.add_unassign()->set_topic("t");
  REQUIRE(stream->Write(unassign));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // taken in by now
  broker.go_on.set_value();
  CHECK(broker.second->cancelled.get_future().wait_for(std::chrono::seconds(5)) == std::future_status::ready);
  broker.answering.join();
  broker.keep({FetchOutcome{}});
  context.TryCancel();
  (void)stream->Finish();
}

}  // namespace
}  // namespace sluice::broker::rpc
