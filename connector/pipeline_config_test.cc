#include "connector/pipeline_config.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "common/text.h"

namespace sluice::connector {
namespace {

SecretSource Fixed() {
  return {.environment =
              [](const std::string& name) {
                return name == "TOKEN" ? std::optional<std::string>("tok-canary") : std::nullopt;
              },
          .file = [](const std::string& path) -> absl::StatusOr<std::string> {
            if (path == "/run/pw") return "file-canary\n";
            return absl::NotFoundError(path);
          }};
}

constexpr char kFull[] = R"(pipeline: quakes-1
source:
  http:
    url: http://127.0.0.1:7420/quakes?limit=100
    auth: { bearer: "${env:TOKEN}" }
    headers: { X-Team: data }
    params: { key: "${file:/run/pw}" }
    records: /features
    pagination: { next_url: /links/next }
    cursor: { field: /properties/time, param: starttime, start: 2026-01-01T00:00:00Z }
    schedule: { every: 5m }
    retry: { attempts: 3 }
topic: { name: quakes, key: /id }
sinks:
  - raw:     { to: "file://./lake/raw", codec: gzip, roll: { records: 100000, bytes: 64MiB, age: 5m } }
  - parquet: { to: "s3://lake/quakes", endpoint: "http://127.0.0.1:7430", codec: zstd, schema: infer,
               path: "dt={event_time:%Y-%m-%d}/hour={event_time:%H}", event_time: /properties/time,
               roll: { bytes: 128MiB, age: 10m } }
)";

/// The errors of kFull with one piece of it replaced.
std::string ErrorsWith(const std::string& from, const std::string& to) {
  std::string text = kFull;
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  const auto pipeline = ParsePipeline("p.yaml", text, Fixed());
  REQUIRE_FALSE(pipeline.ok());
  CHECK(absl::IsInvalidArgument(pipeline.status()));
  return std::string(Message(pipeline.status()));
}

}  // namespace

TEST_CASE("A whole pipeline is read") {
  const auto pipeline = ParsePipeline("p.yaml", kFull, Fixed());
  INFO(pipeline.status());
  REQUIRE(pipeline.ok());
  CHECK(pipeline->name == "quakes-1");
  const HttpSourceConfig& http = pipeline->source;
  CHECK(http.url == "http://127.0.0.1:7420/quakes?limit=100");
  REQUIRE(http.headers.size() == 2);
  CHECK(http.headers[0].second.Reveal() == "data");
  CHECK(http.headers[1].first == "Authorization");
  CHECK(http.headers[1].second.Reveal() == "Bearer tok-canary");
  CHECK(http.params[0].second.Reveal() == "file-canary");
  CHECK(std::get<NextUrlPagination>(http.pagination).from == "/links/next");
  CHECK(http.incremental->start == "2026-01-01T00:00:00Z");
  CHECK(http.every == absl::Minutes(5));
  CHECK(http.attempts_max == 3);
  REQUIRE(http.slices.size() == 1);
  CHECK(pipeline->topic.name == "quakes");
  CHECK(pipeline->topic.key == "/id");
  REQUIRE(pipeline->sinks.size() == 2);
  CHECK(pipeline->sinks[0].name == "raw-0");
  CHECK(pipeline->sinks[0].config.codec == SinkCodec::kGzip);
  CHECK(pipeline->sinks[0].config.roll.bytes == int64_t{64} << 20);
  CHECK(pipeline->sinks[1].name == "parquet-1");
  CHECK(pipeline->sinks[1].config.s3.endpoint == "http://127.0.0.1:7430");
  CHECK(pipeline->sinks[1].config.infer_schema);
  CHECK(pipeline->sinks[1].config.roll.age == absl::Minutes(10));
}

TEST_CASE("Each way to page is read") {
  const auto with = [](const std::string& pagination) {
    std::string text = kFull;
    const std::string from = "{ next_url: /links/next }";
    text.replace(text.find(from), from.size(), pagination);
    const auto pipeline = ParsePipeline("p.yaml", text, Fixed());
    INFO(pipeline.status());
    REQUIRE(pipeline.ok());
    return pipeline->source.pagination;
  };
  CHECK(with("{ page: { param: p, start: 0 } }") == Pagination(PagePagination{.param = "p", .start = 0}));
  CHECK(with("{ offset: { start: 1 } }") == Pagination(OffsetPagination{.param = "offset", .start = 1}));
  CHECK(with("{ cursor: { param: after, from: /next } }") ==
        Pagination(CursorPagination{.param = "after", .from = "/next"}));
  CHECK(with("{ link_header: true }") == Pagination(LinkHeaderPagination{}));
}

TEST_CASE("An error names file, line and key, and all errors come together") {
  const std::string errors = ErrorsWith("records: /features", "recods: /features");
  INFO(errors);
  CHECK(errors.find("p.yaml:8") != std::string::npos);
  CHECK(errors.find("recods") != std::string::npos);
  CHECK(errors.find("source.http.records") != std::string::npos);

  const std::string two = ErrorsWith("topic: { name: quakes, key: /id }", "topic: { name: \"a b\", key: id }");
  INFO(two);
  CHECK(two.find("topic.name") != std::string::npos);
  CHECK(two.find("topic.key") != std::string::npos);
}

TEST_CASE("What cannot work is refused") {
  CHECK(ErrorsWith("http://127.0.0.1:7420", "ftp://x").find("source.http.url") != std::string::npos);
  CHECK(ErrorsWith("http://127.0.0.1", "http://me:pw@127.0.0.1").find("source.http.url") != std::string::npos);
  CHECK(ErrorsWith("${env:TOKEN}", "${env:MISSING}").find("MISSING") != std::string::npos);
  CHECK(ErrorsWith("name: quakes,", "name: __quakes,").find("topic.name") != std::string::npos);
  CHECK(ErrorsWith("s3://lake", "gs://lake").find(".to") != std::string::npos);
  CHECK(ErrorsWith("event_time: /properties/time,", "").find("path") != std::string::npos);
  CHECK(ErrorsWith("{ every: 5m }", "{ every: 5 }").find("every") != std::string::npos);
  CHECK(ErrorsWith("schema: infer", "schema: [ { name: a, from: /a, type: varchar } ]").find("type") !=
        std::string::npos);
  CHECK(ErrorsWith("schema: infer",
                   "schema: [ { name: a, from: /a, type: string }, { name: b, from: /a/b, type: json } ]")
            .find("schema") != std::string::npos);
  CHECK(ErrorsWith("hour={event_time:%H}", "../{event_time:%H}").find("path") != std::string::npos);
  CHECK(ErrorsWith("X-Team: data", "X-Team: \"a\\r\\nb\"").find("headers") != std::string::npos);
  CHECK(ErrorsWith("key: /id }", "key: /id, config: { foo: bar } }").find("topic.config.foo: no setting of a topic") !=
        std::string::npos);
  CHECK(ErrorsWith("key: /id }", "key: /id, config: { retention.ms: abc } }")
            .find("topic.config.retention.ms: expected") != std::string::npos);
  CHECK(ErrorsWith("key: /id }", "key: /id, config: { cleanup.policy: compact } }").find("expected delete, found") !=
        std::string::npos);
  CHECK(ErrorsWith("http://127.0.0.1:7430", "nonsense").find("sinks[1].parquet.endpoint: expected http://HOST:PORT") !=
        std::string::npos);
  CHECK(
      ErrorsWith("retry: { attempts: 3 }", "tls: { ca_file: /nope/ca.pem }").find("source.http.tls.ca_file: \"/nope") !=
      std::string::npos);
  CHECK(ErrorsWith("quakes?limit=100", "quakes?i=${interval.start}")
            .find("source.http.url: \"${interval.start}\" is no reference; there are ${env:NAME} and ${file:PATH}") !=
        std::string::npos);
  CHECK(ErrorsWith("- raw: ", "- csv: ").find("sinks[0]") != std::string::npos);
}

TEST_CASE("A sink keeps the name that it is given, wherever it stands") {
  std::string text = kFull;
  text.replace(text.find("raw:     {"), 10, "raw: { name: archive,");
  const auto pipeline = ParsePipeline("p.yaml", text, Fixed());
  INFO(pipeline.status());
  REQUIRE(pipeline.ok());
  CHECK(pipeline->sinks[0].name == "archive");
  CHECK(pipeline->sinks[1].name == "parquet-1");
  CHECK(ErrorsWith("raw:     {", "raw: { name: a/b,").find("sinks[0].raw.name: a name is") != std::string::npos);
  CHECK(ErrorsWith("raw:     {", "raw: { name: parquet-1,").find("a second sink of the name 'parquet-1'") !=
        std::string::npos);
}

TEST_CASE("Two sinks that would write the same files are refused, in one pipeline and in two of one topic") {
  const auto with = [](const std::string& name, const std::string& topic, const std::string& sinks) {
    return Cat("pipeline: ", name, "\nsource: { http: { url: \"http://a/\", records: /r } }\ntopic: { name: ", topic,
               " }\nsinks:\n", sinks);
  };
  const std::string raw = "  - raw: { to: \"file://lake\", path: \"a\" }\n";
  const auto load = [](const std::string& text) {
    auto pipeline = ParsePipeline("p.yaml", text, Fixed());
    INFO(pipeline.status());
    REQUIRE(pipeline.ok());
    return *std::move(pipeline);
  };
  const auto told = [&](const std::vector<PipelineConfig>& pipelines) {
    return std::string(Message(CheckTogether(pipelines)));
  };
  const PipelineConfig one = load(with("one", "t", raw));
  CHECK(told({load(with("one", "t", raw + "  - raw: { to: \"file://lake/\", path: a, codec: gzip }\n"))}) ==
        "p.yaml:6:10: sinks[1].raw: writes to the folders of p.yaml:5:10: sinks[0].raw");
  CHECK(told({one, load(with("two", "t", raw))}) != "");
  for (const char* same : {"{ to: \"file://./lake\", path: a }", "{ to: \"file://x/../lake//\", path: a }",
                           "{ to: \"file://$PWD/lake\", path: a }"}) {
    std::string sink = Cat("  - raw: ", same, "\n");
    if (const size_t at = sink.find("$PWD"); at != std::string::npos) {
      sink.replace(at, 4, std::filesystem::current_path().string());
    }
    INFO(sink);
    CHECK(told({one, load(with("two", "t", sink))}) != "");
  }
  CHECK(told({one, load(with("one", "other", raw))}) ==
        "p.yaml:1:11: pipeline: a second pipeline of the name 'one'; the first is at p.yaml:1:11: pipeline");
  // A wrong file is checked with the others as far as it could be read.
  PipelineConfig wrong;
  CHECK_FALSE(ParsePipeline("q.yaml", Cat(with("two", "t", raw), "colour: green\n"), Fixed(), &wrong).ok());
  CHECK(told({one, wrong}) == "q.yaml:5:10: sinks[0].raw: writes to the folders of p.yaml:5:10: sinks[0].raw");
  CHECK(told({PipelineConfig(), PipelineConfig()}) == "");
  CHECK(told({one, load(with("two", "other", raw))}) == "");
  CHECK(told({one, load(with("two", "t", "  - raw: { to: \"file://lake\", path: \"b\" }\n"))}) == "");
  CHECK(told({load(with("one", "t", raw + "  - parquet: { to: \"file://lake\", path: \"a\" }\n"))}) == "");
}

TEST_CASE("No secret shows in an error about it") {
  const std::string errors = ErrorsWith("X-Team: data", "X-Team: \"${env:TOKEN}\\n\"");
  CHECK(errors.find("canary") == std::string::npos);
}

TEST_CASE("A pipeline knows its secrets, and where in the file its parts stand") {
  std::string text = kFull;
  text.replace(text.find("endpoint:"), 9, "access_key: \"${env:TOKEN}\", secret_key: plain-canary, endpoint:");
  const auto pipeline = ParsePipeline("p.yaml", text, Fixed());
  INFO(pipeline.status());
  REQUIRE(pipeline.ok());
  std::vector<std::string> secrets;
  for (const Secret& secret : pipeline->source.secrets) secrets.push_back(secret.Reveal());
  CHECK(secrets == std::vector<std::string>{"file-canary", "tok-canary", "tok-canary"});
  CHECK(pipeline->sinks[1].config.s3.access_key.Reveal() == "tok-canary");
  CHECK(pipeline->sinks[1].config.s3.secret_key.Reveal() == "plain-canary");
  CHECK(pipeline->source.at.starts_with("p.yaml:4:"));
  CHECK(pipeline->source.at.ends_with(": source.http"));
  CHECK(pipeline->source.records_at.starts_with("p.yaml:8:"));
  CHECK(pipeline->source.records_at.ends_with(": source.http.records"));
  CHECK(pipeline->sinks[1].config.at.ends_with(": sinks[1].parquet"));
}

TEST_CASE("A basic login becomes one header") {
  std::string text = kFull;
  const std::string from = "{ bearer: \"${env:TOKEN}\" }";
  text.replace(text.find(from), from.size(), "{ basic: { user: Aladdin, password: open sesame } }");
  const auto pipeline = ParsePipeline("p.yaml", text, Fixed());
  INFO(pipeline.status());
  REQUIRE(pipeline.ok());
  CHECK(pipeline->source.headers.back().second.Reveal() == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");  // RFC 7617's example
}

}  // namespace sluice::connector
