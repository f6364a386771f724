#include "common/log.h"

#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "common/types.h"

namespace sluice {

namespace {

// A logger whose lines can be read, at 2026-01-02T03:04:05.678Z.
struct Recorded {
  explicit Recorded(LogFormat format, LogLevel level = LogLevel::kInfo) : log(Options(format, level)) {}
  LogOptions Options(LogFormat format, LogLevel level) {
    LogOptions options;
    options.level = level;
    options.format = format;
    options.write = [this](std::string_view line) { lines.emplace_back(line); };
    options.now = [] { return absl::FromUnixMillis(1767323045678); };
    return options;
  }
  std::vector<std::string> lines;
  Logger log;
};

}  // namespace

TEST_CASE("a line of text is logfmt, quoted only where it must be") {
  Recorded recorded(LogFormat::kText);
  recorded.log.Info("segment rolled", {{"base_offset", Offset(42)},
                                       {"path", "/a b"},
                                       {"empty", ""},
                                       {"ok", true},
                                       {"size", uint64_t{7}},
                                       {"why", absl::DataLossError("line\nbreak")}});
  REQUIRE(recorded.lines.size() == 1);
  REQUIRE(
      recorded.lines[0] ==
      "ts=2026-01-02T03:04:05.678Z level=info msg=\"segment rolled\" base_offset=42 path=\"/a b\" empty=\"\" ok=true "
      "size=7 why=\"DATA_LOSS: line\\nbreak\"\n");
}

TEST_CASE("a line of JSON keeps numbers and booleans, and escapes the rest") {
  Recorded recorded(LogFormat::kJson);
  recorded.log.Error("it \"broke\"",
                     {{"n", -3}, {"x", 0.5}, {"ok", false}, {"text", "a\\b\t\xc3\xa9\xff"}, {"nan", 0.0 / 0.0}});
  REQUIRE(recorded.lines.size() == 1);
  const std::string& line = recorded.lines[0];
  REQUIRE(line.find("{\"ts\":\"2026-01-02T03:04:05.678Z\",\"level\":\"error\",\"msg\":\"it \\\"broke\\\"\",\"n\":-3,"
                    "\"x\":0.5,\"ok\":false,\"text\":\"a\\\\b\\u0009\xc3\xa9\\ufffd\",\"nan\":\"") == 0);
  REQUIRE(line.substr(line.size() - 3) == "\"}\n");
}

TEST_CASE("what is below the level is not written, and the level can change for all that share it") {
  Recorded recorded(LogFormat::kText, LogLevel::kWarn);
  const Logger child = recorded.log.With({{"component", "journal"}});
  child.Info("quiet");
  REQUIRE(recorded.lines.empty());
  child.Warn("loud");
  REQUIRE(recorded.lines.size() == 1);
  recorded.log.SetLevel(LogLevel::kDebug);
  child.Debug("now heard");
  REQUIRE(recorded.lines.size() == 2);
  recorded.log.SetLevel(LogLevel::kOff);
  child.Error("silence");
  REQUIRE(recorded.lines.size() == 2);
  REQUIRE_FALSE(Logger::Silent().Enabled(LogLevel::kError));
}

TEST_CASE("fields of With stand in every line, before the line's own") {
  Recorded recorded(LogFormat::kText);
  const Logger log = recorded.log.With({{"node", NodeId(3)}}).With({{"component", "raft"}});
  log.Info("hi", {{"k", "v"}});
  REQUIRE(recorded.lines[0] == "ts=2026-01-02T03:04:05.678Z level=info msg=hi node=3 component=raft k=v\n");
}

TEST_CASE("lines of several threads do not mix") {
  Recorded recorded(LogFormat::kText);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&recorded, t] {
      for (int i = 0; i < 200; ++i) recorded.log.Info("x", {{"t", t}, {"i", i}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(recorded.lines.size() == 800);
}

TEST_CASE("SLUICE_LOG wins over the configured level, and must name one") {
  REQUIRE(*ChooseLogLevel(nullptr, LogLevel::kWarn) == LogLevel::kWarn);
  REQUIRE(*ChooseLogLevel("", LogLevel::kWarn) == LogLevel::kWarn);
  REQUIRE(*ChooseLogLevel("debug", LogLevel::kWarn) == LogLevel::kDebug);
  REQUIRE(ChooseLogLevel("loud", LogLevel::kWarn).status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace sluice
