// The clients' network: calls to nodes that take time, and may be lost on their way or with their answer.
//
// Always holds: each call's `done` runs exactly once, as an event of its own, with the answer or with what the client
// can know without one: that the request never got there (nothing of it happened), or nothing at all.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "tests/simulation/cluster/context.h"
#include "tests/simulation/cluster/node.h"

namespace sluice::cluster_simulation {

enum class Fate : uint8_t { kAnswered, kNeverSent, kUnknown };

template <class T>
struct Answer {
  Fate fate = Fate::kUnknown;
  std::shared_ptr<T> value = nullptr;  ///< With kAnswered.
};

/// What keeps the order of one connection.
struct Lane {
  absl::Duration there;
  absl::Duration back;
};

class Wire {
 public:
  Wire(Context& context, std::map<NodeId, std::unique_ptr<Node>>& nodes) : context_(context), nodes_(nodes) {}

  /// Calls `ask(node, done)` at the node, in its process. With `life`, only if the process is still that one, in the
  /// order of `lane`.
  template <class T, class Ask>
  void Call(NodeId to, std::shared_ptr<Lane> lane, std::optional<uint64_t> life, Ask ask,
            absl::AnyInvocable<void(Answer<T>)> done) {
    auto call = std::make_shared<Pending<T>>(std::move(done));
    context_.scheduler.At(context_.plan.client_timeout, [this, call] {
      if (call->over) return;
      context_.hits.Add(Hit::kClientTimedOut);
      call->Finish({});
    });
    absl::Duration arrives = context_.scheduler.now() + Delay();
    if (lane != nullptr) arrives = lane->there = std::max(arrives, lane->there + absl::Nanoseconds(1));
    context_.scheduler.At(arrives - context_.scheduler.now(),
                          [this, to, lane, life, call, ask = std::move(ask)]() mutable {
                            Arrive<T>(to, std::move(lane), life, std::move(call), std::move(ask));
                          });
  }

  void CutOff(NodeId node) { cut_.insert(node); }
  void Heal() { cut_.clear(); }

 private:
  template <class T>
  struct Pending {
    explicit Pending(absl::AnyInvocable<void(Answer<T>)> callback) : done(std::move(callback)) {}
    void Finish(Answer<T> answer) {
      if (std::exchange(over, true)) return;
      done(std::move(answer));
    }
    absl::AnyInvocable<void(Answer<T>)> done;
    bool over = false;
  };
  /// Lives in the node's callback: where that is dropped unanswered, the connection breaks.
  template <class T>
  class Reply {
   public:
    Reply(Wire& wire, NodeId from, std::shared_ptr<Lane> lane, std::shared_ptr<Pending<T>> call)
        : wire_(&wire), from_(from), lane_(std::move(lane)), call_(std::move(call)) {}
    Reply(Reply&& other) noexcept = default;
    Reply& operator=(Reply&&) = delete;
    ~Reply() {
      if (call_ != nullptr) wire_->Break(std::move(call_));
    }
    void operator()(T value) {
      wire_->SendBack(from_, std::move(lane_), std::exchange(call_, nullptr), std::move(value));
    }

   private:
    Wire* wire_;
    NodeId from_;
    std::shared_ptr<Lane> lane_;
    std::shared_ptr<Pending<T>> call_;
  };

  template <class T, class Ask>
  void Arrive(NodeId to, std::shared_ptr<Lane> lane, std::optional<uint64_t> life, std::shared_ptr<Pending<T>> call,
              Ask ask) {
    Node& node = *nodes_.at(to);
    if (cut_.contains(to)) {
      // Nobody says so: the request waits in vain, as far as the client can see.
      return context_.scheduler.At(Delay() + absl::Seconds(1), [call = std::move(call)] { call->Finish({}); }), void();
    }
    if (!node.serving() || (life && node.life() != *life)) {
      context_.hits.Add(Hit::kConnectionRefused);
      context_.scheduler.At(Delay(), [call = std::move(call)] { call->Finish({.fate = Fate::kNeverSent}); });
      return;
    }
    node.Deliver(
        [&node, ask = std::move(ask), reply = Reply<T>(*this, to, std::move(lane), std::move(call))]() mutable {
          ask(node, std::move(reply));
        });
  }
  template <class T>
  void SendBack(NodeId from, std::shared_ptr<Lane> lane, std::shared_ptr<Pending<T>> call, T value) {
    if (call == nullptr) {
      return context_.history.Fail(Rule::kAnswersOnce, "a node answered a call twice");
    }
    if (cut_.contains(from) || context_.Chance(context_.plan.answer_loss_per_mille)) return Break(std::move(call));
    absl::Duration arrives = context_.scheduler.now() + Delay();
    if (lane != nullptr) arrives = lane->back = std::max(arrives, lane->back + absl::Nanoseconds(1));
    auto held = std::make_shared<T>(std::move(value));
    context_.scheduler.At(arrives - context_.scheduler.now(),
                          [call = std::move(call), held] { call->Finish({.fate = Fate::kAnswered, .value = held}); });
  }
  template <class T>
  void Break(std::shared_ptr<Pending<T>> call) {
    context_.scheduler.At(Delay(), [this, call = std::move(call)] {
      if (call->over) return;
      context_.hits.Add(Hit::kConnectionBroken);
      call->Finish({});
    });
  }
  absl::Duration Delay() {
    return Between(context_.random(), absl::Microseconds(20), absl::Microseconds(60) + context_.plan.client_delay_max);
  }

  Context& context_;
  std::map<NodeId, std::unique_ptr<Node>>& nodes_;
  std::set<NodeId> cut_;
};

}  // namespace sluice::cluster_simulation
