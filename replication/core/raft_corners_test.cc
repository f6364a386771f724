// Corners of Raft where implementations have fallen: old terms and logs that come back, disks that are not what they
// were.
#include <catch2/catch.hpp>

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
  g.Spread(100);
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
  g.ProposeSome(1);
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

}  // namespace sluice::raft
