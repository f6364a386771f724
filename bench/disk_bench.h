// What the disk gives to anything that makes large batches durable, so that a broker's rate can be told from its limit:
// direct writes of a megabyte in the ways a journal and a segment could be written, with nothing else around them.
#pragma once

#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::bench {

/// Bytes of records a second, in millions. "Twice" counts them once, though the disk gets each two times.
struct DiskMeasurement {
  double journal_only = 0;      ///< Into a prewritten file, synced after each group.
  double twice = 0;             ///< The same, and unsynced into a growing segment by another thread.
  double twice_overlapped = 0;  ///< The same, each group written while the one before it is being synced.
  double once = 0;              ///< Into a growing segment only, synced after each group.
};

/// Works in a folder of its own below `dir`, which must be on the disk to be measured, and removes it afterwards.
absl::StatusOr<DiskMeasurement> MeasureDisk(const std::string& dir, absl::Duration each);

/// The same as a table, or the error.
void PrintDiskBench(std::ostream& out, const std::string& dir, absl::Duration each);

}  // namespace sluice::bench
