// Constants of the journal's files, format versions 1 to 3. docs/formats.md explains them; integers are
// little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::storage::journal_format {

inline constexpr uint32_t kMagic = 0x464a4c53;  // "SLJF" as it stands in the file
inline constexpr uint16_t kVersion = 3;         // written
inline constexpr uint16_t kVersionOldest = 1;   // read
// From this version on an opening says how large its file was made, and the mark is there before the file is.
inline constexpr uint16_t kVersionMarked = 2;
// From this version on appends say what they hold, and snapshots where a replica's data ends.
inline constexpr uint16_t kVersionDataEnd = 3;

// A frame: this header, then records; padded with zeros to whole blocks of 4096 bytes.
inline constexpr size_t kMagicAt = 0;         // u32
inline constexpr size_t kVersionAt = 4;       // u16
inline constexpr size_t kFlagsAt = 6;         // u16
inline constexpr size_t kFileSequenceAt = 8;  // u64, the number in the file's name
inline constexpr size_t kFileIdAt = 16;       // 16 bytes, drawn anew each time a file is made or recycled
inline constexpr size_t kFrameAt = 32;        // u64, one more than the frame before, across files
inline constexpr size_t kLastSyncedAt = 40;   // u64, highest frame known to be synced when this one was written
inline constexpr size_t kLengthAt = 48;       // u32, of header and records, without padding
inline constexpr size_t kRecordCountAt = 52;  // u32
inline constexpr size_t kReservedAt = 56;     // u32, zero
inline constexpr size_t kChecksumAt = 60;     // u32, CRC32C of [0, 60) and of every record's header and fields
inline constexpr size_t kFrameHeaderBytes = 64;
static_assert(kChecksumAt + sizeof(uint32_t) == kFrameHeaderBytes);

inline constexpr uint16_t kFlagOpening = 1;     // part of a file's opening snapshot
inline constexpr uint16_t kFlagOpeningEnd = 2;  // its last frame

// A record: this header, then its fields, then its payload.
inline constexpr size_t kTypeAt = 0;             // u8
inline constexpr size_t kRecordReservedAt = 1;   // u8, zero
inline constexpr size_t kFieldBytesAt = 2;       // u16
inline constexpr size_t kPayloadBytesAt = 4;     // u32
inline constexpr size_t kPayloadChecksumAt = 8;  // u32, CRC32C of the payload
inline constexpr size_t kRecordHeaderBytes = 12;
static_assert(kPayloadChecksumAt + sizeof(uint32_t) == kRecordHeaderBytes);

enum class RecordType : uint8_t {
  kAppend = 1,
  kSegmentRange = 2,  // reserved; version 1 refuses it
  kTruncate = 3,
  kReset = 4,
  kLogStart = 5,
  kHardState = 6,
  kRaftConfig = 7,
  kCheckpoint = 8,
  kCreate = 9,
  kDrop = 10,
  kPad = 11,  // fields of zeros that mean nothing: the next payload then lies in the file as it lies in memory
  kOpening = 32,
  kReplicaSnapshot = 33,
};

inline constexpr size_t kFieldBytesMax = 256;
inline constexpr size_t kSnapshotSegmentBytes = 41;
/// Largest payload of one record; larger appends must be split by whole batches.
inline constexpr size_t kPayloadBytesMax = size_t{64} << 20;

// The mark: a file of two blocks of 4096 bytes, written in turn; each begins so, the rest is zeros.
inline constexpr uint32_t kMarkMagic = 0x4d4a4c53;   // "SLJM" as it stands in the file
inline constexpr uint32_t kMarkVersion = 2;          // written
inline constexpr uint32_t kMarkVersionUnneeded = 2;  // from this version on it says which files are not needed
inline constexpr size_t kMarkMagicAt = 0;            // u32
inline constexpr size_t kMarkVersionAt = 4;          // u32
inline constexpr size_t kMarkTurnAt = 8;         // u64, one more at each write; the block with the higher one counts
inline constexpr size_t kMarkDiskAt = 16;        // 16 bytes
inline constexpr size_t kMarkFileAt = 32;        // u64, the newest file's number; 0: none yet
inline constexpr size_t kMarkFrameAt = 40;       // u64, highest frame known to be synced
inline constexpr size_t kMarkNeededFromAt = 48;  // u64, number of the oldest file that anything needs; 0: not known
inline constexpr size_t kMarkChecksumAt = 56;    // u32, CRC32C of bytes [0, 56)
inline constexpr size_t kMarkBytes = 60;
static_assert(kMarkChecksumAt + sizeof(uint32_t) == kMarkBytes);
inline constexpr size_t kMarkChecksumAtV1 = 48;  // version 1 ends with it

}  // namespace sluice::storage::journal_format
