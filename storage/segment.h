// Segment files: their names, the one that is being written, and the readers that check every batch they return.
//
// A segment holds whole batches of ONE leader epoch that tile from its base offset, so that the registry's list of
// segments (checksummed in the journal) is also the epoch history. What follows the last batch, up to the next multiple
// of 4,096, may be zeros while the segment is open.
//
// Everything here blocks: call it on a BlockingExecutor. Errors: DataLoss names file, byte position and what was
// expected there; others as FileSystem.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bytes.h"
#include "common/file_system.h"
#include "common/record/batch.h"
#include "common/types.h"
#include "storage/index.h"
#include "storage/journal_state.h"

namespace sluice::storage {

/// "<dir>/<base offset, 20 digits>-<leader epoch>.log" and the same with ".index".
std::string SegmentPath(const std::string& dir, SegmentId id);
std::string IndexPath(const std::string& dir, SegmentId id);
/// The id in a file name that ends with ".log" or ".index"; nullopt for any other name.
std::optional<SegmentId> ParseSegmentFileName(std::string_view name);

/// What must be known of a segment to read and check it.
struct SegmentView {
  std::string path;
  SegmentId id;
  int64_t end_position = 0;  ///< Bytes that may be read.
  Offset next_offset;        ///< Of the batch that would stand at end_position.
};

/// A segment being written: each byte once, in aligned writes, except that the last, partly filled block is written
/// again as it fills when it was asked for before (the bytes already in it stay the same, so that a torn block
/// has them either way). One call at a time.
class SegmentFile {
 public:
  /// Makes the file; one that is there under this name is a leftover that the registry does not list, and goes.
  static absl::StatusOr<std::unique_ptr<SegmentFile>> Create(FileSystem& fs, const std::string& path);

  /// Takes `parts` as the bytes from end() on, and writes all whole blocks; those of a large part that lies in memory
  /// at the same place within a block as it gets in the file from where they lie. After a failure nothing of it was
  /// taken: the same call may be made again.
  absl::Status Append(absl::Span<const Bytes> parts);
  /// Writes the partly filled block too, padded with zeros.
  absl::Status FlushTail();
  /// Cuts the file to exactly `size`, which is at most end().
  absl::Status Finish(int64_t size);
  /// After a failure, unknown bytes of the file may be lost; never called again.
  absl::Status Sync() { return file_->Sync(); }

  int64_t end() const { return end_; }
  /// Bytes that stand in the file (not necessarily synced).
  int64_t flushed() const { return flushed_; }

 private:
  struct FreeBuffer {
    void operator()(char* p) const { std::free(p); }
  };
  using Buffer = std::unique_ptr<char, FreeBuffer>;
  static Buffer NewBuffer(int64_t size);

  explicit SegmentFile(std::unique_ptr<File> file);

  std::unique_ptr<File> file_;
  Buffer partial_;       // the block that end_ lies in, [end_ aligned down, end_)
  int64_t end_ = 0;      // bytes taken
  int64_t flushed_ = 0;  // bytes written
};

/// Of a stored batch, what its header alone tells.
struct BatchHeader {
  Offset base_offset;
  Offset last_offset;
  LeaderEpoch epoch;
  bool is_control = false;
  int64_t max_timestamp_ms = 0;  ///< -1 of a control batch.
  int64_t position = 0;
  int64_t size_bytes = 0;
};

/// Walks the batches of a segment from a batch's start, reading large windows; checks that they tile and have the
/// segment's epoch, not their checksums.
class SegmentScanner {
 public:
  /// `from` is where a batch with base offset `expected` starts.
  SegmentScanner(File& file, const SegmentView& segment, int64_t from, Offset expected);
  /// The next header; nullopt at the segment's end.
  absl::StatusOr<std::optional<BatchHeader>> Next();

 private:
  File& file_;
  const SegmentView& segment_;
  int64_t position_;
  Offset expected_;
  std::string window_;
  int64_t window_at_ = 0;
};

/// Extends `index` to the whole segment.
absl::Status ExtendIndex(File& file, const SegmentView& segment, SparseIndex& index);

/// Loads the segment's index file, and what it lacks (or all of it) from the segment itself.
absl::StatusOr<SparseIndex> LoadIndex(FileSystem& fs, File& file, const SegmentView& segment, const std::string& dir,
                                      int64_t interval_bytes);

/// Whole batches from the one that holds `offset` on (looked for from `from`, an entry of the segment's index), up to
/// `bytes_max` (at least one), each with its checksum, tiling and epoch checked; none that begins at or after `limit`.
absl::StatusOr<std::vector<record::Batch>> ReadBatches(File& file, const SegmentView& segment, IndexEntry from,
                                                       Offset offset, Offset limit, int64_t bytes_max);

/// CRC32C of the first `length` bytes, and what the batches in it add up to; checks every batch on the way.
struct SegmentSummary {
  uint32_t crc32c = 0;
  Offset next_offset;
  int64_t max_timestamp_ms = -1;
  int64_t batches = 0;
};
absl::StatusOr<SegmentSummary> SummarizeSegment(File& file, const SegmentView& segment, int64_t length);
/// The byte position where the batch with base offset `offset` starts (or the segment ends); InvalidArgument when it
/// lies inside a batch.
absl::StatusOr<int64_t> FindBatchStart(File& file, const SegmentView& segment, IndexEntry from, Offset offset);
/// The next offset of the last batch that is not a control batch.
absl::StatusOr<std::optional<Offset>> FindLastData(File& file, const SegmentView& segment, const SparseIndex& index);

}  // namespace sluice::storage
