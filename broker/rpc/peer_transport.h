// What nodes say to each other, over gRPC (replication/transport.h and broker/peer_calls.h are the contracts,
// docs/formats.md "Messages between nodes" the wire). Nothing of gRPC shows.
//
// Each node calls each of its peers, on two streams with a connection each: one for messages of groups, one for
// liveness, which so never waits behind batches, not even behind those that the kernel holds. What it sends goes on
// the streams that it opened; on those that it accepted it only hears. A peer counts as connected while both of the
// streams to it stand.
//
// Always holds: one thread (and one completion queue) does everything that is not started by a Send or a Call, and runs
// the receiver, the handler of calls and what calls end with. What waits for a peer is bounded, and is dropped when the
// connection breaks. A stream that a peer opened ends the one that the same process had before, and nothing of that is
// delivered any more; while a stream of one process stands, another process that says it is the same node is refused.
// Each attempt to connect a stream is a channel of its own, so that the only back-off is the one here.
//
// It listens from the first of Start and Serve on. Stop takes as long as what is under way on its thread, and no
// waiting for peers.
// Threads: every method from any, but for Stop: once. Not to be destroyed by Stop's `done`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/peer_calls.h"
#include "broker/rpc/peer_message.h"
#include "broker/tls_files.h"
#include "common/executor.h"
#include "common/log.h"
#include "replication/transport.h"

namespace sluice::broker::rpc {

/// Who this node is. What a node that joins does not know yet is 0 or nil.
struct PeerIdentity {
  NodeId node;
  Uuid cluster;
  Uuid disk;  ///< Of the data folder.
};

struct PeerTransportOptions {
  PeerIdentity identity;
  Uuid session;                            ///< Drawn at the start of the process.
  std::string address = "127.0.0.1:7401";  ///< Where peers are accepted, host:port; port 0 takes any free one.

  std::optional<TlsFiles> tls;  ///< All three files; both sides show a certificate (tls.h). None: in the clear.
  absl::Duration tls_reload_every = absl::Seconds(10);  ///< Whole seconds.

  int64_t queue_bytes_max = 32 << 20;    ///< Of what waits for one peer.
  int64_t message_bytes_max = 32 << 20;  ///< Of one message, in either direction; at least a batch and 64 KiB.
  int connections_max = 256;             ///< That are accepted; those beyond it are closed.
  int calls_max = 1024;                  ///< That are served at once; those beyond it are RESOURCE_EXHAUSTED.
  int64_t calls_bytes_max = 64 << 20;    ///< Of their requests.
  /// A peer that has been silent this long is asked whether it lives, and has as long as the second to answer.
  absl::Duration keepalive_time = absl::Seconds(1);
  absl::Duration keepalive_timeout = absl::Seconds(3);
  absl::Duration handshake_timeout = absl::Seconds(3);  ///< To connect and to exchange Hellos.
  /// Between attempts to connect; doubles from the first to the second, less up to half of it at random.
  absl::Duration backoff_min = absl::Milliseconds(50);
  absl::Duration backoff_max = absl::Seconds(2);
  uint32_t version_min = kPeerVersionMin;
  uint32_t version_max = kPeerVersionMax;
  Logger log = Logger::Silent();
};

struct PeerStats {
  bool connected = false;
  int64_t connects = 0;          ///< Streams that came to stand.
  int64_t messages_sent = 0;     ///< Of groups and liveness.
  int64_t bytes_sent = 0;        ///< Given to gRPC.
  int64_t messages_refused = 0;  ///< By Send: over the bound, or not connected.
  int64_t queue_bytes = 0;
};

struct PeerTransportStats {
  std::map<NodeId, PeerStats> peers;
  int64_t messages_received = 0;
  int64_t bytes_received = 0;
  int64_t messages_damaged = 0;  ///< Lost because a batch did not pass its checksum.
  int64_t streams_refused = 0;   ///< Wrong Hellos, and what was no message of a peer.
  int64_t connections = 0;       ///< Accepted, now.
  int64_t connections_refused = 0;
  int64_t calls_made = 0;
  int64_t calls_served = 0;   ///< Given to the handler.
  int64_t calls_refused = 0;  ///< Without asking it.
};

class GrpcPeerTransport : public replication::PeerTransport, public PeerCalls, public PeerAddresses {
 public:
  /// Binds the address. `clock` outlives the transport. UNAVAILABLE when it cannot be bound, INVALID_ARGUMENT when the
  /// TLS files are not what they should be.
  static absl::StatusOr<std::unique_ptr<GrpcPeerTransport>> Make(const PeerTransportOptions& options,
                                                                 const Clock& clock);

  /// Where it listens, with the port bound.
  virtual const std::string& address() const = 0;
  /// For a node that learns who it is once it has joined: before Start, and known with all its parts by then.
  virtual void SetIdentity(const PeerIdentity& identity) = 0;
  virtual PeerTransportStats stats() const = 0;
};

}  // namespace sluice::broker::rpc
