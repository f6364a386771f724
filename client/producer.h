// Writing to topics: Producer for records (batched, pipelined, retried in order) and Appender for one ready-made batch
// with compare-and-append, which exactly-once writers build on.
//
// Promises of a Producer:
//   1. Each record accepted by Send gets exactly one result, also when the producer is destroyed.
//   2. Records of one partition are written in the order sent. A batch is sent again only when it is known not to have
//      been written; then everything behind it waits.
//   3. A record whose outcome nobody knows (connection lost or time over after it was sent) gets IsOutcomeUnknown and
//   is
//      never sent again by itself.
//   4. Memory is bounded by `memory_bytes`, whatever the broker does.
//   5. Every result comes within `delivery_timeout`, give or take one linger.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bytes.h"
#include "common/record/codec.h"
#include "common/record/record.h"
#include "common/types.h"

namespace sluice::client {

struct ProducerOptions {
  /// A batch is closed when it is this large before compression; a larger record goes alone.
  size_t batch_bytes = size_t{256} << 10;
  /// How long an open batch waits for more records while an earlier one of its partition is under way; with nothing
  /// under way it goes at once. 0: never waits.
  absl::Duration linger = absl::Milliseconds(5);
  record::Codec codec = record::Codec::kNone;
  int codec_level = record::kDefaultLevel;
  /// Bound of all records that have no result yet.
  size_t memory_bytes = size_t{64} << 20;
  /// What Send does when memory is full: wait at most this long, then RESOURCE_EXHAUSTED. 0: at once.
  absl::Duration block_max = absl::Seconds(60);
  /// From Send to the result.
  absl::Duration delivery_timeout = absl::Seconds(30);
  /// How long a broker may take to answer a request before it counts as lost, and all that it has not answered as
  /// unknown. Longer than brokers take to be certain of a batch that lost its leader (10 s).
  absl::Duration request_timeout = absl::Seconds(15);
  absl::Duration retry_backoff = absl::Milliseconds(50);
  /// Requests under way to one broker.
  int requests_in_flight_max = 16;
};

struct RecordToSend {
  std::string_view topic;
  std::optional<PartitionId> partition;  // none: by key (murmur2, as Kafka's), without a key sticky
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
  std::span<const record::Header> headers;
  std::optional<int64_t> timestamp_ms;  // none: now
};

struct RecordResult {
  PartitionId partition;
  Offset offset;
  int64_t timestamp_ms = -1;
};

class Producer {
 public:
  /// Runs once, on the client's executor: keep it short and never block in it.
  using Callback = absl::AnyInvocable<void(absl::StatusOr<RecordResult>)>;

  /// As Flush with no time left.
  virtual ~Producer() = default;

  /// Takes a copy of the record. An error means that it was not taken and `done` will not run: RESOURCE_EXHAUSTED when
  /// memory is full, INVALID_ARGUMENT for what can never be sent. Thread-safe; on the client's executor it never waits.
  virtual absl::Status Send(const RecordToSend& record, Callback done) = 0;
  /// Sends what is open and waits until no record is without a result (those that other threads send meanwhile as
  /// well); DEADLINE_EXCEEDED when `timeout` ends first (the records stay under way). Not on the client's executor.
  virtual absl::Status Flush(absl::Duration timeout) = 0;
  /// Bytes of records without a result.
  virtual size_t memory_used() const = 0;
};

struct AppendRequest {
  std::string topic;
  PartitionId partition;
  /// One encoded batch, as BatchBuilder makes it.
  Bytes batch;
  /// Append only if the partition's log ends exactly here (Admin: log_end), otherwise fail with
  /// Reason::kExpectedOffsetMismatch, whose detail carries `log_end_offset`.
  std::optional<Offset> expected_base_offset;
};

struct AppendResult {
  Offset base_offset;  // of the batch's first record
  Offset next_offset;  // what the next compare-and-append has to expect, when nobody else writes
  LeaderEpoch leader_epoch;
  int64_t log_append_time_ms = -1;  // -1 unless the topic uses the broker's time
};

class Appender {
 public:
  virtual ~Appender() = default;
  /// Written once at most: the partition's leader is followed, within `timeout`, only while it is certain that nothing
  /// was written; no longer than ClientOptions::timeout, either. IsOutcomeUnknown when the time or the connection ran
  /// out after the batch was sent; every other error means that it was not written. Blocks; thread-safe; not on the
  /// client's executor.
  virtual absl::StatusOr<AppendResult> AppendBatch(const AppendRequest& request, absl::Duration timeout) = 0;
};

/// Kafka's default partitioner for a record with a key: positive(murmur2(key)) % partitions.
PartitionId PartitionForKey(std::string_view key, int32_t partitions);
/// Kafka's 32-bit murmur2 (seed 0x9747b28c).
uint32_t Murmur2(std::string_view data);

}  // namespace sluice::client
