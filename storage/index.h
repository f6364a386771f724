// The sparse index of one segment: about every 64 KiB the place of one batch, so that a read or a search by time starts
// near what it looks for. Rebuilt from the segment whenever it is missing, short or damaged; never trusted over the
// data: whoever uses an entry checks the batch that it finds there.
//
// Always holds: entries are ordered by offset, position and max_timestamp_ms; they cover the segment's bytes
// [0, covered()) without a gap; each entry stands at the start of a batch.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"
#include "storage/journal_state.h"

namespace sluice::storage {

/// "SLIX", the first bytes of an index file; docs/formats.md has the rest.
inline constexpr uint32_t kIndexMagic = 0x58494c53;
inline constexpr uint32_t kIndexVersion = 1;
inline constexpr size_t kIndexHeaderBytes = 48;
inline constexpr size_t kIndexEntryBytes = 24;

struct IndexEntry {
  Offset offset;                 ///< Base offset of the batch at `position`.
  int64_t position = 0;          ///< In the segment file, bytes.
  int64_t max_timestamp_ms = 0;  ///< Largest of the segment from its start up to the next entry.
  bool operator==(const IndexEntry&) const = default;
};

class SparseIndex {
 public:
  static constexpr int64_t kDefaultIntervalBytes = 64 << 10;

  explicit SparseIndex(int64_t interval_bytes = kDefaultIntervalBytes) : interval_bytes_(interval_bytes) {}

  /// Takes in the batch at `position`. One that does not stand at covered() changes nothing: then the index stays
  /// short of it, and a reader rebuilds it.
  void Add(Offset base_offset, int64_t position, int64_t size_bytes, int64_t max_timestamp_ms);

  /// The last entry at or before `offset`; {segment base, 0} when there is none.
  IndexEntry Lookup(Offset offset, Offset segment_base) const;
  /// Where the first batch that is at or after `timestamp_ms` is looked for; covered() when none is.
  IndexEntry LookupTimestamp(int64_t timestamp_ms, Offset segment_base) const;

  /// Forgets what stands at or behind `end`, where a batch ends. Times may then be too late, so that a search by time
  /// starts too early, never too late.
  void TrimTo(int64_t end);

  int64_t covered() const { return covered_; }
  const std::vector<IndexEntry>& entries() const { return entries_; }

  /// The whole index file.
  std::string Encode(SegmentId segment) const;
  /// DataLoss when it is not a sound index of that segment.
  static absl::StatusOr<SparseIndex> Decode(std::string_view file, SegmentId segment,
                                            int64_t interval_bytes = kDefaultIntervalBytes);

 private:
  int64_t interval_bytes_;
  int64_t covered_ = 0;
  std::vector<IndexEntry> entries_;
};

}  // namespace sluice::storage
