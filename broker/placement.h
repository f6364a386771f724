// Placement: which nodes hold the replicas of new partitions, and which of them is to lead each.
//
// Always holds for what Place answers: only nodes that are not fenced; a partition's nodes differ, and so do their
// racks as far as there are racks enough (otherwise each rack has as many as the others, give or take one); nodes with
// fewer replicas, of all topics, come first, so that on equal nodes their numbers differ by at most one where racks
// leave the choice; leaders are spread as evenly as the replicas allow. Pure: the same state and the same random
// numbers give the same placement.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "broker/cluster_state.h"
#include "common/executor.h"

namespace sluice::broker {

/// How many replicas are meant: `replicas` itself, or for 0 as many as there are alive nodes, but no more than 3.
/// InvalidArgument, naming both numbers, for more than there are nodes; Unavailable for more than are alive now.
absl::StatusOr<int32_t> ResolveReplicas(const ClusterState& state, int32_t replicas);

/// One assignment for each of `partitions` new partitions, the leader first, each replica with an incarnation of its
/// own. Errors: as ResolveReplicas.
absl::StatusOr<std::vector<PartitionAssignment>> Place(const ClusterState& state, int32_t partitions, int32_t replicas,
                                                       Random& random);

}  // namespace sluice::broker
