// How fast the record path is on this machine: checksums, batches, codecs.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace sluice::bench {

struct RecordMeasurement {
  std::string name;
  double gigabytes_per_second = 0;  // of uncompressed bytes, powers of 1000; 0 where nanoseconds say more
  double nanoseconds = 0;           // for one call
  double ratio = 0;                 // uncompressed to compressed; 0 where nothing is compressed
};

/// Each measurement runs for about `each`, on the calling thread, and is the best of three thirds.
std::vector<RecordMeasurement> MeasureRecordPath(absl::Duration each);

/// The same as a table.
void PrintRecordBench(std::ostream& out, absl::Duration each);

}  // namespace sluice::bench
