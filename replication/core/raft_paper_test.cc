// What the Raft paper says, by section (5.1 to 5.4); the rest is in raft_dissertation_test.cc.
#include <catch2/catch.hpp>

#include "replication/core/paper_group.h"

namespace sluice::raft {

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

}  // namespace sluice::raft
