// Kafka's record batch, version 2 (magic 2), as bytes: where each field stands. All integers are big-endian. The layout
// is explained, with a worked example, in docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::record {

// Header: field, position, width in bytes.
inline constexpr size_t kBaseOffsetAt = 0;        // int64
inline constexpr size_t kBatchLengthAt = 8;       // int32: bytes that follow this field
inline constexpr size_t kLeaderEpochAt = 12;      // int32: -1 in a batch that no leader has taken yet
inline constexpr size_t kMagicAt = 16;            // int8: 2
inline constexpr size_t kCrcAt = 17;              // uint32: CRC32C of everything behind this field
inline constexpr size_t kAttributesAt = 21;       // int16
inline constexpr size_t kLastOffsetDeltaAt = 23;  // int32
inline constexpr size_t kFirstTimestampAt = 27;   // int64: ms since 1970
inline constexpr size_t kMaxTimestampAt = 35;     // int64: ms since 1970
inline constexpr size_t kProducerIdAt = 43;       // int64: -1 is none
inline constexpr size_t kProducerEpochAt = 51;    // int16: -1 is none
inline constexpr size_t kBaseSequenceAt = 53;     // int32: -1 is none
inline constexpr size_t kRecordCountAt = 57;      // int32
inline constexpr size_t kBatchHeaderBytes = 61;   // the records follow

/// What the batch's own CRC does not cover: base offset, length, leader epoch, magic and the CRC itself.
inline constexpr size_t kCrcCoversFrom = kAttributesAt;
/// Batch length counts from here.
inline constexpr size_t kLengthCountsFrom = kLeaderEpochAt;
inline constexpr int32_t kBatchLengthMin = kBatchHeaderBytes - kLengthCountsFrom;

inline constexpr int8_t kMagic = 2;

// Attributes.
inline constexpr uint16_t kCodecMask = 0x0007;
inline constexpr uint16_t kLogAppendTimeBit = 0x0008;
inline constexpr uint16_t kTransactionalBit = 0x0010;
inline constexpr uint16_t kControlBit = 0x0020;
inline constexpr uint16_t kDeleteHorizonBit = 0x0040;
/// Bits 3 to 15: a client may set none of them. Bit 3 is among them because it takes the largest timestamp on trust,
/// and retention goes by that.
inline constexpr uint16_t kNotForClientsMask = 0xfff8;

/// The smallest record: length, attributes, timestamp delta, offset delta, key length, value length, header count.
inline constexpr size_t kRecordBytesMin = 7;

inline constexpr int64_t kNoTimestamp = -1;
inline constexpr int64_t kNoProducerId = -1;
inline constexpr int16_t kNoProducerEpoch = -1;
inline constexpr int32_t kNoSequence = -1;
inline constexpr int32_t kNoLeaderEpoch = -1;

static_assert(kRecordCountAt + sizeof(int32_t) == kBatchHeaderBytes);
static_assert(kBatchLengthMin == 49);

}  // namespace sluice::record
