// What a data folder says of its journal from beside it: node.yaml, and the folders of replicas. That is how a journal
// which is gone, or was replaced by an empty one, is told from one that has nothing to say.
//
// Blocks; reads only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/journal_place.h"
#include "storage/journal_replay.h"

namespace sluice::tools {

struct FolderIdentity {
  std::optional<Uuid> disk;  ///< Absent where no node.yaml says it.
  bool had_group0 = false;   ///< The folder has had a replica of the cluster's own log.
};

/// Of `data_dir`'s node.yaml, as far as it is there and can be read.
absl::StatusOr<FolderIdentity> ReadFolderIdentity(FileSystem& fs, const std::string& data_dir);

/// What must be in the journal and is not: a broker would not start on this folder. Empty where all is well.
absl::StatusOr<std::vector<storage::JournalPlace>> FindMissing(FileSystem& fs, const std::string& data_dir,
                                                               const FolderIdentity& identity,
                                                               const storage::ReplayedJournal& journal);

}  // namespace sluice::tools
