#include "tests/simulation/raft/group.h"

#include <algorithm>

namespace sluice::raft_simulation {

namespace {

/// How long a healed group may take for each of: a leader that serves, everybody level, one more value everywhere.
constexpr int kSettleTicksMax = 1500;

}  // namespace

Group::Group(uint64_t seed, std::ostream* trace) : context_(seed, trace) {
  context_.plan = DrawPlan(context_.random());
}

VoterId Group::MakeId(size_t slot) {
  VoterId id;
  id.node = NodeId(static_cast<int32_t>(slot) + 1);
  id.incarnation.bytes[0] = static_cast<uint8_t>(slot + 1);
  id.incarnation.bytes[15] = slots_[slot] == nullptr ? 0 : ++incarnations_made_;
  return id;
}

void Group::Begin() {
  network_ = std::make_unique<Network>(context_, [this](const Envelope& envelope) {
    Replica* const there = slots_[SlotOf(To(envelope))];
    if (there->id() == To(envelope)) return there->Deliver(envelope);
    const auto* message = std::get_if<raft::Message>(&envelope);
    if (message != nullptr) there->DeliverMisaddressed(*message);
  });
  const auto count = static_cast<size_t>(context_.plan.slots());
  slots_.resize(count);
  std::vector<VoterId> voters;
  voters.reserve(static_cast<size_t>(context_.plan.voters));
  for (int i = 0; i < context_.plan.voters; ++i) voters.push_back(MakeId(static_cast<size_t>(i)));
  const auto initial = raft::Configuration::Make(voters, {});
  for (size_t slot = 0; slot < count; ++slot) {
    const bool member = slot < voters.size();
    replicas_.push_back(
        std::make_unique<Replica>(context_, *network_, *this, MakeId(slot), member ? *initial : raft::Configuration{}));
    slots_[slot] = replicas_.back().get();
    if (context_.plan.ticks[slot] < 0.9 * kTick || context_.plan.ticks[slot] > 1.1 * kTick) {
      context_.faults.Hit(Fault::kTickSkew);
    }
  }
  context_.trace.Say([&] {
    const Plan& plan = context_.plan;
    return Cat(plan.voters, " voters, ", plan.spares, " spares, loss ", plan.loss_percent, " %, duplicates ",
               plan.duplicate_percent, " %, election ", plan.options.election_ticks, " ticks");
  });
  for (Replica* replica : slots_) replica->Start();
}

std::vector<Observed> Group::Everyone() const {
  std::vector<Observed> all;
  // Also those that are gone: what they held when they went counted towards what was committed then.
  for (const auto& replica : replicas_) all.push_back(replica->observed());
  return all;
}

Replica* Group::Find(const VoterId& id) const {
  for (Replica* replica : slots_) {
    if (replica->id() == id) return replica;
  }
  return nullptr;
}

Replica* Group::Leader() const {
  Replica* leader = nullptr;
  for (Replica* replica : slots_) {
    if (replica->leads() && (leader == nullptr || replica->raft()->term() > leader->raft()->term())) leader = replica;
  }
  return leader;
}

Replica* Group::RandomReplica() {
  return slots_[context_.random().Below(slots_.size())];
}

void Group::RunTicks(double ticks) {
  // In small steps, so that the first broken rule ends the run.
  const absl::Duration end = context_.scheduler.now() + ticks * kTick;
  while (context_.scheduler.now() < end && !context_.checker.violation()) {
    context_.scheduler.RunFor(std::min(end - context_.scheduler.now(), kTick / 4));
  }
}

Outcome Group::Run() {
  Begin();
  ScheduleClient();
  ScheduleAction();
  RunTicks(context_.plan.length_ticks);
  if (!context_.checker.violation()) {
    Heal();
    MustSettle();
    if (context_.random().OneIn(4)) LosePower();
  }
  Outcome outcome;
  outcome.violation = context_.checker.violation();
  outcome.trace_hash = context_.trace.hash() ^ context_.scheduler.trace_hash() ^ context_.checker.Hash();
  outcome.events = context_.scheduler.events_run();
  outcome.terms_led = context_.checker.leaders_seen();
  outcome.batches_committed = context_.checker.committed_batches();
  outcome.faults = context_.faults;
  if (outcome.violation) {
    context_.trace.Say(
        [&] { return Cat("BROKEN: ", InvariantName(outcome.violation->invariant), ": ", outcome.violation->what); });
  }
  context_.scheduler.Clear();
  return outcome;
}

// ---- The end

void Group::Heal() {
  context_.trace.Say([] { return std::string("everything heals"); });
  context_.healed = true;
  network_->Heal();
  for (Replica* replica : slots_) {
    replica->Resume();
    if (!replica->up()) replica->Start();
  }
}

bool Group::Settled(const Replica& leader) const {
  const raft::Raft& raft = *leader.raft();
  if (!raft.Serving() || raft.committed() != raft.log_end()) return false;
  const auto level = [&](const VoterId& id) {
    const Replica* const replica = Find(id);
    return replica != nullptr && replica->up() && !replica->raft()->in_doubt() && !replica->installing() &&
           replica->raft()->committed() == raft.committed() && replica->raft()->log_end() == raft.log_end() &&
           replica->disk().durable().log_end == raft.log_end();
  };
  const raft::Configuration& members = raft.configuration();
  return std::all_of(members.voters.begin(), members.voters.end(), level) &&
         std::all_of(members.learners.begin(), members.learners.end(), level);
}

std::string Group::WhyNotSettled() const {
  std::string text = Cat("after ", kSettleTicksMax, " ticks without faults:");
  for (const Replica* replica : slots_) {
    text += Cat(" ", ShortName(replica->id()), " ");
    if (!replica->up()) {
      text += "is down;";
      continue;
    }
    const raft::Raft& raft = *replica->raft();
    text += Cat(raft::RoleName(raft.role()), " t", raft.term(), " log ", raft.log_start(), "-", raft.log_end(),
                " committed ", raft.committed(), raft.in_doubt() ? " in doubt" : "",
                raft.installing() ? " installing" : "", " (", raft.configuration().ToString(), ");");
  }
  return text;
}

void Group::MustSettle() {
  enum class Step { kRemoveGone, kLevel, kLastValue, kDone } step = Step::kRemoveGone;
  Offset before_last;
  size_t reads_before = 0;
  for (int ticks = 0; ticks < 4 * kSettleTicksMax && step != Step::kDone && !context_.checker.violation(); ++ticks) {
    RunTicks(1);
    Replica* const leader = Leader();
    if (leader == nullptr || context_.checker.violation() || !leader->leads() || !leader->raft()->Serving()) continue;
    const raft::Configuration members = leader->raft()->configuration();
    if (step == Step::kRemoveGone) {
      // The operator's part: members that will never come back are taken out.
      const auto gone = [&](const VoterId& id) { return Find(id) == nullptr; };
      raft::Configuration next = members;
      if (const auto voter = std::find_if(next.voters.begin(), next.voters.end(), gone); voter != next.voters.end()) {
        next.voters.erase(voter);
      } else if (const auto learner = std::find_if(next.learners.begin(), next.learners.end(), gone);
                 learner != next.learners.end()) {
        next.learners.erase(learner);
      } else {
        // A change that is not committed yet may still be rolled back by another leader.
        const Offset last_change = leader->raft()->configurations().back().offset;
        if (last_change < leader->raft()->committed()) step = Step::kLevel;
        continue;
      }
      leader->ProposeMembership(next);
    } else if (step == Step::kLevel) {
      if (!Settled(*leader)) continue;
      before_last = leader->raft()->log_end();
      reads_before = leader->reads_answered();
      Propose(*leader);
      leader->ReadIndex();
      if (leader->leads() && leader->raft()->log_end() > before_last) step = Step::kLastValue;
    } else if (step == Step::kLastValue) {
      if (!Settled(*leader) || leader->raft()->committed() <= before_last) continue;
      if (leader->reads_answered() == reads_before) {
        leader->ReadIndex();  // another leads now, or the answer was lost with its leadership
        continue;
      }
      step = Step::kDone;
    }
  }
  if (step != Step::kDone) context_.checker.Fail(Invariant::kLiveness, WhyNotSettled());
}

// Power fails everywhere, and every journal is found to end in damage, though it took nothing. Who is no member any
// more never comes back, and must not be missed.
void Group::LosePower() {
  // Mostly the last that was written is that a member is taken out.
  Replica* leader = Leader();
  if (leader != nullptr && !context_.random().OneIn(3)) (void)RemoveOther(*leader);
  int calm = 0;
  for (int ticks = 0; ticks < kSettleTicksMax && calm < 30 && !context_.checker.violation(); ++ticks) {
    RunTicks(1);
    leader = Leader();
    calm = leader != nullptr && Settled(*leader) ? calm + 1 : 0;
  }
  if (context_.checker.violation()) return;
  if (calm < 30) return context_.checker.Fail(Invariant::kLiveness, WhyNotSettled());
  const raft::Configuration members = leader->raft()->configuration();
  context_.faults.Hit(Fault::kPowerLost);
  context_.trace.Say([&] { return Cat("power fails; of ", members.ToString(), " all come back in doubt"); });
  for (Replica* replica : slots_) {
    replica->Crash();
    if (!members.Contains(replica->id())) continue;
    replica->Damage(0);
    StartLater(*replica);
  }
  MustSettle();
}

// ---- Running

Outcome RunSeed(uint64_t seed, std::ostream* trace) {
  Outcome outcome = Group(seed, trace).Run();
  outcome.seed = seed;
  return outcome;
}

std::string Report(const Outcome& outcome) {
  if (!outcome.violation) return Cat("seed ", outcome.seed, " holds");
  return Cat("seed ", outcome.seed, " breaks \"", InvariantName(outcome.violation->invariant),
             "\": ", outcome.violation->what, "\n  see it again: ./dev test sim --core --replay ", outcome.seed);
}

}  // namespace sluice::raft_simulation
