// Random schedules over the test group: messages late, lost and twice, crashes that forget what was not durable,
// members that come and go, log starts that move. The group checks itself after every step; at the end it must heal.
#include <algorithm>
#include <catch2/catch.hpp>

#include "common/text.h"
#include "replication/core/test_group.h"

namespace sluice::raft {

namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// How much of the trace a failure shows.
size_t TailBytes() {
  return FromEnvironment("SLUICE_TRACE_BYTES", 4000);
}

class Chaos {
 public:
  explicit Chaos(uint64_t seed) : random_(seed * 7919 + 1), group_(RandomOptions()) {
    std::vector<int> all;
    for (int n = 1; n <= 1 + static_cast<int>(Below(5)); ++n) all.push_back(n);
    for (int n : all) group_.Add(n, TestGroup::Members(all));
    for (int n = static_cast<int>(all.size()) + 1; n <= 5; ++n) group_.Add(n, Configuration{});
    loss_ = Below(30);
    twice_ = Below(20);
  }

  void Go(int steps) {
    for (int i = 0; i < steps; ++i) OneStep();
    Heal();
  }

  size_t Count(const std::string& what) const {
    size_t count = 0;
    for (size_t at = group_.trace.find(what); at != std::string::npos; at = group_.trace.find(what, at + 1)) ++count;
    return count;
  }

 private:
  uint64_t Below(uint64_t n) { return random_.Next() % n; }
  bool Chance(uint64_t percent) { return Below(100) < percent; }
  int Someone() { return 1 + static_cast<int>(Below(5)); }
  bool Up(int n) { return group_.node(n).raft != nullptr; }

  Options RandomOptions() {
    Options options;
    options.explicit_heartbeats = Chance(70);
    options.inflight_messages_max = 1 + static_cast<int>(Below(5));
    options.window_bytes_max = Chance(50) ? 1 << 20 : 200;
    options.message_bytes_max = Chance(50) ? 1 << 20 : 150;
    return options;
  }

  void OneStep() {
    const uint64_t kind = Below(100);
    const int n = Someone();
    if (kind < 30) return DeliverSome();
    if (kind < 38) return group_.Tick(n, 1 + static_cast<int>(Below(5)));
    if (kind < 39) return Chance(30) ? CrashOrStart(n) : Disturb(n);
    if (!Up(n)) return;
    if (kind < 65) return group_.TakeReady(n);
    if (kind < 80) return group_.Persist(n);
    if (kind < 93) return Lead(Chance(80) && group_.Leader() != 0 ? group_.Leader() : n);
    Snapshots(n);
  }

  void DeliverSome() {
    auto& network = group_.network;
    for (uint64_t i = Below(6); i > 0 && !network.empty(); --i) {
      const size_t which = Chance(80) ? 0 : Below(network.size());
      Message message = network[which];
      if (!Chance(twice_)) network.erase(network.begin() + static_cast<std::ptrdiff_t>(which));
      const int to = message.to.node.value();
      const bool cut = std::count(group_.isolated.begin(), group_.isolated.end(), to) != 0 ||
                       std::count(group_.isolated.begin(), group_.isolated.end(), message.from.node.value()) != 0;
      if (Chance(loss_) || cut || !Up(to)) continue;
      const absl::Status status = group_.Step(std::move(message));
      INFO("step " << status << "\n" << Tail());
      REQUIRE(status.ok());  // nobody here lies
    }
  }

  void CrashOrStart(int n) {
    for (int i = 1; i <= 5; ++i) {
      if (!Up(i) && Chance(70)) group_.Restart(i);
    }
    if (!Up(n)) return group_.Restart(n);
    int down = 0;
    for (int i = 1; i <= 5; ++i) down += Up(i) ? 0 : 1;
    if (down >= 2) return;
    if (Chance(30) && MayTear(n)) return group_.TearOff(n, 1 + Below(3));
    group_.Crash(n);
  }

  // One disk at a time lies about what it has: more could lose a committed batch for good.
  bool MayTear(int n) {
    for (const auto& [number, node] : group_.nodes) {
      if (node.torn || node.was_in_doubt || (node.raft && node.raft->in_doubt())) return false;
      if (!node.raft) return false;
      // What a sole voter has committed is nowhere else.
      for (const ConfigurationAt& at : node.raft->configurations()) {
        if (at.configuration.voters.size() == 1) return false;
      }
    }
    return group_.at(n).configuration().voters.size() > 1;
  }

  void Disturb(int n) {
    if (Chance(80)) {
      group_.isolated = Chance(70) ? std::vector<int>{} : std::vector<int>{n};
    } else if (Up(n)) {
      const int other = Someone();
      if (Chance(20) && MayRenounce())
        group_.Renounce(n);
      else if (Chance(50))
        group_.at(n).OnUnreachable(TestGroup::Id(other));
      else
        group_.at(n).OnLeaderLost();
    }
  }

  // One at a time, until it restarts: somebody is to be left who can lead.
  bool MayRenounce() {
    return std::none_of(group_.nodes.begin(), group_.nodes.end(),
                        [](const auto& each) { return each.second.raft && each.second.renounced; });
  }

  void Lead(int n) {
    Raft& raft = group_.at(n);
    if (raft.role() != Role::kLeader) {
      if (Chance(5)) (void)group_.Campaign(n);
      return;
    }
    const uint64_t kind = Below(100);
    if (kind < 60) {
      (void)group_.Propose(n, Cat("v", next_value_++), 1 + static_cast<int>(Below(3)));
    } else if (kind < 75) {
      (void)group_.Change(n, OneStepFrom(raft.configuration()));
    } else if (kind < 85) {
      (void)raft.TransferLeadership(TestGroup::Id(Someone()));
    } else if (kind < 95) {
      (void)group_.ReadIndex(n, next_value_++);
    } else {
      raft.StepDown();
    }
  }

  Configuration OneStepFrom(const Configuration& now) {
    std::vector<VoterId> voters = now.voters, learners = now.learners;
    const VoterId who = TestGroup::Id(Someone());
    const bool was_voter = now.IsVoter(who), was_learner = now.IsLearner(who);
    std::erase(voters, who);
    std::erase(learners, who);
    if (was_learner || (!was_voter && Chance(30)))
      voters.push_back(who);
    else if (!was_voter)
      learners.push_back(who);
    auto made = Configuration::Make(voters, learners);
    return made.ok() ? *made : now;
  }

  void Snapshots(int n) {
    TestGroup::Node& node = group_.node(n);
    if (Chance(40)) {
      // A driver moves the log start as a committed entry says, and that entry stays behind it.
      const Offset start = node.raft->log_start(), end = std::min(node.committed, node.durable.end()) - 1;
      if (end > start && !node.install && node.unpersisted.empty() && !node.memory.log.empty() && Chance(30)) {
        group_.MoveLogStart(n, start + 1 + static_cast<int64_t>(Below(static_cast<uint64_t>(end - start))));
      }
    } else if (node.install) {
      if (Chance(20)) {
        node.install.reset();
        node.raft->OnInstallFailed();
      } else if (node.unpersisted.empty() || Chance(50)) {
        group_.Install(n);
      }
    } else {
      for (const VoterId& to : std::exchange(node.snapshots_wanted, {})) {
        if (node.raft->role() == Role::kLeader) group_.SendSnapshot(n, to.node.value());
      }
    }
  }

  void Heal() {
    group_.isolated.clear();
    for (int n = 1; n <= 5; ++n) {
      if (!Up(n)) group_.Restart(n);
    }
    for (int round = 0; round < 450; ++round) {
      // Mostly the others do. But nobody else may have all of the log.
      for (int n = 1; n <= 5 && round == 150; ++n) {
        if (group_.node(n).renounced) group_.Restart(n);
      }
      group_.Run();
      const int leader = group_.Leader();
      if (leader != 0 && Healed(leader)) return;
      for (int n = 1; n <= 5; ++n) {
        group_.Tick(n);
        if (leader != 0 && !group_.options.explicit_heartbeats) NodesAreAlive(leader);
      }
    }
    FAIL("it does not heal\n" << Tail() << "\n" << Statuses());
  }

  // What a driver does where heartbeats are its own.
  void NodesAreAlive(int leader) {
    for (auto& [number, node] : group_.nodes) {
      if (number == leader || !node.raft || node.raft->leader() != TestGroup::Id(leader)) continue;
      node.raft->OnLeaderAlive(group_.at(leader).term());
      group_.at(leader).OnFollowerAlive(TestGroup::Id(number), node.raft->term());
    }
  }

  bool Healed(int leader) {
    const Raft& raft = group_.at(leader);
    if (!raft.Serving() || raft.committed() != raft.log_end()) return false;
    for (const FollowerStatus& f : raft.followers()) {
      if (f.match != raft.log_end() || group_.at(f.id.node.value()).committed() != raft.committed()) return false;
    }
    return true;
  }

  std::string Tail() const {
    return group_.trace.substr(group_.trace.size() - std::min<size_t>(group_.trace.size(), TailBytes()));
  }
  std::string Statuses() const {
    std::string all;
    for (const auto& [number, node] : group_.nodes) all += group_.Status(number) + "\n";
    return all;
  }

  FixedRandom random_;
  TestGroup group_;
  uint64_t loss_ = 0;
  uint64_t twice_ = 0;
  uint64_t next_value_ = 1;
};

constexpr const char* kMustHappen[] = {
    "is leader", "truncate to", "Rejected", "Snapshot",   "has installed", "voters 1, 2, 3, 4",
    "learners",  "TimeoutNow",  "transfer", "reads from", " read ",        "crashes",
    "no answer", "commits to",  "Vote no",  "in doubt",   "renounces",     "cannot lead"};

}  // namespace

TEST_CASE("random schedules with crashes, losses and changes of members keep every promise, and the group heals") {
  const uint64_t first = FromEnvironment("SLUICE_SEED", 1);
  const uint64_t count = FromEnvironment("SLUICE_SEEDS", 40);
  std::map<std::string, size_t> happened;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    INFO("SLUICE_SEED=" << seed);
    Chaos chaos(seed);
    chaos.Go(12000);
    for (const char* what : kMustHappen) happened[what] += chaos.Count(what);
  }
  // A schedule in which something never happens proves nothing about it.
  for (const char* what : kMustHappen) {
    if (std::getenv("SLUICE_TALLY")) WARN(what << " happened " << happened[what] << " times");
    INFO(what << " happened " << happened[what] << " times");
    REQUIRE((count < 40 || happened[what] > 0));
  }
}

}  // namespace sluice::raft
