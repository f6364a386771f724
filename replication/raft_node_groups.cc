// What a node does with all of its groups at once: tells how they are, and leaves their leadership before it stops.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "replication/raft_node.h"

namespace sluice::replication {

namespace {

/// Under way at once on a shard. Each is an election: two small writes at its follower, so a few keep its journal busy
/// without making clients of the other groups wait.
constexpr int kMovesAtOnce = 8;

}  // namespace

void RaftNode::CollectStatus(absl::AnyInvocable<void(std::vector<GroupStatus>)> done) {
  struct Collected {
    std::mutex mutex;
    size_t shards_left;
    std::vector<GroupStatus> all;
    absl::AnyInvocable<void(std::vector<GroupStatus>)> done;
  };
  auto collected = std::make_shared<Collected>();
  collected->shards_left = shards_.size();
  collected->done = std::move(done);
  for (auto& shard : shards_) {
    shard->executor->Post([self = shared_from_this(), shard = shard.get(), collected] {
      std::vector<GroupStatus> here;
      for (const auto& [group, log] : shard->logs) here.push_back(log->group_status());
      {
        std::lock_guard lock(collected->mutex);
        std::move(here.begin(), here.end(), std::back_inserter(collected->all));
        if (--collected->shards_left > 0) return;
      }
      std::sort(collected->all.begin(), collected->all.end(),
                [](const GroupStatus& a, const GroupStatus& b) { return a.group < b.group; });
      collected->done(std::move(collected->all));
    });
  }
}

// ---- Leaving

/// One call of LeaveLeadership, over all shards.
struct RaftNode::Leaving {
  absl::Duration deadline;  ///< By the monotonic clock.
  std::mutex mutex;
  std::vector<size_t> left;  ///< Groups led on each shard, as it last looked. Guarded by mutex.
  bool over = false;         ///< Guarded by mutex.
  Callback<absl::Status> done;
};

void RaftNode::LeaveLeadership(absl::Duration within, Callback<absl::Status> done) {
  auto leaving = std::make_shared<Leaving>();
  leaving->deadline = seams_.clock->Monotonic() + within;
  leaving->left.assign(shards_.size(), 1);  // until each has looked
  leaving->done = std::move(done);
  for (auto& shard : shards_) {
    shard->executor->Post([self = shared_from_this(), shard = shard.get(), leaving] {
      shard->leaving = leaving;
      shard->moved_to.clear();
      self->ContinueLeaving(*shard);
    });
  }
}

void RaftNode::ContinueLeavingSoon(Shard& shard) {
  if (shard.leaving == nullptr || std::exchange(shard.leaving_scheduled, true)) return;
  shard.executor->Post([self = shared_from_this(), shard = &shard] {
    shard->leaving_scheduled = false;
    self->ContinueLeaving(*shard);
  });
}

void RaftNode::ContinueLeaving(Shard& shard) {
  const std::shared_ptr<Leaving> leaving = shard.leaving;
  if (leaving == nullptr) return;
  int moving = 0;
  std::vector<RaftLog*> to_move;
  for (const auto& [group, log] : shard.logs) {
    const raft::Raft& raft = log->raft();
    if (raft.role() != raft::Role::kLeader || raft.configuration().voters.size() <= 1) continue;
    if (!log->failure().ok()) continue;
    if (raft.transferring()) {
      ++moving;
    } else {
      to_move.push_back(log.get());
    }
  }
  const size_t left = to_move.size() + static_cast<size_t>(moving);
  for (RaftLog* log : to_move) {
    if (moving >= kMovesAtOnce) break;
    if (Move(shard, *log)) ++moving;
  }
  const bool late = seams_.clock->Monotonic() >= leaving->deadline || shard.stopped;
  size_t all_left = 0;
  {
    std::lock_guard lock(leaving->mutex);
    leaving->left[shard.index] = left;
    for (const size_t each : leaving->left) all_left += each;
    if (leaving->over) {
      shard.leaving = nullptr;
      return;
    }
    if (all_left > 0 && !late) return;
    leaving->over = true;
  }
  shard.leaving = nullptr;
  leaving->done(all_left == 0 ? absl::OkStatus()
                              : absl::DeadlineExceededError(absl::StrCat(
                                    all_left, " partitions are still led here: no other voter could take them")));
}

// To the voter that has the most of the log; among equals to the one that was given the fewest, so that one node does
// not have to take all.
bool RaftNode::Move(Shard& shard, RaftLog& log) {
  std::optional<raft::FollowerStatus> best;
  for (const raft::FollowerStatus& follower : log.raft().followers()) {
    const bool fit = follower.voter && follower.active && !follower.in_doubt && !follower.cannot_lead;
    if (!fit || follower.state != "replicate") continue;
    const auto rank = [&](const raft::FollowerStatus& f) { return std::pair(f.match, -shard.moved_to[f.id.node]); };
    if (!best || rank(follower) > rank(*best)) best = follower;
  }
  if (!best || !log.TransferLeadership(best->id).ok()) return false;
  ++shard.moved_to[best->id.node];
  return true;
}

}  // namespace sluice::replication
