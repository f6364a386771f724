// A listening socket with a bound on the connections that come of it. It accepts, hands each connection's descriptor to
// who serves it, and sees when the connection is over, though it is another's by then.
//
// How it sees that: it keeps a duplicate of the descriptor, asks the kernel to be told when both directions are shut
// down, and closes the duplicate then. So who serves must shut a connection down (shutdown(2)) when closing it, as gRPC
// does: else the duplicate would keep it open. A connection costs two descriptors.
//
// A connection beyond the bound, or for which there are no descriptors, is closed, so that it fails at once instead of
// waiting in the kernel's queue: for that one descriptor is kept.
// Threads: one of its own, which runs `take`. Start and Stop from one other thread, the rest from any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace sluice::runtime {

struct TcpAcceptorOptions {
  std::string address;  ///< host:port or [IPv6]:port; a name is bound at all its addresses. Port 0 takes any free one.
  int connections_max = 1000;
};

struct TcpAcceptorStats {
  int64_t open = 0;      ///< Connections now.
  int64_t accepted = 0;  ///< Since start, without those refused.
  int64_t refused = 0;   ///< Since start, over the bound or for want of descriptors.
};

class TcpAcceptor {
 public:
  /// Binds and listens. INVALID_ARGUMENT for an address that is none, UNAVAILABLE when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<TcpAcceptor>> Listen(const TcpAcceptorOptions& options);
  virtual ~TcpAcceptor() = default;  // stops

  virtual uint16_t port() const = 0;
  /// `take` owns the connection it is given: non-blocking, closed on exec, without delay. `refused` hears of each
  /// connection that is refused. Once.
  virtual void Start(absl::AnyInvocable<void(int connection)> take, absl::AnyInvocable<void()> refused) = 0;
  /// No more is accepted, and nothing called, afterwards; connections taken go on without being counted.
  virtual void Stop() = 0;
  virtual TcpAcceptorStats stats() const = 0;
};

}  // namespace sluice::runtime
