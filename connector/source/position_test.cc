#include "connector/source/position.h"

#include <catch2/catch.hpp>

#include "common/text.h"
#include "connector/source/moment.h"

namespace sluice::connector {

TEST_CASE("A position survives its way through a header") {
  Position position;
  position.pipeline = "a \"b\"";
  position.slice = "0";
  position.pull = 3;
  position.page = 7;
  position.part = 2;
  position.parts = 5;
  position.page_offset = Offset(42);
  position.letters_from = Offset(43);
  position.token = "https://x/?a=\n";
  position.next = "n";
  position.last = true;
  position.cursor = {.from = "\"2026-01-01T00:00:00Z\"", .from_seen = {0, ~uint64_t{0}}, .max = "5", .max_seen = {7}};
  const auto back = DecodePosition(EncodePosition(position));
  INFO(back.status());
  REQUIRE(back.ok());
  CHECK(*back == position);
  CHECK_FALSE(DecodePosition("{}").ok());
  std::string newer = EncodePosition(position);
  newer.replace(newer.find("\"v\":1"), 5, "\"v\":2");
  CHECK(Message(DecodePosition(newer).status()).find("version 2") != std::string_view::npos);
}

TEST_CASE("Cursor values are put in order as what they are") {
  const auto order = [](const char* a, const char* b) {
    const auto result = CompareCursorValues(a, b);
    REQUIRE(result.ok());
    return *result;
  };
  CHECK(order("9", "10") < 0);
  CHECK(order("123456789012345678901234567890", "123456789012345678901234567891") < 0);
  CHECK(order("-5", "3") < 0);
  CHECK(order("-10", "-9") < 0);
  CHECK(order("1.5", "1.25") > 0);
  CHECK(order("\"2026-01-01T00:00:00Z\"", "\"2026-01-01T01:00:00+01:00\"") == 0);
  CHECK(order("\"2026-01-01T00:00:00Z\"", "1767225600000") == 0);
  CHECK(order("\"2026-01-01\"", "1767225601") < 0);
  CHECK(order("\"b\"", "\"a\"") > 0);
  CHECK_FALSE(CompareCursorValues("\"word\"", "5").ok());
  CHECK_FALSE(CompareCursorValues("null", "5").ok());
  CHECK(*FormatCursorValue("1767225600123", IncrementalConfig::Format::kRfc3339) == "2026-01-01T00:00:00.123Z");
  CHECK(*FormatCursorValue("\"2026-01-01T00:00:00Z\"", IncrementalConfig::Format::kEpochMillis) == "1767225600000");
  CHECK(*FormatCursorValue("\"x y\"", IncrementalConfig::Format::kAsIs) == "x y");
}

}  // namespace sluice::connector
