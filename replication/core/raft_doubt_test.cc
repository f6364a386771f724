// Doubt (raft.h), where a golden script cannot show it: numbers that are not printed, writes that become durable one by
// one.
#include <catch2/catch.hpp>

#include <utility>

#include "replication/core/paper_group.h"

namespace sluice::raft {

// A candidate that loses the end of its journal forgets the term and asks in it again, maybe with less of a log.
TEST_CASE("a candidate counts no vote that was asked for in another campaign") {
  Paper g;
  g.Led();
  const auto both_grant = [&](bool pre_vote, int term, uint64_t campaign) {
    for (int from : {1, 3}) {
      const VoteResponse yes{.pre_vote = pre_vote, .granted = true, .doubt = kNoDoubt, .campaign = campaign};
      REQUIRE(g.Step(g.From(from, 2, term, yes)).ok());
    }
  };
  const auto asked = [&] {
    g.TakeReady(2);
    g.Persist(2);
    g.TakeReady(2);
    const uint64_t campaign = g.Sent<VoteRequest>(2).at(0).campaign;
    g.network.clear();
    return campaign;
  };
  REQUIRE(g.at(2).Campaign().ok());
  const uint64_t first = asked();
  REQUIRE(g.at(2).Campaign().ok());
  const uint64_t second = asked();
  both_grant(true, 1, first);
  CHECK(g.at(2).role() == Role::kPreCandidate);
  both_grant(true, 1, second);
  REQUIRE(g.at(2).role() == Role::kCandidate);
  const uint64_t third = asked();
  both_grant(false, 2, second);
  CHECK(g.at(2).role() == Role::kCandidate);
  both_grant(false, 2, third);
  CHECK(g.at(2).role() == Role::kLeader);
}

// Else the leader would take each for the word of one that is in doubt anew, and count it for nothing.
TEST_CASE("answers that wait for the disk when a doubt ends do not speak of it afterwards") {
  Paper g;
  g.Led();
  g.Restart(2, true);
  g.TakeReady(2);
  g.Persist(2);
  const Offset end = g.at(2).log_end();
  const auto take = [&](Offset after) {
    const LogPlace previous{LeaderEpoch(1), after};
    AppendRequest append{previous, Offset(0), {TestGroup::Data("x").Assign(after, LeaderEpoch(1))}};
    REQUIRE(g.Step(g.From(1, 2, 1, std::move(append))).ok());
    g.TakeReady(2);
    return g.node(2).unpersisted.back().number;
  };
  const uint64_t first = take(end);
  REQUIRE(g.Step(g.From(1, 2, 1, Heartbeat{Offset(0), true, 0, Offset(0), kNoDoubt})).ok());
  g.TakeReady(2);
  const uint64_t doubt = g.Sent<HeartbeatResponse>(2).at(0).doubt;
  REQUIRE(doubt != kNoDoubt);
  REQUIRE(g.Step(g.From(1, 2, 1, Heartbeat{Offset(0), false, 0, end + 1, doubt})).ok());
  const uint64_t second = take(end + 1);
  REQUIRE(second > first);
  g.network.clear();
  g.at(2).OnDurable(first);
  CHECK_FALSE(g.at(2).in_doubt());
  g.at(2).OnDurable(second);
  g.TakeReady(2);
  const auto answers = g.Sent<AppendResponse>(2);
  REQUIRE(answers.size() == 2);
  CHECK(answers[0].doubt == doubt);
  CHECK(answers[1].end == end + 2);
  CHECK(answers[1].doubt == kNoDoubt);
}

// What is learned so moves a candidate's commit; a follower's is its leader's to move.
TEST_CASE("members that a voter knows to be committed are learned by the candidate that asked, and by nobody else") {
  Paper g;
  g.Led();
  g.isolated = {1, 3};
  const auto change = g.Change(1, TestGroup::Members({1, 2}));
  REQUIRE(change.ok());
  g.isolated = {3};
  g.at(1).StepDown();
  g.Run();
  REQUIRE(g.at(1).log_end() == change->last_offset + 1);
  const Offset before = g.at(1).committed();
  REQUIRE(before <= change->last_offset);
  const auto hears = [&](uint64_t campaign) {
    VoteResponse no{.pre_vote = true, .granted = false, .doubt = kNoDoubt, .campaign = campaign};
    no.members = {change->epoch, change->last_offset + 1};
    REQUIRE(g.Step(g.From(2, 1, 1, no)).ok());
  };
  hears(0);
  CHECK(g.at(1).committed() == before);
  REQUIRE(g.at(1).Campaign().ok());
  g.TakeReady(1);
  const uint64_t campaign = g.Sent<VoteRequest>(1).at(0).campaign;
  hears(campaign + 1);
  CHECK(g.at(1).committed() == before);
  hears(campaign);
  CHECK(g.at(1).committed() == change->last_offset + 1);
}

// A log that has begun anew tells its members by where it begins.
TEST_CASE("members that are committed are learned from a voter whose log begins behind their change") {
  Paper g;
  g.Led();
  g.isolated = {1, 3};
  const auto change = g.Change(1, TestGroup::Members({1, 2}));
  REQUIRE(change.ok());
  for (int i = 0; i < 3; ++i) REQUIRE(g.Propose(1).ok());
  g.isolated = {3};
  g.at(1).StepDown();
  g.Run();
  const Offset before = g.at(1).committed(), end = g.at(1).log_end();
  REQUIRE(before <= change->last_offset);
  REQUIRE(end == change->last_offset + 4);
  const auto hears = [&](LogPlace members) {
    g.network.clear();
    REQUIRE(g.at(1).Campaign().ok());
    g.TakeReady(1);
    VoteResponse no{.pre_vote = true, .granted = false, .doubt = kNoDoubt, .campaign = 0, .members = members};
    no.campaign = g.Sent<VoteRequest>(1).at(0).campaign;
    REQUIRE(g.Step(g.From(2, 1, 1, no)).ok());
    return g.at(1).committed();
  };
  CHECK(hears({LeaderEpoch(0), end - 1}) == before);
  CHECK(hears({LeaderEpoch(2), end - 1}) == before);
  CHECK(hears({LeaderEpoch(1), end + 1}) == before);
  CHECK(hears({LeaderEpoch(1), end - 1}) == change->last_offset + 1);
}

// What a candidate learns of members with each answer does not end a campaign that began in the last but one term.
TEST_CASE("the last term that there is can be won") {
  Paper g;
  for (int n : {1, 2, 3}) {
    g.node(n).durable.hard_state = {LeaderEpoch(INT32_MAX - 2), VoterId{}};
    g.Restart(n);
  }
  REQUIRE(g.Campaign(1).ok());
  g.Run();
  CHECK(g.Leader() == 1);
}

}  // namespace sluice::raft
