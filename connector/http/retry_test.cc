#include "connector/http/retry.h"

#include <catch2/catch.hpp>
#include <vector>

#include "common/text.h"
#include "connector/http/headers.h"
#include "connector/http/test_server.h"

namespace sluice::connector::http {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);  // Tue, 14 Nov 2023 22:13:20 GMT

class FixedClock final : public Clock {
 public:
  absl::Duration Monotonic() const override { return absl::ZeroDuration(); }
  absl::Time Wall() const override { return kNow; }
};
class FixedRandom final : public Random {
 public:
  explicit FixedRandom(uint64_t value) : value_(value) {}
  uint64_t Next() override { return value_; }

 private:
  const uint64_t value_;
};
/// Waits that take no time and are written down.
class NotedWaits final : public StopSignal {
 public:
  std::vector<absl::Duration> waits;
  bool Sleep(absl::Duration duration) override {
    waits.push_back(duration);
    return !stopped();
  }
};

struct Outcome {
  absl::StatusOr<Response> response;
  std::vector<absl::Duration> waits;
};

Outcome Ask(TestServer& server, int attempts_max = 4) {
  Client client({});
  FixedClock clock;
  FixedRandom random(uint64_t{1} << 63);  // half of every bound
  NotedWaits stop;
  auto response =
      SendWithRetries(client, {.post = false, .url = server.Url() + "/p", .headers = {}, .body = {}},
                      {.attempts_max = attempts_max}, clock, random, stop, [](const absl::Status&, absl::Duration) {});
  return {std::move(response), stop.waits};
}

}  // namespace

TEST_CASE("429 and 5xx are asked again, with bounds that double") {
  TestServer server([](int request, const std::string&) {
    static constexpr int kFirst[] = {503, 429, 500};
    return request < 3 ? TestServer::Status(kFirst[request]) : TestServer::Ok("done");
  });
  const Outcome outcome = Ask(server);
  REQUIRE(outcome.response.ok());
  CHECK(outcome.response->body == "done");
  CHECK(outcome.waits ==
        std::vector<absl::Duration>{absl::Milliseconds(100), absl::Milliseconds(200), absl::Milliseconds(400)});
}

TEST_CASE("Retry-After is obeyed in both its forms") {
  TestServer server([](int request, const std::string&) {
    if (request == 0) return TestServer::Status(429, "Retry-After: 7\r\n");
    if (request == 1) return TestServer::Status(503, "Retry-After: Tue, 14 Nov 2023 22:14:20 GMT\r\n");
    return TestServer::Ok("done");
  });
  const Outcome outcome = Ask(server);
  REQUIRE(outcome.response.ok());
  REQUIRE(outcome.waits.size() == 2);
  CHECK(outcome.waits[0] >= absl::Seconds(7));
  CHECK(outcome.waits[0] < absl::Seconds(8));
  CHECK(outcome.waits[1] >= absl::Seconds(60));
  CHECK(outcome.waits[1] < absl::Seconds(61));
}

TEST_CASE("Retry-After that is no time, past or absurd is told apart") {
  CHECK(ParseRetryAfter("120", kNow) == absl::Seconds(120));
  CHECK(ParseRetryAfter(" 0 ", kNow) == absl::ZeroDuration());
  CHECK(ParseRetryAfter("Tue, 14 Nov 2023 22:13:00 GMT", kNow) == absl::ZeroDuration());
  CHECK_FALSE(ParseRetryAfter("-1", kNow).has_value());
  CHECK_FALSE(ParseRetryAfter("soon", kNow).has_value());
  CHECK_FALSE(ParseRetryAfter("", kNow).has_value());
  TestServer server([](int, const std::string&) { return TestServer::Status(429, "Retry-After: 86400\r\n"); });
  const Outcome outcome = Ask(server);
  CHECK(absl::IsResourceExhausted(outcome.response.status()));
  CHECK(outcome.waits.empty());
}

TEST_CASE("What the API refuses is not asked again, and its words are told") {
  const auto status = [](int code) {
    TestServer server([code](int, const std::string&) { return TestServer::Status(code, "", "wrong\ntoken"); });
    const Outcome outcome = Ask(server);
    CHECK(server.requests() == 1);
    CHECK(Message(outcome.response.status()).find(Cat("answered ", code, ": wrong token")) != std::string_view::npos);
    return outcome.response.status().code();
  };
  CHECK(status(401) == absl::StatusCode::kUnauthenticated);
  CHECK(status(403) == absl::StatusCode::kPermissionDenied);
  CHECK(status(404) == absl::StatusCode::kNotFound);
  CHECK(status(400) == absl::StatusCode::kFailedPrecondition);
  CHECK(status(501) == absl::StatusCode::kFailedPrecondition);
}

TEST_CASE("Broken connections are asked again, but not for ever") {
  TestServer server([](int, const std::string&) { return std::string(); });
  const Outcome outcome = Ask(server, 3);
  CHECK(absl::IsUnavailable(outcome.response.status()));
  CHECK(outcome.waits.size() == 2);
  CHECK(Message(outcome.response.status()).find("3 tries") != std::string_view::npos);
}

TEST_CASE("A stop ends the wait between two tries") {
  TestServer server([](int, const std::string&) { return TestServer::Status(503); });
  Client client({});
  FixedClock clock;
  FixedRandom random(0);
  NotedWaits stop;
  const auto response = SendWithRetries(client, {.post = false, .url = server.Url(), .headers = {}, .body = {}}, {},
                                        clock, random, stop, [&](const absl::Status&, absl::Duration) { stop.Stop(); });
  CHECK(absl::IsCancelled(response.status()));
  CHECK(server.requests() == 1);
}

TEST_CASE("Back-off stays below its bounds, whatever the random numbers") {
  const RetryPolicy policy{.backoff_first = absl::Milliseconds(200), .backoff_max = absl::Seconds(5)};
  for (const uint64_t value : {uint64_t{0}, uint64_t{12345} << 40, ~uint64_t{0}}) {
    FixedRandom random(value);
    for (int retry = 0; retry < 100; ++retry) {
      const absl::Duration wait = Backoff(policy, retry, random);
      CHECK(wait >= absl::ZeroDuration());
      CHECK(wait <= absl::Seconds(5));
      if (retry == 0) CHECK(wait <= absl::Milliseconds(200));
    }
  }
}

}  // namespace sluice::connector::http
