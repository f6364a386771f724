#include "tests/simulation/sim_peer_calls.h"

#include <optional>
#include <variant>

#include "common/text.h"

namespace sluice::simulation {

bool SimCallNetwork::Passes(NodeId from, NodeId to) {
  if (network_.IsBlocked(from, to)) return false;
  if (loss_per_mille_ == 0 || scheduler_.random().Below(1000) >= loss_per_mille_) return true;
  ++lost_;
  return false;
}

absl::Duration SimCallNetwork::DrawDelay() {
  const auto spread = static_cast<uint64_t>(absl::ToInt64Microseconds(delay_most_ - delay_least_));
  return delay_least_ + absl::Microseconds(static_cast<int64_t>(scheduler_.random().Below(spread + 1)));
}

/// The server's end of one call. Its end without an answer is one.
struct SimPeerCalls::Reply {
  Reply(SimCallNetwork* over, std::weak_ptr<Pending> of, uint64_t number, NodeId from, NodeId to)
      : network(over), pending(std::move(of)), id(number), caller(from), server(to) {}
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;

  SimCallNetwork* network;
  std::weak_ptr<Pending> pending;
  uint64_t id;
  NodeId caller;
  NodeId server;
  bool answered = false;

  void Send(absl::StatusOr<std::string> answer) {
    if (std::exchange(answered, true) || pending.expired()) return;
    if (!network->Passes(server, caller)) {
      // The deadline will tell; or the connection broke, and it is known at once that nobody knows.
      if (network->network_.IsBlocked(server, caller) || network->scheduler_.random().OneIn(2)) return;
      answer = absl::UnavailableError("the connection broke before the answer");
    }
    network->scheduler_.At(network->DrawDelay(), [pending = pending, id = id, answer = std::move(answer)]() mutable {
      SimPeerCalls::Answer(pending, id, std::move(answer));
    });
  }
  ~Reply() { Send(absl::UnavailableError("the node did not answer")); }
};

SimPeerCalls::SimPeerCalls(SimCallNetwork& network, broker::PeerCaller self)
    : network_(network), self_(std::move(self)) {
  network_.listening_[self_.address] = this;
}

SimPeerCalls::~SimPeerCalls() {
  const auto it = network_.listening_.find(self_.address);
  if (it != network_.listening_.end() && it->second == this) network_.listening_.erase(it);
}

std::string SimPeerCalls::AddressOf(NodeId node) const {
  const auto it = addresses_.find(node);
  return it == addresses_.end() ? std::string() : it->second;
}

void SimPeerCalls::Answer(const std::weak_ptr<Pending>& pending, uint64_t id, absl::StatusOr<std::string> answer) {
  const auto calls = pending.lock();
  if (calls == nullptr) return;
  auto call = calls->calls.extract(id);
  if (!call.empty()) call.mapped()(std::move(answer));
}

absl::Status SimPeerCalls::Refusal(const broker::PeerTarget& to, const broker::PeerCaller& from) const {
  if (!from.cluster.IsNil() && !self_.cluster.IsNil() && from.cluster != self_.cluster) {
    return absl::FailedPreconditionError(
        Cat("node ", from.node, " is of cluster ", from.cluster, ", node ", self_.node, " of ", self_.cluster));
  }
  if (const auto* node = std::get_if<NodeId>(&to); node != nullptr && *node != self_.node) {
    return absl::FailedPreconditionError(Cat("meant for node ", *node, ", this is node ", self_.node));
  }
  if (from.node == self_.node && from.session != self_.session) {
    if (from.disk == self_.disk) {
      return absl::AlreadyExistsError(Cat("two processes say that they are node ", self_.node));
    }
    return absl::FailedPreconditionError(Cat("node ", self_.node, " is here, on another disk"));
  }
  return absl::OkStatus();
}

void SimPeerCalls::Call(broker::PeerTarget to, uint32_t kind, std::string request, absl::Duration deadline,
                        broker::PeerAnswered done) {
  const uint64_t id = ++calls_made_;
  pending_->calls.emplace(id, std::move(done));
  const std::weak_ptr<Pending> pending = pending_;
  network_.scheduler_.At(deadline,
                         [pending, id] { Answer(pending, id, absl::DeadlineExceededError("no answer in time")); });
  const auto* node = std::get_if<NodeId>(&to);
  const std::string address = node == nullptr ? std::get<std::string>(to) : AddressOf(*node);
  if (address.empty()) {
    network_.scheduler_.At(absl::ZeroDuration(), [pending, id, node = *node] {
      Answer(pending, id, absl::NotFoundError(Cat("no address is known for node ", node)));
    });
    return;
  }
  network_.scheduler_.At(network_.DrawDelay(), [network = &network_, pending, id, to = std::move(to), address, kind,
                                                request = std::move(request), from = self_, deadline]() mutable {
    const auto it = network->listening_.find(address);
    if (pending.expired()) return;
    if (it == network->listening_.end()) return Answer(pending, id, absl::UnavailableError("connection refused"));
    SimPeerCalls& server = *it->second;
    if (!network->Passes(from.node, server.self_.node)) return;
    if (absl::Status refused = server.Refusal(to, from); !refused.ok()) {
      ++server.refused_;
      return Answer(pending, id, refused);
    }
    if (server.handler_ == nullptr) return Answer(pending, id, absl::UnavailableError("no calls are served"));
    auto reply = std::make_shared<Reply>(network, pending, id, from.node, server.self_.node);
    server.handler_(broker::PeerCall{.from = from, .kind = kind, .request = std::move(request), .time_left = deadline},
                    [reply](absl::StatusOr<std::string> answer) { reply->Send(std::move(answer)); });
  });
}

}  // namespace sluice::simulation
