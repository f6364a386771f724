#include "broker/api.h"

#include <catch2/catch.hpp>

#include "broker/error.h"

namespace sluice::broker {
namespace {

PartitionStatus Led(int32_t leader, size_t replicas) {
  PartitionStatus partition;
  partition.leader_node = NodeId(leader);
  partition.replicas.resize(replicas);
  return partition;
}

PartitionStatus WithErrors(PartitionStatus partition, size_t replicas) {
  partition.error = MakeError(Reason::kCorruptLog, "0.log: damaged");
  partition.failing = replicas;
  return partition;
}

TEST_CASE("a partition is offline once those that answer without an error are no majority") {
  const PartitionStatus elects = Led(0, 3);
  CHECK_FALSE(IsOffline(elects, 3));
  CHECK_FALSE(IsOffline(elects, 2));
  CHECK(IsOffline(elects, 1));
  CHECK(IsOffline(elects, 0));
  CHECK_FALSE(IsOffline(WithErrors(elects, 1), 3));  // the two others may elect one of them
  CHECK(IsOffline(WithErrors(elects, 2), 3));
  CHECK(IsOffline(WithErrors(elects, 3), 3));
  CHECK(IsOffline(WithErrors(elects, 1), 2));
  CHECK(IsOffline(WithErrors(elects, 1), 1));
  CHECK(IsOffline(WithErrors(Led(0, 1), 1), 1));
  CHECK(IsOffline(Led(0, 2), 1));
  CHECK_FALSE(IsOffline(Led(0, 2), 2));
}

TEST_CASE("a partition with a leader is offline only where that one cannot read it") {
  CHECK_FALSE(IsOffline(Led(1, 3), 3));
  CHECK_FALSE(IsOffline(Led(1, 3), 1));  // it is heard of as the leader: the others may come to answer
  CHECK(IsOffline(WithErrors(Led(1, 1), 1), 1));
}

}  // namespace
}  // namespace sluice::broker
