#include "connector/sink/path_template.h"

#include <catch2/catch.hpp>

namespace sluice::connector {

TEST_CASE("a path is made of the event's day and hour in UTC") {
  auto path = PathTemplate::Parse("dt={event_time:%Y-%m-%d}/hour={event_time:%H}");
  REQUIRE(path.ok());
  REQUIRE(path->uses_event_time());
  REQUIRE(path->Render("t", PartitionId(0), 0, 1767225599999) == "dt=2025-12-31/hour=23");
}

TEST_CASE("topic, partition and ingest time stand in a path") {
  auto path = PathTemplate::Parse("{topic}/p{partition}/{ingest_time:%Y}");
  REQUIRE(path.ok());
  REQUIRE_FALSE(path->uses_event_time());
  REQUIRE(path->Render("quakes", PartitionId(3), 0, 5) == "quakes/p3/1970");
}

TEST_CASE("an empty template gives no folder") {
  auto path = PathTemplate::Parse("");
  REQUIRE(path.ok());
  REQUIRE(path->Render("t", PartitionId(0), 0, 0).empty());
}

TEST_CASE("a wrong template is refused with the character where it goes wrong") {
  for (std::string_view bad : {"a/{nothing}", "{event_time}", "{event_time:%Y", "a}", "/a", "a/", "a//b", "../x"}) {
    INFO(bad);
    auto path = PathTemplate::Parse(bad);
    REQUIRE(path.status().code() == absl::StatusCode::kInvalidArgument);
  }
  REQUIRE(PathTemplate::Parse("ab{zz}").status().message().find("character 3") != std::string::npos);
}

TEST_CASE("file names sort by offset") {
  REQUIRE(SinkFileName("quakes", PartitionId(2), Offset(5), Offset(12345), "jsonl.zst") ==
          "quakes-2-00000000000000000005-00000000000000012345.jsonl.zst");
}

}  // namespace sluice::connector
