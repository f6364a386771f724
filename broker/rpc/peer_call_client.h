// Makes calls to other nodes. One channel for an address and whom it is to be, kept as long as it is used.
//
// Always holds: `done` of each call that was begun runs once, on the completion queue's thread, before the host's
// `open` is 0. Threads: any.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "broker/peer_calls.h"
#include "broker/rpc/peer_host.h"

namespace sluice::broker::rpc {

class OutgoingCall;

class PeerCallClient {
 public:
  explicit PeerCallClient(PeerHost& host) : host_(host) {}

  /// `to`: 0 for whoever listens at `address`.
  void Call(const std::string& address, NodeId to, uint32_t kind, const std::string& request, absl::Duration deadline,
            PeerAnswered done);
  /// Runs `done` with `status`, later.
  void Fail(absl::Status status, PeerAnswered done);
  /// Ends what is under way; what comes later is dropped.
  void Stop();
  void AddTo(PeerTransportStats* stats) const { stats->calls_made = made_; }

 private:
  friend class OutgoingCall;
  struct Channel {
    std::shared_ptr<grpc::Channel> channel;
    uint64_t used = 0;
  };
  std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address, NodeId to);

  PeerHost& host_;
  mutable std::mutex mutex_;
  bool stopped_ = false;
  uint64_t uses_ = 0;
  std::map<std::pair<std::string, NodeId>, Channel> channels_;
  std::map<OutgoingCall*, std::weak_ptr<OutgoingCall>> under_way_;
  std::atomic<int64_t> made_ = 0;
};

}  // namespace sluice::broker::rpc
