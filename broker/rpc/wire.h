// The protobuf wire format over a message that lies in many slices: what the hot path needs to take a request apart
// without copying its batches twice, and to write an answer around batches without copying them at all.
//
// Reading refuses what the generated code refuses (a varint of more than ten bytes, a length beyond its message, a
// group that does not end) and skips what it skips (unknown fields, known fields of another wire type). Never reads
// outside the slices, whatever they hold. No part of it knows gRPC. Threads: one at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sluice::broker::rpc {

enum class WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLength = 2, kGroup = 3, kEndGroup = 4, kFixed32 = 5 };

struct WireTag {
  uint32_t field = 0;
  WireType type = WireType::kVarint;
};

/// Every call answers false when the bytes are malformed; the reader is of no use afterwards.
class WireReader {
 public:
  /// The slices (and the span) outlive the reader.
  explicit WireReader(std::span<const std::string_view> slices);

  /// Bytes left in the message being read.
  size_t remaining() const { return limit_; }
  bool AtEnd() const { return limit_ == 0; }

  bool ReadTag(WireTag* tag);
  bool ReadVarint(uint64_t* value) { return ReadVarint(value, 10); }
  /// A length that fits into what remains.
  bool ReadLength(size_t* length);
  bool Copy(char* to, size_t count);
  bool ReadString(std::string* text);
  /// Skips the value behind a tag.
  bool Skip(const WireTag& tag) { return Skip(tag, 0); }

  /// Confines the reader to the next `length` bytes, an embedded message; give what it answers back to Leave once
  /// AtEnd. `length` comes from ReadLength.
  size_t Enter(size_t length);
  void Leave(size_t outer) { limit_ = outer; }

 private:
  bool ReadVarint(uint64_t* value, int bytes_max);
  bool Skip(const WireTag& tag, int depth);
  bool SkipBytes(size_t count);
  bool ReadByte(uint8_t* byte);
  void NextSlice();

  std::span<const std::string_view> slices_;  // behind the current one
  std::string_view current_;
  size_t limit_ = 0;
};

/// Whether `text` is UTF-8, which a protobuf string must be.
bool IsUtf8(std::string_view text);

// Writing: fields appended to a string. A scalar at its default is left out, as proto3 does.
void PutVarint(std::string* out, uint64_t value);
void PutTag(std::string* out, uint32_t field, WireType type);
void PutUint64(std::string* out, uint32_t field, uint64_t value);
inline void PutInt64(std::string* out, uint32_t field, int64_t value) {
  PutUint64(out, field, static_cast<uint64_t>(value));
}
inline void PutInt32(std::string* out, uint32_t field, int32_t value) {
  PutInt64(out, field, value);
}
void PutString(std::string* out, uint32_t field, std::string_view text);
/// An embedded message or anything else with a length, also when it is empty.
void PutLengthDelimited(std::string* out, uint32_t field, std::string_view bytes);

}  // namespace sluice::broker::rpc
