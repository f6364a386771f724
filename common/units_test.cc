#include "common/units.h"

#include <catch2/catch.hpp>

namespace sluice {

TEST_CASE("durations are read with their units") {
  REQUIRE(*ParseDuration("500ms") == absl::Milliseconds(500));
  REQUIRE(*ParseDuration("5m") == absl::Minutes(5));
  REQUIRE(*ParseDuration("7d") == absl::Hours(7 * 24));
  REQUIRE(*ParseDuration("1w1d2h30m4s5ms6us7ns") ==
          absl::Hours(8 * 24 + 2) + absl::Minutes(30) + absl::Seconds(4) + absl::Nanoseconds(5006007));
  REQUIRE(*ParseDuration("0") == absl::ZeroDuration());
  REQUIRE(*ParseDuration("0s") == absl::ZeroDuration());
}

TEST_CASE("what is no duration is refused") {
  for (const char* text : {"", "5", "ms", "-5s", "5 s", "5M", "1.5s", "5s1m", "5s5s", "1h 5m", "99999999999w", "+5s",
                           "99999999999999999999s", "15250w5000w"}) {
    CAPTURE(text);
    REQUIRE(ParseDuration(text).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("a duration that was printed reads back") {
  for (const char* text : {"0", "1ns", "500ms", "1h30m", "2w6d23h59m59s999ms", "1d"}) {
    REQUIRE(DurationText(*ParseDuration(text)) == text);
  }
  REQUIRE(DurationText(absl::Seconds(90)) == "1m30s");
  REQUIRE(DurationText(-absl::Seconds(90)) == "-1m30s");
}

TEST_CASE("sizes are read in bytes, powers of 1000 and powers of 1024") {
  REQUIRE(*ParseSize("4096") == 4096);
  REQUIRE(*ParseSize("1B") == 1);
  REQUIRE(*ParseSize("1MB") == 1000000);
  REQUIRE(*ParseSize("64MiB") == 64 << 20);
  REQUIRE(*ParseSize("2GiB") == int64_t{2} << 30);
  REQUIRE(*ParseSize("3kB") == 3000);
  REQUIRE(*ParseSize("0") == 0);
}

TEST_CASE("what is no size is refused") {
  for (const char* text :
       {"", "MiB", "-1", "1.5MiB", "1 MiB", "1mib", "1MiB2KiB", "9223372036854775808", "9000000TiB", "1M"}) {
    CAPTURE(text);
    REQUIRE(ParseSize(text).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("a size that was printed reads back, and another form is for people") {
  for (const int64_t size :
       {int64_t{0}, int64_t{1}, int64_t{1500}, int64_t{1000000}, int64_t{64} << 20, int64_t{5} << 40}) {
    REQUIRE(*ParseSize(SizeText(size)) == size);
  }
  REQUIRE(SizeText(64 << 20) == "64MiB");
  REQUIRE(SizeText(1001) == "1001B");
  REQUIRE(HumanSizeText(999) == "999 B");
  REQUIRE(HumanSizeText(1500) == "1.46 KiB");
  REQUIRE(HumanSizeText(int64_t{1} << 40) == "1.00 TiB");
}

}  // namespace sluice
