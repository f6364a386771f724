// Records: what a batch holds, how a batch is built of them, and how they are read back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/record/batch.h"
#include "common/record/codec.h"
#include "common/types.h"

namespace sluice::record {

/// A header's key is never null, its value may be.
struct Header {
  std::string_view key;
  std::optional<std::string_view> value;
  bool operator==(const Header&) const = default;
};

/// Borrows its bytes: of the caller when appended, of the reader when read.
struct Record {
  int64_t timestamp_ms = kNoTimestamp;
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
  std::vector<Header> headers;
  /// Set when read; not looked at when appended.
  Offset offset;
  bool operator==(const Record&) const = default;
};

/// Builds batches, one after the other. Records are written where the batch will lie: an uncompressed one that fills
/// most of the builder's memory takes that along, and the next begins with as much. One thread at a time.
class BatchBuilder {
 public:
  BatchBuilder();

  /// Producer identity of the batches to come; without it they carry none.
  void SetProducer(int64_t id, int16_t epoch, int32_t base_sequence);

  /// RESOURCE_EXHAUSTED, with nothing appended, when the batch would pass what its length field can say.
  absl::Status Append(const Record& record);
  absl::Status Append(int64_t timestamp_ms, std::optional<std::string_view> key, std::optional<std::string_view> value,
                      std::span<const Header> headers = {});

  int32_t record_count() const { return count_; }
  bool empty() const { return count_ == 0; }
  /// Bytes of the batch as it stands, before compression.
  size_t size_bytes() const { return size_; }
  /// What appending would add at most.
  static size_t RecordBytesMax(std::optional<std::string_view> key, std::optional<std::string_view> value,
                               std::span<const Header> headers = {});

  /// The batch so far, with base offset 0 and no epoch. The builder is empty afterwards, unless it fails.
  /// FAILED_PRECONDITION when there are no records.
  absl::StatusOr<PendingBatch> Build(Codec codec = Codec::kNone, int level = kDefaultLevel);
  /// The same as an uncompressed control batch; for control.h.
  absl::StatusOr<PendingBatch> BuildControl();
  /// Drops what was appended; the producer identity stays.
  void Reset();

 private:
  void Reserve(size_t bytes);
  void WriteHeader(uint16_t attributes, char* image, size_t size) const;
  PendingBatch FinishRecords(uint16_t attributes);

  MutableBytes buffer_{0};  // the header's room, then the records; empty where the last batch took it along
  size_t size_;             // of the batch so far
  size_t capacity_wanted_;  // of the next buffer
  std::string compressed_;  // scratch of Build
  int32_t count_ = 0;
  int64_t first_timestamp_ms_ = kNoTimestamp;
  int64_t max_timestamp_ms_ = kNoTimestamp;
  int64_t producer_id_ = kNoProducerId;
  int16_t producer_epoch_ = kNoProducerEpoch;
  int32_t base_sequence_ = kNoSequence;
};

/// Reads a batch's records in order. The batch's bytes must outlive the reader; a record's views hold until the reader
/// is gone (a compressed batch is decompressed into the reader). Never reads outside the batch, whatever the bytes are;
/// it does not check the CRC. Control batches are read like any other: their one record is decoded by control.h.
class RecordReader {
 public:
  /// Decompresses when there is need. DATA_LOSS, RESOURCE_EXHAUSTED.
  static absl::StatusOr<RecordReader> Open(const BatchView& batch, const DecompressLimits& limits = {});

  RecordReader(RecordReader&&) = default;
  RecordReader& operator=(RecordReader&&) = default;

  /// True and a record; false at the end, which is also where left-over bytes are found out; DATA_LOSS at the first
  /// byte that is wrong, and at every call after it.
  absl::StatusOr<bool> Next(Record* record);

 private:
  RecordReader(const BatchView& batch, std::unique_ptr<std::string> decompressed);

  BatchView batch_;
  std::unique_ptr<std::string> decompressed_;  // on the heap, so that views survive a move of the reader
  std::string_view rest_;
  int32_t read_ = 0;
  absl::Status failed_;
};

}  // namespace sluice::record
