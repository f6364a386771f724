// The journal's mark: the file "newest" beside the journal's files, which says which of them is the newest and up to
// which frame it was synced when that was last written down, and from which file on they are needed. It is what tells a
// newest file that is gone, empty or without its opening from one that was being made when the process died.
// docs/formats.md has the layout.
//
// Always holds: what the mark says was synced before it was written, so it never says too much; it is written and
// synced before anything in a file that it names for the first time is acknowledged, so it never lags by a file.
// Threads: one at a time; blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/aligned_buffer.h"

namespace sluice::storage {

struct JournalMark {
  uint64_t turn = 0;         // how often it was written; the blocks of the file take turns
  uint64_t file = 0;         // number of the newest file whose opening is synced; 0: there was none yet
  uint64_t frame = 0;        // highest frame known to be synced
  uint64_t needed_from = 0;  // files numbered lower may be used again, and need not be read; 0: not known
  bool operator==(const JournalMark&) const = default;
};

/// "newest" in `dir`.
std::string JournalMarkPath(const std::string& dir);

/// What the file's bytes say; `path` is for errors, which are those of ReadJournalMark.
absl::StatusOr<JournalMark> DecodeJournalMark(std::string_view bytes, const Uuid& disk, const std::string& path);

/// Nullopt when there is no such file. Errors: DataLoss when neither of its blocks can be read, FailedPrecondition when
/// it is another disk's.
absl::StatusOr<std::optional<JournalMark>> ReadJournalMark(FileSystem& fs, const std::string& dir, const Uuid& disk);

class JournalMarkWriter {
 public:
  JournalMarkWriter(FileSystem& fs, std::string dir, const Uuid& disk) : fs_(fs), dir_(std::move(dir)), disk_(disk) {}

  /// Goes on after `found`, what ReadJournalMark has given; where that is nothing the file is made, durably. Takes no
  /// space otherwise, then or later.
  absl::Status Open(const std::optional<JournalMark>& found);
  /// Writes in place and syncs. After an error the file must not be written again.
  absl::Status Write(uint64_t file, uint64_t frame, uint64_t needed_from);

 private:
  FileSystem& fs_;
  const std::string dir_;
  const Uuid disk_;
  JournalMark last_;
  std::unique_ptr<File> file_;
  AlignedBuffer block_;
};

}  // namespace sluice::storage
