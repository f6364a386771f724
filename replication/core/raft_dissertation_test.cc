// What the dissertation says beyond the paper, by section ("diss."; 6 and 7 are the paper's).
#include <catch2/catch.hpp>

#include "replication/core/paper_group.h"

namespace sluice::raft {
namespace {

/// The first leads among `voters`, and none of its entries reaches anybody.
void LeadUnheard(Paper& g, const std::vector<int>& voters) {
  const int first = voters.front();
  for (int tries = 0; tries < 20 && g.at(first).role() != Role::kLeader; ++tries) {
    if (g.at(first).role() == Role::kFollower) (void)g.Campaign(first);
    for (int n : voters) {
      g.TakeReady(n);
      g.Persist(n);
      g.TakeReady(n);
    }
    std::erase_if(g.network, [](const Message& m) { return std::holds_alternative<AppendRequest>(m.body); });
    g.Deliver();
  }
  REQUIRE(g.at(first).role() == Role::kLeader);
}

/// 3 has heard nothing of ten entries, and the leader's log begins behind some of them.
void LeaveThreeBehind(Paper& g) {
  g.Led();
  g.isolated = {3};
  g.ProposeSome(1, 10);
  g.MoveLogStart(1, Offset(6));
}

/// 1 leads once more, without what it still had in memory; then 3 is heard again.
void LeadAnewAndSpread(Paper& g) {
  g.isolated = {2, 3};
  g.at(1).StepDown();
  g.isolated = {3};
  g.MakeLeader(1);
  g.isolated = {};
  g.Spread(5);
}

}  // namespace

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
  g.ProposeSome(1);
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
  g.ProposeSome(1);
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
  LeadUnheard(g, {2, 3, 4});
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
  LeaveThreeBehind(g);
  LeadAnewAndSpread(g);
  INFO(g.trace);
  CHECK(g.trace.find("3 has installed a snapshot at 6") != std::string::npos);
  CHECK(g.at(3).log_start() == Offset(6));
  CHECK(g.at(3).log_end() == g.at(1).log_end());
  CHECK(g.at(3).committed() == g.at(1).committed());
}

// A restart forgets what is committed, and remembers what was applied of it.
TEST_CASE("7: a leader that has not found out yet that its state is committed gives it to the follower that it needs") {
  Paper g;
  LeaveThreeBehind(g);
  g.node(1).state = g.at(1).committed();
  g.Restart(1);
  REQUIRE(g.at(1).committed() < *g.node(1).state);
  g.Crash(2);
  g.isolated = {};
  g.MakeLeader(1);
  g.Spread(5);
  INFO(g.trace);
  CHECK(g.trace.find("3 has installed a snapshot at 11") != std::string::npos);
  CHECK(g.at(1).committed() == g.at(1).log_end());
  CHECK(g.at(3).committed() == g.at(1).log_end());
}

TEST_CASE("7: a snapshot of more than the leader's log has is not sent") {
  Paper g;
  LeaveThreeBehind(g);
  g.node(1).state = g.at(1).log_end() + 5;
  LeadAnewAndSpread(g);
  INFO(g.trace);
  CHECK(g.trace.find("installed a snapshot") == std::string::npos);
  CHECK(g.trace.find("a snapshot at 16") != std::string::npos);
}

TEST_CASE("7: a snapshot of what a follower has already leaves its log as it is") {
  Paper g;
  g.Led();
  g.ProposeSome(1, 5);
  g.Spread();
  const std::string log = g.Log(2);
  const ConfigurationAt members{Offset(-1), LeaderEpoch(0), TestGroup::Members({1, 2, 3})};
  REQUIRE(g.Step(g.From(1, 2, 1, InstallSnapshot{Place(1, 3), LeaderEpoch(1), members, Offset(3), Bytes()})).ok());
  g.TakeReady(2);
  CHECK_FALSE(g.at(2).installing());
  CHECK(g.Log(2) == log);
  CHECK(g.Sent<AppendResponse>(2).size() == 1);
}

// Else nothing could be sent from where it says that it got.
TEST_CASE("7: a follower that knows the half of a batch to be committed answers a snapshot with where a batch ends") {
  Paper g;
  g.Led();
  REQUIRE(g.Propose(1, "x", 4).ok());
  g.Run();
  const Offset base = g.at(2).log_end() - 4;
  g.Restart(2);
  g.network.clear();
  const record::Batch batch = g.node(2).memory.log.back();
  REQUIRE(g.Step(g.From(1, 2, 1, AppendRequest{{LeaderEpoch(1), base}, base + 2, {batch}})).ok());
  REQUIRE(g.at(2).committed() == base + 2);
  g.TakeReady(2);
  g.network.clear();
  const ConfigurationAt members{Offset(-1), LeaderEpoch(0), TestGroup::Members({1, 2, 3})};
  REQUIRE(g.Step(g.From(1, 2, 1, InstallSnapshot{{LeaderEpoch(1), base}, LeaderEpoch(1), members, base, {}})).ok());
  g.TakeReady(2);
  REQUIRE(g.Sent<AppendResponse>(2).size() == 1);
  CHECK(g.Sent<AppendResponse>(2)[0].end == base);
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
  g.Spread(200);
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
  LeadUnheard(g, {2, 3});
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
  g.ProposeSome(2);
  REQUIRE(g.at(1).role() == Role::kLeader);
  REQUIRE(g.ReadIndex(1, 5).ok());
  g.Run();
  CHECK(g.node(1).reads.empty());
  g.isolated = {};
  g.Spread();
  REQUIRE(g.node(1).reads.size() == 1);
  CHECK_FALSE(g.node(1).reads[0].index.has_value());
}

}  // namespace sluice::raft
