// The network between the replicas of one group: it delays, loses, doubles and reorders, cuts links one way or both,
// and finds messages of long ago again.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "replication/core/message.h"
#include "tests/simulation/raft/context.h"

namespace sluice::raft_simulation {

/// "I lead in `term`" from node to node, where heartbeats are the driver's; and the answer "I follow you in it".
struct NodeAlive {
  VoterId from;
  VoterId to;
  LeaderEpoch term;
  bool answer = false;
  bool follows = true;  ///< An answer: its replica follows this leader in `term`.
};

using Envelope = std::variant<raft::Message, NodeAlive>;

inline const VoterId& From(const Envelope& e) {
  return std::visit([](const auto& m) -> const VoterId& { return m.from; }, e);
}
inline const VoterId& To(const Envelope& e) {
  return std::visit([](const auto& m) -> const VoterId& { return m.to; }, e);
}
/// A replica's place: its node, whichever of its lives.
inline size_t SlotOf(const VoterId& id) {
  return static_cast<size_t>(id.node.value() - 1);
}

class Network {
 public:
  using Deliver = std::function<void(const Envelope&)>;
  Network(Context& context, Deliver deliver);

  void Send(Envelope envelope);

  void CutSymmetric();
  /// Those whose place is set from all others.
  void CutBetween(const std::vector<bool>& side);
  void CutOneWay();
  /// Two halves that see each other only through one replica.
  void CutBridge();
  void CutOff(size_t slot);
  /// Nothing that `from` sends to `to` arrives before `time` has passed; then all of it does.
  void Hold(size_t from, size_t to, absl::Duration time);
  /// All links work again; what is held stays so.
  void HealCuts();
  /// All links work again, and hold nothing that is sent from now on.
  void Heal();
  /// Delivers a few messages of long ago once more.
  void Refind();

 private:
  absl::Duration DrawDelay(size_t from, size_t to);
  /// How much longer the link holds what is sent on it.
  absl::Duration Held(size_t from, size_t to) const;
  void Schedule(absl::Duration delay, const Envelope& envelope);
  void Cut(size_t from, size_t to) { cut_[from * slots() + to] = true; }
  bool IsCut(size_t from, size_t to) const { return cut_[from * slots() + to]; }
  size_t slots() const { return static_cast<size_t>(context_.plan.slots()); }

  Context& context_;
  const Deliver deliver_;
  std::vector<bool> cut_;
  std::vector<absl::Duration> held_until_;  ///< By link.
  std::vector<absl::Duration> last_due_;    ///< By link.
  std::deque<Envelope> old_;
};

}  // namespace sluice::raft_simulation
