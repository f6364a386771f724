// What a sink of a pipeline is told: the `sinks` part of a pipeline file, checked (docs/pipelines.md).
//
// Value types. Parsing from YAML is in connector/pipeline_config.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/secret.h"

namespace sluice::connector {

enum class SinkKind { kRaw, kParquet };

/// kGzip and kZstd for raw files; kZstd, kSnappy and kNone for Parquet.
enum class SinkCodec { kNone, kGzip, kZstd, kSnappy };

enum class ColumnType { kBool, kInt32, kInt64, kDouble, kString, kTimestamp, kTimestampMs, kDate, kJson };

/// One column of a declared schema.
struct ColumnConfig {
  std::string name;
  std::string from;  ///< JSON pointer (RFC 6901) into the record's value
  ColumnType type = ColumnType::kString;
};

/// A file ends when any of these is reached, at the end of the batch that reaches it. 0 or infinite: no such limit.
struct RollConfig {
  int64_t records = 100'000;
  int64_t bytes = int64_t{64} << 20;  ///< encoded batch bytes as stored in the topic
  absl::Duration age = absl::Minutes(5);
};

/// Credentials and endpoint of an S3 target. Empty credentials: the AWS default chain.
struct S3Config {
  std::string endpoint;  ///< "http://host:port"; empty: AWS
  std::string region = "us-east-1";
  Secret access_key;
  Secret secret_key;
};

struct SinkConfig {
  std::string at;  ///< "file:line:column: sinks[0].raw", for messages; empty when it comes from no file
  SinkKind kind = SinkKind::kRaw;
  std::string to;  ///< "file://PATH" or "s3://BUCKET/PREFIX"
  S3Config s3;
  SinkCodec codec = SinkCodec::kZstd;
  int codec_level = 3;
  RollConfig roll;
  std::string path;        ///< template of folders below `to` (path_template.h); empty: none
  std::string event_time;  ///< JSON pointer; needed when `path` uses {event_time:…}
  bool infer_schema = true;
  std::vector<ColumnConfig> columns;  ///< when !infer_schema
};

}  // namespace sluice::connector
