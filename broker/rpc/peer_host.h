// PeerHost: what the parts of the peers' transport share; outlives them.
//
// Threads: any, unless told.
#pragma once

#include <grpcpp/completion_queue.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "broker/rpc/peer_transport.h"
#include "broker/rpc/tls.h"
#include "common/executor.h"

namespace sluice::broker::rpc {

class PeerHost {
 public:
  PeerHost(const PeerTransportOptions& of_options, const Clock& of_clock)
      : options(of_options), clock(of_clock), identity_(of_options.identity) {}
  virtual ~PeerHost() = default;

  PeerIdentity Identity() const {
    std::lock_guard lock(identity_mutex_);
    return identity_;
  }
  void Identify(const PeerIdentity& identity) {
    std::lock_guard lock(identity_mutex_);
    identity_ = identity;
  }
  /// On the queue's thread: a stream to the peer stands, or does not any more.
  virtual void OnLinkState(NodeId peer, PeerLane lane, bool stands) = 0;
  /// On the queue's thread: a stream of the peer was accepted.
  virtual void OnGreeted(NodeId peer) = 0;

  const PeerTransportOptions options;
  const Clock& clock;
  grpc::CompletionQueue* queue = nullptr;
  std::shared_ptr<TlsCredentials> credentials;  ///< Set before anything begins.
  std::atomic<uint64_t> connections = 0;        ///< Attempts made, for Hello.
  std::atomic<int64_t> open = 0;  ///< Attempts, calls and alarms under way; the queue stays until it is 0.

 private:
  mutable std::mutex identity_mutex_;
  PeerIdentity identity_;
};

}  // namespace sluice::broker::rpc
