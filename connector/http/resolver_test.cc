#include "connector/http/resolver.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <thread>

#include "common/text.h"
#include "connector/http/http_client.h"

namespace sluice::connector::http {
namespace {

/// A look-up that hangs until it is let go; whoever asked may be gone by then.
struct Hanging {
  struct Shared {
    std::promise<void> go;
    std::shared_future<void> gone{go.get_future()};
    std::atomic<int> asked{0};
  };
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  ~Hanging() { shared->go.set_value(); }
  Resolver::Lookup Lookup() const {
    return [shared = shared](const std::string&) -> absl::StatusOr<std::vector<std::string>> {
      ++shared->asked;
      shared->gone.wait();
      return std::vector<std::string>{"127.0.0.1"};
    };
  }
};

absl::Duration TimeOf(const std::function<void()>& run) {
  const auto started = std::chrono::steady_clock::now();
  run();
  return absl::FromChrono(std::chrono::steady_clock::now() - started);
}

}  // namespace

TEST_CASE("Names and addresses are found, and a name that is none is told") {
  Resolver resolver;
  CHECK(resolver.Resolve("127.0.0.1", absl::Seconds(10)).value() == std::vector<std::string>{"127.0.0.1"});
  CHECK(resolver.Resolve("::1", absl::Seconds(10)).value() == std::vector<std::string>{"::1"});
  CHECK_FALSE(resolver.Resolve("localhost", absl::Seconds(10)).value().empty());
  CHECK(absl::IsUnavailable(resolver.Resolve("no..such.host", absl::Seconds(30)).status()));
}

TEST_CASE("A look-up that hangs ends in time, and is not begun a second time beside itself") {
  Hanging hanging;
  Resolver resolver(hanging.Lookup());
  for (int i = 0; i < 3; ++i) {
    CHECK(absl::IsDeadlineExceeded(resolver.Resolve("slow.example", absl::Milliseconds(20)).status()));
  }
  CHECK(hanging.shared->asked == 1);
}

TEST_CASE("Cancel ends a look-up that hangs, and nothing is asked after it") {
  Hanging hanging;
  auto resolver = std::make_unique<Resolver>(hanging.Lookup());
  std::thread canceller([&] {
    while (hanging.shared->asked == 0) std::this_thread::yield();
    resolver->Cancel();
  });
  const absl::Duration time =
      TimeOf([&] { CHECK(absl::IsCancelled(resolver->Resolve("slow.example", absl::Minutes(5)).status())); });
  CHECK(time < absl::Seconds(10));
  canceller.join();
  CHECK(absl::IsCancelled(resolver->Resolve("127.0.0.1", absl::Seconds(1)).status()));
  resolver = nullptr;  // before the look-up comes back
}

TEST_CASE("A look-up that hangs is under the client's connect time-out, and the client goes without waiting for it") {
  Hanging hanging;
  const absl::Duration time = TimeOf([&] {
    ClientOptions options;
    options.connect_timeout = absl::Milliseconds(50);
    options.lookup = hanging.Lookup();
    Client client(options);
    const auto response = client.Send({.post = false, .url = "http://slow.example/a", .headers = {}, .body = {}});
    CHECK(absl::IsDeadlineExceeded(response.status()));
    CHECK(Message(response.status()).find("slow.example") != std::string_view::npos);
  });
  CHECK(time < absl::Seconds(10));
}

}  // namespace sluice::connector::http
