// A pipeline as its YAML file describes it: where records come from, the topic they go to, the sinks that drain it.
// docs/pipelines.md is the reference of the keys.
//
// Always holds for what Parse returned: every value is in its range, pointers are JSON pointers (empty or starting with
// '/'), names of topics are legal, references to the environment and to files are resolved.
// Threads: value types and pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/record/codec.h"
#include "common/secret.h"
#include "connector/sink/sink_config.h"

namespace sluice::connector {

/// Ask again with `param` counted up by one, until a page has no records.
struct PagePagination {
  std::string param = "page";
  int64_t start = 1;
  bool operator==(const PagePagination&) const = default;
};
/// Ask again with `param` counted up by the records received, until a page has none.
struct OffsetPagination {
  std::string param = "offset";
  int64_t start = 0;
  bool operator==(const OffsetPagination&) const = default;
};
/// Send what the answer has at `from` as `param`, until it has nothing there (missing, null, empty, false).
struct CursorPagination {
  std::string param;
  std::string from;  // JSON pointer
  bool operator==(const CursorPagination&) const = default;
};
/// Follow the URL that the answer has at `from`, until there is none.
struct NextUrlPagination {
  std::string from;  // JSON pointer
  bool operator==(const NextUrlPagination&) const = default;
};
/// Follow `Link: <…>; rel="next"` (RFC 8288).
struct LinkHeaderPagination {
  bool operator==(const LinkHeaderPagination&) const = default;
};
/// monostate: one page is all there is.
using Pagination = std::variant<std::monostate, PagePagination, OffsetPagination, CursorPagination, NextUrlPagination,
                                LinkHeaderPagination>;

/// Only what is new since the last pull: the largest value of `field` seen goes out as `param`.
struct IncrementalConfig {
  enum class Format { kAsIs, kRfc3339, kEpochSeconds, kEpochMillis };
  std::string field;  // JSON pointer inside a record
  std::string param;
  std::string start;  // sent by the first pull; empty: the first pull sends no param
  Format format = Format::kAsIs;
};

/// One part of a source that is pulled by itself and writes to one partition of its own: slice i to partition i.
struct SliceConfig {
  std::string name;
  std::vector<std::pair<std::string, std::string>> params;  // on top of the source's
};

struct HttpSourceConfig {
  enum class Method { kGet, kPost };
  std::string url;
  Method method = Method::kGet;
  std::vector<std::pair<std::string, Secret>> headers;  // with what `auth` asked for
  std::vector<std::pair<std::string, Secret>> params;
  Secret body;                  // POST
  std::vector<Secret> secrets;  // every secret in the above, by itself: what no message may show
  std::string at;               // "file:line:column: source.http", for messages
  std::string records;          // JSON pointer to the array; empty: the document is the array
  std::string records_at;
  Pagination pagination;
  std::optional<IncrementalConfig> incremental;
  std::vector<SliceConfig> slices;  // never empty
  /// None: pull once, and never again once that is complete.
  std::optional<absl::Duration> every;
  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration read_timeout = absl::Seconds(60);
  int64_t body_bytes_max = int64_t{64} << 20;  // of one answer, decompressed
  int redirects_max = 5;
  int attempts_max = 8;
  absl::Duration backoff_max = absl::Minutes(1);
  std::string ca_file;  // PEM, instead of the system's roots; empty: the system's
};

struct TopicConfig {
  std::string name;
  std::optional<std::string> key;  // JSON pointer inside a record; none: null keys
  record::Codec codec = record::Codec::kZstd;
  std::map<std::string, std::string> config;  // of the topic, when the connector makes it
};

/// A sink and what it is called in its pipeline and its state: its `name`, or kind and place: "raw-0", "parquet-1".
struct NamedSink {
  std::string name;
  SinkConfig config;
};

struct PipelineConfig {
  std::string file;
  std::string name;
  std::string at;  // "file:line:column: pipeline", for messages
  HttpSourceConfig source;
  TopicConfig topic;
  std::vector<NamedSink> sinks;
};

/// The pipeline that `text` describes. INVALID_ARGUMENT lists every error found, one "file:line: key: what" a line.
/// What of a wrong file could be read goes into `read`, to be checked together with others.
absl::StatusOr<PipelineConfig> ParsePipeline(std::string_view file, std::string_view text, const SecretSource& secrets,
                                             PipelineConfig* read = nullptr);
absl::StatusOr<PipelineConfig> LoadPipeline(const std::string& path, const SecretSource& secrets,
                                            PipelineConfig* read = nullptr);

/// What cannot run side by side: two pipelines of one name, two sinks that would write the same files. INVALID_ARGUMENT
/// lists every error, one a line. What a wrong file does not say is left out.
absl::Status CheckTogether(const std::vector<PipelineConfig>& pipelines);

/// The files that the arguments of `run` and `lint` name: a file is itself, a folder its *.yaml and *.yml, sorted.
absl::StatusOr<std::vector<std::string>> PipelineFiles(const std::vector<std::string>& arguments);

}  // namespace sluice::connector
