// What the journal records, and the registry that those records add up to.
//
// JournalState is the only registry of replicas on a node: which there are, their votes, and for each the segments that
// exist with their exact length and checksum. The journal's thread applies each record to it as the record is
// journaled; replay applies the same records in the same order and so reaches the same state. Each journal file opens
// with a snapshot of it.
//
// Always holds for a replica:
//  - segments are ordered by base offset and tile: each base is the next_offset of the one before;
//  - only the last segment may grow, and not once a truncation has closed it: bytes are never rewritten;
//  - log_start <= next_offset, and the checkpoint never lies beyond the end of the last segment;
//  - the term never goes back, and within a term a vote once given does not change.
// Threads: one at a time. Errors: FailedPrecondition, with the reason, for a record that does not fit; then nothing has
// changed.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "common/bytes.h"
#include "common/types.h"

namespace sluice::storage {

/// Names a segment file of a replica: "<base offset, 20 digits>-<leader epoch>.log".
struct SegmentId {
  Offset base;
  LeaderEpoch epoch;  // of the segment's first batch
  auto operator<=>(const SegmentId&) const = default;
  std::string ToString() const;  // the file's name without its ending
};

/// What Raft must never forget. A default VoterId is "has not voted in this term".
struct HardState {
  LeaderEpoch term;
  VoterId voted_for;
  bool operator==(const HardState&) const = default;
};

/// What an append brings. Version 2 of the journal and before do not say.
enum class AppendHolds : uint8_t { kUnknown = 0, kData = 1, kControlOnly = 2 };

/// One or more whole batches written at byte `position` of a segment file. Position 0 opens the segment, whose base is
/// then the replica's next offset. An append that lies wholly below the segment's end changes nothing: that is how a
/// tail is carried forward out of the oldest journal file.
struct AppendRecord {
  ReplicaId replica;
  SegmentId segment;
  int64_t position = 0;
  Bytes bytes;
  uint32_t crc32c = 0;                        // of `bytes`, made once by whoever made them
  Offset next_offset;                         // of the log after these batches
  int64_t max_timestamp_ms = 0;               // the largest in these batches
  AppendHolds holds = AppendHolds::kUnknown;  // kData: the last batch is not a control batch
};

/// Closes `keep` at `position` and drops all later segments; position 0 drops `keep` too. The next append opens a new
/// segment at `next_offset`. With `position` at the segment's present end it only closes and drops.
struct TruncateRecord {
  ReplicaId replica;
  SegmentId keep;
  int64_t position = 0;
  uint32_t crc32c = 0;  // of the kept bytes [0, position)
  Offset next_offset;
  int64_t max_timestamp_ms = 0;  // the largest in the kept bytes
};

/// Drops all segments; the log is empty and starts and ends at `next_offset`.
struct ResetRecord {
  ReplicaId replica;
  Offset next_offset;
};

/// Advances the log start (a lower one changes nothing) and drops every segment that lies wholly below it, except the
/// last one, which is dropped only once it has a successor.
struct LogStartRecord {
  ReplicaId replica;
  Offset log_start;
};

struct HardStateRecord {
  ReplicaId replica;
  HardState hard_state;
};

/// The replica's Raft configuration, opaque to storage.
struct RaftConfigRecord {
  ReplicaId replica;
  Bytes config;
};

/// All bytes of the replica up to `position` of `segment` are synced in segment files, so the journal need not keep
/// them. One that is behind, or of a segment dropped since, changes nothing.
struct CheckpointRecord {
  ReplicaId replica;
  SegmentId segment;
  int64_t position = 0;
};

/// A new, empty replica whose log starts at offset 0. Creating it again with the same incarnation changes nothing.
struct CreateRecord {
  ReplicaId replica;
  Uuid incarnation;
};

/// Forgets the replica; dropping one that is unknown changes nothing.
struct DropRecord {
  ReplicaId replica;
};

using JournalRecord = std::variant<AppendRecord, TruncateRecord, ResetRecord, LogStartRecord, HardStateRecord,
                                   RaftConfigRecord, CheckpointRecord, CreateRecord, DropRecord>;

const ReplicaId& ReplicaOf(const JournalRecord& record);

/// A place in a replica's segments. The default lies before everything.
struct SegmentPosition {
  SegmentId segment;
  int64_t position = 0;
  auto operator<=>(const SegmentPosition&) const = default;
};

struct SegmentState {
  SegmentId id;
  int64_t end_position = 0;
  uint32_t crc32c = 0;  // of bytes [0, end_position)
  Offset next_offset;   // offset after the last batch
  int64_t max_timestamp_ms = 0;
  bool closed = false;  // by a truncation: grows no more
  bool operator==(const SegmentState&) const = default;
};

struct ReplicaState {
  static constexpr Offset kDataEndUnknown{-1};

  Uuid incarnation;
  HardState hard_state;
  Bytes raft_config;
  Offset log_start;
  Offset next_offset;  // end of the log, also when there is no segment
  /// Where the last batch that is not a control batch ends, so that nobody has to look for it in the segments; 0: there
  /// is none, or none since a reset. Not known once a truncation took that batch, until the next one.
  Offset data_end;
  SegmentPosition checkpoint;  // everything before it is synced in segment files
  std::vector<SegmentState> segments;

  /// The segment of that id, or null.
  const SegmentState* Find(SegmentId id) const;
  /// How many of the segment's bytes the checkpoint vouches for: they are synced in its file.
  int64_t SyncedBytes(const SegmentState& segment) const;
  bool operator==(const ReplicaState&) const = default;
};

class JournalState {
 public:
  using Replicas = absl::btree_map<ReplicaId, ReplicaState>;

  /// Takes one record in; used live and at replay.
  absl::Status Apply(const JournalRecord& record);
  const Replicas& replicas() const { return replicas_; }
  /// The replica, or null.
  const ReplicaState* Find(const ReplicaId& id) const;
  /// Puts a whole replica in, as a journal file's opening snapshot does.
  void Restore(const ReplicaId& id, ReplicaState state) { replicas_.insert_or_assign(id, std::move(state)); }
  /// Where data ends, of the replicas that are in both.
  void TakeDataEnds(const JournalState& from);
  bool operator==(const JournalState&) const = default;

 private:
  absl::Status ApplyTo(const AppendRecord& record);
  absl::Status ApplyTo(const TruncateRecord& record);
  absl::Status ApplyTo(const ResetRecord& record);
  absl::Status ApplyTo(const LogStartRecord& record);
  absl::Status ApplyTo(const HardStateRecord& record);
  absl::Status ApplyTo(const RaftConfigRecord& record);
  absl::Status ApplyTo(const CheckpointRecord& record);
  absl::Status ApplyTo(const CreateRecord& record);
  absl::Status ApplyTo(const DropRecord& record);

  Replicas replicas_;
};

}  // namespace sluice::storage
