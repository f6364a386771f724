#include "common/crc32c.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

namespace sluice {

namespace {

// The definition, bit by bit: shares nothing with the code under test.
uint32_t ByDefinition(std::string_view data) {
  uint32_t crc = 0xffffffff;
  for (const char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

std::string RandomText(size_t size) {
  std::mt19937 random(static_cast<uint32_t>(size) + 7);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

}  // namespace

TEST_CASE("CRC32C gives the published values") {
  REQUIRE(Crc32c("") == 0);
  REQUIRE(Crc32c("123456789") == 0xE3069283);
  // RFC 3720, B.4.
  REQUIRE(Crc32c(std::string(32, '\0')) == 0x8A9136AA);
  REQUIRE(Crc32c(std::string(32, '\xff')) == 0x62A8AB43);
  std::string rising;
  for (char c = 0; c < 32; ++c) rising.push_back(c);
  REQUIRE(Crc32c(rising) == 0x46DD794E);
  REQUIRE(internal::Crc32cPortable("123456789", 0) == 0xE3069283);
}

TEST_CASE("CRC32C agrees with its definition at every length and alignment, with and without the instruction") {
  const std::string text = RandomText(40000);
  for (size_t size = 0; size < 1700; size += size < 70 ? 1 : 13) {
    for (size_t from : {0, 1, 3, 7}) {
      const std::string_view part(text.data() + from, size);
      const uint32_t expected = ByDefinition(part);
      REQUIRE(Crc32c(part) == expected);
      REQUIRE(internal::Crc32cPortable(part, 0) == expected);
    }
  }
  for (size_t size : {767, 768, 769, 12287, 12288, 12289, 13056, 24576, 39999}) {
    const std::string_view part(text.data() + 1, size);
    REQUIRE(Crc32c(part) == ByDefinition(part));
  }
}

TEST_CASE("a CRC32C can be taken in pieces") {
  const std::string text = RandomText(20000);
  const std::string_view view = text;
  for (size_t cut : {0, 1, 8, 768, 12288, 19999, 20000}) {
    REQUIRE(Crc32c(view.substr(cut), Crc32c(view.substr(0, cut))) == Crc32c(view));
    REQUIRE(internal::Crc32cPortable(view.substr(cut), Crc32c(view.substr(0, cut))) == Crc32c(view));
  }
}

TEST_CASE("two CRC32Cs combine into that of both runs together") {
  const std::string text = RandomText(70000);
  const std::string_view view = text;
  for (size_t cut : {0, 1, 2, 255, 256, 257, 4096, 65535, 65536, 69999, 70000}) {
    const std::string_view a = view.substr(0, cut);
    const std::string_view b = view.substr(cut);
    REQUIRE(Crc32cCombine(Crc32c(a), Crc32c(b), b.size()) == Crc32c(view));
  }
}

TEST_CASE("combining over lengths no test can hold in memory is associative") {
  const uint32_t a = Crc32c("first");
  const uint32_t b = 0x12345678;
  const uint32_t c = 0x9abcdef0;
  const uint64_t len_b = (uint64_t{1} << 40) + 12345;
  const uint64_t len_c = (uint64_t{3} << 33) + 678;
  REQUIRE(Crc32cCombine(Crc32cCombine(a, b, len_b), c, len_c) ==
          Crc32cCombine(a, Crc32cCombine(b, c, len_c), len_b + len_c));
}

TEST_CASE("the CRC32C of changed bytes is repaired without the rest") {
  std::string text = RandomText(5000);
  const uint32_t before = Crc32c(text);
  const std::string old = text.substr(100, 20);
  text.replace(100, 20, "twenty other letters");
  std::string delta(20, '\0');
  for (size_t i = 0; i < delta.size(); ++i) delta[i] = static_cast<char>(old[i] ^ text[100 + i]);
  REQUIRE((before ^ Crc32cOfChange(delta, 5000 - 120)) == Crc32c(text));
}

}  // namespace sluice
