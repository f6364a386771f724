// A Consume stream over a broker whose answers come when the test wants them.
#include <grpcpp/create_channel.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "broker/rpc/server.h"
#include "broker/rpc/stub_broker.h"
#include "runtime/system.h"
#include "sluice/v1/log.grpc.pb.h"

namespace sluice::broker::rpc {
namespace {

/// Answers a fetch that may not wait before it hands the fetch over, as another thread can; others once cancelled.
class EagerBroker final : public StubBroker {
 public:
  FetchHandle Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) override {
    auto call = std::make_shared<Call>(*this, Outcomes(spec), std::move(done));
    if (spec.wait_max == absl::ZeroDuration()) {
      call->Answer();
    } else {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(call);
      changed_.notify_all();
    }
    return call;
  }
  /// Whether so many fetches have come to wait within 20 s.
  bool AwaitWaiting(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return waiting_.size() >= count; });
  }
  bool AwaitCancelled(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return cancelled_ >= count; });
  }

 private:
  struct Call final : FetchCall {
    Call(EagerBroker& of, std::vector<FetchOutcome> with, Callback<std::vector<FetchOutcome>> to)
        : broker(of), outcomes(std::move(with)), done(std::move(to)) {}
    void Answer() {
      if (auto answer = std::exchange(done, nullptr)) answer(std::move(outcomes));
    }
    void Cancel() override {
      if (!done) return;
      {
        const std::lock_guard lock(broker.mutex_);
        ++broker.cancelled_;
        broker.changed_.notify_all();
      }
      Answer();
    }
    EagerBroker& broker;
    std::vector<FetchOutcome> outcomes;
    Callback<std::vector<FetchOutcome>> done;
  };
  static std::vector<FetchOutcome> Outcomes(const FetchSpec& spec) {
    std::vector<FetchOutcome> outcomes;
    for (const FetchItem& item : spec.items) {
      FetchOutcome& outcome = outcomes.emplace_back();
      outcome.topic = item.topic;
      outcome.partition = item.partition;
      outcome.next_offset = item.offset;
    }
    return outcomes;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Call>> waiting_;
  size_t cancelled_ = 0;
};

TEST_CASE("A seek or the stream's end stops a wait that was begun before the broker handed over the fetch before it") {
  EagerBroker broker;
  runtime::SystemClock clock;
  ServerOptions options;
  options.address = "127.0.0.1:0";
  auto server = Server::Start(options, broker, clock);
  REQUIRE(server.ok());
  const auto stub = v1::Log::NewStub(grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  auto stream = stub->Consume(&context);
  v1::ConsumeRequest request;
  request.set_credit_bytes(1 << 20);
  request.add_assign()->set_topic("t");
  REQUIRE(stream->Write(request));
  v1::FetchResponse response;
  REQUIRE(stream->Read(&response));
  REQUIRE(broker.AwaitWaiting(1));

  SECTION("a seek") {
    request.mutable_assign(0)->set_offset(7);
    REQUIRE(stream->Write(request));
    REQUIRE(broker.AwaitCancelled(1));
    REQUIRE(stream->Read(&response));
    CHECK(response.results(0).next_offset() == 7);
  }
  SECTION("the end") {
    REQUIRE(stream->WritesDone());
    REQUIRE(broker.AwaitCancelled(1));
  }
  context.TryCancel();
  (void)stream->Finish();
  (*server)->Shutdown(absl::ZeroDuration());
}

}  // namespace
}  // namespace sluice::broker::rpc
