#include "broker/group0_membership.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "common/planted_bug.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

/// Behind the end of the log by no more than heartbeats and registrations may have added since.
constexpr int64_t kCaughtUpWithin = 16;
/// Between attempts to hand leadership over: longer than one takes.
constexpr absl::Duration kHandOverEvery = absl::Seconds(5);

size_t VotersWanted(size_t nodes) {
  const size_t most = std::min(nodes, kGroup0VotersMax);
  return most % 2 == 1 || most == 0 ? most : most - 1;
}

/// Learners that could vote now, the best first: those that could also lead, and are in racks with the fewest voters.
std::vector<VoterId> Candidates(const Group0View& view) {
  std::map<std::string, int> voters_in;
  for (const auto& node : view.nodes) {
    if (view.members.IsVoter(node.id)) ++voters_in[node.rack];
  }
  std::vector<std::tuple<bool, int, VoterId>> found;
  for (const auto& node : view.nodes) {
    if (view.members.IsLearner(node.id) && !node.fenced && node.caught_up) {
      found.emplace_back(node.renounced, voters_in[node.rack], node.id);
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<VoterId> candidates;
  candidates.reserve(found.size());
  for (const auto& [renounced, count, id] : found) candidates.push_back(id);
  return candidates;
}

raft::Configuration Moved(const raft::Configuration& members, const VoterId& id, bool to_voters) {
  raft::Configuration next = members;
  std::erase(next.voters, id);
  std::erase(next.learners, id);
  auto& list = to_voters ? next.voters : next.learners;
  list.insert(std::lower_bound(list.begin(), list.end(), id), id);
  return next;
}

}  // namespace

std::optional<raft::Configuration> NextMembershipStep(const Group0View& view) {
  for (const auto& node : view.nodes) {
    if (!view.members.Contains(node.id) &&
        view.members.voters.size() + view.members.learners.size() < raft::Configuration::kMembersMax) {
      return Moved(view.members, node.id, false);
    }
  }
  const size_t voters = view.members.voters.size();
  const size_t wanted = VotersWanted(view.nodes.size());
  const std::vector<VoterId> candidates = Candidates(view);
  if (voters < wanted) {
    const size_t needed = voters % 2 == 1 ? 2 : 1;
    if (candidates.size() < needed) return std::nullopt;
    return Moved(view.members, candidates.front(), true);
  }
  if (candidates.empty() && !Planted(PlantedBug::kTakeVoteTooEarly)) return std::nullopt;
  for (const auto& node : view.nodes) {
    if (!view.members.IsVoter(node.id) || node.id == view.leader) continue;
    if (!node.fenced || node.fenced_for < view.replace_voter_after) continue;
    if (Planted(PlantedBug::kKeepDeadVoter)) continue;
    const raft::Configuration next = Moved(view.members, node.id, false);
    const auto living = std::count_if(view.nodes.begin(), view.nodes.end(), [&](const auto& other) {
      return next.IsVoter(other.id) && (other.caught_up || other.id == view.leader);
    });
    if (static_cast<size_t>(living) >= next.Quorum()) return next;
  }
  return std::nullopt;
}

std::optional<VoterId> Successor(const Group0View& view) {
  const Group0View::Node* best = nullptr;
  for (const auto& node : view.nodes) {
    if (node.id == view.leader || !view.members.IsVoter(node.id)) continue;
    if (node.fenced || !node.caught_up || !node.can_lead || node.renounced) continue;
    if (best == nullptr || node.disk_free_bytes > best->disk_free_bytes) best = &node;
  }
  return best == nullptr ? std::nullopt : std::optional(best->id);
}

Group0Membership::Group0Membership(Seams seams, Group0Options options) : seams_(std::move(seams)), options_(options) {
  seams_.controller.AddObserver(this);
}

Group0Membership::~Group0Membership() {
  *alive_ = false;
}

void Group0Membership::Start() {
  stopped_ = false;
  CheckLater();
}

void Group0Membership::Stop() {
  stopped_ = true;
  seams_.executor.Cancel(std::exchange(timer_, 0));
}

void Group0Membership::OnLeadership(bool /*leads*/) {
  fenced_since_.clear();
}

void Group0Membership::CheckLater() {
  timer_ = seams_.executor.PostAfter(options_.check_every, [this] {
    Check();
    CheckLater();
  });
}

Group0View Group0Membership::View() {
  const raft::Raft& raft = seams_.controller.log()->raft();
  const absl::Duration now = seams_.clock.Monotonic();
  Group0View view;
  view.leader = raft.self();
  view.members = raft.configuration();
  view.replace_voter_after = options_.replace_voter_after;
  std::set<VoterId> caught_up;
  std::set<VoterId> renounced;
  for (const raft::FollowerStatus& follower : raft.followers()) {
    if (follower.active && !follower.in_doubt && follower.match + kCaughtUpWithin >= raft.committed()) {
      caught_up.insert(follower.id);
    }
    if (follower.cannot_lead) renounced.insert(follower.id);
  }
  for (const auto& [id, registered] : seams_.controller.state().nodes) {
    Group0View::Node& node = view.nodes.emplace_back();
    node.id = {id, registered.node.incarnation};
    node.rack = registered.node.rack;
    node.fenced = registered.fenced;
    node.caught_up = caught_up.contains(node.id);
    node.renounced = renounced.contains(node.id);
    if (const auto last = seams_.registry == nullptr ? std::nullopt : seams_.registry->LastHeartbeat(id)) {
      node.can_lead = !last->cannot_write && !last->draining;
      node.disk_free_bytes = last->disk_free_bytes;
    }
    if (registered.fenced) {
      node.fenced_for = now - fenced_since_.emplace(id, now).first->second;
    } else {
      fenced_since_.erase(id);
    }
  }
  return view;
}

bool Group0Membership::IsFull() const {
  return seams_.controller.WritesRefused() || (seams_.disk_full != nullptr && seams_.disk_full());
}

std::vector<NodeId> Group0Membership::WithoutRoom() const {
  const replication::RaftLog* log = seams_.controller.log();
  if (log == nullptr) return {};
  const raft::Configuration& members = log->raft().configuration();
  std::vector<NodeId> full;
  for (const VoterId& voter : members.voters) {
    const auto last = seams_.registry == nullptr ? std::nullopt : seams_.registry->LastHeartbeat(voter.node);
    const bool says_so = last.has_value() && last->cannot_write;
    if (voter == log->raft().self() ? IsFull() : says_so) full.push_back(voter.node);
  }
  if (members.voters.size() - full.size() >= members.Quorum()) return {};
  return full;
}

// A leader without room refuses every change once nothing at all fits, and goes on leading: heartbeats need no disk.
void Group0Membership::HandOverIfFull() {
  if (!IsFull()) return;
  const absl::Duration now = seams_.clock.Monotonic();
  if (handed_over_at_.has_value() && now - *handed_over_at_ < kHandOverEvery) return;
  const auto to = Successor(View());
  if (!to.has_value()) return;
  handed_over_at_ = now;
  const absl::Status begun = seams_.controller.log()->TransferLeadership(*to);
  seams_.log.Warn("the disk is full: another node is to lead the controller", {{"node", to->node}, {"begun", begun}});
}

void Group0Membership::Check() {
  // Also one that leads the group and cannot become the controller for it.
  const replication::RaftLog* log = seams_.controller.log();
  if (!stopped_ && log != nullptr && log->IsLeader()) HandOverIfFull();
  if (changing_ || stopped_ || !seams_.controller.IsLeader()) return;
  const auto next = NextMembershipStep(View());
  if (!next.has_value()) return;
  changing_ = true;
  seams_.controller.log()->ChangeMembers(
      *next, [this, alive = alive_, next = *next](absl::StatusOr<replication::Committed> changed) {
        if (!*alive) return;
        changing_ = false;
        if (changed.ok()) {
          seams_.log.Info("the controller's group has changed", {{"members", next.ToString()}});
          // An even number of voters is to last no longer than it must.
          Check();
        } else {
          seams_.log.Debug("the controller's group could not be changed", {{"error", changed.status()}});
        }
      });
}

}  // namespace sluice::broker
