// The streams that peers opened to this node: who they are, and what they say.
//
// Threads: the completion queue's, unless told.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <utility>

#include "broker/rpc/call.h"
#include "broker/rpc/peer_host.h"
#include "common/log_limit.h"

namespace sluice::broker::rpc {

class IncomingStream;

class PeerIncoming {
 public:
  explicit PeerIncoming(PeerHost& host) : host_(host) {}

  /// Streams that come before are refused. From any thread.
  void Start(replication::PeerReceiver& receiver) { receiver_ = &receiver; }
  /// What arrives from now on is dropped. From any thread.
  void Stop() { stopped_ = true; }
  std::shared_ptr<Handler> MakeHandler(std::shared_ptr<Call> call);
  void AddTo(PeerTransportStats* stats) const;

 private:
  friend class IncomingStream;
  /// FAILED_PRECONDITION when the stream is older than the one that is there, or of another process.
  absl::Status Enter(IncomingStream& stream);
  void Leave(IncomingStream& stream);
  void Deliver(IncomingStream& stream, ReceivedPeerMessage received);
  void LogRefused(const std::string& address, NodeId node, const absl::Status& why);

  PeerHost& host_;
  std::atomic<replication::PeerReceiver*> receiver_ = nullptr;
  std::map<std::pair<NodeId, PeerLane>, IncomingStream*> streams_;
  std::map<NodeId, Uuid> disks_;
  LogLimit refused_logged_{absl::Seconds(10)};
  LogLimit damage_logged_{absl::Seconds(10)};

  std::atomic<bool> stopped_ = false;
  std::atomic<int64_t> messages_ = 0;
  std::atomic<int64_t> bytes_ = 0;
  std::atomic<int64_t> damaged_ = 0;
  std::atomic<int64_t> refused_ = 0;
};

}  // namespace sluice::broker::rpc
