// What happens to a simulated group, and what the fault atlas lets happen.
#include <algorithm>
#include <array>

#include "common/record/control.h"
#include "tests/simulation/raft/group.h"

namespace sluice::raft_simulation {

namespace {

bool In(const std::vector<VoterId>& list, const VoterId& id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

void Without(std::vector<VoterId>* list, const VoterId& id) {
  std::erase(*list, id);
}

void With(std::vector<VoterId>* list, const VoterId& id) {
  list->push_back(id);
  std::sort(list->begin(), list->end());
}

}  // namespace

void Group::ScheduleAction() {
  const absl::Duration pause = context_.plan.action_interval;
  context_.scheduler.At(Between(context_.random(), 0.1 * pause, 1.9 * pause), [this] {
    if (context_.healed) return;
    int all = 0;
    for (const int weight : context_.plan.weights) all += weight;
    auto pick = static_cast<int>(context_.random().Below(static_cast<uint64_t>(all)));
    size_t action = 0;
    while (pick >= context_.plan.weights[action]) pick -= context_.plan.weights[action++];
    Act(static_cast<Action>(action));
    ScheduleAction();
  });
}

void Group::Act(Action action) {
  Replica* const leader = Leader();
  Replica* const any = RandomReplica();
  switch (action) {
    case Action::kCrash: {
      const auto installing =
          std::find_if(slots_.begin(), slots_.end(), [](const Replica* r) { return r->installing(); });
      return CrashOne(installing != slots_.end() ? **installing : *any);
    }
    case Action::kCrashLeader:
      if (leader == nullptr) return;
      context_.faults.Hit(Fault::kCrashLeader);
      return CrashOne(*leader);
    case Action::kCrashAll:
      context_.faults.Hit(Fault::kCrashAll);
      for (Replica* replica : slots_) CrashOne(*replica);
      return;
    case Action::kDamage:
      return Damage(*any);
    case Action::kDamageBehindLeader:
      return DamageBehindLeader();
    case Action::kDivideForVote:
      return DivideForVote();
    case Action::kWipe:
      return Wipe();
    case Action::kPause:
      return Pause(*any);
    case Action::kPauseLeader:
      if (leader == nullptr) return;
      context_.faults.Hit(Fault::kPauseLeader);
      // Mostly long enough for another one to lead.
      return PauseFor(*leader, Between(context_.random(), 10 * kTick, 80 * kTick));
    case Action::kCutSymmetric:
      return network_->CutSymmetric();
    case Action::kCutOneWay:
      return network_->CutOneWay();
    case Action::kCutBridge:
      return network_->CutBridge();
    case Action::kCutLeader:
      return network_->CutOff(leader != nullptr ? leader->slot() : any->slot());
    case Action::kHealNetwork:
      return network_->Heal();
    case Action::kRefind:
      return network_->Refind();
    case Action::kMoveLogStart:
      return (leader != nullptr && context_.random().OneIn(2) ? leader : any)->MoveLogStart();
    case Action::kMembership:
      return ChangeMembers();
    case Action::kTransfer:
      return leader == nullptr ? void() : leader->Transfer(any->id());
    case Action::kCampaign:
      return any->Campaign();
    case Action::kStepDown:
      return leader == nullptr ? void() : leader->StepDown();
    case Action::kUnreachable:
      return leader == nullptr ? void() : leader->ReportUnreachable(any->id());
    case Action::kLeaderLost:
      return any->ReportLeaderLost();
    case Action::kCount:
      return;
  }
}

// ---- Crashes

void Group::StartLater(Replica& replica) {
  context_.scheduler.At(Between(context_.random(), 0.5 * kTick, 60 * kTick), [this, &replica] {
    if (!replica.up() && slots_[replica.slot()] == &replica) replica.Start();
  });
}

void Group::CrashOne(Replica& replica) {
  if (!replica.up()) return;
  context_.faults.Hit(Fault::kCrash);
  replica.Crash();
  StartLater(replica);
}

// An install takes a moment that chance alone hardly ever meets.
void Group::OnInstall(Replica& replica) {
  if (!context_.Chance(10)) return;
  context_.scheduler.At(Between(context_.random(), absl::ZeroDuration(), 10 * kTick), [this, &replica] {
    if (!context_.healed && replica.installing()) CrashOne(replica);
  });
}

void Group::Damage(Replica& replica) {
  const bool may_lose = MayLose(replica.id());
  // A false alarm anywhere is safe; but with a voter gone for good, a majority in doubt could never agree again.
  const auto members = InUse();
  const bool all_there = std::all_of(members.begin(), members.end(), [&](const raft::Configuration& c) {
    return std::all_of(c.voters.begin(), c.voters.end(), [&](const VoterId& id) { return Find(id) != nullptr; });
  });
  if (!may_lose && !(all_there && context_.random().OneIn(3))) return;
  if (replica.up()) {
    context_.faults.Hit(Fault::kCrash);
    replica.Crash();
  }
  replica.Damage(may_lose ? (context_.random().OneIn(3) ? 40 : 8) : 0);
  StartLater(replica);
}

// The worst moment for a damaged replica to come back: a leader has just acknowledged what it has lost.
void Group::DamageBehindLeader() {
  Replica* const leader = Leader();
  if (leader == nullptr) return;
  const auto voters = leader->raft()->configuration().voters;
  Replica* const follower = Find(voters[context_.random().Below(voters.size())]);
  if (follower == nullptr || follower == leader || !MayLose(follower->id())) return;
  if (follower->up()) follower->Crash();
  follower->Damage(8);
  context_.faults.Hit(Fault::kCrashLeader);
  leader->Crash();
  StartLater(*leader);
  follower->Start();
}

void Group::Wipe() {
  Replica* const old = RandomReplica();
  if (!MayLose(old->id())) return;
  context_.faults.Hit(Fault::kDiskWiped);
  context_.trace.Say([&] { return Cat(ShortName(old->id()), " loses its disk for good"); });
  old->Crash();
  replicas_.push_back(
      std::make_unique<Replica>(context_, *network_, *this, MakeId(old->slot()), raft::Configuration{}));
  slots_[old->slot()] = replicas_.back().get();
  StartLater(*replicas_.back());
}

void Group::Pause(Replica& replica) {
  PauseFor(replica, Between(context_.random(), kTick, 60 * kTick));
}

void Group::PauseFor(Replica& replica, absl::Duration time) {
  if (!replica.up() || replica.paused()) return;
  context_.faults.Hit(Fault::kPause);
  replica.Pause();
  context_.scheduler.At(time, [&replica] { replica.Resume(); });
}

// ---- Members

std::vector<raft::Configuration> Group::Steps(const raft::Configuration& from) const {
  std::vector<raft::Configuration> steps;
  const auto consider = [&](raft::Configuration next) {
    if (!next.voters.empty() && next.voters.size() <= 5 && Bearable(next, VoterId{})) steps.push_back(std::move(next));
  };
  for (const VoterId& id : from.voters) {
    raft::Configuration removed = from, demoted = from;
    Without(&removed.voters, id);
    Without(&demoted.voters, id);
    With(&demoted.learners, id);
    consider(std::move(removed));
    if (Find(id) != nullptr) consider(std::move(demoted));
  }
  for (const VoterId& id : from.learners) {
    raft::Configuration removed = from, promoted = from;
    Without(&removed.learners, id);
    Without(&promoted.learners, id);
    With(&promoted.voters, id);
    consider(std::move(removed));
    if (Find(id) != nullptr) consider(std::move(promoted));
  }
  for (const Replica* replica : slots_) {
    if (from.Contains(replica->id())) continue;
    raft::Configuration learns = from, votes = from;
    With(&learns.learners, replica->id());
    With(&votes.voters, replica->id());
    consider(std::move(learns));
    consider(std::move(votes));
  }
  return steps;
}

void Group::ChangeMembers() {
  Replica* const leader = Addressed();
  if (!leader->up()) return;
  // Sometimes two at once, or two leaders one each.
  for (uint64_t i = context_.random().OneIn(3) ? 2 : 1; i > 0 && leader->up(); --i) {
    const raft::Configuration from = leader->raft()->configuration();
    const auto steps = Steps(from);
    if (steps.empty()) return;
    if (!ProposeChange(*leader, steps[context_.random().Below(steps.size())])) return;
  }
}

bool Group::ProposeChange(Replica& leader, const raft::Configuration& to) {
  const raft::Configuration from = leader.raft()->configuration();
  const Offset at = leader.raft()->log_end();
  const LeaderEpoch term = leader.raft()->term();
  if (!leader.ProposeMembership(to)) return false;
  changes_.push_back({to, {at, at, term}});
  CountChange(leader.id(), from, to);
  return true;
}

bool Group::RemoveOther(Replica& leader) {
  raft::Configuration to = leader.raft()->configuration();
  Without(&to.voters, leader.id());
  std::vector<VoterId>& from = !to.voters.empty() ? to.voters : to.learners;
  if (from.empty()) return false;
  from.erase(from.begin() + static_cast<std::ptrdiff_t>(context_.random().Below(from.size())));
  With(&to.voters, leader.id());
  return ProposeChange(leader, to);
}

bool Group::Demote(Replica& leader, const VoterId& voter) {
  raft::Configuration to = leader.raft()->configuration();
  Without(&to.voters, voter);
  With(&to.learners, voter);
  return !to.voters.empty() && Bearable(to, VoterId{}) && ProposeChange(leader, to);
}

void Group::CountChange(const VoterId& leader, const raft::Configuration& from, const raft::Configuration& to) {
  const auto count = [](const raft::Configuration& c) { return c.voters.size() + c.learners.size(); };
  if (to.voters.size() < from.voters.size() && count(to) == count(from)) context_.faults.Hit(Fault::kVoterDemoted);
  if (to.learners.size() > from.learners.size() && count(to) > count(from)) context_.faults.Hit(Fault::kLearnerAdded);
  if (to.learners.size() < from.learners.size() && count(to) == count(from)) {
    context_.faults.Hit(Fault::kLearnerPromoted);
  }
  if (count(to) < count(from)) context_.faults.Hit(Fault::kMemberRemoved);
  if (from.IsVoter(leader) && !to.IsVoter(leader)) context_.faults.Hit(Fault::kLeaderRemoved);
}

// ---- The atlas

std::vector<raft::Configuration> Group::InUse() const {
  std::vector<raft::Configuration> found;
  const auto take = [&](const raft::Configuration& c) {
    if (!c.empty() && std::find(found.begin(), found.end(), c) == found.end()) found.push_back(c);
  };
  for (const Replica* replica : slots_) {
    if (replica->up()) {
      for (const raft::ConfigurationAt& at : replica->raft()->configurations()) take(at.configuration);
    }
    const DiskImage& disk = replica->disk().durable();
    if (disk.raft_state.empty()) {
      take(replica->initial());
    } else if (auto state = raft::ReplicaRaftState::Decode(disk.raft_state.view()); state.ok()) {
      for (const raft::ConfigurationAt& at : state->configurations) take(at.configuration);
    }
    for (const record::Batch& batch : disk.batches) {
      if (!batch.is_control()) continue;
      const auto control = record::DecodeControlBatch(batch.view());
      const auto* membership = control.ok() ? std::get_if<record::Membership>(&*control) : nullptr;
      if (membership == nullptr) continue;
      if (auto members = raft::Configuration::Decode(membership->configuration); members.ok()) take(*members);
    }
  }
  // A message may still carry a change to those that have not seen it.
  for (const Change& change : changes_) {
    if (change.at.base_offset >= context_.checker.committed()) take(change.members);
  }
  return found;
}

bool Group::Lacks(const VoterId& id) const {
  const Replica* const replica = Find(id);
  return replica == nullptr || replica->doubtful();
}

bool Group::Bearable(const raft::Configuration& members, const VoterId& also_lost) const {
  const auto lost = std::count_if(members.voters.begin(), members.voters.end(),
                                  [&](const VoterId& id) { return id == also_lost || Lacks(id); });
  return static_cast<size_t>(lost) + members.Quorum() <= members.voters.size();
}

bool Group::MayLose(const VoterId& id) const {
  const auto members = InUse();
  return std::all_of(members.begin(), members.end(),
                     [&](const raft::Configuration& c) { return !In(c.voters, id) || Bearable(c, id); });
}

}  // namespace sluice::raft_simulation
