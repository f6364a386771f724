#include "broker/rpc/wire.h"

#include <algorithm>
#include <cstring>

namespace sluice::broker::rpc {
namespace {

constexpr int kGroupDepthMax = 100;  // as the generated code's recursion limit
constexpr int kTagBytesMax = 5;      // bits beyond the 32nd are dropped, as the generated code does

}  // namespace

WireReader::WireReader(std::span<const std::string_view> slices) : slices_(slices) {
  for (const std::string_view slice : slices) limit_ += slice.size();
}

void WireReader::NextSlice() {
  while (current_.empty() && !slices_.empty()) {
    current_ = slices_.front();
    slices_ = slices_.subspan(1);
  }
}

bool WireReader::ReadByte(uint8_t* byte) {
  if (limit_ == 0) return false;
  NextSlice();
  *byte = static_cast<uint8_t>(current_.front());
  current_.remove_prefix(1);
  --limit_;
  return true;
}

bool WireReader::ReadVarint(uint64_t* value, int bytes_max) {
  uint64_t bits = 0;
  for (int i = 0; i < bytes_max; ++i) {
    uint8_t byte = 0;
    if (!ReadByte(&byte)) return false;
    bits |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      *value = bits;
      return true;
    }
  }
  return false;
}

bool WireReader::ReadTag(WireTag* tag) {
  uint64_t bits = 0;
  if (!ReadVarint(&bits, kTagBytesMax)) return false;
  bits &= UINT32_MAX;
  tag->field = static_cast<uint32_t>(bits >> 3);
  tag->type = static_cast<WireType>(bits & 7);
  return tag->field != 0 && tag->type <= WireType::kFixed32;
}

bool WireReader::ReadLength(size_t* length) {
  uint64_t bits = 0;
  if (!ReadVarint(&bits) || bits > limit_) return false;
  *length = static_cast<size_t>(bits);
  return true;
}

bool WireReader::Copy(char* to, size_t count) {
  if (count > limit_) return false;
  limit_ -= count;
  while (count > 0) {
    NextSlice();
    const size_t part = std::min(count, current_.size());
    std::memcpy(to, current_.data(), part);
    current_.remove_prefix(part);
    to += part;
    count -= part;
  }
  return true;
}

bool WireReader::ReadString(std::string* text) {
  size_t length = 0;
  if (!ReadLength(&length)) return false;
  text->resize(length);
  return Copy(text->data(), length);
}

bool WireReader::SkipBytes(size_t count) {
  if (count > limit_) return false;
  limit_ -= count;
  while (count > 0) {
    NextSlice();
    const size_t part = std::min(count, current_.size());
    current_.remove_prefix(part);
    count -= part;
  }
  return true;
}

bool WireReader::Skip(const WireTag& tag, int depth) {
  uint64_t ignored = 0;
  size_t length = 0;
  switch (tag.type) {
    case WireType::kVarint:
      return ReadVarint(&ignored);
    case WireType::kFixed64:
      return SkipBytes(8);
    case WireType::kFixed32:
      return SkipBytes(4);
    case WireType::kLength:
      return ReadLength(&length) && SkipBytes(length);
    case WireType::kGroup: {
      if (depth == kGroupDepthMax) return false;
      WireTag inner;
      while (ReadTag(&inner)) {
        if (inner.type == WireType::kEndGroup) return inner.field == tag.field;
        if (!Skip(inner, depth + 1)) return false;
      }
      return false;
    }
    case WireType::kEndGroup:
      return false;
  }
  return false;
}

size_t WireReader::Enter(size_t length) {
  const size_t outer = limit_ - length;
  limit_ = length;
  return outer;
}

bool IsUtf8(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = at(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < length) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return false;
    }
    // Overlong forms, surrogates and what lies beyond U+10FFFF show in the second byte.
    const uint8_t second = at(i + 1);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) ||
        (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += length;
  }
  return true;
}

void PutVarint(std::string* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

void PutTag(std::string* out, uint32_t field, WireType type) {
  PutVarint(out, (static_cast<uint64_t>(field) << 3) | static_cast<uint64_t>(type));
}

void PutUint64(std::string* out, uint32_t field, uint64_t value) {
  if (value == 0) return;
  PutTag(out, field, WireType::kVarint);
  PutVarint(out, value);
}

void PutString(std::string* out, uint32_t field, std::string_view text) {
  if (!text.empty()) PutLengthDelimited(out, field, text);
}

void PutLengthDelimited(std::string* out, uint32_t field, std::string_view bytes) {
  PutTag(out, field, WireType::kLength);
  PutVarint(out, bytes.size());
  out->append(bytes);
}

}  // namespace sluice::broker::rpc
