#include "tests/simulation/raft/network.h"

#include <algorithm>
#include <string_view>

namespace sluice::raft_simulation {

namespace {

constexpr size_t kOldMessagesKept = 200;

std::string Describe(const Envelope& envelope) {
  if (const auto* message = std::get_if<raft::Message>(&envelope)) return raft::Describe(*message);
  const auto& alive = std::get<NodeAlive>(envelope);
  const std::string_view what = !alive.answer   ? " node leads"
                                : alive.follows ? " node follows"
                                                : " node does not follow";
  return Cat(alive.from.node, ">", alive.to.node, " t", alive.term, what);
}

}  // namespace

Network::Network(Context& context, Deliver deliver)
    : context_(context),
      deliver_(std::move(deliver)),
      cut_(slots() * slots()),
      held_until_(slots() * slots()),
      last_due_(slots() * slots()) {}

absl::Duration Network::Held(size_t from, size_t to) const {
  return std::max(held_until_[from * slots() + to] - context_.scheduler.now(), absl::ZeroDuration());
}

absl::Duration Network::DrawDelay(size_t from, size_t to) {
  const Plan& plan = context_.plan;
  const absl::Duration most = context_.healed ? std::min(plan.delay_max, plan.delay_min + 0.2 * kTick) : plan.delay_max;
  absl::Duration delay = Between(context_.random(), plan.delay_min, most) + Held(from, to);
  if (plan.in_order || context_.healed) {
    absl::Duration& last = last_due_[from * slots() + to];
    last = std::max(last + absl::Nanoseconds(1), context_.scheduler.now() + delay);
    delay = last - context_.scheduler.now();
  }
  return delay;
}

void Network::Schedule(absl::Duration delay, const Envelope& envelope) {
  context_.scheduler.At(delay, [this, envelope] {
    // What a cut link still carries at this moment is lost too.
    if (IsCut(SlotOf(From(envelope)), SlotOf(To(envelope)))) return;
    context_.trace.Say([&] { return Cat("  got    ", Describe(envelope)); });
    deliver_(envelope);
  });
}

void Network::Send(Envelope envelope) {
  const size_t from = SlotOf(From(envelope)), to = SlotOf(To(envelope));
  SimRandom& random = context_.random();
  const bool cut = IsCut(from, to);
  const bool lost = !cut && context_.Chance(context_.plan.loss_percent);
  context_.trace.Say([&] { return Cat("  ", cut ? "cut    " : lost ? "lost   " : "send   ", Describe(envelope)); });
  context_.trace.Mix(from * 64 + to);
  if (cut) return;
  if (lost) return context_.faults.Hit(Fault::kMessageLost);
  if (!context_.healed && random.OneIn(8)) {
    old_.push_back(envelope);
    if (old_.size() > kOldMessagesKept) old_.pop_front();
  }
  const bool late = !context_.healed && random.Below(1000) < static_cast<uint64_t>(context_.plan.late_per_mille);
  if (late) {
    context_.faults.Hit(Fault::kMessageLate);
    Schedule(Held(from, to) + Between(random, 5 * kTick, 200 * kTick), envelope);
  } else {
    Schedule(DrawDelay(from, to), envelope);
  }
  if (context_.Chance(context_.plan.duplicate_percent)) {
    context_.faults.Hit(Fault::kMessageDuplicated);
    Schedule(Held(from, to) + Between(random, context_.plan.delay_min, 3 * context_.plan.delay_max), envelope);
  }
}

void Network::CutSymmetric() {
  std::vector<bool> side(slots());
  for (size_t i = 0; i < slots(); ++i) side[i] = context_.random().OneIn(2);
  CutBetween(side);
  context_.faults.Hit(Fault::kCutSymmetric);
}

void Network::CutBetween(const std::vector<bool>& side) {
  for (size_t a = 0; a < slots(); ++a) {
    for (size_t b = 0; b < slots(); ++b) {
      if (side[a] != side[b]) Cut(a, b);
    }
  }
}

void Network::CutOneWay() {
  const size_t from = context_.random().Below(slots());
  const bool all = context_.random().OneIn(3);
  for (size_t to = 0; to < slots(); ++to) {
    if (to != from && (all || context_.random().OneIn(2))) Cut(from, to);
  }
  context_.faults.Hit(Fault::kCutOneWay);
}

void Network::CutBridge() {
  const size_t bridge = context_.random().Below(slots());
  for (size_t a = 0; a < slots(); ++a) {
    for (size_t b = 0; b < slots(); ++b) {
      if (a != bridge && b != bridge && a % 2 != b % 2) Cut(a, b);
    }
  }
  context_.faults.Hit(Fault::kCutBridge);
}

void Network::CutOff(size_t slot) {
  for (size_t other = 0; other < slots(); ++other) {
    if (other == slot) continue;
    Cut(slot, other);
    Cut(other, slot);
  }
  context_.faults.Hit(Fault::kCutLeader);
}

void Network::Hold(size_t from, size_t to, absl::Duration time) {
  context_.faults.Hit(Fault::kLinkHeld);
  held_until_[from * slots() + to] = context_.scheduler.now() + time;
}

void Network::HealCuts() {
  std::fill(cut_.begin(), cut_.end(), false);
}

void Network::Heal() {
  std::fill(held_until_.begin(), held_until_.end(), absl::ZeroDuration());
  // What is held already comes late, and nothing waits for it.
  std::fill(last_due_.begin(), last_due_.end(), absl::ZeroDuration());
  HealCuts();
}

void Network::Refind() {
  for (uint64_t i = context_.random().Below(6) + 1; i > 0 && !old_.empty(); --i) {
    context_.faults.Hit(Fault::kMessageRefound);
    Schedule(context_.plan.delay_min, old_[context_.random().Below(old_.size())]);
  }
}

}  // namespace sluice::raft_simulation
