// Fixed-width integers at unaligned addresses, in a byte order that the format names: big for Kafka's formats, little
// for our own. The caller keeps within its buffer.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace sluice {

static_assert(std::endian::native == std::endian::little, "the loads and stores below assume a little-endian machine");

namespace internal {
template <class T>
T ByteSwap(T value) {
  using U = std::make_unsigned_t<T>;
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(static_cast<U>(value)));
  if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(static_cast<U>(value)));
  if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(static_cast<U>(value)));
}
}  // namespace internal

template <class T>
T LoadLittle(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
void StoreLittle(char* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

template <class T>
T LoadBig(const char* from) {
  return internal::ByteSwap(LoadLittle<T>(from));
}

template <class T>
void StoreBig(char* to, T value) {
  StoreLittle(to, internal::ByteSwap(value));
}

}  // namespace sluice
