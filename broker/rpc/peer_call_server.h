// Answers the calls of other nodes: checks who calls, bounds what is under way, and asks the handler.
//
// Always holds: each call that was given to the handler ends, once, with its answer or, where the reply was dropped,
// UNAVAILABLE. Threads: the completion queue's, unless told.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "broker/peer_calls.h"
#include "broker/rpc/call.h"
#include "broker/rpc/peer_host.h"
#include "common/log_limit.h"

namespace sluice::broker::rpc {

class IncomingCall;

class PeerCallServer {
 public:
  explicit PeerCallServer(PeerHost& host) : host_(host), load_(std::make_shared<Load>()) {}

  /// From any thread, as Stop and AddTo.
  void Serve(PeerCallHandler handler);
  /// The handler is not asked any more, but for a call that it is being asked just now.
  void Stop() { stopped_ = true; }
  std::shared_ptr<Handler> MakeHandler(std::shared_ptr<Call> call);
  void AddTo(PeerTransportStats* stats) const;

 private:
  friend class IncomingCall;
  /// What is under way; outlives the transport in replies that nobody has dropped.
  struct Load {
    std::atomic<int64_t> calls = 0;
    std::atomic<int64_t> bytes = 0;
  };
  void Handle(IncomingCall& call, grpc::ByteBuffer message);
  absl::Status Ask(IncomingCall& call, const grpc::ByteBuffer& message);

  PeerHost& host_;
  const std::shared_ptr<Load> load_;
  std::mutex mutex_;
  std::shared_ptr<PeerCallHandler> handler_;  // called by the queue's thread alone
  LogLimit refused_logged_{absl::Seconds(10)};
  std::atomic<bool> stopped_ = false;
  std::atomic<int64_t> served_ = 0;
  std::atomic<int64_t> refused_ = 0;
};

}  // namespace sluice::broker::rpc
