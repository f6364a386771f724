// PeerLink: one lane to one peer. It calls the peer, greets it, sends what is pushed, and calls again when the stream
// breaks.
//
// Always holds: at most one attempt at a time, and of it one write at gRPC. Messages are taken only while the stream
// stands, so nothing of before a break follows it.
// Threads: Send, SetAddress, Kick, Stop and stats from any; everything else is the completion queue's.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>

#include "broker/rpc/completion.h"
#include "broker/rpc/peer_host.h"
#include "broker/rpc/peer_queue.h"
#include "common/log_limit.h"

namespace sluice::broker::rpc {

class PeerAttempt;

class PeerLink : public std::enable_shared_from_this<PeerLink> {
 public:
  PeerLink(PeerHost& host, NodeId peer, PeerLane lane, std::string address);

  /// Calls the peer. No effect once stopped.
  void Begin();
  /// False: not connected, or over the bound.
  bool Send(const ReplicaId& group, PeerPart part);
  void CountRefused() { ++refused_; }
  bool stands() const { return stands_flag_; }
  /// Where to call from now on; a stream to elsewhere is ended.
  void SetAddress(const std::string& address);
  /// The peer lives: do not wait any longer before calling it.
  void Kick();
  /// Ends the stream; nothing is begun any more.
  void Stop();
  void AddTo(PeerStats* stats) const;

 private:
  friend class PeerAttempt;
  void OnStands(PeerAttempt& attempt);
  void OnBroken();
  void OnEnded(const absl::Status& why, bool refused);
  void OnWritten();
  void OnAlarm(bool ok);
  /// Starts the next write where there is one. Leaves the lock before it calls gRPC.
  void Advance(std::unique_lock<std::mutex> lock);
  void LogFailure(const absl::Status& why);

  PeerHost& host_;
  const NodeId peer_;
  const PeerLane lane_;

  mutable std::mutex mutex_;
  PeerQueue queue_;
  std::string address_;
  std::shared_ptr<PeerAttempt> attempt_;  // null: none under way
  bool stands_ = false;
  bool stopped_ = false;
  bool at_once_ = false;  // call again without waiting
  bool waiting_ = false;  // the alarm is set
  bool refused_by_peer_ = false;
  std::unique_ptr<grpc::Alarm> alarm_;
  StepOf<PeerLink> alarm_step_{this, &PeerLink::OnAlarm};
  std::minstd_rand random_;
  int failures_ = 0;

  // On the queue's thread.
  std::string last_failure_;
  LogLimit failures_logged_{absl::Minutes(1)};

  std::atomic<bool> stands_flag_ = false;
  std::atomic<int64_t> connects_ = 0;
  std::atomic<int64_t> sent_ = 0;
  std::atomic<int64_t> bytes_sent_ = 0;
  std::atomic<int64_t> refused_ = 0;
};

}  // namespace sluice::broker::rpc
