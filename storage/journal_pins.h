// Which journal files hold bytes that are in no segment file yet, and for which replica.
//
// A pin is a range of a segment's bytes of which one journal file has the valid copy. Pins of a replica do not overlap;
// carrying bytes forward moves their pin to the newer file; what a checkpoint covers, or a truncation, reset or drop
// removes, is pinned no more.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "storage/journal_state.h"

namespace sluice::storage {

struct JournalPin {
  SegmentId segment;
  int64_t begin = 0;  // byte positions in the segment
  int64_t end = 0;
  uint64_t file = 0;          // number of the journal file
  uint64_t first_record = 0;  // ordinal of the first append that made this pin: older ones of the same range are void
};

class JournalPins {
 public:
  /// After `record`, number `ordinal` of all, was applied to its replica's `state` and written to `file`.
  void OnAppend(const AppendRecord& record, const ReplicaState& state, uint64_t file, uint64_t ordinal);
  /// Trims the replica's pins to what its state still needs; null: dropped.
  void Trim(const ReplicaId& replica, const ReplicaState* state);
  /// Trims all replicas, when the whole state was replaced.
  void TrimAll(const JournalState& state);

  bool IsPinned(uint64_t file) const { return files_.count(file) > 0; }
  std::vector<ReplicaId> HoldersOf(uint64_t file) const;
  /// Pins of a replica by segment and position.
  const std::vector<JournalPin>& Of(const ReplicaId& replica) const;
  /// DataLoss, saying which, when bytes beyond a checkpoint are in no file.
  absl::Status CheckCovers(const JournalState& state) const;

 private:
  void Count(uint64_t file, int by);
  void Subtract(std::vector<JournalPin>& pins, SegmentId segment, int64_t begin, int64_t end);

  absl::btree_map<ReplicaId, std::vector<JournalPin>> pins_;
  std::map<uint64_t, int> files_;  // number of pins; never zero
};

}  // namespace sluice::storage
