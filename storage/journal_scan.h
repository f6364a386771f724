// One file of the journal, read from its start: its frames in order up to the first that is not valid, and whether
// anything valid stands behind that. Internal to replay.
//
// Blocks; reads only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/aligned_buffer.h"
#include "storage/journal.h"
#include "storage/journal_codec.h"
#include "storage/journal_place.h"

namespace sluice::storage {

/// What one file holds, as far as it was read.
struct FileScan {
  JournalFileInfo info;
  std::optional<Uuid> file_id;
  OpeningRecord opening;
  bool marked = false;          // of a version that has the mark before it has a file
  bool says_data_ends = false;  // of a version whose snapshots do
  bool opening_complete = false;
  uint64_t first_frame = 0;  // 0: no valid frame at the start
  uint64_t last_frame = 0;
  int64_t end = 0;           // where the valid run ends
  std::string why;           // the frame there is invalid
  uint64_t last_synced = 0;  // highest that a valid frame of this file names, also after `end`
  uint64_t stray_frame = 0;  // highest valid frame after `end`; 0: none
  int64_t cut_end = 0;       // where recognizable frames end, at least `end`
};

/// Reads files whole, one after the other, into the same memory: new memory for each costs more than reading it.
class JournalFileReader {
 public:
  JournalFileReader(FileSystem& fs, const Uuid& disk) : fs_(fs), disk_(disk) {}

  /// Gets each frame of the valid run once, and the place where it stands; appends refer to memory that is good during
  /// the call.
  using Visit = std::function<absl::Status(const Frame&, int64_t at)>;

  /// Fills in `scan`, of which `info` is given. A file that ends in a damaged frame is read a second time: a read that
  /// went wrong must not cost what is on the disk; frames that were visited are not visited again.
  absl::Status Scan(FileScan& scan, const Visit& visit);
  /// Only the first frame, where it is valid: the opening record, and whose file it is.
  absl::Status Peek(FileScan& scan);
  /// During a visit: where in the file an append's bytes stand.
  int64_t PlaceOf(const Bytes& bytes) const { return bytes.data() - buffer_.data(); }

 private:
  absl::StatusOr<std::string_view> Load(const std::string& path);
  absl::Status TakeFrame(const Frame& frame, int64_t at, FileScan& scan) const;
  absl::Status ScanOnce(FileScan& scan, int64_t* visited_to, const Visit& visit);

  FileSystem& fs_;
  const Uuid disk_;
  AlignedBuffer buffer_;
};

/// Calls `visit(frame, offset)` for each frame of the valid run at the start of `data`; `info` and `id` say which file
/// it is, `owner` keeps `data` alive or is null. Returns where the run ends, and `*why`.
absl::StatusOr<int64_t> WalkFrames(std::string_view data, const std::shared_ptr<const void>& owner,
                                   const JournalFileInfo& info, std::optional<Uuid> id, std::string* why,
                                   const JournalFileReader::Visit& visit);

/// The size of a file, which is one that a journal file may have.
absl::StatusOr<int64_t> JournalFileSize(File& file);

}  // namespace sluice::storage
