// What the Raft paper and the dissertation say, by section.
#include <catch2/catch.hpp>

#include "replication/core/test_group.h"

namespace sluice::raft {

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

}  // namespace sluice::raft
