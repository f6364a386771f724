#include "common/record/codec.h"

#include <lz4frame.h>
#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>

#include "common/endian.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::record {

namespace {

constexpr std::string_view kNames[] = {"none", "gzip", "snappy", "lz4", "zstd"};

absl::Status Damaged(Codec codec, std::string_view what) {
  return absl::DataLossError(Cat(CodecName(codec), ": ", what));
}

absl::Status TooLarge(Codec codec, const DecompressLimits& limits) {
  return absl::ResourceExhaustedError(
      Cat(CodecName(codec), ": decompresses to more than the ", limits.bytes_max, " bytes that are allowed"));
}

absl::Status BadLevel(Codec codec, int level) {
  return absl::InvalidArgumentError(Cat(CodecName(codec), " has no compression level ", level));
}

// Output that grows by doubling, but never past the limit: memory follows what was really produced.
class BoundedOutput {
 public:
  BoundedOutput(const DecompressLimits& limits, size_t first_guess)
      : limit_(limits.bytes_max), text_(std::min(limit_, std::max<size_t>(first_guess, 256)), '\0') {}

  /// Room for at least one more byte; false when the limit is reached.
  bool MakeRoom() {
    if (used_ < text_.size()) return true;
    if (used_ == limit_) return false;
    text_.resize(used_ > limit_ / 2 ? limit_ : std::max<size_t>(used_ * 2, 256));
    return true;
  }
  char* at() { return text_.data() + used_; }
  size_t room() const { return text_.size() - used_; }
  void Advance(size_t count) { used_ += count; }
  std::string Take() && {
    text_.resize(used_);
    return std::move(text_);
  }

 private:
  size_t limit_;
  std::string text_;
  size_t used_ = 0;
};

// ---- gzip

struct InflateEnd {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};
struct DeflateEnd {
  void operator()(z_stream* stream) const { deflateEnd(stream); }
};
constexpr int kGzipWindow = 15 + 16;  // largest window; gzip's header and trailer, not zlib's

absl::Status CompressGzip(int level, std::string_view input, std::string* out) {
  if (level == kDefaultLevel) level = Z_DEFAULT_COMPRESSION;
  if (level != Z_DEFAULT_COMPRESSION && (level < 1 || level > 9)) return BadLevel(Codec::kGzip, level);
  z_stream stream{};
  if (deflateInit2(&stream, level, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return absl::ResourceExhaustedError("gzip: no memory");
  }
  const std::unique_ptr<z_stream, DeflateEnd> owner(&stream);
  const size_t from = out->size();
  const size_t bound = deflateBound(&stream, input.size());
  if (bound > std::numeric_limits<uInt>::max()) return absl::InvalidArgumentError("gzip: more than 4 GiB at once");
  out->resize(from + bound);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(out->data() + from);
  stream.avail_out = static_cast<uInt>(bound);
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) return absl::InternalError("gzip: deflate did not finish");
  out->resize(from + stream.total_out);
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecompressGzip(std::string_view input, const DecompressLimits& limits) {
  z_stream stream{};
  if (inflateInit2(&stream, kGzipWindow) != Z_OK) return absl::ResourceExhaustedError("gzip: no memory");
  const std::unique_ptr<z_stream, InflateEnd> owner(&stream);
  BoundedOutput out(limits, input.size() * 4);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  while (true) {
    // At the limit inflate may still have a trailer to read: it gets no room, and an attempt to write shows as
    // Z_BUF_ERROR.
    const bool full = !out.MakeRoom();
    const uInt room = static_cast<uInt>(std::min<size_t>(out.room(), std::numeric_limits<uInt>::max()));
    Bytef nowhere = 0;
    stream.next_out = full ? &nowhere : reinterpret_cast<Bytef*>(out.at());
    stream.avail_out = full ? 0 : room;
    const uInt input_before = stream.avail_in;
    const int result = inflate(&stream, Z_NO_FLUSH);
    const uInt produced = full ? 0 : room - stream.avail_out;
    out.Advance(produced);
    if (result == Z_STREAM_END) {
      if (stream.avail_in == 0) return std::move(out).Take();
      if (inflateReset(&stream) != Z_OK) return Damaged(Codec::kGzip, "cannot start the next member");
      continue;
    }
    if (result == Z_MEM_ERROR) return absl::ResourceExhaustedError("gzip: no memory");
    if (result != Z_OK && result != Z_BUF_ERROR) {
      return Damaged(Codec::kGzip, stream.msg == nullptr ? "damaged" : stream.msg);
    }
    if (produced == 0 && stream.avail_in == input_before) {
      return full ? TooLarge(Codec::kGzip, limits) : Damaged(Codec::kGzip, "cut short");
    }
  }
}

// ---- snappy, in xerial's framing: a header, then blocks that each have a big-endian length before them.

constexpr std::string_view kXerialMagic("\x82SNAPPY\0", 8);
constexpr size_t kXerialHeaderBytes = 16;  // magic, version, oldest version that can read it
constexpr int32_t kXerialVersion = 1;
constexpr size_t kXerialBlockBytes = 32 << 10;
// A snappy copy of at most 64 bytes takes at least 2; nothing sound declares more than this many times its size.
constexpr size_t kSnappyRatioMax = 32;

absl::Status CompressSnappy(std::string_view input, std::string* out) {
  char header[kXerialHeaderBytes];
  std::memcpy(header, kXerialMagic.data(), kXerialMagic.size());
  StoreBig<int32_t>(header + 8, kXerialVersion);
  StoreBig<int32_t>(header + 12, kXerialVersion);
  out->append(header, sizeof(header));
  while (!input.empty()) {
    const std::string_view block = input.substr(0, kXerialBlockBytes);
    input.remove_prefix(block.size());
    const size_t from = out->size();
    out->resize(from + sizeof(int32_t) + snappy::MaxCompressedLength(block.size()));
    size_t written = 0;
    snappy::RawCompress(block.data(), block.size(), out->data() + from + sizeof(int32_t), &written);
    StoreBig<int32_t>(out->data() + from, static_cast<int32_t>(written));
    out->resize(from + sizeof(int32_t) + written);
  }
  return absl::OkStatus();
}

absl::Status AppendSnappyBlock(std::string_view block, const DecompressLimits& limits, std::string* out) {
  size_t length = 0;
  if (!snappy::GetUncompressedLength(block.data(), block.size(), &length)) return Damaged(Codec::kSnappy, "no length");
  if (length > limits.bytes_max - out->size()) return TooLarge(Codec::kSnappy, limits);
  if (length / kSnappyRatioMax > block.size()) return Damaged(Codec::kSnappy, "declares more than it can hold");
  const size_t from = out->size();
  out->resize(from + length);
  if (!snappy::RawUncompress(block.data(), block.size(), out->data() + from)) return Damaged(Codec::kSnappy, "damaged");
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecompressSnappy(std::string_view input, const DecompressLimits& limits) {
  std::string out;
  if (input.substr(0, kXerialMagic.size()) != kXerialMagic) {
    SLUICE_RETURN_IF_ERROR(AppendSnappyBlock(input, limits, &out));
    return out;
  }
  if (input.size() < kXerialHeaderBytes) return Damaged(Codec::kSnappy, "header cut short");
  if (LoadBig<int32_t>(input.data() + 12) > kXerialVersion) return Damaged(Codec::kSnappy, "unknown framing version");
  input.remove_prefix(kXerialHeaderBytes);
  while (!input.empty()) {
    if (input.size() < sizeof(int32_t)) return Damaged(Codec::kSnappy, "block length cut short");
    const int32_t length = LoadBig<int32_t>(input.data());
    input.remove_prefix(sizeof(int32_t));
    if (length < 0 || static_cast<size_t>(length) > input.size()) return Damaged(Codec::kSnappy, "block cut short");
    SLUICE_RETURN_IF_ERROR(AppendSnappyBlock(input.substr(0, static_cast<size_t>(length)), limits, &out));
    input.remove_prefix(static_cast<size_t>(length));
  }
  return out;
}

// ---- LZ4 frames

struct Lz4Free {
  void operator()(LZ4F_dctx* context) const { LZ4F_freeDecompressionContext(context); }
};

absl::Status CompressLz4(int level, std::string_view input, std::string* out) {
  if (level == kDefaultLevel) level = 0;
  if (level < 0 || level > 12) return BadLevel(Codec::kLz4, level);
  LZ4F_preferences_t preferences{};
  // The Java client reads independent blocks only, and 64 KiB is what it writes.
  preferences.frameInfo.blockMode = LZ4F_blockIndependent;
  preferences.frameInfo.blockSizeID = LZ4F_max64KB;
  preferences.frameInfo.contentSize = input.size();
  preferences.compressionLevel = level;
  const size_t from = out->size();
  const size_t bound = LZ4F_compressFrameBound(input.size(), &preferences);
  out->resize(from + bound);
  const size_t size = LZ4F_compressFrame(out->data() + from, bound, input.data(), input.size(), &preferences);
  if (LZ4F_isError(size) != 0) return absl::InternalError(Cat("lz4: ", LZ4F_getErrorName(size)));
  out->resize(from + size);
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecompressLz4(std::string_view input, const DecompressLimits& limits) {
  LZ4F_dctx* raw = nullptr;
  if (LZ4F_isError(LZ4F_createDecompressionContext(&raw, LZ4F_VERSION)) != 0) {
    return absl::ResourceExhaustedError("lz4: no memory");
  }
  const std::unique_ptr<LZ4F_dctx, Lz4Free> context(raw);
  LZ4F_frameInfo_t info{};
  size_t header = input.size();
  const size_t hint = LZ4F_getFrameInfo(raw, &info, input.data(), &header);
  if (LZ4F_isError(hint) != 0) return Damaged(Codec::kLz4, LZ4F_getErrorName(hint));
  if (info.contentSize > limits.bytes_max) return TooLarge(Codec::kLz4, limits);
  input.remove_prefix(header);
  BoundedOutput out(limits,
                    std::min<size_t>(info.contentSize == 0 ? input.size() * 4 : info.contentSize, input.size() * 255));
  bool frame_open = true;
  while (!input.empty() || frame_open) {
    const bool full = !out.MakeRoom();
    size_t produced = full ? 0 : out.room();
    size_t consumed = input.size();
    char nowhere = 0;
    const size_t result = LZ4F_decompress(raw, full ? &nowhere : out.at(), &produced, input.data(), &consumed, nullptr);
    if (LZ4F_isError(result) != 0) return Damaged(Codec::kLz4, LZ4F_getErrorName(result));
    out.Advance(produced);
    input.remove_prefix(consumed);
    frame_open = result != 0;
    if (frame_open && produced == 0 && consumed == 0) {
      return full ? TooLarge(Codec::kLz4, limits) : Damaged(Codec::kLz4, "cut short");
    }
  }
  return std::move(out).Take();
}

// ---- zstd

struct ZstdFree {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

constexpr int kZstdDefaultLevel = 3;
constexpr int kZstdWindowLogLeast = 23;  // what level 19 asks for; 8 MiB
constexpr int kZstdWindowLogMost = 27;

absl::Status CompressZstd(int level, std::string_view input, std::string* out) {
  if (level == kDefaultLevel) level = kZstdDefaultLevel;
  if (level < -7 || level > 22 || level == 0) return BadLevel(Codec::kZstd, level);
  // A context is about a megabyte to set up, as much work as a small batch: each thread keeps one.
  thread_local const std::unique_ptr<ZSTD_CCtx, ZstdFree> context(ZSTD_createCCtx());
  if (context == nullptr) return absl::ResourceExhaustedError("zstd: no memory");
  const size_t from = out->size();
  const size_t bound = ZSTD_compressBound(input.size());
  out->resize(from + bound);
  const size_t size = ZSTD_compressCCtx(context.get(), out->data() + from, bound, input.data(), input.size(), level);
  if (ZSTD_isError(size) != 0) return absl::InternalError(Cat("zstd: ", ZSTD_getErrorName(size)));
  out->resize(from + size);
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecompressZstd(std::string_view input, const DecompressLimits& limits) {
  thread_local const std::unique_ptr<ZSTD_DCtx, ZstdFree> context(ZSTD_createDCtx());
  if (context == nullptr) return absl::ResourceExhaustedError("zstd: no memory");
  ZSTD_DCtx_reset(context.get(), ZSTD_reset_session_and_parameters);
  const unsigned long long declared = ZSTD_getFrameContentSize(input.data(), input.size());
  if (declared == ZSTD_CONTENTSIZE_ERROR) return Damaged(Codec::kZstd, "not a frame");
  const bool known = declared != ZSTD_CONTENTSIZE_UNKNOWN;
  if (known && declared > limits.bytes_max) return TooLarge(Codec::kZstd, limits);
  // The window is memory as well, and a frame chooses it.
  const int window_log =
      std::clamp(static_cast<int>(std::bit_width(limits.bytes_max)), kZstdWindowLogLeast, kZstdWindowLogMost);
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, window_log);
  BoundedOutput out(limits, known ? static_cast<size_t>(declared) : input.size() * 4);
  ZSTD_inBuffer in{input.data(), input.size(), 0};
  size_t more = 1;
  while (in.pos < in.size || more != 0) {
    const bool full = !out.MakeRoom();
    char nowhere = 0;
    ZSTD_outBuffer to{full ? &nowhere : out.at(), full ? 0 : out.room(), 0};
    const size_t read_before = in.pos;
    more = ZSTD_decompressStream(context.get(), &to, &in);
    if (ZSTD_isError(more) != 0) return Damaged(Codec::kZstd, ZSTD_getErrorName(more));
    out.Advance(to.pos);
    if (more != 0 && to.pos == 0 && in.pos == read_before) {
      return full ? TooLarge(Codec::kZstd, limits) : Damaged(Codec::kZstd, "cut short");
    }
  }
  return std::move(out).Take();
}

}  // namespace

std::string_view CodecName(Codec codec) {
  return kNames[static_cast<size_t>(codec)];
}

std::optional<Codec> ParseCodec(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == name) return static_cast<Codec>(i);
  }
  return std::nullopt;
}

absl::Status Compress(Codec codec, int level, std::string_view input, std::string* out) {
  switch (codec) {
    case Codec::kNone:
      out->append(input);
      return absl::OkStatus();
    case Codec::kGzip:
      return CompressGzip(level, input, out);
    case Codec::kSnappy:
      if (level != kDefaultLevel) return BadLevel(codec, level);
      return CompressSnappy(input, out);
    case Codec::kLz4:
      return CompressLz4(level, input, out);
    case Codec::kZstd:
      return CompressZstd(level, input, out);
  }
  return absl::InvalidArgumentError("unknown codec");
}

absl::StatusOr<std::string> Decompress(Codec codec, std::string_view input, const DecompressLimits& limits) {
  switch (codec) {
    case Codec::kNone:
      if (input.size() > limits.bytes_max) return TooLarge(codec, limits);
      return std::string(input);
    case Codec::kGzip:
      return DecompressGzip(input, limits);
    case Codec::kSnappy:
      return DecompressSnappy(input, limits);
    case Codec::kLz4:
      return DecompressLz4(input, limits);
    case Codec::kZstd:
      return DecompressZstd(input, limits);
  }
  return absl::DataLossError("unknown codec");
}

}  // namespace sluice::record
