#include "runtime/tcp_acceptor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace sluice::runtime {
namespace {

bool Soon(const std::function<bool()>& holds) {
  for (int i = 0; i < 500 && !holds(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return holds();
}

void ConnectTo(int fd, uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0);
}

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  ConnectTo(fd, port);
  return fd;
}

std::string ReadAll(int fd) {
  std::string all;
  char buffer[100];
  for (ssize_t got = 0; (got = read(fd, buffer, sizeof(buffer))) > 0;) all.append(buffer, static_cast<size_t>(got));
  return all;
}

class Served {
 public:
  explicit Served(int connections_max) {
    auto made = TcpAcceptor::Listen({.address = "127.0.0.1:0", .connections_max = connections_max});
    REQUIRE(made.ok());
    acceptor = *std::move(made);
    acceptor->Start(
        [this](int fd) {
          std::lock_guard lock(mutex);
          taken.push_back(fd);
        },
        [this] { ++refused; });
  }
  ~Served() {
    acceptor->Stop();
    for (const int fd : taken) close(fd);
  }
  size_t count() {
    std::lock_guard lock(mutex);
    return taken.size();
  }
  void End(size_t index) {
    std::lock_guard lock(mutex);
    shutdown(taken[index], SHUT_RDWR);
    close(taken[index]);
    taken.erase(taken.begin() + static_cast<ptrdiff_t>(index));
  }

  std::unique_ptr<TcpAcceptor> acceptor;
  std::mutex mutex;
  std::vector<int> taken;
  std::atomic<int> refused{0};
};

TEST_CASE("a connection over the bound is closed, and one is taken again once another is over") {
  Served served(2);
  const int first = Connect(served.acceptor->port());
  const int second = Connect(served.acceptor->port());
  REQUIRE(Soon([&] { return served.count() == 2; }));

  const int third = Connect(served.acceptor->port());
  CHECK(ReadAll(third).empty());
  close(third);
  CHECK(served.refused == 1);
  CHECK(served.acceptor->stats().refused == 1);
  CHECK(served.acceptor->stats().open == 2);

  SECTION("by its server") {
    served.End(0);
    CHECK(ReadAll(first).empty());  // closed, though a duplicate was there
  }
  SECTION("by its client and then its server") {
    close(first);
    served.End(0);
  }
  CHECK(Soon([&] { return served.acceptor->stats().open == 1; }));
  const int fourth = Connect(served.acceptor->port());
  CHECK(Soon([&] { return served.acceptor->stats().accepted == 3; }));
  CHECK(served.refused == 1);
  close(second);
  close(fourth);
}

TEST_CASE("a connection is counted while its server has not closed it, also when the client is gone") {
  Served served(1);
  close(Connect(served.acceptor->port()));
  REQUIRE(Soon([&] { return served.count() == 1; }));
  CHECK(served.acceptor->stats().open == 1);
  const int second = Connect(served.acceptor->port());
  CHECK(ReadAll(second).empty());
  close(second);
  served.End(0);
  CHECK(Soon([&] { return served.acceptor->stats().open == 0; }));
}

TEST_CASE("a flood over the bound is refused to the last, and the one that is served goes on") {
  Served served(1);
  const int first = Connect(served.acceptor->port());
  REQUIRE(Soon([&] { return served.count() == 1; }));
  std::vector<int> flood;
  for (int i = 0; i < 200; ++i) flood.push_back(Connect(served.acceptor->port()));
  CHECK(Soon([&] { return served.acceptor->stats().refused == 200; }));
  for (const int fd : flood) {
    (void)ReadAll(fd);
    close(fd);
  }
  REQUIRE(send(served.taken[0], "x", 1, 0) == 1);
  char got = 0;
  CHECK(read(first, &got, 1) == 1);
  close(first);
}

TEST_CASE(
    "without descriptors connections are refused at once, each counted once, and taken again when there are some") {
  const int left = GENERATE(0, 1);  // a connection takes two
  Served served(100);
  const int served_before = Connect(served.acceptor->port());
  REQUIRE(Soon([&] { return served.count() == 1; }));
  constexpr int kClients = 5;
  std::vector<int> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(socket(AF_INET, SOCK_STREAM, 0));
  const int next = dup(clients[0]);  // descriptors are given in order, from the lowest that is free
  close(next);
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlim_t before = std::exchange(limit.rlim_cur, static_cast<rlim_t>(next + left));
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  const timeval wait{5, 0};
  for (const int fd : clients) {
    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    ConnectTo(fd, served.acceptor->port());
    char got = 0;
    CHECK(read(fd, &got, 1) == 0);  // not a timeout
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(served.refused == kClients);
  REQUIRE(send(served.taken[0], "x", 1, 0) == 1);
  char got = 0;
  CHECK(read(served_before, &got, 1) == 1);

  limit.rlim_cur = before;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  const int after = Connect(served.acceptor->port());
  CHECK(Soon([&] { return served.count() == 2; }));
  CHECK(served.refused == kClients);
  for (const int fd : clients) close(fd);
  close(after);
  close(served_before);
}

TEST_CASE("an address that is taken, or is none, is an error that names it") {
  Served served(1);
  const std::string taken = "127.0.0.1:" + std::to_string(served.acceptor->port());
  const auto second = TcpAcceptor::Listen({.address = taken});
  REQUIRE(absl::IsUnavailable(second.status()));
  CHECK(second.status().ToString().find(taken) != std::string::npos);
  for (const char* bad : {"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "no..such.host:1"}) {
    CHECK(absl::IsInvalidArgument(TcpAcceptor::Listen({.address = bad}).status()));
  }
  CHECK(TcpAcceptor::Listen({.address = "localhost:0"}).ok());
}

TEST_CASE("Stop lets what was taken go on") {
  Served served(5);
  const int fd = Connect(served.acceptor->port());
  REQUIRE(Soon([&] { return served.count() == 1; }));
  served.acceptor->Stop();
  REQUIRE(send(served.taken[0], "x", 1, 0) == 1);
  char got = 0;
  CHECK(read(fd, &got, 1) == 1);
  close(fd);
}

}  // namespace
}  // namespace sluice::runtime
