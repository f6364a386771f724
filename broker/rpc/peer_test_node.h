// One end of the peers' transport on loopback that remembers what it hears, for this folder's tests. Included by tests
// only.
#pragma once

#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "broker/rpc/peer_transport.h"
#include "runtime/system.h"

namespace sluice::broker::rpc {

inline Uuid TestCluster() {
  return Uuid::FromRandom(42, 42);
}

/// Of node `node`, in a process of its own.
inline PeerTransportOptions PeerOptions(int32_t node, uint64_t process = 1) {
  PeerTransportOptions options;
  options.identity = {NodeId(node), TestCluster(), Uuid::FromRandom(2, static_cast<uint64_t>(node))};
  options.session = Uuid::FromRandom(3 + process, static_cast<uint64_t>(node));
  options.address = "127.0.0.1:0";
  options.backoff_max = absl::Milliseconds(200);
  return options;
}

class PeerTestNode final : public replication::PeerReceiver {
 public:
  explicit PeerTestNode(PeerTransportOptions options, bool start = true) {
    options.log = Logger({.write =
                              [this](std::string_view line) {
                                std::lock_guard lock(mutex_);
                                log_ += std::string(line) + "\n";
                              },
                          .now = {}});
    auto transport = GrpcPeerTransport::Make(options, clock_);
    REQUIRE(transport.ok());
    net = *std::move(transport);
    if (start) net->Start(*this);
  }
  ~PeerTestNode() override { Stop(); }

  void Stop() {
    if (net == nullptr) return;
    std::promise<void> stopped;
    net->Stop([&] { stopped.set_value(); });
    REQUIRE(stopped.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    net = nullptr;
  }
  const std::string& address() const { return net->address(); }

  void OnMessage(const ReplicaId& group, raft::Message message) override {
    std::lock_guard lock(mutex_);
    messages_[group].push_back(std::move(message));
    ++heard_;
    changed_.notify_all();
  }
  void OnLiveness(NodeId from, replication::LivenessMessage message) override {
    std::lock_guard lock(mutex_);
    liveness_[from].push_back(std::move(message));
    heard_at_liveness_.push_back(heard_);
    changed_.notify_all();
  }
  void OnPeerState(NodeId peer, replication::PeerState state) override {
    std::lock_guard lock(mutex_);
    states_[peer].push_back(state);
    changed_.notify_all();
  }

  /// False when it does not come true in 10 s.
  bool Await(const std::function<bool()>& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), what);
  }
  bool AwaitMessages(const ReplicaId& group, size_t count) {
    return Await([&] { return messages_[group].size() >= count; });
  }
  bool AwaitState(int32_t peer, replication::PeerState state) {
    return Await([&] { return !states_[NodeId(peer)].empty() && states_[NodeId(peer)].back() == state; });
  }
  bool AwaitConnected(int32_t peer) { return AwaitState(peer, replication::PeerState::kConnected); }
  bool AwaitBroken(int32_t peer) { return AwaitState(peer, replication::PeerState::kBroken); }
  bool AwaitLog(const std::string& text) {
    return AwaitTrue([&] { return LogHas(text); });
  }
  /// Of what nobody tells: looked at again and again.
  static bool AwaitTrue(const std::function<bool()>& what) {
    for (int i = 0; i < 2000; ++i) {
      if (what()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  bool LogHas(const std::string& text) {
    std::lock_guard lock(mutex_);
    return log_.find(text) != std::string::npos;
  }
  std::vector<raft::Message> Messages(const ReplicaId& group) {
    std::lock_guard lock(mutex_);
    return messages_[group];
  }
  std::vector<replication::LivenessMessage> Liveness(int32_t from) {
    std::lock_guard lock(mutex_);
    return liveness_[NodeId(from)];
  }
  std::vector<replication::PeerState> States(int32_t peer) {
    std::lock_guard lock(mutex_);
    return states_[NodeId(peer)];
  }
  /// How many messages of groups had been heard when the n-th of liveness was.
  int64_t HeardAtLiveness(size_t n) {
    std::lock_guard lock(mutex_);
    return heard_at_liveness_.at(n);
  }

  std::unique_ptr<GrpcPeerTransport> net;

 private:
  runtime::SystemClock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<ReplicaId, std::vector<raft::Message>> messages_;
  std::map<NodeId, std::vector<replication::LivenessMessage>> liveness_;
  std::map<NodeId, std::vector<replication::PeerState>> states_;
  std::vector<int64_t> heard_at_liveness_;
  int64_t heard_ = 0;
  std::string log_;
};

/// Two nodes that are connected both ways.
struct PeerPair {
  explicit PeerPair(const PeerTransportOptions& of_one = PeerOptions(1),
                    const PeerTransportOptions& of_two = PeerOptions(2))
      : one(of_one), two(of_two) {
    one.net->SetPeer(NodeId(2), two.address());
    two.net->SetPeer(NodeId(1), one.address());
    REQUIRE(one.AwaitConnected(2));
    REQUIRE(two.AwaitConnected(1));
  }
  PeerTestNode one;
  PeerTestNode two;
};

}  // namespace sluice::broker::rpc
