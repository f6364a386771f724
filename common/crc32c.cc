#include "common/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace sluice {

namespace {

// Polynomials over GF(2) modulo P are kept reflected, as the checksum itself is: bit 31 is the coefficient of x^0.
constexpr uint32_t kPolynomial = 0x82f63b78;
constexpr uint32_t kOne = 0x80000000;  // x^0

constexpr uint32_t MultiplyModP(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int bit = 31; bit >= 0; --bit) {
    product ^= b & (0u - ((a >> bit) & 1u));
    b = (b >> 1) ^ (kPolynomial & (0u - (b & 1u)));
  }
  return product;
}

// kShift[j][v] = x^(8 * v * 256^j): appending n bytes multiplies a checksum's polynomial by the product of one entry
// for each non-zero byte of n.
using ShiftTable = std::array<std::array<uint32_t, 256>, 8>;

constexpr ShiftTable MakeShiftTable() {
  ShiftTable table{};
  uint32_t step = kOne >> 8;  // x^8
  for (auto& row : table) {
    row[0] = kOne;
    for (size_t v = 1; v < row.size(); ++v) row[v] = MultiplyModP(row[v - 1], step);
    step = MultiplyModP(row[255], step);
  }
  return table;
}

constexpr ShiftTable kShift = MakeShiftTable();

constexpr uint32_t ShiftByBytes(uint32_t crc, uint64_t bytes) {
  for (size_t row = 0; bytes != 0; ++row, bytes >>= 8) {
    if ((bytes & 0xff) != 0) crc = MultiplyModP(crc, kShift[row][bytes & 0xff]);
  }
  return crc;
}

// Multiplication by one fixed power of x as four table look-ups; it joins the interleaved streams.
using FixedShift = std::array<std::array<uint32_t, 256>, 4>;

constexpr FixedShift MakeFixedShift(uint64_t bytes) {
  FixedShift table{};
  const uint32_t factor = ShiftByBytes(kOne, bytes);
  for (uint32_t part = 0; part < 4; ++part) {
    for (uint32_t bit = 0; bit < 8; ++bit) {
      const uint32_t image = MultiplyModP(1u << (8 * part + bit), factor);
      for (uint32_t v = 0; v < 256; ++v) {
        if ((v >> bit & 1u) != 0) table[part][v] ^= image;
      }
    }
  }
  return table;
}

// kSlice[j][v]: register after byte v and then j zero bytes, for eight bytes a step without the instruction.
using SliceTable = std::array<std::array<uint32_t, 256>, 8>;

constexpr SliceTable MakeSliceTable() {
  SliceTable table{};
  for (uint32_t v = 0; v < 256; ++v) {
    uint32_t crc = v;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (kPolynomial & (0u - (crc & 1u)));
    table[0][v] = crc;
  }
  for (uint32_t v = 0; v < 256; ++v) {
    for (size_t j = 1; j < table.size(); ++j) table[j][v] = (table[j - 1][v] >> 8) ^ table[0][table[j - 1][v] & 0xff];
  }
  return table;
}

constexpr SliceTable kSlice = MakeSliceTable();

// Both take and give the bare register, not inverted.
uint32_t UpdatePortable(uint32_t crc, const char* at, size_t size) {
  while (size >= 8) {
    uint32_t low;
    uint32_t high;
    std::memcpy(&low, at, 4);
    std::memcpy(&high, at + 4, 4);
    low ^= crc;
    crc = kSlice[7][low & 0xff] ^ kSlice[6][low >> 8 & 0xff] ^ kSlice[5][low >> 16 & 0xff] ^ kSlice[4][low >> 24] ^
          kSlice[3][high & 0xff] ^ kSlice[2][high >> 8 & 0xff] ^ kSlice[1][high >> 16 & 0xff] ^ kSlice[0][high >> 24];
    at += 8;
    size -= 8;
  }
  while (size-- > 0) crc = (crc >> 8) ^ kSlice[0][(crc ^ static_cast<uint8_t>(*at++)) & 0xff];
  return crc;
}

#if defined(__x86_64__)

// The instruction answers after three cycles and can start one each cycle, so three independent streams fill it.
constexpr size_t kLongStream = 4096;
constexpr size_t kShortStream = 256;
constexpr FixedShift kLongShift = MakeFixedShift(kLongStream);
constexpr FixedShift kShortShift = MakeFixedShift(kShortStream);

inline uint32_t Apply(const FixedShift& shift, uint32_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^ shift[3][crc >> 24];
}

inline uint64_t Load64(const char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

template <size_t kStream>
__attribute__((target("sse4.2"))) inline uint32_t ThreeStreams(uint32_t crc, const char* at, const FixedShift& shift) {
  uint64_t a = crc;
  uint64_t b = 0;
  uint64_t c = 0;
  for (size_t i = 0; i < kStream; i += 8) {
    a = _mm_crc32_u64(a, Load64(at + i));
    b = _mm_crc32_u64(b, Load64(at + i + kStream));
    c = _mm_crc32_u64(c, Load64(at + i + 2 * kStream));
  }
  const uint32_t ab = Apply(shift, static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
  return Apply(shift, ab) ^ static_cast<uint32_t>(c);
}

__attribute__((target("sse4.2"))) uint32_t UpdateHardware(uint32_t crc, const char* at, size_t size) {
  while (size >= 3 * kLongStream) {
    crc = ThreeStreams<kLongStream>(crc, at, kLongShift);
    at += 3 * kLongStream;
    size -= 3 * kLongStream;
  }
  while (size >= 3 * kShortStream) {
    crc = ThreeStreams<kShortStream>(crc, at, kShortShift);
    at += 3 * kShortStream;
    size -= 3 * kShortStream;
  }
  uint64_t wide = crc;
  for (; size >= 8; at += 8, size -= 8) wide = _mm_crc32_u64(wide, Load64(at));
  crc = static_cast<uint32_t>(wide);
  for (; size > 0; ++at, --size) crc = _mm_crc32_u8(crc, static_cast<uint8_t>(*at));
  return crc;
}

#endif

uint32_t Update(uint32_t crc, const char* at, size_t size) {
#if defined(__x86_64__)
  if (internal::Crc32cHasHardware()) return UpdateHardware(crc, at, size);
#endif
  return UpdatePortable(crc, at, size);
}

}  // namespace

uint32_t Crc32c(std::string_view data, uint32_t init) {
  return ~Update(~init, data.data(), data.size());
}

uint32_t Crc32cCombine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b) {
  return ShiftByBytes(crc_a, len_b) ^ crc_b;
}

uint32_t Crc32cOfChange(std::string_view delta, uint64_t len_after) {
  return ShiftByBytes(Update(0, delta.data(), delta.size()), len_after);
}

namespace internal {

uint32_t Crc32cPortable(std::string_view data, uint32_t init) {
  return ~UpdatePortable(~init, data.data(), data.size());
}

bool Crc32cHasHardware() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2") != 0;
#else
  return false;
#endif
}

}  // namespace internal

}  // namespace sluice
