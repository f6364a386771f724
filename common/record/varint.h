// Zigzag varints as in Protocol Buffers: small magnitudes of either sign take few bytes, seven bits a byte, low bits
// first. Reading never passes `end` and refuses what does not fit the type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace sluice::record {

inline constexpr size_t kVarintBytesMax = 10;
inline constexpr size_t kVarint32BytesMax = 5;

inline uint64_t ZigZag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
inline int64_t UnZigZag(uint64_t value) {
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

/// Bytes that `value` takes.
inline size_t VarintBytes(int64_t value) {
  const uint64_t bits = ZigZag(value) | 1;
  return (static_cast<size_t>(63 - __builtin_clzll(bits)) / 7) + 1;
}

/// Writes `value` at `to`, which has room for kVarintBytesMax, and returns the byte behind it.
inline char* PutVarint(char* to, int64_t value) {
  uint64_t rest = ZigZag(value);
  for (; rest >= 0x80; rest >>= 7) *to++ = static_cast<char>(rest | 0x80);
  *to++ = static_cast<char>(rest);
  return to;
}

/// Reads at `*at`, moves it behind the varint, and answers false when it is cut short or too large.
inline bool GetVarint64(const char** at, const char* end, int64_t* value) {
  const char* p = *at;
  // Most are lengths and deltas of one byte.
  if (p < end && static_cast<uint8_t>(*p) < 0x80) {
    *value = UnZigZag(static_cast<uint8_t>(*p));
    *at = p + 1;
    return true;
  }
  uint64_t bits = 0;
  for (int shift = 0; shift < 64 && p < end; shift += 7) {
    const uint64_t byte = static_cast<uint8_t>(*p++);
    if (shift == 63 && byte > 1) return false;
    bits |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      *value = UnZigZag(bits);
      *at = p;
      return true;
    }
  }
  return false;
}

inline bool GetVarint32(const char** at, const char* end, int32_t* value) {
  int64_t wide;
  const char* p = *at;
  if (!GetVarint64(&p, end, &wide) || wide < INT32_MIN || wide > INT32_MAX) return false;
  *value = static_cast<int32_t>(wide);
  *at = p;
  return true;
}

}  // namespace sluice::record
