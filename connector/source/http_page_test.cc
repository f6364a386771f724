#include "connector/source/http_page.h"

#include <catch2/catch.hpp>

#include "common/text.h"
#include "connector/messages.h"

namespace sluice::connector {
namespace {

struct Fixture {
  HttpSourceConfig config;
  Fixture() {
    config.url = "http://api.example/items?limit=2";
    config.records = "/items";
    config.slices = {{.name = "0", .params = {}}};
  }
  std::string Url(const PageAsk& ask) const {
    const auto request = BuildPageRequest(config, config.slices[0], ask);
    return request.ok() ? request->url : Cat("error: ", Message(request.status()));
  }
  absl::StatusOr<Page> Read(const std::string& body, const PageAsk& ask = {},
                            std::vector<std::pair<std::string, std::string>> headers = {}) const {
    return ReadPage(config, "/id", ask,
                    {.status = 200, .headers = std::move(headers), .body = body, .url = config.url});
  }
};

constexpr char kTwo[] = R"({"items": [ {"id": 1, "n": 1.50}, {"id": "b"} ], "next": "/items?after=b", "token": "T"})";
constexpr char kNone[] = R"({"items": [], "next": null})";

}  // namespace

TEST_CASE("Records keep their text; keys are text or null") {
  const auto page = Fixture().Read(R"({"items": [ {"id": 1, "n": 12345678901234567890.10}, {"id": null}, 5 ]})");
  INFO(page.status());
  REQUIRE(page.ok());
  REQUIRE(page->records.size() == 3);
  CHECK(page->records[0].value == R"({"id":1,"n":12345678901234567890.10})");
  CHECK(page->records[0].key == "1");
  CHECK_FALSE(page->records[1].key.has_value());
  CHECK(page->records[2].value == "5");
  CHECK(page->last);
}

TEST_CASE("Pages are counted until one is empty") {
  Fixture f;
  f.config.pagination = PagePagination{.param = "page", .start = 1};
  CHECK(f.Url({}) == "http://api.example/items?limit=2&page=1");
  const auto page = f.Read(kTwo);
  REQUIRE(page.ok());
  CHECK_FALSE(page->last);
  CHECK(f.Url({.token = page->next, .from = {}}) == "http://api.example/items?limit=2&page=2");
  CHECK(f.Read(kNone, {.token = "2", .from = {}})->last);
}

TEST_CASE("Offsets grow by the records received") {
  Fixture f;
  f.config.pagination = OffsetPagination{.param = "offset", .start = 1};
  CHECK(f.Url({}) == "http://api.example/items?limit=2&offset=1");
  CHECK(f.Url({.token = f.Read(kTwo)->next, .from = {}}) == "http://api.example/items?limit=2&offset=3");
  CHECK(f.Read(kNone)->last);
}

TEST_CASE("A cursor is sent back until there is none") {
  Fixture f;
  f.config.pagination = CursorPagination{.param = "after", .from = "/token"};
  CHECK(f.Url({}) == "http://api.example/items?limit=2");
  CHECK(f.Url({.token = f.Read(kTwo)->next, .from = {}}) == "http://api.example/items?limit=2&after=T");
  CHECK(f.Read(kNone)->last);
  CHECK(f.Read(R"({"items":[],"token":""})")->last);
  CHECK(absl::IsInvalidArgument(f.Read(kTwo, {.token = "T", .from = {}}).status()));
}

TEST_CASE("A next URL is followed, but only at the same origin") {
  Fixture f;
  f.config.pagination = NextUrlPagination{.from = "/next"};
  const auto page = f.Read(kTwo);
  REQUIRE(page.ok());
  CHECK(page->next == "http://api.example/items?after=b");
  CHECK(f.Url({.token = page->next, .from = {}}) == "http://api.example/items?after=b");
  CHECK(f.Read(kNone)->last);
  CHECK(absl::IsFailedPrecondition(f.Read(R"({"items":[],"next":"http://evil.example/"})").status()));
  CHECK(f.Url({.token = "http://evil.example/", .from = {}}).starts_with("error"));
}

TEST_CASE("A Link header's next is followed") {
  Fixture f;
  f.config.pagination = LinkHeaderPagination{};
  const auto page = f.Read(
      kTwo, {}, {{"link", R"(<http://api.example/items?page=1>; rel="prev", </items?page=3>; a=b; rel="next")"}});
  REQUIRE(page.ok());
  CHECK(page->next == "http://api.example/items?page=3");
  CHECK(f.Read(kTwo, {}, {{"link", R"(</x>; rel="last")"}})->last);
  CHECK(f.Read(kTwo)->last);
}

TEST_CASE("The incremental value goes out in the form that the API takes") {
  Fixture f;
  f.config.incremental =
      IncrementalConfig{.field = "/t", .param = "since", .start = "2026-01-01T00:00:00Z", .format = {}};
  CHECK(f.Url({.token = {}, .from = "\"2026-01-01T00:00:00Z\""}) ==
        "http://api.example/items?limit=2&since=2026-01-01T00:00:00Z");
  CHECK(f.Url({.token = {}, .from = "1767225600123"}) ==
        "http://api.example/items?limit=2&since=2026-01-01T00:00:00.123Z");
  f.config.incremental->start = "0";
  CHECK(f.Url({.token = {}, .from = "1767225600123"}) == "http://api.example/items?limit=2&since=1767225600123");
  CHECK(f.Read(R"({"items":[{"t":5},{"t":"x"},{"t":null},{}]})")->records[0].cursor == "5");
  CHECK(f.Read(R"({"items":[{"t":null}]})")->records[0].cursor.empty());
}

TEST_CASE("A page that is not JSON, or has no array where it should, says so") {
  Fixture f;
  CHECK(Message(f.Read("<html>").status()).find("not valid JSON") != std::string_view::npos);
  CHECK(Message(f.Read(R"({"items":[{"id":1})").status()).find("ends too early") != std::string_view::npos);
  CHECK(Message(f.Read(R"({"other":[]})").status()).find("nothing at `records: /items`") != std::string_view::npos);
  CHECK(Message(f.Read(R"({"items":{}})").status()).find("no array") != std::string_view::npos);
}

TEST_CASE("What an answer cannot be used for comes with its beginning, but without a secret in it, whole or half") {
  Fixture f;
  f.config.secrets = {Secret("tok-canary"), Secret("x")};
  const auto say = [&](const std::string& body) { return std::string(Message(f.Read(body).status())); };
  CHECK(say("<html>tok-canary</html>").find("it begins with '<html>***</html>'") != std::string::npos);
  CHECK(say(R"({"items":"tok-canary"})").find("canary") == std::string::npos);
  for (size_t before = 0; before < 120; ++before) {
    const std::string text = say(std::string(before, 'y') + "tok-canary");
    CHECK(text.find("tok-") == std::string::npos);
  }
  CHECK(Redacted("a?k=p%2Fq%20r&l=p/q r", {Secret("p/q r")}) == "a?k=***&l=***");
}

}  // namespace sluice::connector
