// The journal's files: made ahead of use, written frame by frame, recycled.
//
// One that is made ahead is called "spare" until it is started; there is at most one.
//
// Used on the journal's io executor, and by Open before that runs; calls block.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "storage/journal_codec.h"
#include "storage/journal_file_maker.h"
#include "storage/journal_mark.h"
#include "storage/journal_pins.h"
#include "storage/journal_replay.h"

namespace sluice::storage {

class JournalFiles {
 public:
  JournalFiles(FileSystem& fs, const JournalOptions& options)
      : fs_(fs), options_(options), mark_(fs, options.dir, options.disk) {}

  /// The folder, made durable, without what an interrupted making of a file left behind.
  absl::Status PrepareDir();
  /// Takes over what replay found. The last file that counts is not recycled before Supersede. Makes the mark durable
  /// where there is none yet: before the first file that would be missed without it.
  absl::Status Adopt(const ReplayedJournal& replayed);
  /// The current file's opening, now synced, replaces all older files numbered `from` or higher.
  void Supersede(uint64_t from);

  /// Whether the next file is there already, so that StartFile takes no time and no space.
  bool HasNext(const JournalPins& pins) const { return has_spare_ || !Reusable(pins).empty(); }
  /// To make the spare file with, on any thread; AddSpare once it is done. Only when there is none.
  std::unique_ptr<JournalFileMaker> MakeSpare() const;
  void AddSpare() { has_spare_ = true; }
  /// Makes the next file current: one that can be recycled, else the spare one, else one made now; named durably. Its
  /// opening must be written and synced, and then Mark called, before anything else. ResourceExhausted when the disk is
  /// full, also for an opening of so many bytes: the file that counts is the same as before.
  absl::Status StartFile(const JournalPins& pins, int64_t opening_bytes);
  /// Writes down durably that the current file is the newest, up to where it is synced, and which files are needed.
  absl::Status Mark() { return mark_.Write(current_.sequence, last_synced_, needed_from_); }
  /// The next Mark says that files before the oldest that is pinned are not needed; StartFile calls it. Only while all
  /// frames are synced, as what let go of a file may be in the last of them.
  void NoteNeeded(const JournalPins& pins);
  /// Makes sure of the room on the disk for a frame of so many bytes, where it goes beyond the file as it is.
  /// ResourceExhausted when the disk is full: nothing changed.
  absl::Status Reserve(int64_t bytes);
  /// Writes a finished frame behind the last one.
  absl::Status WriteFrame(absl::Span<const std::string_view> parts);
  absl::Status Sync() { return file_->Sync(); }
  /// Removes files that can be recycled beyond the few that are worth keeping. Call only when all frames are synced.
  absl::Status RemoveSpares(const JournalPins& pins);
  void Close() { file_ = nullptr; }

  /// Header of the next frame, which takes the next frame number.
  FrameHeader NextHeader(uint16_t flags);
  /// All frames handed out so far are synced.
  void MarkSynced() { last_synced_ = last_frame_; }
  uint64_t last_frame() const { return last_frame_; }
  /// The current file's size when it was started.
  int64_t made_bytes() const { return made_bytes_; }

  /// Whether `bytes` more would leave the current file; never right after its opening.
  bool IsFull(int64_t bytes) const { return offset_ > opening_end_ && offset_ + bytes > full_at_; }
  void MarkOpeningEnd() { opening_end_ = offset_; }
  uint64_t current() const { return current_.sequence; }
  /// Oldest file, other than the current one, that something pins; 0: none.
  uint64_t OldestPinned(const JournalPins& pins) const;
  /// Bytes of files that cannot be recycled, the current one included, as far as they are written.
  int64_t UsedBytes(const JournalPins& pins) const;
  uint64_t created() const { return created_; }
  uint64_t recycled() const { return recycled_; }

 private:
  /// Indices into older_, in order: what is needed no more, and of that what is worth using again.
  std::vector<size_t> Recyclable(const JournalPins& pins) const;
  std::vector<size_t> Reusable(const JournalPins& pins) const;
  /// Not what something cut short since it was made.
  bool IsUsable(int64_t bytes) const;
  absl::Status Create(const std::string& path);
  /// Makes sure of the room for `file` to grow to so many bytes. ResourceExhausted: nothing changed.
  absl::Status ReserveIn(File& file, int64_t bytes_now, int64_t bytes);
  std::string SparePath() const;

  FileSystem& fs_;
  const JournalOptions& options_;
  std::deque<JournalFileInfo> older_;  // by sequence; the current one is not in it
  JournalMarkWriter mark_;
  JournalFileInfo current_;
  std::unique_ptr<File> file_;
  Uuid file_id_;
  int64_t offset_ = 0;       // where the next frame goes
  int64_t opening_end_ = 0;  // where the opening of the current file ends
  int64_t made_bytes_ = 0;
  int64_t full_at_ = 0;       // no frame goes beyond, unless it is the opening or the first after it
  bool has_spare_ = false;    // a file made ahead, not named as one that counts yet
  uint64_t held_ = 0;         // file that must stay until it is superseded; 0: none
  uint64_t needed_from_ = 0;  // for the mark
  uint64_t last_sequence_ = 0;
  uint64_t last_frame_ = 0;
  uint64_t last_synced_ = 0;
  uint64_t created_ = 0;
  uint64_t recycled_ = 0;
};

}  // namespace sluice::storage
