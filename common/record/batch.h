// The record batch in its three states, all of them the same bytes (docs/formats.md):
//   BatchView     borrowed bytes that have the shape of a batch; nothing else is known of them until a Verify call.
//   PendingBatch  bytes of our own whose checksum is right, without a place in a log yet; the only mutable state.
//   Batch         immutable and shared: it has its base offset and leader epoch.
// A batch goes BatchView -> PendingBatch -> Batch, never back.
//
// Errors: DATA_LOSS when bytes are not a sound batch, INVALID_ARGUMENT for the same from a client, RESOURCE_EXHAUSTED
// when decompression would pass its limit.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bytes.h"
#include "common/record/batch_format.h"
#include "common/record/codec.h"
#include "common/types.h"

namespace sluice::record {

/// Borrowed bytes of one batch. Always holds: length and magic are right; the codec is known; the base offset is not
/// negative and the last offset does not overflow; there are either no records (an offset range that compaction
/// emptied) or exactly one for each offset, and no more than the bytes could hold. The checksum is NOT part of it.
class BatchView {
 public:
  /// `bytes` is one whole batch and nothing else.
  static absl::StatusOr<BatchView> Parse(std::string_view bytes);
  /// The first batch of a longer run, such as a segment; size_bytes() tells where the next one starts.
  static absl::StatusOr<BatchView> ParseFirst(std::string_view bytes);
  /// How long the batch at the start of `bytes` says it is; needs the first 12 bytes, and checks nothing else.
  static absl::StatusOr<size_t> PeekSize(std::string_view bytes);

  Offset base_offset() const;
  Offset last_offset() const;
  Offset next_offset() const { return last_offset() + 1; }
  LeaderEpoch leader_epoch() const;
  uint32_t crc() const;
  uint16_t attributes() const;
  Codec codec() const { return static_cast<Codec>(attributes() & kCodecMask); }
  bool is_control() const { return (attributes() & kControlBit) != 0; }
  bool is_log_append_time() const { return (attributes() & kLogAppendTimeBit) != 0; }
  int32_t last_offset_delta() const;
  int64_t first_timestamp_ms() const;
  int64_t max_timestamp_ms() const;
  int64_t producer_id() const;
  int16_t producer_epoch() const;
  int32_t base_sequence() const;
  int32_t record_count() const;
  size_t size_bytes() const { return bytes_.size(); }
  std::string_view bytes() const { return bytes_; }
  /// The records as stored, compressed or not.
  std::string_view payload() const { return bytes_.substr(kBatchHeaderBytes); }

  absl::Status VerifyCrc() const;
  /// Walks every record once: deltas 0 to n-1, lengths, count, header keys that are not null, no bytes left over, and
  /// the largest timestamp (unless the broker gave it). A compressed batch is decompressed first, within `limits`.
  absl::Status VerifyRecords(const DecompressLimits& limits) const;
  /// Refuses what only a broker may write: attribute bits 3 to 15, and a batch without records.
  absl::Status VerifyClientAttributes() const;

 private:
  explicit BatchView(std::string_view bytes) : bytes_(bytes) {}
  friend class PendingBatch;
  friend class Batch;
  std::string_view bytes_;
};

/// A batch with its place: immutable, and cheap to copy (it shares its bytes). The fields that every append and every
/// read asks for are kept beside the bytes. Threads: as Bytes.
class Batch {
 public:
  /// Empty: size_bytes() is 0. Only to be assigned to.
  Batch() = default;
  /// Bytes from a disk or a peer, exactly one batch: shape, checksum, and an epoch that is not negative.
  static absl::StatusOr<Batch> FromStored(Bytes bytes);

  Offset base_offset() const { return base_offset_; }
  Offset last_offset() const { return last_offset_; }
  Offset next_offset() const { return last_offset_ + 1; }
  LeaderEpoch epoch() const { return epoch_; }
  int32_t record_count() const { return record_count_; }
  int64_t max_timestamp_ms() const { return max_timestamp_ms_; }
  Codec codec() const { return static_cast<Codec>(attributes_ & kCodecMask); }
  bool is_control() const { return (attributes_ & kControlBit) != 0; }
  size_t size_bytes() const { return bytes_.size(); }
  const Bytes& bytes() const { return bytes_; }
  /// All the fields; valid while this batch (or its Bytes) lives.
  BatchView view() const { return BatchView(bytes_.view()); }

  /// CRC32C of ALL bytes of the batch, which its own CRC is not: that leaves out base offset, length, epoch and magic.
  /// Derived from the batch's CRC and its first 21 bytes; the records are not read again.
  uint32_t whole_crc32c() const { return whole_crc32c_; }

 private:
  friend class PendingBatch;
  explicit Batch(Bytes bytes);

  Bytes bytes_;
  Offset base_offset_;
  Offset last_offset_;
  LeaderEpoch epoch_;
  int32_t record_count_ = 0;
  int64_t max_timestamp_ms_ = kNoTimestamp;
  uint16_t attributes_ = 0;
  uint32_t whole_crc32c_ = 0;
};

/// A sound batch of ours alone that has no place yet. Always holds: the CRC matches the bytes. One thread at a time.
class PendingBatch {
 public:
  /// Takes a client's batch: shape, CRC, attributes, and, when it is not compressed, every record. What a compressed
  /// batch holds is not looked at here (VerifyRecords does). Every failure is INVALID_ARGUMENT.
  static absl::StatusOr<PendingBatch> FromClient(MutableBytes bytes);
  /// Bytes that our own builder just made; only checked by CHECK.
  static PendingBatch FromBuilder(MutableBytes bytes);

  BatchView view() const { return BatchView(bytes_.view()); }
  std::string_view bytes() const { return bytes_.view(); }
  size_t size_bytes() const { return bytes_.size(); }

  /// The broker's time for all records of the batch: sets the attribute bit and the largest timestamp (which then is
  /// every record's time; the first timestamp stays, as in Kafka), and repairs the CRC from the changed bytes alone.
  void SetLogAppendTime(int64_t ms);

  /// Gives the batch its place; neither field is under the CRC. Offset and epoch are not negative.
  Batch Assign(Offset base, LeaderEpoch epoch) &&;
  /// The bytes as they are, for a client to send.
  Bytes Freeze() && { return std::move(bytes_).Freeze(); }

 private:
  explicit PendingBatch(MutableBytes bytes) : bytes_(std::move(bytes)) {}
  MutableBytes bytes_;
};

}  // namespace sluice::record
