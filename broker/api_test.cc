#include "broker/api.h"

#include <catch2/catch.hpp>

#include "broker/error.h"

namespace sluice::broker {
namespace {

PartitionStatus Led(int32_t leader, size_t replicas, size_t sound) {
  PartitionStatus partition;
  partition.leader_node = NodeId(leader);
  partition.replicas.resize(replicas);
  partition.sound = sound;
  return partition;
}

PartitionStatus WithError(PartitionStatus partition) {
  partition.error = MakeError(Reason::kCorruptLog, "0.log: damaged");
  return partition;
}

TEST_CASE("a partition without a leader is offline once its sound replicas are no majority") {
  CHECK_FALSE(IsOffline(Led(0, 3, 3)));
  CHECK_FALSE(IsOffline(Led(0, 3, 2)));
  CHECK(IsOffline(Led(0, 3, 1)));
  CHECK(IsOffline(Led(0, 3, 0)));
  CHECK_FALSE(IsOffline(WithError(Led(0, 3, 2))));  // the two others may elect one of them
  CHECK(IsOffline(WithError(Led(0, 3, 1))));
  CHECK(IsOffline(WithError(Led(0, 1, 0))));
  CHECK(IsOffline(Led(0, 2, 1)));
  CHECK_FALSE(IsOffline(Led(0, 2, 2)));
}

TEST_CASE("a partition with a leader is offline only where that one cannot read it") {
  CHECK_FALSE(IsOffline(Led(1, 3, 0)));
  CHECK(IsOffline(WithError(Led(1, 1, 0))));
}

}  // namespace
}  // namespace sluice::broker
