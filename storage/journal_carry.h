// Reads back what one journal file alone holds of a replica, so that it can be journaled again, unchanged, and the file
// recycled. For replicas that cannot be opened: nobody has their tail in memory, and no checkpoint will ever come.
//
// Blocks; reads only.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/journal.h"

namespace sluice::storage {

/// The appends in `file` that hold bytes which `pins`, the replica's, say only that file has, by segment and position.
/// The replica must take no changes meanwhile. Errors as FileSystem's; DataLoss, which names the file, where such an
/// append is not there.
absl::StatusOr<std::vector<AppendRecord>> ReadPinnedAppends(FileSystem& fs, const JournalFileInfo& file,
                                                            const ReplicaId& replica,
                                                            const std::vector<JournalPin>& pins);

}  // namespace sluice::storage
