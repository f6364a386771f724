// Where a source slice stands after a batch. It travels as JSON in the header `sluice.position` of the batch's last
// record, in the same write as the records it speaks of; that is what makes a source exactly once. `__connect_state`
// keeps it for what has no batch: pages without records, and batches that retention has removed.
//
// Value types; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"

namespace sluice::connector {

inline constexpr std::string_view kPositionHeader = "sluice.position";

/// How far the incremental cursor has come. Values are raw JSON; empty: none yet. `*_seen` are the hashes (RecordHash)
/// of the records that stand exactly at the value: an API that answers "from, inclusive" sends them again.
struct CursorState {
  std::string from;  // what this pull asks for
  std::vector<uint64_t> from_seen;
  std::string max;  // the largest seen, where the next pull will begin
  std::vector<uint64_t> max_seen;
  bool operator==(const CursorState&) const = default;
};

struct Position {
  std::string pipeline;
  std::string slice;
  int64_t pull = 1;  // pulls of this slice, counted from 1
  int64_t page = 0;  // pages of this pull, counted from 0: the page that the batch belongs to
  int32_t part = 1;  // the batch is part `part` of `parts` of its page
  int32_t parts = 1;
  Offset page_offset;   // of the page's first record
  Offset letters_from;  // where <topic>.dlq ended before the page's first dead letter, at the latest
  std::string token;    // asks for this page; empty: the first
  std::string next;     // asks for the page after it
  bool last = false;    // no page comes after it
  CursorState cursor;
  bool operator==(const Position&) const = default;

  /// Whether the pull is complete with this batch.
  bool PullDone() const { return last && part == parts; }
  /// Whether more parts of the page should follow.
  bool InsidePage() const { return part < parts; }
};

std::string EncodePosition(const Position& position);
/// INVALID_ARGUMENT when it is not one, or of a version that this program does not know.
absl::StatusOr<Position> DecodePosition(std::string_view text);

/// A position that stands in `__connect_state`: made when the data of the topic `topic_id` ended at `data_end`. It
/// counts only for that topic, and while no later batch of the slice is there.
struct Checkpoint {
  Position position;
  Offset data_end;
  std::string topic_id;  // empty in what early versions wrote: any topic
};
std::string EncodeCheckpoint(const Checkpoint& checkpoint);
absl::StatusOr<Checkpoint> DecodeCheckpoint(std::string_view text);

/// The first 64 bits of SHA-256, the same in every process.
uint64_t RecordHash(std::string_view value);

}  // namespace sluice::connector
