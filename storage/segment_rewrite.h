// Writes a segment anew into another file, after a sync of its own has failed: what of the old file was not synced
// before is unknown, and it is never synced again. What the checkpoint vouches for is copied from the old file, the
// rest comes from the journal, which holds it until a checkpoint; the whole must have the checksum that the registry
// has.
//
// The new file is "<segment>.log.rewrite" until Install renames it over the old one, so that at any crash either the
// old file is there, which recovery completes from the journal, or the new one.
// Everything here blocks: call it on a BlockingExecutor, one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bytes.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/journal.h"
#include "storage/journal_state.h"

namespace sluice::storage {

/// Names that end so are left over from a rewrite that did not finish.
inline constexpr char kRewriteEnding[] = ".rewrite";

class SegmentRewrite {
 public:
  struct Job {
    std::string dir;   ///< The replica's.
    std::string path;  ///< The segment's.
    ReplicaId replica;
    SegmentState target;                 ///< What the new file must be; all of it durable in the journal.
    int64_t synced = 0;                  ///< Bytes that the checkpoint vouches for.
    std::vector<JournalFileInfo> files;  ///< Of the journal, in order; they hold the rest.
  };

  SegmentRewrite(FileSystem& fs, Job job) : fs_(fs), job_(std::move(job)) {}

  const SegmentState& target() const { return job_.target; }
  /// Does a bounded piece of the work; false once the new file is whole and synced. DataLoss names the file and what is
  /// wrong. After an error this object is of no more use.
  absl::StatusOr<bool> Step();
  /// Puts the new file in the old one's place, durably.
  absl::Status Install();

 private:
  enum class Next { kCreate, kCopy, kJournal, kCheck, kSync, kDone };

  absl::Status Create();
  absl::Status Copy();
  absl::Status TakeFromJournal();
  absl::Status Check();
  absl::Status ReadChunk(File& file, int64_t until);
  std::string NewPath() const { return job_.path + kRewriteEnding; }

  FileSystem& fs_;
  const Job job_;
  Next next_ = Next::kCreate;
  std::unique_ptr<File> old_;
  std::unique_ptr<File> new_;
  std::string chunk_;
  int64_t at_ = 0;  ///< Bytes that are in the new file and in crc_.
  uint32_t crc_ = 0;
  size_t files_read_ = 0;
  int64_t unsynced_ = 0;  ///< Written to the new file since its last sync.
};

}  // namespace sluice::storage
