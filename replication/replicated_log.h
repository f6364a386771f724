// ReplicatedLog: one partition's log as its users see it, whatever stands behind it (RaftLog).
//
// Always holds: offsets below high_watermark() are committed and never change; log_start <= high_watermark <= log_end;
// none of the three ever goes back; a callback reports success only once the outcome is committed at the term of the
// proposal.
// Threads: every method is called on, and every callback runs on, the executor of the partition's shard. Callbacks are
// never run inside the call that takes them. An implementation outlives no callback: on Stop each pending one gets
// Unavailable (reads) or Unknown (proposals: the outcome is not known).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/record/batch.h"
#include "common/types.h"

namespace sluice::replication {

template <class T>
using Callback = absl::AnyInvocable<void(T)>;

/// Where a committed batch stands.
struct Committed {
  Offset base_offset;
  Offset last_offset;
  LeaderEpoch leader_epoch;
};

struct LogBounds {
  Offset log_start;       ///< First offset that may be read; may lie inside a batch.
  Offset high_watermark;  ///< One past the last committed offset.
  Offset log_end;         ///< One past the last appended offset.
};

struct ReadRequest {
  Offset offset;                ///< First offset wanted.
  int64_t bytes_max = 1 << 20;  ///< Stop before exceeding this, but return at least one batch.
};

struct ReadResult {
  /// Whole committed batches that tile; the first holds `offset` (and may begin before it). Empty at the end of the
  /// log.
  std::vector<record::Batch> batches;
  Offset next_offset;  ///< Where to read on: one past the last batch returned, or the offset asked for.
  LogBounds bounds;
};

/// An answer to "which offset at this time": the first committed record whose timestamp is at or after it.
struct TimestampOffset {
  Offset offset;
  int64_t timestamp_ms;
};

class ReplicatedLog {
 public:
  virtual ~ReplicatedLog() = default;

  /// Appends `batch` as one entry and answers once it is committed. With `expected_base_offset`, FailedPrecondition and
  /// nothing written unless the batch would get exactly that base offset (compare and append; counts control batches).
  /// Errors: FailedPrecondition, Unavailable (not leader; nothing written), ResourceExhausted (disk or memory full;
  /// nothing written), Unknown (the outcome cannot be known).
  virtual void Propose(record::PendingBatch batch, std::optional<Offset> expected_base_offset,
                       Callback<absl::StatusOr<Committed>> done) = 0;

  /// Committed batches from an offset. OutOfRange below log_start or above high_watermark; Unavailable while a leader
  /// has not yet committed an entry of its own term; DataLoss names file and position.
  virtual void Read(ReadRequest request, Callback<absl::StatusOr<ReadResult>> done) = 0;

  /// Names one waiter; 0 names none.
  using WaitId = uint64_t;
  /// Runs `wake` once when high_watermark exceeds `offset` (soon, when it does already), leadership is lost, or the log
  /// stops.
  virtual WaitId WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake) = 0;
  virtual void CancelWait(WaitId id) = 0;

  /// Moves the log start up to `offset` by a committed control entry; answers the new log start (never lower than the
  /// old). OutOfRange beyond the high watermark.
  virtual void AdvanceLogStart(Offset offset, Callback<absl::StatusOr<Offset>> done) = 0;

  /// nullopt when no committed record is that late.
  virtual void FindTimestamp(int64_t timestamp_ms, Callback<absl::StatusOr<std::optional<TimestampOffset>>> done) = 0;

  /// Answers once a read that follows is linearizable (Raft's read index; dissertation section 6.4).
  virtual void ReadBarrier(Callback<absl::Status> done) = 0;

  virtual LogBounds bounds() const = 0;
  virtual LeaderEpoch leader_epoch() const = 0;
  /// Whether proposals are taken here now.
  virtual bool IsLeader() const = 0;
  /// Who takes proposals, as far as this replica knows; this node only where IsLeader.
  virtual std::optional<NodeId> leader() const = 0;
  /// One past the last committed batch that holds data records (control batches not counted); log_start when none.
  virtual Offset last_data_offset_end() const = 0;
  /// Bytes in this replica's segments.
  virtual int64_t size_bytes() const = 0;
};

}  // namespace sluice::replication
