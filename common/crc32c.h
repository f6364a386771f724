// CRC32C (Castagnoli, reflected polynomial 0x82f63b78, initial value and final xor 0xffffffff), as in RFC 3720 B.4.
//
// The processor's crc32 instruction is used where it has one (decided once, at run time), otherwise tables.
// All functions are pure and may be called from any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace sluice {

/// Checksum of `data`. With `init` = the checksum of what stands before it, the checksum of both together:
/// Crc32c(b, Crc32c(a)) == Crc32c(a + b).
uint32_t Crc32c(std::string_view data, uint32_t init = 0);

/// Checksum of a + b from the two checksums and b's length, without reading either. At most eight 32-bit polynomial
/// multiplications, three for anything below 16 MiB.
uint32_t Crc32cCombine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

/// How a checksum changes when bytes in the middle change: `delta` is old xor new of the changed range, `len_after` the
/// number of unchanged bytes behind it. new checksum = old checksum ^ Crc32cOfChange(delta, len_after).
uint32_t Crc32cOfChange(std::string_view delta, uint64_t len_after);

namespace internal {
/// The two implementations, so that tests and benchmarks can set them side by side.
uint32_t Crc32cPortable(std::string_view data, uint32_t init);
bool Crc32cHasHardware();
}  // namespace internal

}  // namespace sluice
