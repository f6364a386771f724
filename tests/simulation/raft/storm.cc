// A storm of doubt: what it takes until a vote that its voter has forgotten elects somebody, brought about again and
// again. As many as elect a leader lose sight of theirs; one of them campaigns, and is held up, or the answers to it
// are; some that voted come back without what they knew; and the others see each other again. What each of them then
// does is left to chance, and to the core.
#include <utility>
#include <vector>

#include "tests/simulation/raft/group.h"

namespace sluice::raft_simulation {

void Group::DivideForVote() {
  SimRandom& random = context_.random();
  Replica* const leader = Leader();
  if (leader == nullptr) return;
  const raft::Configuration members = leader->raft()->configuration();
  std::vector<Replica*> others;
  for (const VoterId& id : members.voters) {
    Replica* const voter = Find(id);
    if (voter != nullptr && voter != leader && voter->up()) others.push_back(voter);
  }
  if (others.size() < members.Quorum()) return;
  supporters_.assign(slots_.size(), false);
  for (size_t i = 0; i < members.Quorum(); ++i) {
    std::swap(others[i], others[i + random.Below(others.size() - i)]);
    supporters_[others[i]->slot()] = true;
  }
  network_->Heal();
  if (random.OneIn(4) && Demote(*leader, others[0]->id())) {
    // Before it hears that the change is committed: until then it may lead.
    Replica* const late = others[members.Quorum() - 1];
    context_.scheduler.At(Between(random, 0.2 * kTick, 3 * kTick), [this, candidate = others[0], late] {
      if (context_.healed || supporters_.empty()) return;
      context_.faults.Hit(Fault::kCutForVote);
      network_->CutBetween(supporters_);
      supporters_[late->slot()] = false;
      CampaignFor(*candidate);
    });
    return;
  }
  switch (random.Below(4)) {
    case 0:
      CrashOne(*leader);
      break;
    case 1:
      context_.faults.Hit(Fault::kCutForVote);
      network_->CutBetween(supporters_);
      break;
    default:
      // It goes on leading, for the requests will not reach it.
      return leader->Transfer(others[0]->id());
  }
  CampaignFor(*others[0]);
}

void Group::CampaignFor(Replica& candidate) {
  const int patience = 3 * context_.plan.options.election_ticks;
  CampaignUntil(candidate, context_.scheduler.now() + patience * kTick);
}

void Group::CampaignUntil(Replica& candidate, absl::Duration end) {
  const absl::Duration pause = Between(context_.random(), kTick, 4 * kTick);
  context_.scheduler.At(pause, [this, &candidate, end] {
    const bool asks = candidate.up() && candidate.raft()->role() == raft::Role::kCandidate;
    if (context_.healed || asks || candidate.leads() || context_.scheduler.now() > end) return;
    candidate.Campaign();
    CampaignUntil(candidate, end);
  });
}

void Group::OnCandidate(Replica& candidate) {
  if (context_.healed || !context_.plan.storm_of_doubt || context_.random().OneIn(3)) return;
  MeetCandidate(candidate);
}

void Group::MeetCandidate(Replica& candidate) {
  SimRandom& random = context_.random();
  std::vector<bool> asked = std::exchange(supporters_, {});
  if (asked.empty() || !asked[candidate.slot()]) {
    asked.resize(slots_.size());
    for (size_t slot = 0; slot < slots_.size(); ++slot) asked[slot] = random.OneIn(2);
  }
  const absl::Duration late = Between(random, 2 * kTick, (random.OneIn(2) ? 15 : 80) * kTick);
  const bool pauses = random.OneIn(2);
  for (size_t other = 0; other < slots_.size(); ++other) {
    if (other == candidate.slot()) continue;
    if (!asked[other]) network_->Hold(candidate.slot(), other, Between(random, 0.5 * late, 1.5 * late));
    if (asked[other] && !pauses) network_->Hold(other, candidate.slot(), late);
  }
  if (pauses) {
    // Mostly once its own vote is on its disk, and its requests have left.
    context_.scheduler.At(Between(random, kTick, 2.5 * kTick), [this, &candidate, late] {
      if (!context_.healed) PauseFor(candidate, late);
    });
  }
  context_.scheduler.At(Between(random, kTick, 4 * kTick), [this, &candidate, late] {
    if (context_.healed) return;
    const LeaderEpoch term = candidate.up() ? candidate.raft()->term() : LeaderEpoch(0);
    for (Replica* replica : slots_) {
      const bool knows_term = replica->up() && replica->raft()->term() == term;
      if (replica == &candidate ? context_.random().OneIn(6) : knows_term) MeetVoter(*replica, late);
    }
  });
  context_.scheduler.At(Between(random, kTick, 10 * kTick), [this] {
    if (!context_.random().OneIn(4)) network_->HealCuts();
  });
}

void Group::MeetVoter(Replica& voter, absl::Duration late) {
  SimRandom& random = context_.random();
  if (random.OneIn(8)) return CrashOne(voter);
  if (random.OneIn(2)) return PauseFor(voter, Between(random, 0.5 * late, 1.5 * late));
  if (random.OneIn(8) || !MayLose(voter.id())) return;
  CrashOne(voter);
  voter.Damage(random.OneIn(2) ? 2 : 8);
  context_.scheduler.At(Between(random, 0.1 * kTick, 3 * kTick), [this, &voter] {
    if (voter.up() || slots_[voter.slot()] != &voter) return;
    voter.Start();
    if (!context_.healed && context_.random().OneIn(4)) voter.Campaign();
  });
}

}  // namespace sluice::raft_simulation
