#include "client/grpc_channel.h"

#include <catch2/catch.hpp>
#include <future>

#include "absl/time/clock.h"
#include "client/thread_executor.h"
#include "tests/mute_listener.h"

namespace sluice::client {
namespace {

struct GrpcChannelFixture {
  ~GrpcChannelFixture() {
    channel = nullptr;
    factory = nullptr;
  }

  void Open(const std::string& address) { channel = factory->Open(address); }

  absl::Status Connect(absl::Duration timeout) {
    std::promise<absl::Status> done;
    channel->Connect(timeout, [&](absl::Status status) { done.set_value(std::move(status)); });
    return done.get_future().get();
  }

  ThreadExecutor executor;
  std::unique_ptr<GrpcChannelFactory> factory = std::make_unique<GrpcChannelFactory>(executor);
  std::unique_ptr<Channel> channel;
};

TEST_CASE_METHOD(GrpcChannelFixture, "A broker that refused a moment ago is asked anew, and refuses without a wait") {
  const MuteListener port(/*listening=*/false);
  Open(port.address());
  const absl::Time from = absl::Now();
  for (int i = 0; i < 10; ++i) {
    const absl::Status status = Connect(absl::Minutes(1));
    REQUIRE(absl::IsUnavailable(status));
    REQUIRE_THAT(std::string(status.message()), Catch::Contains("refused"));
  }
  CHECK(absl::Now() - from < absl::Seconds(20));
}

TEST_CASE_METHOD(GrpcChannelFixture,
                 "A broker that takes connections and says nothing is waited for all the time there is") {
  const MuteListener port(/*listening=*/true);
  Open(port.address());
  const absl::Time from = absl::Now();
  const absl::Status status = Connect(absl::Milliseconds(2500));
  CHECK(absl::Now() - from >= absl::Milliseconds(2500));
  CHECK(absl::IsUnavailable(status));
  CHECK_THAT(std::string(status.message()), Catch::Contains("no answer in time"));
}

}  // namespace
}  // namespace sluice::client
