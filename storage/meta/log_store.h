// The metadata store over the file seam: the whole state in memory, a log of changes, and a snapshot when the log has
// grown. What nodes in the simulator run on, with every write and sync an event that can fail.
//
// A crash during a write leaves a torn last frame, which is cut; a damaged frame with a sound one behind it is
// DataLoss. The last frame, when damaged, cannot be told from a torn write and is cut too: the state then is one change
// older, and so is the applied index, so that replaying the log brings it back. What is read at opening may be on no
// disk yet, after a kill; it is written anew, as a snapshot, before anything follows it, as RocksDB does with its log.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "storage/meta/metadata_store.h"

namespace sluice::storage {

struct LogMetadataOptions {
  /// The log is replaced by a snapshot once it has grown beyond this and beyond twice the state.
  int64_t log_bytes_max = int64_t{1} << 20;
};

/// Opens the store in `dir`, made when missing (its parent is there, durably). DataLoss names file and position. `fs`
/// outlives the store. Blocks.
absl::StatusOr<std::unique_ptr<MetadataStore>> OpenLogMetadataStore(FileSystem& fs, const std::string& dir,
                                                                    LogMetadataOptions options = {});

}  // namespace sluice::storage
