// What replicated groups cost while nothing happens in them: three nodes in this process with real executors and disks,
// and every group on all three, over a transport that hands messages across without a wire.
#pragma once

#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::bench {

struct IdleGroupsMeasurement {
  int groups = 0;
  double seconds_to_leaders = 0;     // from the first open until every group has a leader
  double core_percent_per_node = 0;  // processor time of one node while all is settled
  double group_messages_per_second = 0;
  double liveness_messages_per_second = 0;  // of all nodes
};

/// Works in folders of its own below `dir` and removes them. Idle time is measured for `each`.
absl::StatusOr<IdleGroupsMeasurement> MeasureIdleGroups(const std::string& dir, int groups, absl::Duration each);

/// The same as text, or the error; whether it worked.
bool PrintIdleGroupsBench(std::ostream& out, const std::string& dir, absl::Duration each);

}  // namespace sluice::bench
