#include "tools/arguments.h"

#include <catch2/catch.hpp>

namespace sluice::tools {
namespace {

std::string Check(int64_t least, std::string text) {
  return AtLeast(least)(text);
}

/// What is said of a command line of the nouns `topic` (verbs create, list) and `version`.
std::string Said(const std::vector<std::string>& words) {
  CLI::App app("test", "sluice");
  app.require_subcommand(1);
  CLI::App* topic = app.add_subcommand("topic")->fallthrough();
  topic->require_subcommand(1);
  topic->add_subcommand("create")->fallthrough();
  topic->add_subcommand("list")->fallthrough();
  app.add_subcommand("version");
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError&) {
    return WrongCommand(app);
  }
  return "it was taken";
}

}  // namespace

TEST_CASE("A number that is too small is told with its bound and itself") {
  CHECK(Check(1, "1").empty());
  CHECK(Check(0, "0").empty());
  CHECK(Check(1, "0") == "expected a whole number, at least 1, got \"0\"");
  CHECK(Check(0, "-1") == "expected a whole number, at least 0, got \"-1\"");
  CHECK_FALSE(Check(1, "two").empty());
  CHECK_FALSE(Check(1, "99999999999999999999").empty());
}

TEST_CASE("A word that is no command is named, with those that are") {
  CHECK(Said({"frob"}) == "there is no command \"frob\"; known are topic, version. More: sluice --help");
  CHECK(Said({"topic", "frob"}) ==
        "there is no command \"topic frob\"; known are create, list. More: sluice topic --help");
  CHECK(Said({}).empty());
  CHECK(Said({"topic"}).empty());
  CHECK(Said({"topic", "list"}) == "it was taken");
}

}  // namespace sluice::tools
