// Reading partitions: a Consumer fetches ahead, within a memory bound, from the partitions assigned to it, and hands
// out records or whole batches in offset order per partition.
//
// Always holds, per partition: what is handed out has rising offsets, starts at the position, and leaves out only what
// the log does not have (compacted or deleted offsets, control batches). A gap that the broker cannot explain is an
// error. The position is the offset to read next; it moves when records are handed out, also past control batches.
// Threads: one thread at a time calls; blocking calls not on the client's executor.
// Errors: OUT_OF_RANGE (position below the log start or above the end; seek to go on), NOT_FOUND, DATA_LOSS,
// UNAVAILABLE or DEADLINE_EXCEEDED when a partition's broker has not answered for `broker_timeout`. The message names
// the partition. An error is returned once and holds back its partition until a Seek or the next Poll tries again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/admin.h"
#include "common/record/batch.h"
#include "common/record/record.h"
#include "common/types.h"

namespace sluice::client {

struct ConsumerOptions {
  /// Of one fetch and one partition. A batch larger than this still comes, alone.
  int32_t fetch_bytes_max = 1 << 20;
  /// How long a broker may hold back an answer to wait for data.
  absl::Duration fetch_wait_max = absl::Milliseconds(500);
  int32_t fetch_bytes_min = 1;
  /// Fetched but not handed out; at most one fetch more than this is held.
  size_t memory_bytes = size_t{16} << 20;
  /// What one batch may grow to when decompressed.
  record::DecompressLimits decompress;
  /// How long a partition may go without an answer before a poll returns an error; ClientOptions::timeout when that is
  /// shorter.
  absl::Duration broker_timeout = absl::Seconds(30);
  absl::Duration retry_backoff = absl::Milliseconds(100);
};

/// Views hold until the next poll, seek, or unassign of the consumer.
struct ConsumedRecord {
  std::string_view topic;
  PartitionId partition;
  record::Record record;  // `record.offset` is its offset
};

/// One data batch, shared bytes, checksum verified. Records below `first_offset` were not asked for: skip them.
struct ConsumedBatch {
  TopicPartition source;
  record::Batch batch;
  Offset first_offset;
  /// The consumer's position after this batch.
  Offset next_offset;
};

class Consumer {
 public:
  virtual ~Consumer() = default;

  /// Starts reading a partition at an offset; a partition already assigned is sought.
  virtual void Assign(const TopicPartition& partition, Offset offset) = 0;
  virtual void Unassign(const TopicPartition& partition) = 0;
  /// FAILED_PRECONDITION when not assigned. What was fetched before is dropped.
  virtual absl::Status Seek(const TopicPartition& partition, Offset offset) = 0;
  virtual std::optional<Offset> Position(const TopicPartition& partition) const = 0;
  /// As of the last fetch; none before the first.
  virtual std::optional<Offset> HighWatermark(const TopicPartition& partition) const = 0;
  /// A paused partition hands out nothing and fetches nothing new.
  virtual absl::Status Pause(const TopicPartition& partition) = 0;
  virtual absl::Status Resume(const TopicPartition& partition) = 0;

  /// Waits at most `timeout` for records; empty when none came. At most `records_max`.
  virtual absl::StatusOr<std::vector<ConsumedRecord>> Poll(absl::Duration timeout, size_t records_max = 1000) = 0;
  /// The same in whole batches: at least one when there is one, more while below `bytes_max`. Do not mix with Poll
  /// inside one batch: after a Poll that ended inside a batch, the rest of it comes with `first_offset` set.
  virtual absl::StatusOr<std::vector<ConsumedBatch>> PollBatches(absl::Duration timeout,
                                                                 size_t bytes_max = size_t{4} << 20) = 0;
  /// Makes a waiting poll return at once, empty. Thread-safe; for signals and shutdown.
  virtual void Wake() = 0;
  /// Runs on the client's executor whenever something may be there to poll: for event loops (and the simulator), which
  /// then poll with timeout 0.
  virtual void OnReady(absl::AnyInvocable<void()> ready) = 0;
};

}  // namespace sluice::client
