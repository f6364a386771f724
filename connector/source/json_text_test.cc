#include "connector/source/json_text.h"

#include <catch2/catch.hpp>

#include "common/text.h"

namespace sluice::connector {
namespace {

std::string Parsed(std::string_view text) {
  const auto document = JsonDocument::Parse(text);
  return document.ok() ? document->text() : Cat("error: ", Message(document.status()));
}
std::string AtText(std::string_view text, std::string_view pointer) {
  const auto document = JsonDocument::Parse(text);
  REQUIRE(document.ok());
  const auto value = At(document->root(), pointer);
  return value ? value->Text() : "nothing";
}

}  // namespace

TEST_CASE("Only white space outside strings goes; every digit stays") {
  CHECK(
      Parsed(" { \"a b\" : [ 1.10 , 12345678901234567890123456789.000 , -0 , 1E+400 ] , \"\\u00e9 \" : \" x \" }\n") ==
      R"({"a b":[1.10,12345678901234567890123456789.000,-0,1E+400],"\u00e9 ":" x "})");
}

TEST_CASE("What is not JSON is refused, wherever it stands") {
  for (const char* text :
       {"",     " ",   "{",   "[1,]",     "[1 2]", "{\"a\"}", "{\"a\":1,}", "{a:1}",       "nul",    "tru",
        "01",   "1.",  ".5",  "+1",       "1e",    "\"a",     "\"\\x\"",    "\"\\u12g4\"", "\"\n\"", "[1] 2",
        "{}{}", "'a'", "NaN", "\"\xff\"", "[",     "{\"a\":", "-",          "[\"a\":1]"}) {
    INFO(text);
    CHECK(Parsed(text).starts_with("error: not valid JSON"));
  }
  CHECK(Parsed(std::string(100000, '[')).find("deep") != std::string::npos);
}

TEST_CASE("Every prefix of a sound document is refused") {
  const std::string text = R"({"a":[1,2,{"b":"c\n\u0041"}],"d":true,"e":null,"f":-1.5e3})";
  REQUIRE(Parsed(text) == text);
  for (size_t size = 0; size < text.size(); ++size) CHECK(Parsed(text.substr(0, size)).starts_with("error"));
}

TEST_CASE("A pointer finds what it names") {
  const char* text = R"({"a":{"b":[10,{"c":"x"}]},"m~n":1,"o/p":2,"":3,"e\u0301":4,"d":1,"d":2,"z":"\ud83d\ude00\n"})";
  CHECK(AtText(text, "/a/b/0") == "10");
  CHECK(AtText(text, "/a/b/1/c") == "x");
  CHECK(AtText(text, "/m~0n") == "1");
  CHECK(AtText(text, "/o~1p") == "2");
  CHECK(AtText(text, "/") == "3");
  CHECK(AtText(text, "/e\xcc\x81") == "4");
  CHECK(AtText(text, "/d") == "2");
  CHECK(AtText(text, "/z") == "\xf0\x9f\x98\x80\n");
  CHECK(AtText(text, "/a/b") == R"([10,{"c":"x"}])");
  for (const char* missing : {"/x", "/a/b/2", "/a/b/01", "/a/b/-", "/a/b/0/c", "/a/c"})
    CHECK(AtText(text, missing) == "nothing");
  CHECK(AtText("[]", "/0") == "nothing");
  CHECK(AtText("{}", "/a") == "nothing");
}

TEST_CASE("Elements are those of the array, whatever they hold") {
  const auto document = JsonDocument::Parse(R"([ "a,]" , [1,[2]] , {"x":"}"} , 5 , null ])");
  REQUIRE(document.ok());
  std::vector<std::string> raw;
  for (const JsonValue& value : Elements(document->root())) raw.emplace_back(value.raw);
  CHECK(raw == std::vector<std::string>{R"("a,]")", "[1,[2]]", R"({"x":"}"})", "5", "null"});
}

TEST_CASE("A JSON pointer is empty or begins with a slash, and is taken apart at its slashes") {
  using Parts = std::vector<std::string>;
  CHECK(*ParseJsonPointer("") == Parts{});
  CHECK(*ParseJsonPointer("/") == Parts{""});
  CHECK(*ParseJsonPointer("/a/") == Parts{"a", ""});
  CHECK(*ParseJsonPointer("/a~0~1/~01") == Parts{"a~/", "~1"});
  for (const char* wrong : {"a", "/a~2", "/a~", "~0"}) {
    CHECK(absl::IsInvalidArgument(ParseJsonPointer(wrong).status()));
    CHECK_FALSE(At(JsonDocument::Parse(R"({"a":1,"a~":2,"a~2":3})")->root(), wrong).has_value());
  }
}

}  // namespace sluice::connector
