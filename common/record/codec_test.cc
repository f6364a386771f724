#include "common/record/codec.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

namespace sluice::record {

namespace {

constexpr Codec kCodecs[] = {Codec::kNone, Codec::kGzip, Codec::kSnappy, Codec::kLz4, Codec::kZstd};

std::string Text(size_t size) {
  std::mt19937 random(3);
  std::string text;
  while (text.size() < size) text += "field " + std::to_string(random() % 1000) + ", ";
  text.resize(size);
  return text;
}

std::string Compressed(Codec codec, std::string_view input, int level = kDefaultLevel) {
  std::string out;
  REQUIRE(Compress(codec, level, input, &out).ok());
  return out;
}

}  // namespace

TEST_CASE("every codec gives back what it took, at every size") {
  for (const Codec codec : kCodecs) {
    for (const size_t size : {0, 1, 100, 32768, 32769, 65536, 300000}) {
      CAPTURE(CodecName(codec), size);
      const std::string text = Text(size);
      const std::string packed = Compressed(codec, text);
      if (size > 1000 && codec != Codec::kNone) REQUIRE(packed.size() < size / 2);
      const auto back = Decompress(codec, packed, DecompressLimits{size});
      REQUIRE(back.ok());
      REQUIRE(*back == text);
    }
  }
}

TEST_CASE("one byte more than allowed is refused") {
  const std::string text = Text(100000);
  for (const Codec codec : kCodecs) {
    CAPTURE(CodecName(codec));
    const auto result = Decompress(codec, Compressed(codec, text), DecompressLimits{text.size() - 1});
    REQUIRE(result.status().code() == absl::StatusCode::kResourceExhausted);
  }
}

TEST_CASE("a decompression bomb is refused") {
  const std::string zeros(64 << 20, '\0');
  for (const Codec codec : {Codec::kGzip, Codec::kSnappy, Codec::kLz4, Codec::kZstd}) {
    CAPTURE(CodecName(codec));
    const auto result = Decompress(codec, Compressed(codec, zeros), DecompressLimits{1 << 20});
    REQUIRE(result.status().code() == absl::StatusCode::kResourceExhausted);
  }
}

TEST_CASE("a declared size is refused before its memory is taken") {
  // A snappy block that says 1 GiB and holds nothing, bare and in the Java client's framing.
  const std::string bare("\x80\x80\x80\x80\x04", 5);
  REQUIRE(Decompress(Codec::kSnappy, bare, {}).status().code() == absl::StatusCode::kResourceExhausted);
  const std::string framed = std::string("\x82SNAPPY\0\0\0\0\1\0\0\0\1\0\0\0\5", 20) + bare;
  REQUIRE(Decompress(Codec::kSnappy, framed, {}).status().code() == absl::StatusCode::kResourceExhausted);
  // The same with a limit that allows it: still more than five bytes can hold.
  const DecompressLimits wide{size_t{2} << 30};
  REQUIRE(Decompress(Codec::kSnappy, bare, wide).status().code() == absl::StatusCode::kDataLoss);
  // A zstd frame header with a content size of 2^40.
  const std::string zstd("\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\1\0\0", 13);
  REQUIRE(Decompress(Codec::kZstd, zstd, {}).status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE("compressed bytes that are cut short are damage") {
  const std::string text = Text(5000);
  for (const Codec codec : {Codec::kGzip, Codec::kLz4, Codec::kZstd}) {
    const std::string packed = Compressed(codec, text);
    for (size_t size = 0; size < packed.size(); size += 7) {
      CAPTURE(CodecName(codec), size);
      const auto result = Decompress(codec, std::string_view(packed).substr(0, size), {});
      REQUIRE(result.status().code() == absl::StatusCode::kDataLoss);
    }
  }
}

TEST_CASE("runs of several frames are read to the end, and what is no frame behind them is damage") {
  for (const Codec codec : {Codec::kGzip, Codec::kLz4, Codec::kZstd}) {
    CAPTURE(CodecName(codec));
    const std::string two = Compressed(codec, "first,") + Compressed(codec, "second");
    const auto back = Decompress(codec, two, {});
    REQUIRE(back.ok());
    REQUIRE(*back == "first,second");
    REQUIRE(Decompress(codec, two + "rubbish", {}).status().code() == absl::StatusCode::kDataLoss);
  }
}

TEST_CASE("snappy is read bare and written in the Java client's framing") {
  const auto bare = Decompress(Codec::kSnappy, std::string_view("\x05\x10hello", 7), {});
  REQUIRE(bare.ok());
  REQUIRE(*bare == "hello");
  const std::string framed = Compressed(Codec::kSnappy, "hello");
  REQUIRE(framed == std::string("\x82SNAPPY\0\0\0\0\1\0\0\0\1\0\0\0\7", 20) + std::string("\x05\x10hello", 7));
}

TEST_CASE("an LZ4 frame has independent blocks, which is all that the Java client reads") {
  const std::string packed = Compressed(Codec::kLz4, Text(200000));
  REQUIRE((static_cast<uint8_t>(packed[4]) & 0x20) != 0);
}

TEST_CASE("levels are the codec's own, and others are refused") {
  std::string out;
  REQUIRE(Compress(Codec::kGzip, 9, "x", &out).ok());
  REQUIRE(Compress(Codec::kLz4, 12, "x", &out).ok());
  REQUIRE(Compress(Codec::kZstd, 22, "x", &out).ok());
  REQUIRE(Compress(Codec::kGzip, 10, "x", &out).code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(Compress(Codec::kLz4, 13, "x", &out).code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(Compress(Codec::kZstd, 23, "x", &out).code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(Compress(Codec::kSnappy, 1, "x", &out).code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("codecs have the names that topic settings and commands use") {
  for (const Codec codec : kCodecs) REQUIRE(ParseCodec(CodecName(codec)) == codec);
  REQUIRE_FALSE(ParseCodec("brotli").has_value());
}

}  // namespace sluice::record
