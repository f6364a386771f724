#include "replication/raft_node.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace sluice::replication {
namespace {

/// Election time-outs differ by whole ticks, so a heartbeat is two of them.
constexpr int kTicksPerHeartbeat = 2;
constexpr int kTicksBetweenStats = 10;

/// A shard's own random numbers (SplitMix64), from a seed that the node's source gave.
class ShardRandom final : public Random {
 public:
  explicit ShardRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next() override {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

int ElectionTicks(absl::Duration timeout, absl::Duration tick) {
  return static_cast<int>(std::clamp<int64_t>(timeout / tick, kTicksPerHeartbeat + 1, 1'000'000));
}

void AddCounters(const RaftNodeStats& from, RaftNodeStats* to) {
  to->elections_won += from.elections_won;
  to->messages_refused += from.messages_refused;
  to->messages_dropped += from.messages_dropped;
  to->appends_refused += from.appends_refused;
  to->snapshots_sent += from.snapshots_sent;
  to->snapshots_installed += from.snapshots_installed;
  to->commits += from.commits;
  to->unknown_outcomes += from.unknown_outcomes;
  to->commit_total += from.commit_total;
  to->commit_max = std::max(to->commit_max, from.commit_max);
}

void AddAll(const RaftNodeStats& from, RaftNodeStats* to) {
  to->groups += from.groups;
  to->asleep += from.asleep;
  to->leaders += from.leaders;
  to->without_leader += from.without_leader;
  to->under_replicated += from.under_replicated;
  to->in_doubt += from.in_doubt;
  to->damaged += from.damaged;
  to->lag_offsets_max = std::max(to->lag_offsets_max, from.lag_offsets_max);
  AddCounters(from, to);
}

}  // namespace

RaftNode::RaftNode(const RaftNodeOptions& options, RaftNodeSeams seams)
    : options_(options),
      seams_(std::move(seams)),
      tick_(std::max(options.heartbeat / kTicksPerHeartbeat, absl::Milliseconds(1))),
      shared_(std::make_shared<Shared>(options.recovery_bytes_max)),
      liveness_(std::max<uint64_t>(seams_.random->Next(), 1)) {
  shared_->options = options.log;
  shared_->options.raft.heartbeat_ticks = kTicksPerHeartbeat;
  shared_->options.raft.election_ticks = ElectionTicks(options.election_timeout, tick_);
  shared_->options.raft.explicit_heartbeats = !options.coalesce_heartbeats;
  shared_->inbox.bytes_max = options.inbox_bytes_max;
  shared_->on_leader_change.resize(seams_.shards.size());
  shared_->on_wake.resize(seams_.shards.size());
  for (Executor* executor : seams_.shards) {
    shared_->random.push_back(std::make_unique<ShardRandom>(seams_.random->Next()));
    auto shard = std::make_unique<Shard>();
    shard->index = shards_.size();
    shard->executor = executor;
    shard->phase = tick_ * static_cast<int64_t>(seams_.random->Next() % 1000) / 1000;
    shard->seams = {.transport = seams_.transport,
                    .clock = seams_.clock,
                    .random = shared_->random.back().get(),
                    .recovery = &shared_->recovery,
                    .inbox = &shared_->inbox,
                    .options = &shared_->options,
                    .on_leader_change = &shared_->on_leader_change[shard->index],
                    .on_wake = &shared_->on_wake[shard->index],
                    .log = seams_.log,
                    .keep = shared_};
    shards_.push_back(std::move(shard));
  }
}

std::shared_ptr<RaftNode> RaftNode::Make(const RaftNodeOptions& options, RaftNodeSeams seams) {
  std::shared_ptr<RaftNode> node(new RaftNode(options, std::move(seams)));
  for (auto& shard : node->shards_) {
    node->shared_->on_wake[shard->index] = [weak = node->weak_from_this(),
                                            shard = shard.get()](const ReplicaId& group) {
      if (const auto self = weak.lock(); self != nullptr && shard->logs.contains(group)) shard->awake[group] = {};
    };
    node->shared_->on_leader_change[shard->index] =
        [weak = node->weak_from_this(), shard = shard.get(), observer = node->seams_.on_leader_change](
            const ReplicaId& group, std::optional<NodeId> leader, LeaderEpoch epoch) {
          if (const auto self = weak.lock()) self->ContinueLeavingSoon(*shard);
          if (observer) observer(group, leader, epoch);
        };
  }
  return node;
}

void RaftNode::Start() {
  // Nodes that start together must not tick together: their groups would campaign at the same moment.
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards_[i]->executor->PostAfter(shards_[i]->phase, [weak = weak_from_this(), i] {
      if (const auto self = weak.lock()) self->TickLater(i);
    });
  }
  seams_.transport->Start(*this);
}

void RaftNode::Stop(absl::AnyInvocable<void()> done) {
  struct Left {
    std::mutex mutex;
    size_t shards;
    absl::AnyInvocable<void()> done;
  };
  auto left = std::make_shared<Left>();
  left->shards = shards_.size();
  left->done = std::move(done);
  for (auto& shard : shards_) {
    shard->executor->Post([self = shared_from_this(), shard = shard.get(), left] {
      shard->stopped = true;
      self->ContinueLeaving(*shard);
      for (auto& [group, log] : shard->logs) {
        log->Stop();
        std::lock_guard lock(self->mutex_);
        self->routes_.erase(group);
      }
      shard->logs.clear();
      shard->awake.clear();
      // Behind the answers that were posted.
      shard->executor->Post([left] {
        {
          std::lock_guard lock(left->mutex);
          if (--left->shards > 0) return;
        }
        left->done();
      });
    });
  }
}

void RaftNode::Abandon() {
  shared_->recovery.Close();
  for (auto& shard : shards_) {
    shard->stopped = true;
    shard->leaving = nullptr;
    for (auto& [group, log] : shard->logs) log->Abandon();
    shard->logs.clear();
    shard->awake.clear();
  }
  std::lock_guard lock(mutex_);
  routes_.clear();
}

// ---- Groups

void RaftNode::Open(GroupSpec spec, Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done) {
  SLUICE_CHECK(spec.shard < shards_.size()) << "shard " << spec.shard << " of " << shards_.size();
  Executor* const executor = shards_[spec.shard]->executor;
  {
    std::lock_guard lock(mutex_);
    if (!routes_.try_emplace(spec.group, Route{spec.shard, nullptr}).second) {
      return executor->Post([group = spec.group, done = std::move(done)]() mutable {
        done(absl::AlreadyExistsError(absl::StrCat("replica ", group.ToString(), " is open already")));
      });
    }
  }
  auto attach = [self = shared_from_this(), spec, executor, done = std::move(done)](absl::Status there) mutable {
    executor->Post([self, spec = std::move(spec), there = std::move(there), done = std::move(done)]() mutable {
      if (there.ok()) return self->Attach(std::move(spec), std::move(done));
      {
        std::lock_guard lock(self->mutex_);
        self->routes_.erase(spec.group);
      }
      done(there);
    });
  };
  if (seams_.store->Has(spec.group)) return attach(absl::OkStatus());
  seams_.store->Create(spec.group, spec.incarnation, std::move(attach));
}

void RaftNode::Attach(GroupSpec spec, Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> done) {
  Shard& shard = *shards_[spec.shard];
  Callback<absl::StatusOr<std::shared_ptr<RaftLog>>> opened =
      [self = shared_from_this(), &shard, group = spec.group,
       done = std::move(done)](absl::StatusOr<std::shared_ptr<RaftLog>> log) mutable {
        if (log.ok() && shard.stopped) {
          (*log)->Stop();
          log = absl::UnavailableError("the node is stopping");
        }
        {
          std::lock_guard lock(self->mutex_);
          if (log.ok()) {
            self->routes_[group].log = *log;
            shard.logs[group] = *log;
            shard.awake[group] = {};
          } else {
            self->routes_.erase(group);
          }
        }
        done(std::move(log));
      };
  // Attached already where it was closed before.
  std::shared_ptr<storage::Log> log = seams_.store->Find(spec.group);
  const bool reopened = log != nullptr;
  if (!reopened) {
    auto attached = seams_.store->Attach(spec.group, *shard.executor, spec.log);
    if (!attached.ok()) return opened(attached.status());
    log = *std::move(attached);
  }
  RaftLog::Start start{.node = options_.node,
                       .initial = std::move(spec.initial),
                       .doubtful = !spec.never_before && !seams_.store->recovery().journal.vouched,
                       .feeds_state = spec.feeds_state,
                       .reopened = reopened};
  if (spec.alone) start.initial = {.voters = {{options_.node, log->incarnation()}}, .learners = {}};
  RaftLog::Open(std::move(log), shard.seams, std::move(start), std::move(opened));
}

void RaftNode::Close(const ReplicaId& group, Callback<absl::Status> done) {
  Route route;
  {
    std::lock_guard lock(mutex_);
    const auto at = routes_.find(group);
    if (at != routes_.end()) {
      route = at->second;
      if (route.log != nullptr) routes_.erase(at);
    }
  }
  Shard& shard = *shards_[route.shard];
  shard.executor->Post(
      [self = shared_from_this(), &shard, group, route = std::move(route), done = std::move(done)]() mutable {
        if (route.log == nullptr) return done(absl::OkStatus());
        CountInto(*route.log, &shard.closed);
        route.log->Stop();
        shard.logs.erase(group);
        shard.awake.erase(group);
        shard.counted.erase(group);
        self->ForgetLiveness(shard, group);
        route.log.reset();
        // Behind the answers that Stop has posted.
        shard.executor->Post([done = std::move(done)]() mutable { done(absl::OkStatus()); });
      });
}

void RaftNode::Remove(const ReplicaId& group, Callback<absl::Status> done) {
  Close(group, [self = shared_from_this(), group, done = std::move(done)](const absl::Status&) mutable {
    self->seams_.store->Drop(group, std::move(done));
  });
}

std::shared_ptr<RaftLog> RaftNode::Find(const ReplicaId& group) const {
  std::lock_guard lock(mutex_);
  const auto at = routes_.find(group);
  return at == routes_.end() ? nullptr : at->second.log;
}

// ---- What the transport brings

void RaftNode::OnMessage(const ReplicaId& group, raft::Message message) {
  std::lock_guard lock(mutex_);
  const auto at = routes_.find(group);
  if (at == routes_.end() || at->second.log == nullptr) {
    ++unrouted_;
    return;
  }
  // Under the lock, so that the last reference never dies on a thread of the transport.
  at->second.log->Deliver(std::move(message));
}

void RaftNode::OnPeerState(NodeId peer, PeerState state) {
  for (auto& shard : shards_) {
    shard->executor->Post([self = shared_from_this(), shard = shard.get(), peer, state] {
      for (auto& [group, log] : shard->logs) log->OnPeerState(peer, state);
    });
  }
}

// ---- Time

void RaftNode::TickLater(size_t index) {
  shards_[index]->executor->PostAfter(tick_, [weak = weak_from_this(), index] {
    const auto self = weak.lock();
    if (self == nullptr || self->shards_[index]->stopped) return;
    self->Tick(*self->shards_[index]);
    if (index == 0 && self->shards_[0]->ticks % kTicksPerHeartbeat == 0) self->SendHeartbeats();
    self->TickLater(index);
  });
}

void RaftNode::Tick(Shard& shard) {
  ++shard.ticks;
  if (options_.coalesce_heartbeats) ExchangeLiveness(shard);
  // A log's answers may open or close others.
  std::vector<std::pair<std::shared_ptr<RaftLog>, int>> logs;
  logs.reserve(shard.awake.size());
  for (auto& [group, awake] : shard.awake) {
    logs.emplace_back(shard.logs.at(group), 1 + std::exchange(awake.missed_ticks, 0));
  }
  for (const auto& [log, times] : logs) log->Tick(times);
  ContinueLeaving(shard);
  if (shard.ticks % kTicksBetweenStats == 0) CountAll(shard);
  if (options_.coalesce_heartbeats) FallAsleep(shard);
}

void RaftNode::CountAll(Shard& shard) {
  // What sleeps is as it was.
  for (const auto& [group, awake] : shard.awake) {
    RaftNodeStats& one = shard.counted[group] = {};
    CountInto(*shard.logs.at(group), &one);
  }
  RaftNodeStats stats;
  AddCounters(shard.closed, &stats);
  for (const auto& [group, one] : shard.counted) AddAll(one, &stats);
  stats.asleep = static_cast<int64_t>(shard.logs.size() - shard.awake.size());
  std::lock_guard lock(shard.mutex);
  shard.stats = stats;
}

// ---- Numbers

void RaftNode::CountInto(const RaftLog& log, RaftNodeStats* stats) {
  const RaftLogStats one = log.stats();
  ++stats->groups;
  if (one.role == raft::Role::kLeader) ++stats->leaders;
  if (!one.leader) ++stats->without_leader;
  if (one.voters_behind > 0) ++stats->under_replicated;
  if (one.in_doubt) ++stats->in_doubt;
  if (one.damaged) ++stats->damaged;
  stats->lag_offsets_max = std::max(stats->lag_offsets_max, one.lag_offsets);
  AddCounters({.elections_won = one.elections_won,
               .messages_refused = one.messages_refused,
               .messages_dropped = one.messages_dropped,
               .appends_refused = one.appends_refused,
               .snapshots_sent = one.snapshots_sent,
               .snapshots_installed = one.snapshots_installed,
               .commits = one.commits,
               .unknown_outcomes = one.unknown_outcomes,
               .commit_total = one.commit_total,
               .commit_max = one.commit_max},
              stats);
}

RaftNodeStats RaftNode::stats() const {
  RaftNodeStats all;
  for (const auto& shard : shards_) {
    std::lock_guard lock(shard->mutex);
    const RaftNodeStats& one = shard->stats;
    AddAll(one, &all);
  }
  all.messages_unrouted = unrouted_;
  all.recovery_bytes = shared_->recovery.used();
  all.inbox_bytes = shared_->inbox.bytes;
  return all;
}

}  // namespace sluice::replication
