// A port of this machine through which another one is reached, until it falls silent as a network does that died:
// connections stay, nobody is told, nothing comes through. Included by tests only.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "common/text.h"

namespace sluice {

/// For connections that carry little: what one side does not take holds up all others.
class TcpRelay {
 public:
  /// `to` is 127.0.0.1:port.
  explicit TcpRelay(const std::string& to)
      : to_(At(static_cast<uint16_t>(std::stoi(to.substr(to.find(':') + 1))))),
        listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in at = At(0);
    socklen_t size = sizeof(at);
    REQUIRE(bind(listener_, reinterpret_cast<sockaddr*>(&at), size) == 0);
    REQUIRE(getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size) == 0);
    REQUIRE(listen(listener_, 16) == 0);
    address_ = Cat("127.0.0.1:", ntohs(at.sin_port));
    thread_ = std::thread([this] { Run(); });
  }
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;
  ~TcpRelay() {
    stopping_ = true;
    thread_.join();
    for (const auto& [from, to] : other_side_) close(from);
    close(listener_);
  }

  const std::string& address() const { return address_; }
  void FallSilent() { silent_ = true; }

 private:
  static sockaddr_in At(uint16_t port) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(port);
    return at;
  }

  void Run() {
    while (!stopping_) {
      std::vector<pollfd> waits;
      if (!silent_) {
        waits.push_back({.fd = listener_, .events = POLLIN, .revents = 0});
        for (const auto& [from, to] : other_side_) waits.push_back({.fd = from, .events = POLLIN, .revents = 0});
      }
      if (poll(waits.data(), waits.size(), /*timeout in ms=*/10) <= 0 || silent_) continue;
      for (const pollfd& wait : waits) {
        if (wait.revents == 0) continue;
        if (wait.fd == listener_) {
          Take();
        } else {
          Forward(wait.fd);
        }
      }
    }
  }

  void Take() {
    const int near = accept(listener_, nullptr, nullptr);
    const int far = socket(AF_INET, SOCK_STREAM, 0);
    if (near < 0 || connect(far, reinterpret_cast<const sockaddr*>(&to_), sizeof(to_)) != 0) {
      close(near);
      close(far);
      return;
    }
    other_side_[near] = far;
    other_side_[far] = near;
  }

  void Forward(int from) {
    const auto pair = other_side_.find(from);
    if (pair == other_side_.end()) return;  // ended with its other side, just now
    const int to = pair->second;
    char bytes[64 << 10];
    const ssize_t got = recv(from, bytes, sizeof(bytes), 0);
    ssize_t sent = 0;
    while (sent < got) {
      const ssize_t some = send(to, bytes + sent, static_cast<size_t>(got - sent), MSG_NOSIGNAL);
      if (some <= 0) break;
      sent += some;
    }
    if (got > 0 && sent == got) return;
    other_side_.erase(from);
    other_side_.erase(to);
    close(from);
    close(to);
  }

  const sockaddr_in to_;
  const int listener_;
  std::string address_;
  std::map<int, int> other_side_;  // of the thread, until it is joined
  std::atomic<bool> silent_ = false;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice
