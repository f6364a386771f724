#include "runtime/tcp_acceptor.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::runtime {
namespace {

// Nothing to accept with: trying again at once would only spin.
constexpr int kPauseMs = 100;
/// Connections refused in a row before others are looked at again.
constexpr int64_t kRefusedAtOnce = 64;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Below 0 where there is none left.
Descriptor Duplicate(const Descriptor& of) {
  return Descriptor(fcntl(of.get(), F_DUPFD_CLOEXEC, 0));
}

absl::Status Errno(std::string_view what, const std::string& address) {
  return absl::UnavailableError(Cat("cannot ", what, " ", address, ": ", std::strerror(errno)));
}

struct Resolved {
  sockaddr_storage address{};
  socklen_t size = 0;
  int family = 0;

  void SetPort(uint16_t port) {
    if (family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(&address)->sin6_port = htons(port);
    } else {
      reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
    }
  }
};

absl::StatusOr<std::vector<Resolved>> Resolve(const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = -1;
  if (colon == std::string::npos || !absl::SimpleAtoi(std::string(text.substr(colon + 1)), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(Cat("\"", text, "\" is not host:port"));
  }
  std::string host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return absl::InvalidArgumentError(Cat("\"", host, "\" has no address: ", gai_strerror(error)));
  }
  std::vector<Resolved> all;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    if (at->ai_family != AF_INET && at->ai_family != AF_INET6) continue;
    Resolved one;
    std::memcpy(&one.address, at->ai_addr, at->ai_addrlen);
    one.size = at->ai_addrlen;
    one.family = at->ai_family;
    one.SetPort(static_cast<uint16_t>(port));
    all.push_back(one);
  }
  freeaddrinfo(found);
  if (all.empty()) return absl::InvalidArgumentError(Cat("\"", host, "\" has no address"));
  return all;
}

// A descriptor below 0 leaves the reason in errno.
Descriptor Bind(const Resolved& at) {
  Descriptor listener(socket(at.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (listener.get() < 0) return listener;
  const int yes = 1;
  const int no = 0;
  // Connections of the process before do not keep the port; a process that listens now does.
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (at.family == AF_INET6) setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&at.address), at.size) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    const int reason = errno;
    listener = Descriptor(-1);
    errno = reason;
  }
  return listener;
}

uint16_t PortOf(int fd) {
  Resolved bound;
  bound.size = sizeof(bound.address);
  SLUICE_CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&bound.address), &bound.size) == 0);
  return ntohs(bound.address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&bound.address)->sin6_port
                                                   : reinterpret_cast<const sockaddr_in*>(&bound.address)->sin_port);
}

class TcpAcceptorImpl final : public TcpAcceptor {
 public:
  explicit TcpAcceptorImpl(const TcpAcceptorOptions& options)
      : options_(options),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        spare_(Duplicate(wake_)) {}
  ~TcpAcceptorImpl() override { Stop(); }

  absl::Status Listen() {
    if (epoll_.get() < 0 || wake_.get() < 0 || spare_.get() < 0) return Errno("make descriptors for", options_.address);
    SLUICE_ASSIGN_OR_RETURN(std::vector<Resolved> addresses, Resolve(options_.address));
    for (Resolved& address : addresses) {
      if (port_ != 0) address.SetPort(port_);
      Descriptor listener = Bind(address);
      // A name such as localhost may have an address of a family that this machine does not have.
      const bool missing = errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL;
      if (listener.get() < 0 && missing && addresses.size() > 1) continue;
      if (listener.get() < 0) return Errno("listen on", options_.address);
      port_ = PortOf(listener.get());
      listeners_.push_back(std::move(listener));
    }
    if (listeners_.empty()) return Errno("listen on", options_.address);
    Watch(wake_.get(), EPOLLIN);
    for (const Descriptor& listener : listeners_) Watch(listener.get(), EPOLLIN);
    return absl::OkStatus();
  }

  uint16_t port() const override { return port_; }
  void Start(absl::AnyInvocable<void(int)> take, absl::AnyInvocable<void()> refused) override {
    take_ = std::move(take);
    tell_refused_ = std::move(refused);
    thread_ = std::thread([this] { Run(); });
    pthread_setname_np(thread_.native_handle(), "sluice-accept");
  }
  void Stop() override {
    if (thread_.joinable()) {
      stopping_ = true;
      SLUICE_CHECK(eventfd_write(wake_.get(), 1) == 0);
      thread_.join();
    }
    listeners_.clear();
  }
  TcpAcceptorStats stats() const override { return {open_, accepted_, refused_}; }

 private:
  void Watch(int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    SLUICE_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) << "epoll, errno " << errno;
  }

  void Run() {
    std::array<epoll_event, 64> events{};
    while (!stopping_) {
      if (std::exchange(paused_, false)) {
        pollfd wake{wake_.get(), POLLIN, 0};
        poll(&wake, 1, kPauseMs);
      }
      const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      SLUICE_CHECK(count >= 0 || errno == EINTR) << "epoll, errno " << errno;
      // What is over makes room for what is new.
      for (int i = 0; i < count; ++i) OnConnection(events[static_cast<size_t>(i)].data.fd);
      for (const Descriptor& listener : listeners_) Accept(listener.get());
    }
    for (const int watched : watched_) close(watched);
    watched_.clear();
    open_ = 0;
  }

  // A connection that is served is over; closing the duplicate ends the watch.
  void OnConnection(int fd) {
    if (watched_.erase(fd) == 0) return;
    close(fd);
    --open_;
  }

  // What is not taken now is told of again: a flood that is refused must not keep ended connections from being noticed.
  void Accept(int listener) {
    const int64_t enough = refused_ + kRefusedAtOnce;
    while (!stopping_ && refused_ < enough) {
      Descriptor connection(AcceptOne(listener));
      if (connection.get() < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if ((errno == EMFILE || errno == ENFILE) && RefuseOne(listener)) continue;
        paused_ |= errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        return;
      }
      if (open_ >= options_.connections_max) {
        Refuse();
        continue;
      }
      Descriptor duplicate = Duplicate(connection);
      if (duplicate.get() < 0) {
        Refuse();
        continue;
      }
      const int yes = 1;
      setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
      Watch(duplicate.get(), 0);  // the end of both directions is always told
      watched_.insert(duplicate.Release());
      ++open_;
      ++accepted_;
      take_(connection.Release());
    }
  }

  static int AcceptOne(int listener) { return accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); }

  // Without descriptors accept4 takes nothing from the queue, and does not even say whether there is something. The
  // spare one is given up to see, and to close what waits. False, with the reason in errno, when nothing was refused.
  bool RefuseOne(int listener) {
    spare_ = Descriptor(-1);
    Descriptor connection(AcceptOne(listener));
    const int error = errno;
    const bool refused = connection.get() >= 0;
    connection = Descriptor(-1);
    spare_ = Duplicate(wake_);  // whoever was quicker than this gives it back some time
    if (refused) Refuse();
    errno = error;
    return refused;
  }

  void Refuse() {
    ++refused_;
    tell_refused_();
  }

  const TcpAcceptorOptions options_;
  const Descriptor epoll_;
  const Descriptor wake_;
  uint16_t port_ = 0;
  std::vector<Descriptor> listeners_;
  absl::AnyInvocable<void(int)> take_;
  absl::AnyInvocable<void()> tell_refused_;
  std::thread thread_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> open_ = 0;
  std::atomic<int64_t> accepted_ = 0;
  std::atomic<int64_t> refused_ = 0;

  // On the thread only, once it runs.
  Descriptor spare_;       // to refuse connections with when there is no other
  std::set<int> watched_;  // duplicates
  bool paused_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TcpAcceptor>> TcpAcceptor::Listen(const TcpAcceptorOptions& options) {
  auto acceptor = std::make_unique<TcpAcceptorImpl>(options);
  SLUICE_RETURN_IF_ERROR(acceptor->Listen());
  return acceptor;
}

}  // namespace sluice::runtime
