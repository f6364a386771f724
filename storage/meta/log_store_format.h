// The files of the metadata store that runs in the simulator; no node in production has them. All integers
// little-endian.
//
// `meta.log.<n>` is a run of frames, each padded with zero bytes to kBlockBytes so that a written block is never
// written again. `meta.snapshot.<n>` is one frame with sequence number 0: the whole state from before the first frame
// of `meta.log.<n>`. Number 0 has no snapshot: the store was empty.
//
// Frame: magic u32 | payload length u32 | sequence u64, 1 for a log's first and one more each | CRC32C u32 of length,
// sequence and payload | payload.
// Payload: count u32, then as often: machine (length u32, bytes) | applied i64 | changes u32, then as often:
// key (length u32, bytes) | value length u32, kNoValue for a removal | bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::storage::meta_log {

inline constexpr uint32_t kMagic = 0x314d4c53;  // "SLM1" as bytes
inline constexpr size_t kMagicAt = 0;
inline constexpr size_t kLengthAt = 4;
inline constexpr size_t kSequenceAt = 8;
inline constexpr size_t kCrcAt = 16;
inline constexpr size_t kFrameHeaderBytes = 20;
inline constexpr uint32_t kNoValue = 0xffffffff;
/// A frame that says more is damaged; refused before memory is taken.
inline constexpr uint32_t kPayloadBytesMax = uint32_t{256} << 20;

}  // namespace sluice::storage::meta_log
