#include "replication/liveness.h"

#include <catch2/catch.hpp>

namespace sluice::replication {
namespace {

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};

ReplicaId Group(int n) {
  return {Uuid::FromRandom(1, 1), PartitionId(n)};
}

/// Node 1 leads, node 2 follows.
struct Pair {
  Liveness one{101};
  Liveness two{202};

  /// One heartbeat and its answer; how many entries travelled.
  size_t Beat() {
    const auto heartbeat = one.MakeHeartbeat(kTwo);
    if (!heartbeat) return 0;
    const LivenessAnswer answer = two.OnHeartbeat(kOne, *heartbeat);
    one.OnAnswer(kTwo, answer);
    return heartbeat->changes.size() + answer.not_following.size();
  }
  void Lead(int group, int term) { one.SetLeading(kTwo, Group(group), LeaderEpoch(term)); }
  void Follow(int group, int term) { two.SetFollowing(Group(group), kOne, LeaderEpoch(term)); }
  bool LeaderAlive(int group, int term) { return two.LeaderAlive(kOne, Group(group), LeaderEpoch(term)); }
  bool FollowerAlive(int group, int term) { return one.FollowerAlive(kTwo, Group(group), LeaderEpoch(term)); }
  bool FollowerLost(int group, int term) { return one.FollowerLost(kTwo, Group(group), LeaderEpoch(term)); }
};

TEST_CASE("between settled groups only numbers travel, however many there are") {
  Pair pair;
  for (int i = 0; i < 500; ++i) {
    pair.Lead(i, 3);
    pair.Follow(i, 3);
  }
  CHECK(pair.Beat() == 500);
  for (int i = 0; i < 5; ++i) CHECK(pair.Beat() == 0);
  for (int i = 0; i < 500; ++i) {
    CHECK(pair.LeaderAlive(i, 3));
    CHECK(pair.FollowerAlive(i, 3));
  }
  CHECK(pair.two.LeadersHeard(kOne) == 6);
  CHECK(pair.one.FollowersHeard(kTwo) == 6);
  pair.Lead(7, 4);
  pair.Follow(7, 4);
  CHECK(pair.Beat() == 1);
  CHECK(pair.FollowerAlive(7, 4));
  CHECK_FALSE(pair.FollowerAlive(7, 3));
}

TEST_CASE("nobody is alive before the peer has said that it knows the entry") {
  Pair pair;
  pair.Follow(1, 3);
  pair.Lead(1, 3);
  const auto heartbeat = *pair.one.MakeHeartbeat(kTwo);
  const LivenessAnswer answer = pair.two.OnHeartbeat(kOne, heartbeat);
  pair.Lead(2, 3);
  CHECK_FALSE(pair.FollowerAlive(1, 3));
  pair.one.OnAnswer(kTwo, answer);
  CHECK(pair.FollowerAlive(1, 3));
  CHECK_FALSE(pair.FollowerAlive(2, 3));
  CHECK_FALSE(pair.LeaderAlive(2, 3));
}

TEST_CASE("a follower that does not follow is named, and lost once it was named twice") {
  Pair pair;
  pair.Lead(1, 3);
  pair.Lead(2, 3);
  pair.Follow(1, 3);
  CHECK(pair.Beat() == 3);
  CHECK(pair.FollowerAlive(1, 3));
  CHECK_FALSE(pair.FollowerAlive(2, 3));
  CHECK_FALSE(pair.FollowerLost(2, 3));
  pair.Beat();
  CHECK(pair.FollowerLost(2, 3));
  pair.Follow(2, 3);
  pair.Beat();
  CHECK(pair.FollowerAlive(2, 3));
  CHECK_FALSE(pair.FollowerLost(2, 3));
  // It votes for somebody else.
  pair.two.SetFollowing(Group(1), NodeId(0), LeaderEpoch(4));
  pair.Beat();
  CHECK_FALSE(pair.FollowerAlive(1, 3));
  CHECK(pair.FollowerAlive(2, 3));
  // It follows another.
  pair.two.SetFollowing(Group(2), NodeId(9), LeaderEpoch(4));
  pair.Beat();
  CHECK_FALSE(pair.FollowerAlive(2, 3));
}

TEST_CASE("what is led no more is not alive any more, and is forgotten at the peer") {
  Pair pair;
  pair.Lead(1, 3);
  pair.Follow(1, 3);
  pair.Beat();
  pair.Lead(1, 0);
  CHECK_FALSE(pair.FollowerAlive(1, 3));
  CHECK(pair.Beat() == 1);
  CHECK_FALSE(pair.LeaderAlive(1, 3));
  CHECK_FALSE(pair.one.MakeHeartbeat(kTwo).has_value());
  CHECK(pair.one.HeartbeatPeers().empty());
}

TEST_CASE("lost messages are made up for, old ones change nothing") {
  Pair pair;
  for (int i = 0; i < 4; ++i) pair.Follow(i, 3);
  pair.Lead(0, 3);
  const auto first = *pair.one.MakeHeartbeat(kTwo);  // lost
  pair.Lead(1, 3);
  const auto second = *pair.one.MakeHeartbeat(kTwo);
  const LivenessAnswer lost_answer = pair.two.OnHeartbeat(kOne, second);
  CHECK(pair.LeaderAlive(0, 3));
  pair.Lead(0, 0);
  pair.Lead(2, 3);
  pair.Beat();
  CHECK_FALSE(pair.LeaderAlive(0, 3));
  CHECK(pair.LeaderAlive(1, 3));
  CHECK(pair.FollowerAlive(2, 3));
  pair.two.OnHeartbeat(kOne, first);  // after all
  pair.one.OnAnswer(kTwo, lost_answer);
  CHECK_FALSE(pair.LeaderAlive(0, 3));
  CHECK(pair.LeaderAlive(1, 3));
  CHECK(pair.FollowerAlive(2, 3));
  CHECK(pair.Beat() == 0);
}

TEST_CASE("a peer that begins a new life is told the whole table, and follows nothing until it does") {
  Pair pair;
  for (int i = 0; i < 10; ++i) {
    pair.Lead(i, 3);
    pair.Follow(i, 3);
  }
  pair.Beat();
  pair.two = Liveness(203);
  CHECK(pair.Beat() == 0);  // it does not know what the numbers mean
  CHECK_FALSE(pair.FollowerAlive(1, 3));
  CHECK(pair.Beat() == 20);
  CHECK_FALSE(pair.FollowerAlive(1, 3));
  for (int i = 0; i < 10; ++i) pair.Follow(i, 3);
  pair.Beat();
  CHECK(pair.FollowerAlive(1, 3));
  CHECK(pair.LeaderAlive(1, 3));
}

TEST_CASE("a leader that begins a new life is not taken for the old one") {
  Pair pair;
  pair.Lead(1, 3);
  pair.Follow(1, 3);
  pair.Beat();
  const auto old = *pair.one.MakeHeartbeat(kTwo);
  const LivenessAnswer old_answer = pair.two.OnHeartbeat(kOne, old);
  pair.one = Liveness(102);
  pair.Lead(2, 4);
  pair.Follow(2, 4);
  pair.one.OnAnswer(kTwo, old_answer);
  CHECK_FALSE(pair.FollowerAlive(2, 4));
  pair.Beat();
  CHECK(pair.FollowerAlive(2, 4));
  CHECK_FALSE(pair.LeaderAlive(1, 3));
}

TEST_CASE("a large table travels in parts, and a peer that is away does not make it grow without bound") {
  Pair pair;
  for (int i = 0; i < 2500; ++i) {
    pair.Lead(i, 3);
    pair.Follow(i, 3);
  }
  CHECK(pair.Beat() == Liveness::kEntriesMax);
  CHECK(pair.Beat() == Liveness::kEntriesMax);
  CHECK(pair.Beat() == 500);
  CHECK(pair.Beat() == 0);
  CHECK(pair.FollowerAlive(2499, 3));
  for (int term = 4; term < 20'000; ++term) pair.Lead(1, term);
  size_t entries = 0;
  for (int i = 0; i < 20; ++i) entries += pair.Beat();
  CHECK(entries < 12'000);
  pair.Follow(1, 19'999);
  pair.Beat();
  CHECK(pair.FollowerAlive(1, 19'999));
  CHECK(pair.FollowerAlive(2499, 3));
}

}  // namespace
}  // namespace sluice::replication
