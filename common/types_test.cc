#include "common/types.h"

#include <catch2/catch.hpp>

namespace sluice {

TEST_CASE("a UUID survives being printed and parsed") {
  const Uuid u = Uuid::FromRandom(0x0123456789abcdef, 0xfedcba9876543210);
  const auto back = Uuid::Parse(u.ToString());
  REQUIRE(back.has_value());
  REQUIRE(*back == u);
  REQUIRE(u.ToString()[14] == '4');
}

TEST_CASE("text that is not a UUID is refused") {
  REQUIRE_FALSE(Uuid::Parse(""));
  REQUIRE_FALSE(Uuid::Parse("0123456789abcdef0123456789abcdef"));
  REQUIRE_FALSE(Uuid::Parse("01234567-89ab-4def-8123-456789abcdeg"));
  REQUIRE_FALSE(Uuid::Parse("01234567x89ab-4def-8123-456789abcdef"));
  REQUIRE_FALSE(Uuid::FromBytes("short"));
}

TEST_CASE("a replica is named by topic id and partition, as its folder is") {
  const ReplicaId id{*Uuid::Parse("01234567-89ab-4def-8123-456789abcdef"), PartitionId(7)};
  REQUIRE(id.ToString() == "01234567-89ab-4def-8123-456789abcdef/7");
}

TEST_CASE("a wiped disk makes another voter of the same node") {
  const VoterId before{NodeId(3), Uuid::FromRandom(1, 1)};
  const VoterId after{NodeId(3), Uuid::FromRandom(2, 2)};
  REQUIRE(before != after);
  REQUIRE(VoterId{}.IsNone());
  REQUIRE_FALSE(before.IsNone());
  REQUIRE(before.ToString() == "3/" + before.incarnation.ToString());
}

}  // namespace sluice
