// The compression codecs of record batches, with decompression that never takes more memory than it was allowed.
//
// Frames are those of Kafka's clients: gzip; snappy in the xerial-java framing (a bare snappy block is also read); an
// LZ4 frame; a zstd frame. Pure functions, safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::record {

/// Numbers are those of the attributes' bits 0 to 2.
enum class Codec : uint8_t { kNone = 0, kGzip = 1, kSnappy = 2, kLz4 = 3, kZstd = 4 };

inline constexpr int kDefaultLevel = -1000;

/// "none", "gzip", "snappy", "lz4", "zstd".
std::string_view CodecName(Codec codec);
std::optional<Codec> ParseCodec(std::string_view name);

struct DecompressLimits {
  /// What the records of one batch may grow to. More is RESOURCE_EXHAUSTED, before that memory is taken.
  size_t bytes_max = size_t{64} << 20;
};

/// Compresses `input` and appends it to `out`. `level` is the codec's own (gzip 1..9, lz4 0..12, zstd -7..22; snappy
/// has none); kDefaultLevel takes the codec's default. INVALID_ARGUMENT for a level outside the range.
absl::Status Compress(Codec codec, int level, std::string_view input, std::string* out);

/// The whole of `input`, which must be exactly one compressed run (gzip and LZ4 and zstd: one or more frames).
/// DATA_LOSS when it is damaged or cut short, RESOURCE_EXHAUSTED when it would pass the limit.
absl::StatusOr<std::string> Decompress(Codec codec, std::string_view input, const DecompressLimits& limits);

}  // namespace sluice::record
