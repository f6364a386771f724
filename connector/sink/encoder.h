// From records to the bytes of a file. A Format checks one record at a time and then hands it to the file it belongs
// to; so a record that does not fit touches no file.
//
// Always holds: the bytes of a file depend only on the records added to it, in order, and on the format's
// configuration: not on time, memory, or how records arrived. That is what lets a crash be followed by writing the same
// file again. Threads: one at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/types.h"
#include "connector/sink/row.h"
#include "connector/sink/sink_config.h"
#include "connector/sink/target.h"

namespace sluice::connector {

struct SinkRecord {
  std::string_view topic;
  PartitionId partition;
  Offset offset;
  int64_t timestamp_ms = 0;
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
};

class FileEncoder {
 public:
  virtual ~FileEncoder() = default;
  /// Adds the record that the format prepared last.
  virtual absl::Status AddPrepared() = 0;
  /// Writes what is left; the file is then ready to be committed.
  virtual absl::Status Finish() = 0;
};

class Format {
 public:
  virtual ~Format() = default;
  /// INVALID_ARGUMENT says why the record fits no file: a dead letter.
  virtual absl::Status Prepare(const SinkRecord& record) = 0;
  /// `file` must outlive the encoder; the format too.
  virtual absl::StatusOr<std::unique_ptr<FileEncoder>> Open(OutputFile* file) = 0;
  /// Without a leading dot: "jsonl.zst".
  virtual std::string extension() const = 0;
};

/// JSON lines: one record's value a line.
std::unique_ptr<Format> MakeRawFormat(SinkCodec codec, int level);
/// Typed columns, then _extra, _topic, _partition, _offset, _timestamp, _key.
std::unique_ptr<Format> MakeParquetFormat(const Schema& schema, SinkCodec codec, int level);

}  // namespace sluice::connector
