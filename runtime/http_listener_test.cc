#include "runtime/http_listener.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>
#include <thread>

namespace sluice::runtime {
namespace {

using boost::asio::ip::tcp;

// A client that sends bytes as they are and reads until the server closes.
class Client {
 public:
  explicit Client(uint16_t port) : socket_(context_) {
    socket_.connect({boost::asio::ip::address_v4::loopback(), port});
  }
  void Send(const std::string& text) { boost::asio::write(socket_, boost::asio::buffer(text)); }
  std::string ReadAll() {
    std::string all;
    boost::system::error_code error;
    boost::asio::read(socket_, boost::asio::dynamic_buffer(all), error);
    return all;
  }
  std::string Ask(const std::string& request_line) {
    Send(request_line + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    return ReadAll();
  }

 private:
  boost::asio::io_context context_;
  tcp::socket socket_;
};

struct Fixture {
  explicit Fixture(HttpListenerOptions options = {}) : listener(options) {
    listener.Handle("/hello", [](const HttpRequest& request, HttpRespond respond) {
      respond({200, "text/plain", "hello " + request.query});
    });
    listener.Handle("/later", [this](const HttpRequest&, HttpRespond respond) {
      threads.emplace_back([respond = std::move(respond)]() mutable { respond({503, "text/plain", "late"}); });
    });
    listener.Handle("/never", [this](const HttpRequest&, HttpRespond respond) { kept = std::move(respond); });
    REQUIRE(listener.Start().ok());
  }
  ~Fixture() {
    for (auto& thread : threads) thread.join();
  }
  std::vector<std::thread> threads;
  HttpRespond kept;
  HttpListener listener;
};

TEST_CASE("A GET of a known path gets its handler's answer, with the query") {
  Fixture fixture;
  const std::string answer = Client(fixture.listener.port()).Ask("GET /hello?a=1");
  CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(answer.ends_with("\r\n\r\nhello a=1"));
}

TEST_CASE("A HEAD has the length and no body") {
  Fixture fixture;
  const std::string answer = Client(fixture.listener.port()).Ask("HEAD /hello");
  CHECK(answer.find("Content-Length: 6\r\n") != std::string::npos);
  CHECK(answer.ends_with("\r\n\r\n"));
}

TEST_CASE("Unknown paths are 404 and other methods 405") {
  Fixture fixture;
  CHECK(Client(fixture.listener.port()).Ask("GET /nope").starts_with("HTTP/1.1 404"));
  CHECK(Client(fixture.listener.port()).Ask("DELETE /hello").starts_with("HTTP/1.1 405"));
}

TEST_CASE("A handler may answer later and from another thread") {
  Fixture fixture;
  const std::string answer = Client(fixture.listener.port()).Ask("GET /later");
  CHECK(answer.starts_with("HTTP/1.1 503"));
  CHECK(answer.ends_with("late"));
}

TEST_CASE("One connection serves one request after the other") {
  Fixture fixture;
  Client client(fixture.listener.port());
  client.Send("GET /hello?1 HTTP/1.1\r\nHost: x\r\n\r\nGET /hello?2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string answers = client.ReadAll();
  CHECK(answers.find("hello 1") != std::string::npos);
  CHECK(answers.ends_with("hello 2"));
}

TEST_CASE("What is not HTTP is 400, a header beyond the bound 431, a body beyond the bound 413") {
  Fixture fixture;
  Client garbage(fixture.listener.port());
  garbage.Send("\x16\x03\x01 nonsense\r\n\r\n");
  CHECK(garbage.ReadAll().starts_with("HTTP/1.1 400"));
  Client header(fixture.listener.port());
  header.Send("GET /hello HTTP/1.1\r\nX: " + std::string(9000, 'x'));
  CHECK(header.ReadAll().starts_with("HTTP/1.1 431"));
  Client body(fixture.listener.port());
  body.Send("POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  CHECK(body.ReadAll().starts_with("HTTP/1.1 413"));
}

TEST_CASE("A request that does not arrive in time is dropped") {
  HttpListenerOptions options;
  options.request_time_max = absl::Milliseconds(50);
  Fixture fixture(options);
  Client client(fixture.listener.port());
  client.Send("GET /hel");
  CHECK(client.ReadAll().empty());
}

TEST_CASE("Connections beyond the bound wait for one to go") {
  HttpListenerOptions options;
  options.connections_max = 1;
  options.request_time_max = absl::Milliseconds(200);
  Fixture fixture(options);
  Client idle(fixture.listener.port());
  idle.Send("GET");
  // Served once the idle one has been dropped.
  CHECK(Client(fixture.listener.port()).Ask("GET /hello").starts_with("HTTP/1.1 200"));
  CHECK(idle.ReadAll().empty());
}

TEST_CASE("Stopping does not wait for a handler that never answers, nor for idle clients") {
  auto fixture = std::make_unique<Fixture>();
  Client idle(fixture->listener.port());
  Client waiting(fixture->listener.port());
  waiting.Send("GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  fixture.reset();
  CHECK(waiting.ReadAll().empty());
}

TEST_CASE("A port that is taken, and a host that is no address, are errors that name them") {
  Fixture fixture;
  HttpListenerOptions options;
  options.port = fixture.listener.port();
  const absl::Status taken = HttpListener(options).Start();
  CHECK(taken.code() == absl::StatusCode::kUnavailable);
  CHECK(std::string(taken.message()).find(std::to_string(options.port)) != std::string::npos);
  options.host = "no.such.host";
  CHECK(HttpListener(options).Start().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::runtime
