// Reads a journal folder back: which files count, where the journal ends, what it adds up to, and which appends are
// still needed.
//
// A file counts once its opening snapshot is complete; a newest file whose opening is not, and which the mark does not
// name, was being made when the process died. An invalid frame at or before a frame that the mark or any valid frame
// calls synced is damage and refuses, and so is a file that is shorter than it was made; otherwise it is a torn tail.
// Blocks; reads only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "storage/journal.h"
#include "storage/journal_mark.h"
#include "storage/journal_pins.h"
#include "storage/journal_state.h"

namespace sluice::storage {

/// "<sequence, 20 digits>.journal" in `dir`.
std::string JournalFilePath(const std::string& dir, uint64_t sequence);

/// An append that is still needed, and where its bytes stand.
struct Survivor {
  AppendRecord append;  // without bytes
  uint64_t file = 0;
  int64_t offset = 0;  // in that file
  int64_t length = 0;
};

struct ReplayedJournal {
  JournalState state;
  JournalPins pins;
  JournalTail tail;
  std::vector<JournalFileInfo> files;  // in order; all of the folder, also superseded and unfinished ones
  std::vector<Survivor> survivors;     // by replica, segment, position; no byte twice
  uint64_t last_counting_file = 0;     // 0: none
  /// What the next file must supersede: the last file that counts and what that one superseded, which may still exist;
  /// everything, when no file counts.
  uint64_t supersede_from = 1;
  uint64_t continues_after = 0;     // last frame of the file before last_counting_file; 0: there is none
  uint64_t last_frame = 0;          // highest frame number seen anywhere
  uint64_t last_synced = 0;         // highest frame known to have been synced
  uint64_t last_file = 0;           // highest file number seen
  std::optional<JournalMark> mark;  // as found
  uint64_t records = 0;             // applied
};

absl::StatusOr<ReplayedJournal> ReplayJournal(FileSystem& fs, const std::string& dir, const Uuid& disk);

/// Reads the survivors for which `wanted` holds and passes each on, complete and verified.
absl::Status ReadSurvivors(FileSystem& fs, const ReplayedJournal& journal,
                           const std::function<bool(const Survivor&)>& wanted,
                           const std::function<absl::Status(const AppendRecord&)>& visit);

/// Passes on every append to `segment` that stands in one file, in the order journaled, up to where its valid frames
/// end. For a file that is in use: what is synced when this is called is passed on. Appends that a later record of the
/// journal took back are passed on as well.
absl::Status ReadAppends(FileSystem& fs, const JournalFileInfo& file, const ReplicaId& replica, SegmentId segment,
                         const std::function<absl::Status(const AppendRecord&)>& visit);

}  // namespace sluice::storage
