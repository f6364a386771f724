#include "connector/http/http_client.h"

#include <openssl/pem.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <thread>

#include "common/record/codec.h"
#include "common/text.h"
#include "connector/http/test_server.h"

namespace sluice::connector::http {
namespace {

std::string Gzip(std::string_view text) {
  std::string out;
  REQUIRE(record::Compress(record::Codec::kGzip, record::kDefaultLevel, text, &out).ok());
  return out;
}

absl::StatusOr<Response> Get(const std::string& url, ClientOptions options = {}) {
  Client client(options);
  return client.Send({.post = false, .url = url, .headers = {}, .body = {}});
}

/// A certificate for `names`, trusted through a file.
struct Trusted {
  explicit Trusted(const std::string& names) : certificate(names, path) {}
  ~Trusted() { unlink(path.c_str()); }
  std::string path = Cat("/tmp/sluice-http-test-", getpid(), ".pem");
  TestCertificate certificate;
};

}  // namespace

TEST_CASE("A GET carries host, headers and query, and brings status, headers and body") {
  TestServer server([](int, const std::string&) { return TestServer::Ok("[1]", "X-Kind: a\r\n"); });
  Client client({});
  const auto response =
      client.Send({.post = false, .url = server.Url() + "/a/b?c=d%20e", .headers = {{"X-Token", "t"}}, .body = {}});
  INFO(response.status());
  REQUIRE(response.ok());
  CHECK(response->status == 200);
  CHECK(response->body == "[1]");
  CHECK(response->Header("x-kind") == "a");
  const std::string request = server.last_request();
  CHECK(request.starts_with("GET /a/b?c=d%20e HTTP/1.1\r\n"));
  CHECK(request.find("Host: " + server.Url().substr(7)) != std::string::npos);
  CHECK(request.find("X-Token: t") != std::string::npos);
}

TEST_CASE("A POST carries its body") {
  TestServer server([](int, const std::string&) { return TestServer::Ok("{}"); });
  Client client({});
  REQUIRE(client.Send({.post = true, .url = server.Url(), .headers = {}, .body = "{\"q\":1}"}).ok());
  CHECK(server.last_request().starts_with("POST / HTTP/1.1\r\n"));
  CHECK(server.last_request().ends_with("\r\n\r\n{\"q\":1}"));
}

TEST_CASE("One connection serves many requests, and a new one takes over when the server has closed it") {
  TestServer server(
      [](int request, const std::string&) { return TestServer::Ok("x", request == 1 ? "X-Hang-Up: 1\r\n" : ""); });
  Client client({});
  for (int i = 0; i < 4; ++i) {
    REQUIRE(client.Send({.post = false, .url = server.Url(), .headers = {}, .body = {}}).ok());
  }
  CHECK(server.connections() == 2);
  CHECK(server.requests() == 4);
}

TEST_CASE("An answer that is cut short is an error that may pass") {
  TestServer server([](int, const std::string&) {
    return std::string("HTTP/1.1 200 OK\r\nContent-Length: 50\r\nX-Hang-Up: 1\r\n\r\nabc");
  });
  const auto response = Get(server.Url());
  CHECK(absl::IsUnavailable(response.status()));
  CHECK(Message(response.status()).find("cut short") != std::string_view::npos);
}

TEST_CASE("A server that does not answer, or cannot be reached, is an error within its time") {
  TestServer silent(
      [](int, const std::string&) { return std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na"); });
  ClientOptions options;
  options.read_timeout = absl::Milliseconds(150);
  CHECK(absl::IsDeadlineExceeded(Get(silent.Url(), options).status()));
  CHECK(absl::IsUnavailable(Get("http://127.0.0.1:1").status()));
  CHECK(absl::IsUnavailable(Get("http://no..such.host/").status()));
}

TEST_CASE("An answer larger than allowed is refused, packed or not") {
  const std::string large(100'000, 'a');
  ClientOptions options;
  options.body_bytes_max = 10'000;
  TestServer plain([&](int, const std::string&) { return TestServer::Ok(large); });
  CHECK(absl::IsResourceExhausted(Get(plain.Url(), options).status()));
  TestServer bomb([&](int, const std::string&) { return TestServer::Ok(Gzip(large), "Content-Encoding: gzip\r\n"); });
  CHECK(absl::IsResourceExhausted(Get(bomb.Url(), options).status()));
}

TEST_CASE("gzip is asked for and undone, and damage to it is told") {
  const std::string packed = Gzip("{\"a\":1}");
  TestServer good([&](int, const std::string&) { return TestServer::Ok(packed, "Content-Encoding: gzip\r\n"); });
  const auto response = Get(good.Url());
  REQUIRE(response.ok());
  CHECK(response->body == "{\"a\":1}");
  CHECK(good.last_request().find("Accept-Encoding: gzip") != std::string::npos);
  TestServer bad([&](int, const std::string&) {
    return TestServer::Ok(packed.substr(0, packed.size() - 9), "Content-Encoding: gzip\r\n");
  });
  CHECK(absl::IsDataLoss(Get(bad.Url()).status()));
}

TEST_CASE("Redirects are followed within a limit, and credentials stay at their origin") {
  TestServer other([](int, const std::string&) { return TestServer::Ok("other"); });
  TestServer server([&](int, const std::string& request) {
    if (request.starts_with("GET /away")) return TestServer::Status(302, "Location: " + other.Url() + "/x\r\n");
    if (request.starts_with("GET /near")) return TestServer::Status(307, "Location: here?q=1\r\n");
    if (request.starts_with("GET /loop")) return TestServer::Status(301, "Location: /loop\r\n");
    return TestServer::Ok("home");
  });
  Client client({});
  const auto get = [&](const std::string& path) {
    return client.Send(
        {.post = false, .url = server.Url() + path, .headers = {{"Authorization", "Bearer canary"}}, .body = {}});
  };
  const auto near = get("/near");
  REQUIRE(near.ok());
  CHECK(near->body == "home");
  CHECK(near->url == server.Url() + "/here?q=1");
  CHECK(server.last_request().find("canary") != std::string::npos);
  const auto away = get("/away");
  REQUIRE(away.ok());
  CHECK(away->body == "other");
  CHECK(other.last_request().find("canary") == std::string::npos);
  CHECK(absl::IsAborted(get("/loop").status()));
}

TEST_CASE("The body of a POST stays at its origin too") {
  TestServer other([](int, const std::string&) { return TestServer::Ok("other"); });
  TestServer server([&](int, const std::string& request) {
    const std::string status = request.starts_with("POST /see") ? "303" : "307";
    return TestServer::Status(std::stoi(status), "Location: " + other.Url() + "/x\r\n");
  });
  Client client({});
  const auto post = [&](const std::string& path) {
    return client.Send({.post = true, .url = server.Url() + path, .headers = {}, .body = "canary"});
  };
  CHECK(absl::IsAborted(post("/keep").status()));
  CHECK(other.requests() == 0);
  REQUIRE(post("/see").ok());  // 303: as a GET, without a body
  CHECK(other.last_request().find("canary") == std::string::npos);
}

TEST_CASE("TLS works with a certificate that is trusted and of that host") {
  const Trusted trusted("DNS:localhost,IP:127.0.0.1");
  TestServer server([](int, const std::string&) { return TestServer::Ok("safe"); }, &trusted.certificate);
  ClientOptions options;
  options.ca_file = trusted.path;
  for (const char* host : {"localhost", "127.0.0.1"}) {
    const auto response = Get(server.Url(host), options);
    INFO(response.status());
    REQUIRE(response.ok());
    CHECK(response->body == "safe");
  }
}

TEST_CASE("A certificate that nobody vouches for is refused, once and for all") {
  const Trusted trusted("DNS:localhost,IP:127.0.0.1");
  TestServer server([](int, const std::string&) { return TestServer::Ok("canary"); }, &trusted.certificate);
  const auto response = Get(server.Url());  // the system's roots
  CHECK(absl::IsFailedPrecondition(response.status()));
  CHECK(Message(response.status()).find("certificate is not accepted") != std::string_view::npos);
  CHECK(server.requests() == 0);
}

TEST_CASE("A sound certificate of another host is refused") {
  const Trusted trusted("DNS:other.example");
  TestServer server([](int, const std::string&) { return TestServer::Ok("canary"); }, &trusted.certificate);
  ClientOptions options;
  options.ca_file = trusted.path;
  for (const char* host : {"localhost", "127.0.0.1"}) {
    const auto response = Get(server.Url(host), options);
    INFO(response.status());
    CHECK(absl::IsFailedPrecondition(response.status()));
    CHECK(Message(response.status()).find(Cat("'", host, "'")) != std::string_view::npos);
  }
  CHECK(server.requests() == 0);
}

TEST_CASE("Cancel ends a request that waits") {
  TestServer silent(
      [](int, const std::string&) { return std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na"); });
  Client client({});
  std::thread canceller([&] {
    while (silent.requests() == 0) std::this_thread::yield();
    client.Cancel();
  });
  const auto response = client.Send({.post = false, .url = silent.Url(), .headers = {}, .body = {}});
  canceller.join();
  CHECK(absl::IsCancelled(response.status()));
}

TEST_CASE("No message has the query in it, which may hold a secret") {
  const auto response = Get("http://127.0.0.1:1/path?token=canary");
  CHECK(Message(response.status()).find("canary") == std::string_view::npos);
  CHECK(Message(response.status()).find("/path") != std::string_view::npos);
}

}  // namespace sluice::connector::http
