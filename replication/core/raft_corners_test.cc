// Corners of Raft where implementations have fallen: old terms and logs that come back, disks that are not what they
// were. Above each case stands where it was told of in public, and what happened there; docs/reliability.md lists them,
// with those that other tests cover and those that cannot happen here.
#include <catch2/catch.hpp>

#include <utility>

#include "replication/core/paper_group.h"

namespace sluice::raft {
namespace {

// Node 3 was restarted. Of the other two only `leader` is there, so nothing is committed but with node 3's help.
void CheckGetsAllFrom(Paper& g, int leader) {
  g.at(leader).OnUnreachable(TestGroup::Id(3));
  g.isolated = {3 - leader};
  const auto more = g.Propose(leader);
  REQUIRE(more.ok());
  g.Spread(g.options.heartbeat_ticks * 4);
  CHECK(g.Log(3) == g.Log(leader));
  CHECK(g.at(leader).committed() > more->last_offset);
}

}  // namespace

// etcd-io/etcd#8501: a replica with the newer term and the shorter log dropped what the other one sent, and refused
// none of it aloud, so that the other one's term never grew: with pre-votes the group stayed without a leader for ever.
TEST_CASE("of two that are left, the longer log wins though it comes with the older term") {
  Paper g;
  g.GiveLog(2, {1, 1, 1}, 1);
  g.GiveLog(3, {1}, 6);
  g.Crash(1);
  CHECK(g.Elect() == 2);
  CHECK(g.at(2).term() > LeaderEpoch(6));
}

// etcd-io/etcd#8243: pre-votes, and answers to them, with a smaller term than the other's were ignored; when the leader
// died just as a replica came back that had missed some terms, the two that were left elected nobody.
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
  g.Spread(100);
  REQUIRE(g.Leader() == 0);
  g.Restart(2);
  const int leader = g.Elect();
  CHECK(leader != 2);  // its log is the shortest
  g.Spread();
  CHECK(g.Log(2) == g.Log(leader));
}

// etcd-io/etcd#14370: in a cluster of one the core handed out an entry as committed together with the order to write
// it; it was acknowledged, the process died before the write, and it was gone.
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

// redpanda-data/redpanda#9766: nodes were started again under their old number with an empty data folder, and counted
// for what they had acknowledged before.
TEST_CASE("an acknowledgement of an earlier life of a disk counts for nothing") {
  Paper g;
  g.Led();
  g.isolated = {2, 3};
  g.ProposeSome(1);
  Message late = g.From(2, 1, 1, AppendResponse{false, Offset(2), {}, Offset(2), Offset(1), kNoDoubt});
  late.from = TestGroup::Id(2, 9);  // another incarnation
  REQUIRE(g.Step(late).ok());
  CHECK(g.at(1).committed() == Offset(1));
  REQUIRE(g.Step(g.From(2, 1, 1, AppendResponse{false, Offset(2), {}, Offset(2), Offset(1), kNoDoubt})).ok());
  CHECK(g.at(1).committed() == Offset(2));
}

// etcd-io/etcd#14143, #12589: whether an entry that a majority had acknowledged survives that all of them lose power,
// as what is committed is written without a sync.
TEST_CASE("a group whose nodes all lose power at once goes on where it was") {
  Paper g;
  g.Led();
  g.ProposeSome(1, 4);
  const std::string log = g.Log(1);
  for (int n : {1, 2, 3}) g.Crash(n);
  for (int n : {1, 2, 3}) g.Restart(n);
  const int leader = g.Elect();
  CHECK(g.at(leader).committed() >= Offset(5));
  CHECK(g.Log(leader).substr(0, log.size()) == log);
}

namespace {

/// A vote asked for in a term that `from` should never have come to.
Message VoteAtTerm(Paper& g, int from, int to, int32_t term) {
  return g.From(from, to, term, VoteRequest{.pre_vote = false, .transfer = true, .last = {LeaderEpoch(1), Offset(1)}});
}

}  // namespace

// etcd-io/etcd#864: a cluster at term 18446744073709551615, from which there is no next one. hashicorp/raft#586: the
// same, put into one message by a fault injector.
TEST_CASE("one voter's absurd term is refused however often it comes, whatever else it says") {
  Paper g;
  g.Led();
  const auto refused = [&](const Message& message) { return g.Step(message).code() == absl::StatusCode::kOutOfRange; };
  constexpr int32_t kFar = (1 << 20) + 2;
  // Who leads, or hears its leader, believes nobody.
  for (const int replica : {1, 2}) {
    for (const int from : {1, 2, 3}) {
      if (from != replica) CHECK(refused(VoteAtTerm(g, from, replica, kFar)));
    }
  }
  g.Crash(1);
  g.Tick(2, 100);
  for (const int32_t term : {kFar, 1 << 30, kFar}) {
    CHECK(refused(VoteAtTerm(g, 3, 2, term)));
    CHECK(refused(g.From(3, 2, term, HeartbeatResponse{0, Offset(1), Offset(1), kNoDoubt})));
  }
  Message stranger = VoteAtTerm(g, 1, 2, 1 << 30);
  stranger.from = TestGroup::Id(1, 9);
  CHECK(refused(stranger));
  // A leader is heard again: 3 may be well by the time that 1 is not.
  REQUIRE(g.Step(g.From(1, 2, 1, Heartbeat{Offset(1), false, 0, Offset(0), kNoDoubt})).ok());
  g.Tick(2, 100);
  CHECK(refused(VoteAtTerm(g, 1, 2, kFar + 3)));
  CHECK(g.at(2).term() == LeaderEpoch(1));
  // Two who agree are taken at the lower of both words.
  CHECK(refused(VoteAtTerm(g, 3, 2, 1 << 30)));
  CHECK(g.at(2).term() == LeaderEpoch(kFar + 3));
}

// The other side of it: who refuses absurd terms must not refuse for ever what everybody else has come to.
TEST_CASE("a replica that was away while the terms ran absurdly far ahead comes back") {
  Paper g;
  g.Led();
  g.Crash(3);
  for (int i = 1; i <= 4; ++i) {
    const int32_t term = i * ((1 << 20) - 100);
    for (int n : {1, 2}) REQUIRE(g.Step(VoteAtTerm(g, 3, n, term)).ok());
  }
  const int leader = g.Elect();
  REQUIRE(g.at(leader).term().value() > 4'000'000);
  g.ProposeSome(leader, 3);
  g.Restart(3);
  REQUIRE(g.at(3).term() == LeaderEpoch(1));
  g.Spread(100);
  CHECK(g.Log(3) == g.Log(leader));
  CHECK(g.at(3).term() == g.at(leader).term());
}

// etcd-io/etcd#10166, #13509, etcd-io/raft#25: a follower that had lost the end of its log, its folder put back from a
// backup for one, was told what was committed beyond it, and ended itself at each start ("tocommit is out of range").
TEST_CASE("a follower whose disk was put back as it was some time ago gets again what it has lost") {
  Paper g;
  g.Led();
  for (int i = 0; i < 5; ++i) {
    REQUIRE(g.Propose(1).ok());
    g.Run();
  }
  REQUIRE(g.Log(3) == g.Log(1));
  g.LoseTail(3, Offset(2));
  g.Restart(3);  // its journal is whole: it does not know
  CheckGetsAllFrom(g, 1);
}

// redpanda-data/redpanda#9273: a follower's data folder was lost under a leader that went on leading, and remembered
// for it what it had acknowledged.
TEST_CASE("a replaced disk that holds what never was committed is counted for none of it") {
  Paper g;
  g.Led();
  g.ProposeSome(1);
  const Offset shared = g.at(1).log_end();
  REQUIRE(g.at(1).TransferLeadership(TestGroup::Id(2)).ok());
  g.Run();
  REQUIRE(g.Leader() == 2);
  g.ProposeSome(2, 6);
  g.Spread();
  REQUIRE(g.Log(3) == g.Log(2));
  // As the first leader's disk would have been, had it died with two proposals that nobody else got.
  DiskImage& disk = g.node(3).durable;
  std::erase_if(disk.log, [&](const record::Batch& batch) { return batch.base_offset() >= shared; });
  for (int i = 0; i < 2; ++i) disk.log.push_back(TestGroup::Data("z").Assign(shared + i, LeaderEpoch(1)));
  g.Restart(3);
  CheckGetsAllFrom(g, 2);
}

// etcd-io/etcd#10998: a learner was given a vote by an entry that it did not have when the leader died. It would not
// vote, as it knew itself for a learner, and without it nobody could lead who would have told it.
TEST_CASE("one that does not know yet that it was given a vote votes") {
  TestGroup g;
  for (int n : {1, 2, 3}) g.Add(n, TestGroup::Members({1, 2}, {3}));
  REQUIRE(g.Elect() > 0);
  const int leader = g.Leader();
  const int other = 3 - leader;
  g.Run();
  g.isolated = {3};
  REQUIRE(g.Change(leader, TestGroup::Members({1, 2, 3})).ok());
  g.Run();
  REQUIRE(g.at(leader).committed() == g.at(leader).log_end());
  g.Crash(leader);
  g.isolated = {};
  REQUIRE_FALSE(g.at(3).configuration().IsVoter(TestGroup::Id(3)));
  CHECK(g.Elect() == other);
  g.Run();
  CHECK(g.at(3).configuration().IsVoter(TestGroup::Id(3)));
}

// redpanda-data/redpanda#19: to step down took back the vote that had been given in that term, so that two could be
// elected in it.
TEST_CASE("a vote stays given in its term, whether its candidate is heard to lead or nobody is heard any more") {
  Paper g;
  g.Led();
  g.ProposeSome(1, 2);
  g.Spread();
  const auto votes_for = [&](int candidate) {
    g.network.clear();
    const VoteRequest request{.pre_vote = false, .transfer = true, .last = {LeaderEpoch(1), g.at(3).log_end()}};
    REQUIRE(g.Step(g.From(candidate, 3, 2, request)).ok());
    g.TakeReady(3);
    g.Persist(3);
    g.TakeReady(3);
    const auto answers = g.Sent<VoteResponse>(3);
    REQUIRE(answers.size() == 1);
    return answers[0].granted;
  };
  REQUIRE(votes_for(1));
  CHECK_FALSE(votes_for(2));
  REQUIRE(g.Step(g.From(1, 3, 2, Heartbeat{Offset(1), false, 0, Offset(0), kNoDoubt})).ok());
  CHECK_FALSE(votes_for(2));
  g.Tick(3, 3 * g.options.election_ticks);
  REQUIRE(g.at(3).term() == LeaderEpoch(2));
  CHECK_FALSE(votes_for(2));
}

// redpanda-data/redpanda#21345: a vote that was won and a pre-vote that was lost ended at the same time at one replica.
// It led, was made a follower again, and no longer waited for a leader; nor could the others win, with their shorter
// logs.
TEST_CASE("answers to an earlier round of votes change nothing for who leads, nor for when it campaigns") {
  Paper g;
  g.Led();
  for (const bool pre_vote : {true, false}) {
    for (int from : {2, 3}) {
      REQUIRE(g.Step(g.From(from, 1, 1, VoteResponse{.pre_vote = pre_vote, .granted = false})).ok());
    }
  }
  g.Run();
  CHECK(g.Leader() == 1);
  CHECK(g.Propose(1).ok());
  g.Run();
  g.isolated = {2, 3};
  g.at(1).StepDown();
  for (int from : {2, 3}) {
    REQUIRE(g.Step(g.From(from, 1, 1, VoteResponse{.pre_vote = true, .granted = true})).ok());
  }
  g.Run();
  CHECK(g.at(1).role() == Role::kFollower);
  g.isolated = {};
  CHECK(g.Propose(g.Elect()).ok());
}

// A replica that cannot read its log is of use all the same: its vote and its acknowledgements count.
TEST_CASE("who has renounced leads no more, but is counted, and lets another one lead") {
  Paper g;
  g.Led();
  g.ProposeSome(1, 3);
  g.Renounce(1);
  CHECK(g.at(1).role() == Role::kFollower);
  CHECK(absl::IsFailedPrecondition(g.at(1).Campaign()));
  g.isolated = {3};
  g.Spread(5 * g.options.election_ticks);
  REQUIRE(g.Leader() == 2);
  g.ProposeSome(2, 2);
  g.Run();
  CHECK(g.at(2).committed() == g.at(2).log_end());
  CHECK(g.at(1).committed() == g.at(2).committed());
  const LeaderEpoch term = g.at(2).term();
  CHECK(absl::IsFailedPrecondition(g.at(2).TransferLeadership(TestGroup::Id(1))));
  CHECK_FALSE(g.at(2).transferring());
  g.Spread(5 * g.options.election_ticks);
  CHECK(g.Leader() == 2);
  CHECK(g.at(2).term() == term);
  // Alone it does not even ask.
  g.isolated = {2, 3};
  g.Spread(5 * g.options.election_ticks);
  CHECK(g.at(1).role() == Role::kFollower);
  CHECK(g.at(1).term() == term);
}

TEST_CASE("a candidate that renounces asks no more") {
  Paper g;
  g.Led();
  g.isolated = {2};
  REQUIRE(g.at(2).Campaign().ok());
  REQUIRE(g.at(2).role() == Role::kPreCandidate);
  g.Renounce(2);
  CHECK(g.at(2).role() == Role::kFollower);
  g.Spread(5 * g.options.election_ticks);
  CHECK(g.at(2).role() == Role::kFollower);
  g.isolated = {};
  g.Spread(5);
  CHECK(g.Leader() == 1);
}

TEST_CASE("a candidate that renounces while its vote for itself is being written asks for none") {
  Paper g;
  g.Led();
  const Message hand_over = g.From(1, 2, 1, TimeoutNow{});
  REQUIRE(g.Step(hand_over).ok());
  REQUIRE(g.at(2).role() == Role::kCandidate);
  g.TakeReady(2);
  g.Renounce(2);
  g.Persist(2);
  g.TakeReady(2);
  CHECK(g.Sent<VoteRequest>(2).empty());
  g.Spread(5 * g.options.election_ticks);
  CHECK(g.at(2).role() == Role::kFollower);
  CHECK(g.ElectAmongThose() != 2);
}

TEST_CASE("leadership is handed to nobody who has not been heard of for an election's time") {
  Paper g;
  g.Led();
  g.isolated = {2};
  g.Spread(2 * g.options.election_ticks);
  REQUIRE(g.Leader() == 1);
  CHECK(absl::IsUnavailable(g.at(1).TransferLeadership(TestGroup::Id(2))));
  CHECK_FALSE(g.at(1).transferring());
  CHECK(g.Propose(1).ok());
  g.isolated = {};
  g.Spread();
  CHECK(g.at(1).TransferLeadership(TestGroup::Id(2)).ok());
}

TEST_CASE("a leader that is told in the middle of a hand-over that the next one cannot lead goes on at once") {
  Paper g;
  g.Led();
  g.isolated = {2};
  g.ProposeSome(1);
  REQUIRE(g.at(1).TransferLeadership(TestGroup::Id(2)).ok());
  REQUIRE(absl::IsUnavailable(g.Propose(1).status()));
  g.Renounce(2);
  g.isolated = {};
  g.Run();
  CHECK_FALSE(g.at(1).transferring());
  CHECK(g.Propose(1).ok());
  CHECK(g.at(1).followers()[0].cannot_lead);
  CHECK_FALSE(g.at(1).followers()[1].cannot_lead);
}

TEST_CASE("a leader that is removed hands over to none that cannot lead") {
  Paper g(4);
  g.Led();
  g.Renounce(2);
  g.Run();
  REQUIRE(g.Change(1, TestGroup::Members({2, 3, 4})).ok());
  // Without a tick: only who is told to campaigns.
  g.Run();
  CHECK((g.Leader() == 3 || g.Leader() == 4));
}

// etcd-io/etcd#11326: leadership was being handed to a voter that was made a learner meanwhile; the leader waited for
// it and took no proposals.
TEST_CASE("who is to lead next is not made a learner meanwhile") {
  Paper g;
  g.Led();
  g.isolated = {3};
  g.ProposeSome(1);
  REQUIRE(g.at(1).TransferLeadership(TestGroup::Id(3)).ok());
  CHECK(absl::IsUnavailable(g.Change(1, TestGroup::Members({1, 2}, {3})).status()));
  g.Spread(g.options.election_ticks + 1);
  REQUIRE_FALSE(g.at(1).transferring());
  REQUIRE(g.Change(1, TestGroup::Members({1, 2}, {3})).ok());
  g.Run();
  CHECK(absl::IsInvalidArgument(g.at(1).TransferLeadership(TestGroup::Id(3))));
}

// etcd-io/raft#31: the log was cut below what was under way to a throttled follower, which then asked for what was lost
// of it. The leader took the epoch before a batch that it no longer had for 0, the follower found that to agree with
// its own empty place, and ended itself.
TEST_CASE("a log that is cut below what is under way to a follower that takes no more does not mislead it") {
  Options options;
  options.inflight_messages_max = 2;
  options.message_bytes_max = 1;
  Paper g(3, options);
  g.Led();
  g.isolated = {3};
  g.ProposeSome(1, 10);
  g.MoveLogStart(1, Offset(6));
  g.isolated = {};
  g.Spread(20);
  CHECK(g.at(3).log_start() == Offset(6));
  CHECK(g.at(3).log_end() == g.at(1).log_end());
  CHECK(g.at(3).committed() == g.at(1).committed());
}

// etcd-io/etcd#10225: a follower died while it took a snapshot, and the leader waited for word of that snapshot for
// ever.
TEST_CASE("a follower that dies in the middle of a snapshot gets another one") {
  Paper g;
  g.Led();
  g.isolated = {3};
  g.ProposeSome(1, 10);
  g.MoveLogStart(1, Offset(6));
  g.isolated = {};
  for (int i = 0; i < 100 && !g.node(3).install; ++i) {
    g.Tick(1);
    for (int n : {1, 2, 3}) {
      g.TakeReady(n);
      g.Persist(n);
      for (const VoterId& to : std::exchange(g.node(n).snapshots_wanted, {})) g.SendSnapshot(n, to.node.value());
    }
    g.Deliver();
  }
  REQUIRE(g.node(3).install);
  g.Crash(3);
  g.Spread(5);
  g.Restart(3);
  g.Spread(100);
  CHECK(g.at(3).log_end() == g.at(1).log_end());
  CHECK(g.at(3).committed() == g.at(1).committed());
}

}  // namespace sluice::raft
