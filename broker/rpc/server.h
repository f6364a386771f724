// The gRPC server: the public API on the network. The only thing of this folder that others see; nothing of gRPC shows.
//
// Always holds: one completion queue and one thread for each of `threads`; a request waits in memory only as long as
// the broker needs to answer it, and while requests hold more than their budget no more are read. Connections are
// accepted here and not by gRPC, which knows no bound on them. Threads: Start and Shutdown from one thread, the rest
// from any.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/api.h"
#include "broker/rpc/latency.h"
#include "broker/tls_files.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker::rpc {

struct ServerOptions {
  std::string address = "127.0.0.1:7400";  ///< host:port; port 0 takes any free one.
  /// Encrypts all connections; with `ca`, only clients with a certificate that comes from it are served. None: in the
  /// clear.
  std::optional<TlsFiles> tls;
  absl::Duration tls_reload_every = absl::Seconds(10);  ///< Whole seconds.
  int threads = 1;
  int64_t message_bytes_max = 16 << 20;   ///< Of one request.
  int64_t inflight_bytes_max = 64 << 20;  ///< Of all requests that are not answered; reading stops there.
  int connections_max = 1'000;            ///< Those beyond it are closed.
  int streams_max = 10'000;               ///< Calls under way, of all connections together.
  /// A client that has not taken its answer after this long is cut off, but only when others wait for memory to read.
  absl::Duration read_stall_max = absl::Seconds(30);
  /// A client that has been silent this long is asked whether it lives, and has as long as the second to answer; what
  /// is sent to it and not acknowledged for the second ends its connection too.
  absl::Duration keepalive_time = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  Logger log = Logger::Silent();
};

struct ServerStats {
  int64_t connections = 0;
  int64_t connections_refused = 0;
  int64_t calls_started = 0;
  int64_t calls_refused = 0;
  int64_t calls_active = 0;
  int64_t inflight_bytes = 0;
  LatencySnapshot produce_latency;
};

class Server {
 public:
  /// Binds and serves. `broker` and `clock` outlive the server, and it outlives the broker's answers: destroy it once
  /// the broker is stopped and its executors are. UNAVAILABLE when the address cannot be bound,
  /// INVALID_ARGUMENT when the TLS files are not what they should be.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, Broker& broker,
                                                       const Clock& clock);
  virtual ~Server() = default;  // shuts down at once when Shutdown was not called

  /// Where it listens, with the port bound.
  virtual const std::string& address() const = 0;
  /// Refuses new calls, answers what is in flight, and returns once every call has ended or `grace` has passed; what is
  /// left then is cancelled. The broker must still be running.
  virtual void Shutdown(absl::Duration grace) = 0;
  virtual ServerStats stats() const = 0;
};

}  // namespace sluice::broker::rpc
