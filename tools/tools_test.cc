#include <unistd.h>

#include <catch2/catch.hpp>

#include "tools/context.h"
#include "tools/format.h"
#include "tools/json_writer.h"
#include "tools/line_reader.h"

namespace sluice::tools {
namespace {

std::string Json(std::string_view bytes) {
  return JsonWriter().Bytes(bytes).Take();
}
std::string With(const std::string& text) {
  return "\"" + text + "\"";
}

const absl::Time kNow = absl::FromUnixSeconds(1000000);

}  // namespace

TEST_CASE("Text is escaped as JSON asks and otherwise left as it is") {
  CHECK(Json("plain") == With("plain"));
  CHECK(Json("a\"b\\c/d") == With(R"(a\"b\\c/d)"));
  CHECK(Json(std::string_view("\n\r\t\b\f\0\x1f\x7f", 8)) == With("\\n\\r\\t\\b\\f\\u0000\\u001f\x7f"));
  CHECK(Json("Grüße \xf0\x9f\x98\x80") == With("Grüße \xf0\x9f\x98\x80"));
}

TEST_CASE("Bytes that are not UTF-8 become base64") {
  CHECK(Json("\xff") == R"({"base64":"/w=="})");
  CHECK(Json("ab\x80") == R"({"base64":"YWKA"})");
  for (const char* bad : {"\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "a\xc3"}) {
    INFO(HexText(bad));
    CHECK_FALSE(IsUtf8(bad));
  }
  for (const char* good : {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    INFO(HexText(good));
    CHECK(IsUtf8(good));
  }
}

TEST_CASE("Base64 and hex give the published examples") {
  CHECK(Base64("") == "");
  CHECK(Base64("f") == "Zg==");
  CHECK(Base64("fo") == "Zm8=");
  CHECK(Base64("foo") == "Zm9v");
  CHECK(Base64("foobar") == "Zm9vYmFy");
  CHECK(HexText(std::string_view("\x00\xab\x7f", 3)) == "00ab7f");
}

TEST_CASE("Objects and arrays get their commas, and integers every digit") {
  JsonWriter json;
  json.BeginObject().Key("a").Int(INT64_MIN).Key("b").BeginArray().Int(1).Null().BeginObject().EndObject().EndArray();
  json.Key("c").Bool(true).Key("d").BytesOrNull(std::nullopt).EndObject();
  CHECK(json.Take() == R"({"a":-9223372036854775808,"b":[1,null,{}],"c":true,"d":null})");
}

TEST_CASE("A start is a name, an offset, a time, or how long ago") {
  CHECK(std::holds_alternative<Earliest>(ParseStart("earliest", kNow).value()));
  CHECK(std::holds_alternative<Latest>(ParseStart("latest", kNow).value()));
  CHECK(std::get<Offset>(ParseStart("42", kNow).value()) == Offset(42));
  CHECK(std::get<AtTime>(ParseStart("1h", kNow).value()).ms == 1000000000 - 3600000);
  CHECK(std::get<AtTime>(ParseStart("1970-01-02T00:00:00.5Z", kNow).value()).ms == 86400500);
  CHECK(std::get<AtTime>(ParseStart("1970-01-02T01:00:00+01:00", kNow).value()).ms == 86400000);
  CHECK(std::get<AtTime>(ParseStart("1970-01-02", kNow).value()).ms == 86400000);
  for (const char* bad : {"", "-1", "begin", "99999999999999999999", "1970-13-01", "5 parsecs"}) {
    INFO(bad);
    CHECK(absl::IsInvalidArgument(ParseStart(bad, kNow).status()));
  }
}

TEST_CASE("Pairs split at the first equals sign, and a key stands once") {
  CHECK(ParsePair("a=b=c").value() == std::make_pair(std::string("a"), std::string("b=c")));
  CHECK(ParsePair("a=").value().second == "");
  CHECK_FALSE(ParsePair("=b").ok());
  CHECK_FALSE(ParsePair("ab").ok());
  CHECK_FALSE(ParsePairs({"a=1", "a=2"}).ok());
}

TEST_CASE("A table aligns words left and numbers right, by characters") {
  Table table({"NAME", "#COUNT"});
  table.Row({"Grüße", "7"});
  table.Row({"b", "1234567"});
  CHECK(table.Text() == "NAME     COUNT\nGrüße        7\nb      1234567\n");
}

TEST_CASE("Times print in UTC with milliseconds") {
  CHECK(TimeText(86400500) == "1970-01-02T00:00:00.500Z");
  CHECK(TimeText(-1) == "-");
}

TEST_CASE("Exit codes follow the kind of error") {
  CHECK(ExitCodeOf(absl::OkStatus()) == 0);
  CHECK(ExitCodeOf(absl::InternalError("")) == 1);
  CHECK(ExitCodeOf(absl::InvalidArgumentError("")) == 2);
  CHECK(ExitCodeOf(absl::UnavailableError("")) == 3);
  CHECK(ExitCodeOf(absl::DeadlineExceededError("")) == 3);
  CHECK(ExitCodeOf(absl::NotFoundError("")) == 4);
  CHECK(ExitCodeOf(absl::ResourceExhaustedError("")) == 5);
  CHECK(ExitCodeOf(absl::PermissionDeniedError("")) == 5);
}

namespace {

struct Pipe {
  Pipe() { REQUIRE(pipe(fds) == 0); }
  ~Pipe() {
    close(fds[0]);
    Close();
  }
  void Write(std::string_view text) {
    REQUIRE(write(fds[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  void Close() {
    if (fds[1] >= 0) close(fds[1]);
    fds[1] = -1;
  }
  int fds[2];
};

}  // namespace

TEST_CASE("Lines come one by one, empty ones too, and the last without a line feed") {
  Pipe in;
  in.Write("one\n\ntwo\r\nlast");
  in.Close();
  LineReader reader(in.fds[0], 100, [] { return false; });
  std::vector<std::string> lines;
  std::string_view line;
  while (reader.Next(&line).value()) lines.emplace_back(line);
  CHECK(lines == std::vector<std::string>{"one", "", "two\r", "last"});
  CHECK(reader.line_number() == 4);
}

TEST_CASE("A line beyond the bound is refused with its number, however it arrives") {
  for (const bool with_feed : {true, false}) {
    Pipe in;
    in.Write("ok\n" + std::string(200, 'x') + (with_feed ? "\n" : ""));
    LineReader reader(in.fds[0], 100, [] { return false; });
    std::string_view line;
    REQUIRE(reader.Next(&line).value());
    const absl::Status status = reader.Next(&line).status();
    CHECK(absl::IsInvalidArgument(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains("line 2"));
  }
}

TEST_CASE("Waiting for a line ends when it is told to stop") {
  Pipe in;
  int asked = 0;
  LineReader reader(in.fds[0], 100, [&] { return ++asked > 3; });
  std::string_view line;
  CHECK(reader.Next(&line).value() == false);
}

}  // namespace sluice::tools
