#include "connector/sink/row.h"

#include <catch2/catch.hpp>

#include "common/text.h"

namespace sluice::connector {

namespace {

const Schema kQuake = {{"id", "/id", ColumnType::kString},
                       {"mag", "/properties/mag", ColumnType::kDouble},
                       {"time", "/properties/time", ColumnType::kTimestampMs},
                       {"lon", "/geometry/coordinates/0", ColumnType::kDouble},
                       {"felt", "/properties/felt", ColumnType::kInt32}};

std::string Error(const Schema& schema, std::string_view value) {
  RowReader reader(schema);
  return std::string(Message(reader.Read(value)));
}

}  // namespace

TEST_CASE("a value is split by JSON pointer, and the rest goes to extra with every digit") {
  RowReader reader(kQuake);
  REQUIRE(reader
              .Read(R"({ "id":"us\u0031", "properties":{"mag":4.25,"time":1767225600000,"big":12345678901234567890.10},
    "geometry":{"type":"Point","coordinates":[-120.5, 38.0]}, "x" : [1, 2] })")
              .ok());
  REQUIRE(reader.cells()[0].text == "us1");
  REQUIRE(reader.cells()[1].number == 4.25);
  REQUIRE(reader.cells()[2].integer == 1767225600000);
  REQUIRE(reader.cells()[3].number == -120.5);
  REQUIRE(reader.cells()[4].kind == Cell::Kind::kNull);
  REQUIRE(reader.extra() ==
          R"({"properties":{"big":12345678901234567890.10},"geometry":{"type":"Point","coordinates":[-120.5,38.0]},)"
          R"("x":[1,2]})");
}

TEST_CASE("a row leaves nothing behind for the next one") {
  RowReader reader(kQuake);
  REQUIRE(reader.Read(R"({"id":"a","properties":{"mag":1,"felt":3},"more":1})").ok());
  REQUIRE(reader.Read(R"({})").ok());
  for (const Cell& cell : reader.cells()) REQUIRE(cell.kind == Cell::Kind::kNull);
  REQUIRE(reader.extra().empty());
}

TEST_CASE("a value that does not fit its type names column and value") {
  REQUIRE(Error(kQuake, R"({"id":7})") == "column 'id' (/id): 7 is no string");
  REQUIRE(Error(kQuake, R"({"properties":{"mag":"high"}})") == "column 'mag' (/properties/mag): \"high\" is no double");
  REQUIRE(Error(kQuake, R"({"properties":{"felt":3000000000}})").find("is no int32") != std::string::npos);
  REQUIRE(Error(kQuake, R"({"properties":{"time":1.5}})").find("is no timestamp_ms") != std::string::npos);
  REQUIRE(Error(kQuake, R"([1])") == "the record is not a JSON object");
  REQUIRE(Error(kQuake, R"({"id":"a","deep":{"broken":[1,}})").find("not valid JSON") != std::string::npos);
  REQUIRE(Error(kQuake, "").find("not valid JSON") != std::string::npos);
}

TEST_CASE("a JSON column keeps its whole text while others point inside it") {
  RowReader reader({{"all", "/p", ColumnType::kJson},
                    {"a", "/p/a", ColumnType::kInt64},
                    {"list", "/l", ColumnType::kJson},
                    {"second", "/l/1", ColumnType::kString}});
  REQUIRE(reader.Read(R"({"p": {"a":1, "b":2.50} , "l":[ "x","y" ], "z":null})").ok());
  REQUIRE(reader.cells()[0].text == R"({"a":1,"b":2.50})");
  REQUIRE(reader.cells()[1].integer == 1);
  REQUIRE(reader.cells()[2].text == R"(["x","y"])");
  REQUIRE(reader.cells()[3].text == "y");
  REQUIRE(reader.extra() == R"({"z":null})");
  REQUIRE(reader.Read(R"({"p":"text"})").ok());
  REQUIRE(reader.cells()[0].text == "\"text\"");
}

TEST_CASE("nulls and missing fields are nulls of any type") {
  REQUIRE(Error(kQuake, R"({"id":null,"properties":null,"geometry":{"coordinates":[null]}})").empty());
}

TEST_CASE("inference finds the narrowest types of the top level") {
  SchemaInference inference;
  inference.Add(
      R"({"i":1,"d":1,"s":"x","t":"2026-01-01T00:00:00Z","b":true,"o":{"a":1},"n":null,"m":1,"u":123456789012345678901234567890})");
  inference.Add(
      R"({"i":-5,"d":1.5,"s":"2026-01-01T00:00:00Z","t":"2026-01-02 00:00:00+01:00","b":null,"m":"text","_key":1})");
  inference.Add("not json");
  const Schema schema = inference.Finish();
  const std::vector<std::pair<std::string, ColumnType>> expected = {
      {"i", ColumnType::kInt64}, {"d", ColumnType::kDouble}, {"s", ColumnType::kString}, {"t", ColumnType::kTimestamp},
      {"b", ColumnType::kBool},  {"o", ColumnType::kJson},   {"m", ColumnType::kJson},   {"u", ColumnType::kJson}};
  REQUIRE(schema.size() == expected.size());
  for (size_t i = 0; i < schema.size(); ++i) {
    REQUIRE(schema[i].name == expected[i].first);
    REQUIRE(schema[i].type == expected[i].second);
  }
  REQUIRE(CheckSchema(schema).ok());
}

TEST_CASE("field names with slashes and tildes are found again by the inferred pointers") {
  SchemaInference inference;
  inference.Add(R"({"a/b~c":5})");
  RowReader reader(inference.Finish());
  REQUIRE(reader.Read(R"({"a/b~c":6})").ok());
  REQUIRE(reader.cells()[0].integer == 6);
}

TEST_CASE("a schema that cannot hold is refused by column") {
  REQUIRE_FALSE(CheckSchema({{"_offset", "/a", ColumnType::kInt64}}).ok());
  REQUIRE_FALSE(CheckSchema({{"a", "/a", ColumnType::kInt64}, {"a", "/b", ColumnType::kInt64}}).ok());
  REQUIRE_FALSE(CheckSchema({{"a", "a", ColumnType::kInt64}}).ok());
  REQUIRE_FALSE(CheckSchema({{"a", "/x", ColumnType::kString}, {"b", "/x/y", ColumnType::kInt64}}).ok());
  REQUIRE_FALSE(CheckSchema({{"a", "/x", ColumnType::kJson}, {"b", "/x", ColumnType::kInt64}}).ok());
}

TEST_CASE("event time is an RFC 3339 time, milliseconds or seconds") {
  EventTimeReader reader("/t");
  REQUIRE(*reader.Read(R"({"t":"2026-01-01T00:00:00.25Z"})") == 1767225600250);
  REQUIRE(*reader.Read(R"({"t":1767225600250})") == 1767225600250);
  REQUIRE(*reader.Read(R"({"t":1767225600.5})") == 1767225600500);
  for (std::string_view bad : {R"({})", R"({"t":"soon"})", R"({"t":1e300})", R"({"t":null})", "{"}) {
    REQUIRE(reader.Read(bad).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace sluice::connector
