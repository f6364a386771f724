// A data folder's identity: node.yaml, written when the folder is made and checked at every start.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/types.h"

namespace sluice::broker {

/// Of everything below data_dir. A folder of a later version is refused.
inline constexpr int64_t kDataFormatVersion = 2;

struct DataFolder {
  Uuid cluster_id;  ///< Nil: it belongs to no cluster yet, and is to join one.
  NodeId node_id;
  Uuid disk_id;
  /// Its cluster was there before it: without the others its replicas are nothing. Otherwise this folder began one.
  bool joins = false;
  /// There was a replica of group 0 in it: where there is none, the folder has lost it. Of older folders that is not
  /// known before they are noted.
  bool had_group0 = false;
  bool created = false;  ///< By this call.
};

/// What a folder is made for, where there is none yet.
enum class FolderFor {
  kNewCluster,     ///< Draws a cluster id.
  kClusterThatIs,  ///< Which one is written down once it has joined (WriteCluster).
};

/// Reads `data_dir`'s node.yaml, or makes the folder and it where there is nothing yet. Holds the folder's LOCK while
/// it does; who goes on to use the folder takes it again (LogStore::Open). Blocks. Errors: FailedPrecondition when
/// another process has the folder, when it holds something that is not Sluice's, when it lost its node.yaml, or is
/// another node's (unless it was never let into a cluster) or a later version's; DataLoss when node.yaml is damaged.
absl::StatusOr<DataFolder> OpenDataFolder(FileSystem& fs, const std::string& data_dir, NodeId node, Random& random,
                                          FolderFor made_for = FolderFor::kNewCluster);

/// Writes down which cluster a folder that joins has joined, durably. Blocks.
absl::Status WriteCluster(FileSystem& fs, const std::string& data_dir, DataFolder* folder, const Uuid& cluster_id);

/// Writes down that the folder has a replica of group 0, durably. Blocks.
absl::Status NoteGroup0(FileSystem& fs, const std::string& data_dir, DataFolder* folder);

/// FailedPrecondition, saying what to do, for a folder that had a replica of group 0 and has none: it would form a
/// second group of the same cluster, or vote again where it has voted.
absl::Status CheckGroup0(const std::string& data_dir, const DataFolder& folder, bool has_group0);

/// The same for such a folder whose journal/ has no file: before the journal is opened, which would begin a new one
/// there. Blocks.
absl::Status CheckJournalIsThere(FileSystem& fs, const std::string& data_dir, const DataFolder& folder);

/// A DataLoss of the folder with what to do about it; any other status as it is.
absl::Status WithWaysOut(const std::string& data_dir, absl::Status status);

}  // namespace sluice::broker
