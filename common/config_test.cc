#include "common/config.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/text.h"

namespace sluice {

namespace {

ConfigFile Parsed(std::string_view text) {
  auto file = ConfigFile::Parse("node.yaml", text);
  INFO(file.status().ToString());
  REQUIRE(file.ok());
  return *std::move(file);
}

std::string Refusal(std::string_view text) {
  return std::string(Message(ConfigFile::Parse("node.yaml", text).status()));
}

// All errors of a file, once everything was read; "" when there are none.
std::string Errors(const ConfigFile& file) {
  const absl::Status status = file.Finish();
  if (!status.ok()) REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
  return std::string(Message(status));
}

enum class Color { kRed, kGreen };

}  // namespace

TEST_CASE("values are read with their types") {
  const ConfigFile file = Parsed(R"(
node: { id: 3, name: "a b", ratio: 0.25, on: true }
storage:
  segment_bytes: 64MiB
  wait: 1h30m
  election_timeout_ms: 250
  color: green
  seeds: [a:1, b:2]
  one: single
  labels: { dc: east, "rack": 7 }
)");
  const ConfigNode node = file.root().Child("node");
  REQUIRE(node.Int("id", 0) == 3);
  REQUIRE(node.String("name", "") == "a b");
  REQUIRE(node.Number("ratio", 0) == 0.25);
  REQUIRE(node.Bool("on", false));
  const ConfigNode storage = file.root().Child("storage");
  REQUIRE(storage.Size("segment_bytes", 0) == 64 << 20);
  REQUIRE(storage.Duration("wait", absl::ZeroDuration()) == absl::Minutes(90));
  REQUIRE(storage.Duration("election_timeout_ms", absl::ZeroDuration()) == absl::Milliseconds(250));
  REQUIRE(storage.Enum("color", Color::kRed, {{"red", Color::kRed}, {"green", Color::kGreen}}) == Color::kGreen);
  REQUIRE(storage.Strings("seeds") == std::vector<std::string>{"a:1", "b:2"});
  REQUIRE(storage.Strings("one") == std::vector<std::string>{"single"});
  REQUIRE(storage.StringMap("labels") ==
          std::vector<std::pair<std::string, std::string>>{{"dc", "east"}, {"rack", "7"}});
  REQUIRE(Errors(file) == "");
}

TEST_CASE("what is absent or null gives its default, in absent sections too") {
  const ConfigFile file = Parsed("storage:\nnode: { id: }\n");
  REQUIRE(file.root().Child("storage").Size("segment_bytes", 7) == 7);
  REQUIRE(file.root().Child("nowhere").Child("at").Bool("all", true));
  REQUIRE(file.root().Child("node").Int("id", 5) == 5);
  REQUIRE_FALSE(file.root().Child("node").OptionalString("name").has_value());
  REQUIRE(file.root().Child("node").List("items").empty());
  REQUIRE(Errors(file) == "");
  const ConfigFile empty = Parsed("");
  REQUIRE(empty.root().Int("x", 1) == 1);
  REQUIRE(Errors(empty) == "");
}

TEST_CASE("a key that nobody asked for is an error with file, line, column and a suggestion") {
  const ConfigFile file = Parsed("storage:\n  segment_byte: 1MiB\n  journal_bytes: 2MiB\nextra: 1\n");
  const ConfigNode storage = file.root().Child("storage");
  storage.Size("segment_bytes", 0);
  storage.Size("journal_bytes", 0);
  REQUIRE(Errors(file) ==
          "node.yaml:2:3: storage.segment_byte: unknown key; did you mean \"storage.segment_bytes\"?\n"
          "node.yaml:4:1: extra: unknown key; known here: storage");
}

TEST_CASE("all errors are reported, in the file's order") {
  const ConfigFile file = Parsed(
      "id: x\nport: 70000\nwait: 5\nsize: 1 MiB\non: maybe\ncolor: blue\nlist: 3\nmap: [1]\nratio: nan\nvalue: {a: "
      "1}\n");
  const ConfigNode root = file.root();
  REQUIRE(root.Int("id", 9) == 9);
  REQUIRE(root.Int("port", 7400, {1, 65535}) == 7400);
  REQUIRE(root.Duration("wait", absl::Seconds(1)) == absl::Seconds(1));
  REQUIRE(root.Size("size", 8) == 8);
  REQUIRE(root.Bool("on", true));
  REQUIRE(root.Enum("color", Color::kRed, {{"red", Color::kRed}, {"green", Color::kGreen}}) == Color::kRed);
  REQUIRE(root.List("list").empty());
  REQUIRE(root.Child("map").Int("x", 1) == 1);
  REQUIRE(root.Child("map").Int("y", 1) == 1);
  REQUIRE(root.Number("ratio", 2) == 2);
  REQUIRE(root.String("value", "d") == "d");
  root.Require("name");
  REQUIRE(Errors(file) ==
          "node.yaml:1:1: name: is required\n"
          "node.yaml:1:5: id: expected a whole number, found \"x\"\n"
          "node.yaml:2:7: port: 70000 is not between 1 and 65535\n"
          "node.yaml:3:7: wait: expected a duration such as 500ms, 5m, 1h30m or 7d, found \"5\"\n"
          "node.yaml:4:7: size: expected a size such as 4096, 64KiB, 1MB or 2GiB, found \"1 MiB\"\n"
          "node.yaml:5:5: on: expected true or false, found \"maybe\"\n"
          "node.yaml:6:8: color: expected one of red, green; found \"blue\"\n"
          "node.yaml:7:7: list: expected a list, found one value\n"
          "node.yaml:8:6: map: expected a mapping, found a list\n"
          "node.yaml:9:8: ratio: expected a number, found \"nan\"\n"
          "node.yaml:10:8: value: expected one value, found a mapping\n"
          "node.yaml:10:9: value.a: unknown key");
}

TEST_CASE("ranges of durations and sizes are told in their units") {
  const ConfigFile file = Parsed("a: 1ms\nb: 2d\nc: 1KiB\n");
  file.root().Duration("a", absl::Seconds(1), {absl::Milliseconds(10), absl::InfiniteDuration()});
  file.root().Duration("b", absl::Seconds(1), {absl::ZeroDuration(), absl::Hours(1)});
  file.root().Size("c", 0, {1 << 20, int64_t{1} << 30});
  REQUIRE(Errors(file) ==
          "node.yaml:1:4: a: 1ms is not at least 10ms\n"
          "node.yaml:2:4: b: 2d is not between 0 and 1h\n"
          "node.yaml:3:4: c: 1KiB is not between 1MiB and 1GiB");
}

TEST_CASE("elements of lists are named by their place, and exactly one of several keys can be asked for") {
  const ConfigFile file =
      Parsed("sinks:\n  - raw: { to: x }\n  - { raw: { to: y }, parquet: {} }\n  - parquet: { two: z }\n");
  const auto sinks = file.root().List("sinks");
  REQUIRE(sinks.size() == 3);
  const auto first = sinks[0].OneOf({"raw", "parquet"});
  REQUIRE(first.has_value());
  REQUIRE(first->first == "raw");
  REQUIRE(first->second.String("to", "") == "x");
  REQUIRE(first->second.path() == "sinks[0].raw");
  REQUIRE_FALSE(sinks[1].OneOf({"raw", "parquet"}).has_value());
  sinks[1].Child("raw").String("to", "");
  REQUIRE(sinks[2].OneOf({"raw", "parquet"})->second.String("to", "none") == "none");
  REQUIRE(Errors(file) ==
          "node.yaml:3:5: sinks[1]: expected exactly one of raw, parquet; found 2\n"
          "node.yaml:4:16: sinks[2].parquet.two: unknown key; did you mean \"sinks[2].parquet.to\"?");
}

TEST_CASE("a caller's own errors stand among the others") {
  const ConfigFile file = Parsed("a: 1\nb: { c: 2 }\n");
  file.root().Int("a", 0);
  file.root().Child("b").Int("c", 0);
  file.root().AddError("a", "is odd");
  file.root().Child("b").AddError("is strange");
  REQUIRE(Errors(file) == "node.yaml:1:4: a: is odd\nnode.yaml:2:4: b: is strange");
}

TEST_CASE("what is no YAML mapping is refused with its place") {
  REQUIRE(Refusal("a: [1, 2\n").find("node.yaml:2:1: ") == 0);
  REQUIRE(Refusal("a: 1\na: 2\n") == "node.yaml:2:1: \"a\" stands here twice");
  REQUIRE(Refusal("- a\n- b\n") == "node.yaml:1:1: expected a mapping, found a list");
  REQUIRE(Refusal("[a, b]: 1\n") == "node.yaml:1:1: a key must be a word");
  REQUIRE(Refusal("a: 1\n---\nb: 2\n").find("the one document") != std::string::npos);
  REQUIRE(Refusal(", a: 1\n").find("the one document") != std::string::npos);
  REQUIRE(Refusal("a: *nowhere\n").find("node.yaml:1:") == 0);
}

TEST_CASE("aliases that multiply are refused") {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = Cat("*a", i - 1);
    text += Cat("a", i, ": &a", i, " [", before, ", ", before, ", ", before, ", ", before, ", ", before, "]\n");
  }
  REQUIRE(Refusal(text).find("more than") != std::string::npos);
  REQUIRE_FALSE(Refusal("a: " + std::string(300, '[') + std::string(300, ']')).empty());
}

TEST_CASE("a value can be set over the file's") {
  ConfigFile file = Parsed("storage: { segment_bytes: 1MiB }\n");
  REQUIRE(file.Override("storage.segment_bytes=2MiB").ok());
  REQUIRE(file.Override("node.id=4").ok());
  REQUIRE(file.Override("cluster.seeds=[a, b]").ok());
  REQUIRE(file.Override("node.typo=1").ok());
  REQUIRE(file.root().Child("storage").Size("segment_bytes", 0) == 2 << 20);
  REQUIRE(file.root().Child("node").Int("id", 0, {5, 9}) == 0);
  REQUIRE(file.root().Child("cluster").Strings("seeds").size() == 2);
  REQUIRE(Errors(file) == "--set: node.id: 4 is not between 5 and 9\n--set: node.typo: unknown key; known here: id");
  REQUIRE_FALSE(file.Override("novalue").ok());
  REQUIRE_FALSE(file.Override("a..b=1").ok());
  REQUIRE_FALSE(file.Override("node.id.x=1").ok());
}

TEST_CASE("an unknown key is named in full, and so is what it is taken for, which has most of its letters") {
  struct Case {
    const char* assignment;
    const char* expected;
  };
  const Case cases[] = {
      {"foo.bar=1", "--set: foo.bar: unknown key; known here: id, log, storage"},
      {"lo=1", "--set: lo: unknown key; did you mean \"log\"?"},
      {"x=1", "--set: x: unknown key; known here: id, log, storage"},
      {"ix=1", "--set: ix: unknown key; did you mean \"id\"?"},
      {"xx=1", "--set: xx: unknown key; known here: id, log, storage"},
      {"log.levl=info", "--set: log.levl: unknown key; did you mean \"log.level\"?"},
      {"stroage.path=x", "--set: stroage.path: unknown key; did you mean \"storage.path\"?"},
      {"stroage.nothing=x", "--set: stroage.nothing: unknown key; did you mean \"storage\"?"},
      {"foo={a: 1, b: {c: 2}}",
       "--set: foo.a: unknown key; known here: id, log, storage\n"
       "--set: foo.b.c: unknown key; known here: id, log, storage"},
  };
  for (const Case& each : cases) {
    ConfigFile file = Parsed("");
    REQUIRE(file.Override(each.assignment).ok());
    file.root().Int("id", 0);
    file.root().Child("log").String("level", "");
    file.root().Child("storage").String("path", "");
    CHECK(Errors(file) == each.expected);
  }
  const ConfigFile file = Parsed("foo:\n  a: 1\n  b: 2\n");
  CHECK(Errors(file) == "node.yaml:1:1: foo: unknown key");
}

}  // namespace sluice
