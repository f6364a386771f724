// Recovery: compares what is on the disk with the journal's registry, and writes anew from the journal what no
// checkpoint vouches for. Bounded by the journal's size and the number of files, not by the bytes stored.
//
// Used by LogStore::Open on one thread; blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/journal.h"

namespace sluice::storage {

/// In a replica's folder: a drop has begun. Written before the drop is journaled, so that a crash while files are being
/// removed leaves a folder that explains itself.
inline constexpr char kDroppingMarker[] = "DROPPING";

/// Removes all files of a replica but the marker, durably.
absl::Status RemoveReplicaFiles(FileSystem& fs, const std::string& dir);
/// Removes a replica's folder with all that is in it, the marker last.
absl::Status RemoveReplicaFolder(FileSystem& fs, const std::string& dir);

struct ReplicaFolder {
  ReplicaId replica;
  std::string path;
};
/// The folders below `topics_dir` that are named as those of replicas are, in order.
absl::StatusOr<std::vector<ReplicaFolder>> ListReplicaFolders(FileSystem& fs, const std::string& topics_dir);

class Recovery final : public ReplayVisitor {
 public:
  /// Gets each file that was removed, and why.
  using OnRemoved = std::function<void(const std::string& path, std::string_view why)>;

  /// `on_removed` may be null.
  Recovery(FileSystem& fs, std::string topics_dir, OnRemoved on_removed)
      : fs_(fs), topics_dir_(std::move(topics_dir)), on_removed_(std::move(on_removed)) {}

  absl::Status OnState(const JournalState& state) override;
  absl::Status OnAppend(const AppendRecord& append) override;
  /// After replay: all that the registry lists is in files, and nothing else.
  absl::Status Finish();

  const JournalState& state() const { return state_; }
  /// Replicas whose files have less than checkpoints vouched for: nothing of theirs is touched. DataLoss, which says
  /// what is missing.
  const std::map<ReplicaId, absl::Status>& damaged() const { return damaged_; }
  int64_t bytes_rewritten() const { return bytes_rewritten_; }
  int64_t files_removed() const { return files_removed_; }

 private:
  struct Rewrite {
    std::string path;
    int64_t end_position = 0;  ///< What the file must reach.
    int64_t done = 0;          ///< What it surely has, `pending` included.
    int64_t file_bytes = -1;   ///< Its size when found; -1: there is no file.
    std::string pending;       ///< The bytes before `done` that are still to be written.
  };
  using Key = std::pair<ReplicaId, SegmentId>;

  absl::Status CheckFolder(const ReplicaId& replica, const std::string& dir);
  void NoteRemoved(const std::string& path, std::string_view why);
  absl::Status CheckReplica(const ReplicaId& replica, const ReplicaState& state);
  absl::Status Write(const ReplicaId& replica, Rewrite& segment);

  FileSystem& fs_;
  const std::string topics_dir_;
  const OnRemoved on_removed_;
  JournalState state_;
  std::map<Key, Rewrite> segments_;
  std::map<ReplicaId, absl::Status> damaged_;
  int64_t pending_bytes_ = 0;
  int64_t bytes_rewritten_ = 0;
  int64_t files_removed_ = 0;
};

}  // namespace sluice::storage
