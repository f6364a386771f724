// What one shared journal gives over one synced file a partition: a 1 KiB append in each of N partitions, all durable
// before the next round.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::bench {

struct JournalMeasurement {
  std::string name;
  int partitions = 0;
  double appends_per_second = 0;
  double round_milliseconds_p50 = 0;  // one append in each partition
  double round_milliseconds_p99 = 0;
  double appends_per_sync = 0;
};

/// Works in a folder of its own below `dir`, which must be on the disk to be measured, and removes it afterwards. Each
/// measurement runs for about `each`. The journal's figures include the unsynced write to each partition's segment file
/// that follows the answer.
absl::StatusOr<std::vector<JournalMeasurement>> MeasureJournal(const std::string& dir, absl::Duration each);

/// Appends of 256 KiB to one partition, 16 not answered at a time, each written to a growing segment after its answer:
/// millions of bytes a second through the journal.
absl::StatusOr<double> MeasureJournalRush(const std::string& dir, absl::Duration each);

/// Both as tables, or the error.
void PrintJournalBench(std::ostream& out, const std::string& dir, absl::Duration each);

}  // namespace sluice::bench
