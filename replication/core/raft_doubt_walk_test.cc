// Random walks over doubt: one replica forgets its last writes, the others change their members, and votes are under
// way. A walk has few steps, and each is large: an election, a write, a change of members, a restart, that some of the
// group take part in for a few rounds of messages while the rest hears nothing, or hears it late. Finds with small
// groups what the simulator's storms (tests/simulation/raft/storm.cc) would need far more luck for. The test group
// checks what must hold after every event. At the end everybody hears everybody: somebody must come to lead, nobody may
// stay in doubt, and nothing may be written for ever. In some larger groups two replicas forget.
//
// SLUICE_SEEDS=1000000 runs more of them, SLUICE_SEED=5 begins with another; of a single one that fails the trace is
// shown.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "common/text.h"
#include "replication/core/test_group.h"

namespace sluice::raft {

namespace {

class Walk {
 public:
  Walk(uint64_t seed, bool traced) : random_(seed * 7919 + 3) { group_.traced = traced; }

  void Go() {
    Begin();
    for (uint64_t i = Below(4); i > 0; --i) OneStep();
    int away = Someone();
    if (two_forget_ && Chance(50)) {
      Forget();
      if (Chance(50)) OneStep(away);
    }
    for (int i = 0; i < 4 && group_.at(away).role() == Role::kLeader; ++i) away = Someone();
    if (Chance(50)) TakeOut(away);
    int forgetful = 0;
    if (Chance(75)) {
      forgetful = ForgetVote(away);
    } else {
      Forget();
    }
    if (forgetful != 0 && Chance(60)) {
      GoOn(away, forgetful);
    } else {
      for (uint64_t i = 1 + Below(5); i > 0; --i) OneStep(Chance(70) ? away : 0);
    }
    End(away);
  }

  const std::string& trace() const { return group_.trace; }

 private:
  uint64_t Below(uint64_t n) { return random_.Next() % n; }
  bool Chance(uint64_t percent) { return Below(100) < percent; }
  void Say(const std::string& what) {
    if (group_.traced) group_.trace += Cat("# ", what, "\n");
  }

  std::vector<int> All() const {
    std::vector<int> all;
    for (const auto& [number, node] : group_.nodes) all.push_back(number);
    return all;
  }
  int Someone() {
    const std::vector<int> all = All();
    return all[Below(all.size())];
  }

  // ---- Who takes part

  /// `who` and some others, but not `away`. Nobody else hears anything.
  std::vector<int> With(int who, int away = 0) {
    std::vector<int> chosen{who};
    for (int n : All()) {
      if (n != who && n != away && Chance(60)) chosen.push_back(n);
    }
    return chosen;
  }

  void Write(const std::vector<int>& who) {
    for (int n : who) {
      group_.TakeReady(n);
      group_.Persist(n);
      group_.TakeReady(n);
    }
  }

  /// What they have written and said so far comes to all of `who`. What goes to others is lost or comes late.
  bool Exchange(const std::vector<int>& who, bool late) {
    const auto in = [&](const VoterId& id) { return std::find(who.begin(), who.end(), id.node.value()) != who.end(); };
    Write(who);
    std::deque<Message> now;
    for (Message& m : std::exchange(group_.network, {})) {
      if (in(m.from) && in(m.to)) {
        now.push_back(std::move(m));
      } else if (late) {
        group_.delayed.push_back(std::move(m));
      }
    }
    for (Message& m : now) (void)group_.Step(std::move(m));
    Snapshots(who);
    return !now.empty();
  }

  void Silence(bool late) {
    if (late) {
      group_.Delay();
    } else {
      group_.Drop();
    }
    while (group_.delayed.size() > 400) group_.delayed.pop_front();
  }

  void Talk(const std::vector<int>& who, uint64_t rounds, bool late) {
    while (rounds > 0 && Exchange(who, late)) --rounds;
    Write(who);
    Silence(late);
  }
  void Talk(const std::vector<int>& who) { Talk(who, Chance(50) ? 1 + Below(5) : 12, Chance(50)); }

  void Snapshots(const std::vector<int>& who) {
    for (int n : who) {
      for (const VoterId& to : std::exchange(group_.node(n).snapshots_wanted, {})) {
        group_.SendSnapshot(n, to.node.value());
      }
      if (group_.node(n).install) group_.Install(n);
    }
  }

  int SomeLeader() {
    std::vector<int> leaders;
    for (int n : All()) {
      if (group_.at(n).role() == Role::kLeader) leaders.push_back(n);
    }
    return leaders.empty() ? 0 : leaders[Below(leaders.size())];
  }

  // ---- Steps

  void Begin() {
    std::vector<int> voters, learners;
    two_forget_ = Chance(15);
    // Mostly the smallest.
    const int count = two_forget_ ? 5 + static_cast<int>(Below(3) / 2) : 3 + static_cast<int>(Below(5) / 2);
    for (int n = 1; n <= count; ++n) voters.push_back(n);
    if (Chance(25)) learners.push_back(count + 1);
    const Configuration members = TestGroup::Members(voters, learners);
    for (int n = 1; n <= count + static_cast<int>(learners.size()); ++n) group_.Add(n, members);
    (void)group_.Campaign(1);
    group_.Run();
    group_.Tick(1);
    group_.Run();
  }

  void OneStep(int away = 0) {
    const uint64_t kind = Below(100);
    if (kind < 30) return Elect(away);
    if (kind < 38) return Restart(Someone());
    if (kind < 45) return Late(Chance(50) ? Someone() : 0, With(Someone()));
    const int leader = SomeLeader();
    if (leader == 0) return Elect(away);
    if (kind < 65) {
      Say(Cat(leader, " writes"));
      (void)group_.Propose(leader);
    } else if (kind < 85) {
      Change(leader, Someone());
    } else {
      group_.Tick(leader);
    }
    Talk(With(leader, away));
    if (!Chance(50)) return;
    group_.Tick(leader);
    Talk(With(leader, away));
  }

  void Elect(int away) {
    const int candidate = Someone();
    const std::vector<int> who = With(candidate, away);
    Say(Cat(candidate, " asks"));
    for (int n : who) group_.at(n).OnLeaderLost();
    (void)group_.Campaign(candidate);
    Talk(who);
  }

  /// A leader takes it out, or makes it a learner, and perhaps nobody knows yet.
  void TakeOut(int n) {
    const int leader = SomeLeader();
    if (leader == 0) return;
    Change(leader, n);
    Talk(With(leader));
    group_.Tick(leader);
    Talk(With(leader));
  }

  void Change(int leader, int n) {
    Configuration next = group_.at(leader).configuration();
    const VoterId who = TestGroup::Id(n);
    const bool voter = next.IsVoter(who), learner = next.IsLearner(who);
    std::erase(next.voters, who);
    std::erase(next.learners, who);
    if (voter ? Chance(40) : !learner) next.learners.push_back(who);
    if (learner && Chance(70) && next.voters.size() >= 3) next.voters.push_back(who);
    std::sort(next.voters.begin(), next.voters.end());
    std::sort(next.learners.begin(), next.learners.end());
    if (next.voters.size() >= (two_forget_ ? 5 : 1)) (void)group_.Change(leader, next);
  }

  void Restart(int n) { group_.Restart(n); }

  void LoseWrites(int n, size_t writes) {
    Say(Cat(n, " forgets"));
    group_.TearOff(n, writes);
    group_.Restart(n);
  }

  /// Who is the only voter has nobody to hear it from again.
  bool MayForget() const {
    return std::all_of(group_.nodes.begin(), group_.nodes.end(),
                       [](const auto& node) { return node.second.raft->configuration().voters.size() >= 2; });
  }

  void Forget() {
    if (MayForget()) LoseWrites(Someone(), 1 + Below(2));
  }

  /// The candidate may have the votes that it needs, but does not hear of them yet. One that gave its vote, or the
  /// candidate, forgets it.
  int ForgetVote(int candidate) {
    std::vector<int> who{candidate};
    for (int n : All()) {
      if (n != candidate && Chance(group_.at(n).role() == Role::kLeader ? 20 : 85)) who.push_back(n);
    }
    Say(Cat(candidate, " asks, and hears late"));
    for (int n : who) group_.at(n).OnLeaderLost();
    (void)group_.Campaign(candidate);
    for (int i = 0; i < 3 && group_.at(candidate).role() != Role::kCandidate; ++i) Exchange(who, false);
    std::vector<int> voting{candidate};
    for (int n : who) {
      if (n != candidate && Chance(60)) voting.push_back(n);
    }
    Exchange(voting, true);
    Write(voting);
    Silence(true);
    if (!MayForget()) return 0;
    const int forgetful = voting[Below(voting.size())];
    LoseWrites(forgetful, 1 + Below(5) / 4);
    return forgetful;
  }

  void Late(int to, const std::vector<int>& who) {
    std::deque<Message> kept;
    for (Message& m : std::exchange(group_.delayed, {})) {
      (to == 0 || m.to.node.value() == to ? group_.network : kept).push_back(std::move(m));
    }
    group_.delayed = std::move(kept);
    Say(Cat("late, to ", to));
    group_.Deliver();
    Talk(who);
  }

  /// Those that see each other go on without the candidate, until nobody is in doubt, if that can be. Then something is
  /// written with the one that has forgotten.
  void GoOn(int away, int forgetful) {
    if (Chance(30)) OneStep(away);
    std::vector<int> others;
    for (int n : All()) {
      if (n != away && Chance(85)) others.push_back(n);
    }
    if (Chance(30)) Restart(others.empty() ? forgetful : others[Below(others.size())]);
    if (Chance(40)) {
      const int candidate = Chance(50) || others.empty() ? forgetful : others[Below(others.size())];
      for (int n : others) group_.at(n).OnLeaderLost();
      (void)group_.Campaign(candidate);
      Talk(others, 12, Chance(30));
    }
    if (Chance(30)) OneStep(away);
    const int leader = SomeLeader();
    if (leader == 0) return;
    for (int i = 0; i < 3; ++i) {
      group_.Tick(leader);
      Talk(others, 12, Chance(20));
    }
    if (Chance(20)) OneStep(away);
    for (uint64_t i = Below(3); i > 0; --i) {
      if (group_.at(leader).role() != Role::kLeader) return;
      (void)group_.Propose(leader);
      Talk(Chance(70) ? std::vector<int>{leader, forgetful} : With(leader, away), 6, Chance(30));
    }
  }

  /// The one that was away hears late; then everybody hears everybody.
  void End(int away) {
    Say("the end");
    if (Chance(50)) {
      for (int n : All()) {
        if (n != away && Chance(70)) Restart(n);
      }
    }
    if (Chance(70)) {
      for (int n : All()) group_.at(n).OnLeaderLost();
    }
    if (Chance(80)) Late(Chance(30) ? away : 0, With(away));
    for (int i = 0; i < 2; ++i) {
      (void)group_.Propose(group_.Elect());
      group_.Run();
      group_.DeliverLate();
    }
    Settle();
  }

  void TickAll(int times) {
    for (int i = 0; i < times; ++i) {
      for (int n : All()) group_.Tick(n);
      group_.Run();
    }
  }

  void Settle() {
    (void)group_.Elect();
    TickAll(40);
    const int leader = group_.Elect();
    const Raft& r = group_.at(leader);
    INFO("the leader is " << leader);
    for (const VoterId& voter : r.configuration().voters) REQUIRE_FALSE(group_.at(voter.node.value()).in_doubt());
    REQUIRE(r.committed() == r.log_end());
    const LeaderEpoch term = r.term();
    const Offset end = r.log_end();
    TickAll(20);
    REQUIRE((r.role() != Role::kLeader || r.term() != term || r.log_end() == end));
  }

  FixedRandom random_;
  TestGroup group_;
  bool two_forget_ = false;
};

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("walks over doubt lose nothing") {
  const uint64_t from = FromEnvironment("SLUICE_SEED", 1), count = FromEnvironment("SLUICE_SEEDS", 10000);
  for (uint64_t seed = from; seed < from + count; ++seed) {
    INFO("SLUICE_SEED=" << seed << " SLUICE_SEEDS=1 shows it");
    Walk walk(seed, count == 1);
    try {
      walk.Go();
    } catch (...) {
      if (count == 1) std::cout << walk.trace();
      throw;
    }
  }
}

}  // namespace sluice::raft
