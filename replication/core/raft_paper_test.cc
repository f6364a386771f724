// What the Raft paper and the dissertation say, by section, and corners where other implementations have fallen.
// "5.x" to "7" are sections of the paper; "diss." of the dissertation.
#include <catch2/catch.hpp>
#include <set>

#include "replication/core/test_group.h"

namespace sluice::raft {

namespace {

class Paper : public TestGroup {
 public:
  explicit Paper(int count = 3, Options opts = {}) : TestGroup(opts), count_(count) {
    std::vector<int> all;
    for (int n = 1; n <= count; ++n) all.push_back(n);
    for (int n : all) Add(n, Members(all));
  }

  /// 1 leads term 1 and has committed its first entry everywhere.
  Paper& Led() {
    REQUIRE(Campaign(1).ok());
    Run();
    REQUIRE(Leader() == 1);
    Spread();
    return *this;
  }
  /// Heartbeats, and what follows from them.
  void Spread(int times = 3) {
    for (int i = 0; i < times; ++i) {
      for (auto& [number, n] : nodes) Tick(number);
      Run();
    }
  }
  /// The replica restarts with a log of one-record batches of these epochs.
  void GiveLog(int number, const std::vector<int>& epochs, int term) {
    DiskImage& disk = node(number).durable;
    disk.log.clear();
    for (size_t i = 0; i < epochs.size(); ++i) {
      disk.log.push_back(Data("x").Assign(Offset(static_cast<int64_t>(i)), LeaderEpoch(epochs[i])));
    }
    disk.hard_state = {LeaderEpoch(term), VoterId{}};
    Restart(number);
  }
  Message From(int from, int to, int term, MessageBody body) const {
    return {Id(from), Id(to), LeaderEpoch(term), std::move(body)};
  }
  Message VoteAsked(int from, int to, int term, LogPlace last, bool pre_vote = false) const {
    return From(from, to, term, VoteRequest{pre_vote, false, last});
  }
  /// What `from` has sent of this kind and is still under way.
  template <class Body>
  std::vector<Body> Sent(int from) const {
    std::vector<Body> found;
    for (const Message& message : network) {
      if (message.from != Id(from)) continue;
      if (const auto* body = std::get_if<Body>(&message.body)) found.push_back(*body);
    }
    return found;
  }
  /// The first node of `among` that campaigns leads.
  void MakeLeader(int number) {
    for (int tries = 0; tries < 50 && Leader() != number; ++tries) {
      for (auto& [other, n] : nodes) Tick(other, other == number ? 0 : 1);
      if (at(number).role() != Role::kLeader) (void)Campaign(number);
      Run();
    }
    REQUIRE(Leader() == number);
  }
  /// Time passes until one that is not isolated leads and serves.
  int ElectAmongThose() {
    const auto leads = [this](int n) {
      return std::find(isolated.begin(), isolated.end(), n) == isolated.end() && at(n).Serving();
    };
    for (int i = 0; i < 200; ++i) {
      Spread(1);
      for (int n = 1; n <= count_; ++n) {
        if (leads(n)) return n;
      }
    }
    FAIL("nobody came to lead");
    return 0;
  }
  std::vector<int> Epochs(int number) const {
    std::vector<int> all;
    for (const record::Batch& b : nodes.at(number).memory.log) all.push_back(b.epoch().value());
    return all;
  }
  bool SameLogs() const {
    for (int n = 2; n <= count_; ++n) {
      if (Log(n) != Log(1)) return false;
    }
    return true;
  }

 private:
  const int count_;
};

LogPlace Place(int epoch, int64_t end) {
  return {LeaderEpoch(epoch), Offset(end)};
}

}  // namespace

// ---- 5.1: terms

TEST_CASE("5.1: a leader that hears of a newer term follows, and has it on disk before it answers") {
  Paper g;
  g.Led();
  Message asks = g.VoteAsked(2, 1, 5, Place(1, 1));
  std::get<VoteRequest>(asks.body).transfer = true;
  REQUIRE(g.Step(std::move(asks)).ok());
  REQUIRE(g.at(1).role() == Role::kFollower);
  REQUIRE(g.at(1).term() == LeaderEpoch(5));
  g.TakeReady(1);
  REQUIRE(g.Sent<VoteResponse>(1).empty());
  g.Persist(1);
  REQUIRE(g.node(1).durable.hard_state == HardState{LeaderEpoch(5), TestGroup::Id(2)});
  g.TakeReady(1);
  REQUIRE(g.Sent<VoteResponse>(1).size() == 1);
}

TEST_CASE("5.1: what a leader of an older term sends changes nothing, and it is told the newer term") {
  Paper g;
  g.Led();
  g.isolated = {1};
  g.MakeLeader(2);
  const std::string log = g.Log(3);
  const LeaderEpoch term = g.at(3).term();
  REQUIRE(
      g.Step(g.From(1, 3, 1,
                    AppendRequest{Place(1, 1), Offset(2), {TestGroup::Data("old").Assign(Offset(1), LeaderEpoch(1))}}))
          .ok());
  g.TakeReady(3);
  REQUIRE(g.Log(3) == log);
  REQUIRE(g.at(3).leader() == TestGroup::Id(2));
  REQUIRE(g.Sent<AppendResponse>(3).empty());
  REQUIRE(g.network.back().term == term);
  g.isolated = {};
  g.Run();
  REQUIRE(g.at(1).role() == Role::kFollower);
}

// ---- 5.2: elections

TEST_CASE("5.2: three replicas elect a leader, and one proposal is committed everywhere") {
  TestGroup g;
  for (int n : {1, 2, 3}) g.Add(n, TestGroup::Members({1, 2, 3}));
  REQUIRE(g.Campaign(1).ok());
  g.Run();
  REQUIRE(g.Leader() == 1);
  REQUIRE(g.Propose(1, "hello", 3).ok());
  g.Run();
  INFO(g.trace);
  for (int n : {1, 2, 3}) {
    REQUIRE(g.at(n).committed() == Offset(4));
    REQUIRE(g.Log(n) == "0-0:1c 1-3:1");
  }
}

TEST_CASE("5.2: a vote is given to the first who asks in a term and to nobody else, over a restart too") {
  Paper g;
  REQUIRE(g.Step(g.VoteAsked(1, 3, 1, {})).ok());
  g.TakeReady(3);
  REQUIRE(g.Sent<VoteResponse>(3).empty());  // not on disk yet
  g.Persist(3);
  g.TakeReady(3);
  REQUIRE(g.Sent<VoteResponse>(3).at(0).granted);
  g.Restart(3);
  g.network.clear();
  REQUIRE(g.Step(g.VoteAsked(2, 3, 1, {})).ok());
  REQUIRE(g.Step(g.VoteAsked(1, 3, 1, {})).ok());  // its answer may have been lost
  g.TakeReady(3);
  g.Persist(3);
  g.TakeReady(3);
  const auto answers = g.Sent<VoteResponse>(3);
  REQUIRE(answers.size() == 2);
  CHECK_FALSE(answers[0].granted);
  CHECK(answers[1].granted);
}

TEST_CASE("5.2: of a split vote nobody leads, and a later term decides") {
  Paper g(4);
  for (int n : {1, 2}) REQUIRE(g.Campaign(n).ok());
  // Each wins its pre-vote before it hears of the other's election, and 3 and 4 vote for one each.
  for (int n : {1, 2}) g.TakeReady(n);
  g.Deliver();
  for (int n : {1, 2, 3, 4}) g.TakeReady(n);
  g.Deliver();
  for (int n : {1, 2}) {
    g.TakeReady(n);
    g.Persist(n);
    g.TakeReady(n);
  }
  REQUIRE(g.at(1).role() == Role::kCandidate);
  REQUIRE(g.at(2).role() == Role::kCandidate);
  g.Deliver(3, 1);
  g.Deliver(4, 2);
  g.Run();
  REQUIRE(g.Leader() == 0);
  const LeaderEpoch split = g.at(1).term();
  const int leader = g.Elect();
  REQUIRE(g.at(leader).term() > split);
}

TEST_CASE("5.2: election time-outs differ by chance, and are at least the least and less than twice that") {
  Options options;
  options.election_ticks = 10;
  Paper g(3, options);
  std::set<int> seen;
  int ticks = 0;
  for (int i = 0; i < 2000; ++i) {
    g.Tick(1);
    ++ticks;
    g.TakeReady(1);
    if (g.Sent<VoteRequest>(1).empty()) continue;
    g.network.clear();
    CHECK(ticks >= 10);
    CHECK(ticks < 20);
    seen.insert(ticks);
    ticks = 0;
  }
  CHECK(seen.size() >= 8);
}

TEST_CASE("5.2: a candidate that hears of the leader of its term follows it") {
  Paper g;
  REQUIRE(g.Campaign(3).ok());
  g.Run();
  g.Restart(3);
  g.MakeLeader(1);
  g.isolated = {3};
  g.Spread();
  // 3 believes to campaign in the term that 1 leads.
  const LeaderEpoch term = g.at(1).term();
  REQUIRE(g.Campaign(3).ok());
  REQUIRE(g.at(3).role() == Role::kPreCandidate);
  REQUIRE(g.at(3).term() == term);
  g.isolated = {};
  g.Drop();
  g.Spread();
  CHECK(g.at(3).role() == Role::kFollower);
  CHECK(g.at(3).leader() == TestGroup::Id(1));
  CHECK(g.at(1).term() == term);
}

// ---- 5.3: replication

TEST_CASE("5.3: a leader brings every log of figure 7 to its own") {
  Paper g(7);
  g.GiveLog(1, {1, 1, 1, 4, 4, 5, 5, 6, 6, 6}, 7);
  g.GiveLog(2, {1, 1, 1, 4, 4, 5, 5, 6, 6}, 6);
  g.GiveLog(3, {1, 1, 1, 4}, 4);
  g.GiveLog(4, {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}, 6);
  g.GiveLog(5, {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, 7);
  g.GiveLog(6, {1, 1, 1, 4, 4, 4, 4}, 4);
  g.GiveLog(7, {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}, 3);
  REQUIRE(g.Campaign(1).ok());
  g.Run();
  REQUIRE(g.Leader() == 1);
  g.Spread(10);
  INFO(g.trace);
  REQUIRE(g.Epochs(1) == std::vector<int>{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8});
  REQUIRE(g.SameLogs());
  for (int n = 1; n <= 7; ++n) CHECK(g.at(n).committed() == Offset(11));
}

TEST_CASE("5.3: a follower acknowledges only what its disk has") {
  Paper g;
  g.Led();
  REQUIRE(g.Propose(1).ok());
  g.TakeReady(1);
  g.Deliver(2);
  g.TakeReady(2);
  REQUIRE(g.Sent<AppendResponse>(2).empty());
  g.Persist(2);
  g.TakeReady(2);
  REQUIRE(g.Sent<AppendResponse>(2).size() == 1);
  REQUIRE(g.Sent<AppendResponse>(2)[0].end == Offset(2));
}

TEST_CASE("5.3: messages that come twice, or late, change nothing") {
  Paper g;
  g.Led();
  std::deque<Message> kept;
  for (int i = 0; i < 5; ++i) {
    REQUIRE(g.Propose(1).ok());
    g.TakeReady(1);
    kept.insert(kept.end(), g.network.begin(), g.network.end());
    g.Run();
  }
  g.Spread();
  const std::string log = g.Log(1);
  REQUIRE(g.SameLogs());
  std::reverse(kept.begin(), kept.end());
  for (const Message& late : kept) REQUIRE(g.Step(late).ok());
  g.Run();
  CHECK(g.Log(1) == log);
  CHECK(g.SameLogs());
  for (int n : {1, 2, 3}) CHECK(g.at(n).committed() == Offset(6));
}

TEST_CASE("5.3: a leader never changes its own log, and nobody commits what a leader merely claims to be committed") {
  Paper g;
  g.Led();
  REQUIRE(g.Propose(1).ok());
  g.Run();
  // Node 2's log is known to agree with a new leader's nowhere yet.
  REQUIRE(g.Step(g.From(3, 2, 2, Heartbeat{Offset(100), true, 0, {}, kNoDoubt})).ok());
  g.TakeReady(2);
  CHECK(g.at(2).committed() <= g.at(2).log_end());
  const Offset before = g.at(2).committed();
  REQUIRE(g.Step(g.From(3, 2, 2, AppendRequest{Place(1, 1), Offset(100), {}})).ok());
  CHECK(g.at(2).committed() == std::max(before, Offset(1)));
}

// ---- 5.4: safety

TEST_CASE("5.4.1: a longer log of an older epoch wins no vote, an equal or newer one does") {
  Paper g;
  g.GiveLog(3, {1, 2}, 2);
  const auto vote = [&](LogPlace last, int term) {
    g.network.clear();
    REQUIRE(g.Step(g.VoteAsked(1, 3, term, last)).ok());
    g.TakeReady(3);
    g.Persist(3);
    g.TakeReady(3);
    return g.Sent<VoteResponse>(3).at(0).granted;
  };
  CHECK_FALSE(vote(Place(1, 50), 3));
  CHECK_FALSE(vote(Place(2, 1), 4));
  CHECK(vote(Place(2, 2), 5));
  CHECK(vote(Place(3, 1), 6));
}

TEST_CASE("5.4.2: an entry of an earlier term is not committed by counting replicas (figure 8)") {
  Options options;
  options.message_bytes_max = 1;  // a batch a message
  Paper g(5, options);
  g.GiveLog(1, {1, 2}, 3);
  g.GiveLog(2, {1, 2}, 2);
  g.GiveLog(3, {1}, 2);
  g.GiveLog(4, {1}, 3);
  g.GiveLog(5, {1, 3}, 3);
  g.isolated = {4, 5};
  REQUIRE(g.Campaign(1).ok());
  // (c): the entry of epoch 2 reaches 3, and with it a majority; the leader's own first entry does not.
  for (int round = 0; round < 40 && g.Epochs(3).size() < 2; ++round) {
    for (int n : {1, 2, 3}) {
      g.TakeReady(n);
      g.Persist(n);
    }
    for (Message& message : g.network) {
      auto* append = std::get_if<AppendRequest>(&message.body);
      if (append == nullptr || append->batches.empty()) continue;
      if (append->batches.front().epoch() > LeaderEpoch(2)) append->batches.clear();
    }
    g.Deliver();
    g.Tick(1);
  }
  REQUIRE(g.at(1).role() == Role::kLeader);
  REQUIRE(g.Epochs(3) == std::vector<int>{1, 2});
  g.TakeReady(3);
  g.Persist(3);
  g.TakeReady(3);
  g.Deliver(1, 3);
  CHECK(g.at(1).committed() <= Offset(1));
  // (d): so 5 may still win, and replace it.
  g.Crash(1);
  g.network.clear();
  g.isolated = {};
  g.MakeLeader(5);
  g.Spread();
  for (int n : {2, 3, 4, 5}) CHECK(g.Epochs(n).at(1) == 3);
}

TEST_CASE("5.4.3: whoever leads next has all that was committed, whichever minority is gone") {
  for (int gone = 1; gone <= 3; ++gone) {
    for (int away = 1; away <= 3; ++away) {
      Paper g;
      g.Led();
      g.isolated = {away};
      const int leader = g.ElectAmongThose();
      for (int i = 0; i < 3; ++i) REQUIRE(g.Propose(leader).ok());
      g.Run();
      const Offset committed = g.at(leader).committed();
      REQUIRE(committed == g.at(leader).log_end());
      g.isolated = {gone};
      const int next = g.ElectAmongThose();
      INFO("away " << away << ", gone " << gone << ", then " << next << " leads");
      REQUIRE(g.at(next).committed() >= committed);  // and TestGroup compares what is there
    }
  }
}

// ---- diss. 3.10: leadership transfer

TEST_CASE("diss. 3.10: leadership moves at once, without anybody's time-out") {
  Paper g;
  g.Led();
  REQUIRE(g.at(1).TransferLeadership(TestGroup::Id(3)).ok());
  g.Run();
  CHECK(g.Leader() == 3);
  CHECK(g.at(3).term() == LeaderEpoch(2));
}

TEST_CASE("diss. 3.10: a transfer to a follower that does not answer is given up after an election time-out") {
  Paper g;
  g.Led();
  g.isolated = {3};
  REQUIRE(g.Propose(1).ok());
  g.Run();
  REQUIRE(g.at(1).TransferLeadership(TestGroup::Id(3)).ok());
  REQUIRE(absl::IsUnavailable(g.Propose(1).status()));
  g.Spread(g.options.election_ticks + 1);
  CHECK_FALSE(g.at(1).transferring());
  CHECK(g.Leader() == 1);
  CHECK(g.Propose(1).ok());
}

TEST_CASE("diss. 3.10: a transfer ends with the leadership it was to move") {
  Paper g;
  g.Led();
  g.isolated = {3};
  REQUIRE(g.Propose(1).ok());
  g.Run();
  REQUIRE(g.at(1).TransferLeadership(TestGroup::Id(3)).ok());
  g.at(1).StepDown();
  CHECK_FALSE(g.at(1).transferring());
  g.isolated = {};
  const int leader = g.Elect();
  CHECK(g.Propose(leader).ok());
}

TEST_CASE("diss. 3.10: nobody but a voter is handed leadership") {
  TestGroup g;
  for (int n : {1, 2, 3}) g.Add(n, TestGroup::Members({1, 2}, {3}));
  REQUIRE(g.Campaign(1).ok());
  g.Run();
  CHECK(absl::IsInvalidArgument(g.at(1).TransferLeadership(TestGroup::Id(3))));
  CHECK(absl::IsInvalidArgument(g.at(1).TransferLeadership(TestGroup::Id(1))));
  CHECK(absl::IsUnavailable(g.at(2).TransferLeadership(TestGroup::Id(1))));
}

// ---- 6, and diss. 4: membership

TEST_CASE("diss. 4.1: a configuration is in use from its append, and one change of one member goes at a time") {
  Paper g;
  g.Led();
  g.Add(4, Configuration{});
  CHECK(absl::IsInvalidArgument(g.Change(1, TestGroup::Members({1, 4})).status()));
  g.isolated = {2, 3, 4};
  REQUIRE(g.Change(1, TestGroup::Members({1, 2, 3, 4})).ok());
  CHECK(g.at(1).configuration().voters.size() == 4);
  CHECK(absl::IsFailedPrecondition(g.Change(1, TestGroup::Members({1, 2, 3})).status()));
  // Three of four are needed now.
  g.isolated = {3, 4};
  g.Run();
  CHECK(g.at(1).committed() == Offset(1));
  g.isolated = {4};
  g.Spread();
  CHECK(g.at(1).committed() == Offset(2));
  CHECK(g.Change(1, TestGroup::Members({1, 2, 3})).ok());
}

TEST_CASE("diss. 4.1: a change that was never committed is undone with its entry") {
  Paper g;
  g.Led();
  g.isolated = {1};
  REQUIRE(g.Change(1, TestGroup::Members({1, 2})).ok());
  g.Run();
  g.MakeLeader(2);
  g.isolated = {};
  g.Spread();
  for (int n : {1, 2, 3}) CHECK(g.at(n).configuration() == TestGroup::Members({1, 2, 3}));
}

// Found after the dissertation: with single-server changes, a leader that begins one before it has committed an entry
// of its own term may share no quorum with a leader whose uncommitted change it does not know.
TEST_CASE("diss. 4.1, as corrected: a new leader changes no members before an entry of its term is committed") {
  Paper g(4);
  g.Led();
  // 1 removes itself... and only 1 knows.
  g.isolated = {1};
  REQUIRE(g.Change(1, TestGroup::Members({1, 2, 3})).ok());
  g.Run();
  // 2 leads, and cannot commit yet.
  for (int n : {2, 3, 4}) g.Tick(n, g.options.election_ticks);
  g.network.clear();
  for (int tries = 0; tries < 20 && g.at(2).role() != Role::kLeader; ++tries) {
    if (g.at(2).role() == Role::kFollower) (void)g.Campaign(2);
    for (int n : {2, 3, 4}) {
      g.TakeReady(n);
      g.Persist(n);
      g.TakeReady(n);
    }
    std::erase_if(g.network, [](const Message& m) { return std::holds_alternative<AppendRequest>(m.body); });
    g.Deliver();
  }
  REQUIRE(g.at(2).role() == Role::kLeader);
  CHECK_FALSE(g.at(2).Serving());
  CHECK(absl::IsFailedPrecondition(g.Change(2, TestGroup::Members({2, 3, 4})).status()));
  g.Spread();
  REQUIRE(g.at(2).Serving());
  CHECK(g.Change(2, TestGroup::Members({2, 3, 4})).ok());
  g.Spread();
  g.isolated = {};
  g.Spread();
  CHECK(g.at(2).configuration() == TestGroup::Members({2, 3, 4}));
  CHECK(g.Leader() == 2);
}

TEST_CASE("diss. 4.2.1: a learner gets the log, and counts neither for commits nor for votes") {
  TestGroup g;
  for (int n : {1, 2, 3, 4}) g.Add(n, TestGroup::Members({1, 2}, {3, 4}));
  REQUIRE(g.Campaign(1).ok());
  g.Run();
  REQUIRE(g.Propose(1).ok());
  g.Run();
  CHECK(g.Log(3) == g.Log(1));
  g.isolated = {2};
  REQUIRE(g.Propose(1).ok());
  g.Run();
  CHECK(g.Log(3) == g.Log(1));
  CHECK(g.at(1).committed() == Offset(2));
  CHECK(absl::IsFailedPrecondition(g.Campaign(3)));
  g.isolated = {1, 2};
  g.Tick(3, 100);
  g.Run();
  CHECK(g.at(3).role() == Role::kFollower);
}

TEST_CASE("diss. 4.2.2: a leader that removes itself does not count itself, and goes once that is committed") {
  Paper g;
  g.Led();
  g.isolated = {3};
  REQUIRE(g.Change(1, TestGroup::Members({2, 3})).ok());
  g.Run();
  // 1 and 2 have it; of {2, 3} that is one.
  CHECK(g.at(1).committed() == Offset(1));
  CHECK(g.at(1).role() == Role::kLeader);
  g.isolated = {};
  g.Spread(2);
  CHECK(g.at(1).role() == Role::kFollower);
  const int leader = g.Elect();
  CHECK(leader != 1);
  CHECK(g.Propose(leader).ok());
  g.Run();
  CHECK(g.at(leader).committed() == g.at(leader).log_end());
  CHECK(absl::IsFailedPrecondition(g.Campaign(1)));
}

TEST_CASE("diss. 4.2.3: a removed member that does not know it disturbs nobody, however often it campaigns") {
  Paper g;
  g.Led();
  g.isolated = {3};
  REQUIRE(g.Change(1, TestGroup::Members({1, 2})).ok());
  g.Run();
  REQUIRE(g.at(1).committed() == Offset(2));
  g.isolated = {};
  for (int i = 0; i < 100; ++i) {
    for (int n : {1, 2, 3}) g.Tick(n);
    // A real vote, also from one that does not ask before.
    if (i % 20 == 0) (void)g.Step(g.VoteAsked(3, 2, 40 + i, Place(1, 1)));
    g.Run();
  }
  CHECK(g.at(1).role() == Role::kLeader);
  CHECK(g.at(1).term() == LeaderEpoch(1));
  CHECK(g.at(2).term() == LeaderEpoch(1));
}

// ---- 7: snapshots

TEST_CASE("7: a follower that the leader's log start has passed begins anew, and goes on from there") {
  Paper g;
  g.Led();
  g.isolated = {3};
  for (int i = 0; i < 10; ++i) REQUIRE(g.Propose(1).ok());
  g.Run();
  g.MoveLogStart(1, Offset(6));
  // What the leader still has in memory must not help.
  g.isolated = {2, 3};
  g.at(1).StepDown();
  g.isolated = {3};
  g.MakeLeader(1);
  g.isolated = {};
  g.Spread(5);
  INFO(g.trace);
  CHECK(g.trace.find("3 has installed a snapshot at 6") != std::string::npos);
  CHECK(g.at(3).log_start() == Offset(6));
  CHECK(g.at(3).log_end() == g.at(1).log_end());
  CHECK(g.at(3).committed() == g.at(1).committed());
}

TEST_CASE("7: a snapshot of what a follower has already leaves its log as it is") {
  Paper g;
  g.Led();
  for (int i = 0; i < 5; ++i) REQUIRE(g.Propose(1).ok());
  g.Run();
  g.Spread();
  const std::string log = g.Log(2);
  const ConfigurationAt members{Offset(-1), LeaderEpoch(0), TestGroup::Members({1, 2, 3})};
  REQUIRE(g.Step(g.From(1, 2, 1, InstallSnapshot{Place(1, 3), LeaderEpoch(1), members, Offset(3), Bytes()})).ok());
  g.TakeReady(2);
  CHECK_FALSE(g.at(2).installing());
  CHECK(g.Log(2) == log);
  CHECK(g.Sent<AppendResponse>(2).size() == 1);
}

// ---- diss. 6.2, 9.6: check quorum and pre-vote

TEST_CASE("diss. 6.2: a leader that no quorum answers steps down, one that a quorum answers stays") {
  Paper g;
  g.Led();
  g.isolated = {3};
  g.Spread(50);
  CHECK(g.at(1).role() == Role::kLeader);
  g.isolated = {1};
  g.Tick(1, 2 * g.options.election_ticks);
  CHECK(g.at(1).role() != Role::kLeader);
  CHECK(absl::IsUnavailable(g.Propose(1).status()));
}

TEST_CASE("diss. 9.6: a member that was cut off comes back without a newer term, and the leader stays") {
  Paper g;
  g.Led();
  g.isolated = {3};
  for (int i = 0; i < 200; ++i) {
    for (int n : {1, 2, 3}) g.Tick(n);
    g.Run();
  }
  CHECK(g.at(3).term() == LeaderEpoch(1));
  g.isolated = {};
  g.Spread(10);
  CHECK(g.Leader() == 1);
  CHECK(g.at(1).term() == LeaderEpoch(1));
  CHECK(g.at(3).leader() == TestGroup::Id(1));
}

// ---- diss. 6.4: read index

TEST_CASE("diss. 6.4: a new leader answers no read before it knows what is committed") {
  Paper g;
  g.Led();
  for (int i = 0; i < 3; ++i) REQUIRE(g.Propose(1).ok());
  g.TakeReady(1);
  g.Persist(1);
  g.Deliver();
  for (int n : {2, 3}) {
    g.TakeReady(n);
    g.Persist(n);
    g.TakeReady(n);
  }
  g.Deliver(1);
  g.TakeReady(1);
  REQUIRE(g.node(1).committed == Offset(4));  // the followers do not know
  g.network.clear();
  g.Crash(1);
  for (int n : {2, 3}) g.at(n).OnLeaderLost();
  for (int tries = 0; tries < 20 && g.at(2).role() != Role::kLeader; ++tries) {
    if (g.at(2).role() == Role::kFollower) (void)g.Campaign(2);
    for (int n : {2, 3}) {
      g.TakeReady(n);
      g.Persist(n);
      g.TakeReady(n);
    }
    std::erase_if(g.network, [](const Message& m) { return std::holds_alternative<AppendRequest>(m.body); });
    g.Deliver();
  }
  REQUIRE(g.at(2).role() == Role::kLeader);
  REQUIRE(g.ReadIndex(2, 77).ok());
  g.TakeReady(2);
  CHECK(g.node(2).reads.empty());
  g.Spread();
  REQUIRE(g.node(2).reads.size() == 1);
  REQUIRE(g.node(2).reads[0].index.has_value());
  CHECK(*g.node(2).reads[0].index >= Offset(4));
}

TEST_CASE("diss. 6.4: a leader that was replaced without knowing answers no read") {
  Paper g;
  g.Led();
  g.isolated = {1};
  g.MakeLeader(2);
  REQUIRE(g.Propose(2).ok());
  g.Run();
  REQUIRE(g.at(1).role() == Role::kLeader);
  REQUIRE(g.ReadIndex(1, 5).ok());
  g.Run();
  CHECK(g.node(1).reads.empty());
  g.isolated = {};
  g.Spread();
  REQUIRE(g.node(1).reads.size() == 1);
  CHECK_FALSE(g.node(1).reads[0].index.has_value());
}

// ---- Corners where others have fallen

// The one refuses for the older log, the other is refused for the older term: with pre-votes nobody's term would ever
// grow, unless a refusal tells of the newer one.
TEST_CASE("of two that are left, the longer log wins though it comes with the older term") {
  Paper g;
  g.GiveLog(2, {1, 1, 1}, 1);
  g.GiveLog(3, {1}, 6);
  g.Crash(1);
  CHECK(g.Elect() == 2);
  CHECK(g.at(2).term() > LeaderEpoch(6));
}

TEST_CASE("one that comes back with an old term and an old log still makes a quorum") {
  Paper g(4);
  g.Led();
  g.Crash(2);
  REQUIRE(g.Propose(1).ok());
  g.Spread();
  for (int i = 0; i < 5; ++i) {
    g.at(g.Leader()).StepDown();
    g.Elect();
  }
  g.Crash(1);
  for (int i = 0; i < 100; ++i) {
    for (int n : {3, 4}) g.Tick(n);
    g.Run();
  }
  REQUIRE(g.Leader() == 0);
  g.Restart(2);
  const int leader = g.Elect();
  CHECK(leader != 2);  // its log is the shortest
  g.Spread();
  CHECK(g.Log(2) == g.Log(leader));
}

TEST_CASE("a sole voter commits nothing that its disk does not have") {
  TestGroup g;
  g.Add(1, TestGroup::Members({1}));
  REQUIRE(g.Campaign(1).ok());
  g.Run();
  const Offset before = g.at(1).committed();
  REQUIRE(g.Propose(1).ok());
  g.TakeReady(1);
  CHECK(g.at(1).committed() == before);
  g.Persist(1);
  g.TakeReady(1);
  CHECK(g.at(1).committed() == before + 1);
}

TEST_CASE("an acknowledgement of an earlier life of a disk counts for nothing") {
  Paper g;
  g.Led();
  g.isolated = {2, 3};
  REQUIRE(g.Propose(1).ok());
  g.Run();
  Message late = g.From(2, 1, 1, AppendResponse{false, Offset(2), {}, Offset(2), Offset(1), kNoDoubt});
  late.from = TestGroup::Id(2, 9);  // another incarnation
  REQUIRE(g.Step(late).ok());
  CHECK(g.at(1).committed() == Offset(1));
  REQUIRE(g.Step(g.From(2, 1, 1, AppendResponse{false, Offset(2), {}, Offset(2), Offset(1), kNoDoubt})).ok());
  CHECK(g.at(1).committed() == Offset(2));
}

TEST_CASE("a group whose nodes all lose power at once goes on where it was") {
  Paper g;
  g.Led();
  for (int i = 0; i < 4; ++i) REQUIRE(g.Propose(1).ok());
  g.Run();
  const std::string log = g.Log(1);
  for (int n : {1, 2, 3}) g.Crash(n);
  for (int n : {1, 2, 3}) g.Restart(n);
  const int leader = g.Elect();
  CHECK(g.at(leader).committed() >= Offset(5));
  CHECK(g.Log(leader).substr(0, log.size()) == log);
}

}  // namespace sluice::raft
