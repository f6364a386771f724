// From one record's JSON to typed cells: the schema of a Parquet sink, its inference, and the split of a value into
// columns in one pass.
//
// Schema and Cell are values. RowReader owns scratch memory: one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "connector/sink/sink_config.h"

namespace sluice::connector {

/// Columns of the data, in order. The sink adds `_extra` and its own `_topic, _partition, _offset, _timestamp, _key`
/// behind them, so no column may have one of those names.
using Schema = std::vector<ColumnConfig>;

/// INVALID_ARGUMENT names the column: two with one name, a reserved name, a pointer that is none, one pointer inside
/// another that is not a json column's.
absl::Status CheckSchema(const Schema& schema);

std::string_view ColumnTypeName(ColumnType type);
/// The type of a name in a pipeline file: bool, int32, int64, double, string, timestamp, timestamp_ms, date, json.
absl::StatusOr<ColumnType> ParseColumnType(std::string_view name);

/// One value of a row. `text` holds strings and JSON text and borrows from the RowReader.
struct Cell {
  enum class Kind : uint8_t { kNull, kInteger, kDouble, kText };
  Kind kind = Kind::kNull;
  int64_t integer = 0;  ///< bool as 0 or 1; timestamps in ms since 1970; dates in days
  double number = 0;
  std::string_view text;
};

/// Splits values into the cells of a schema.
class RowReader {
 public:
  /// The schema passed CheckSchema.
  explicit RowReader(const Schema& schema);
  ~RowReader();

  /// Reads one record's value. INVALID_ARGUMENT when it is not a JSON object, or names the column whose value does not
  /// fit its type; then the record is a dead letter. `cells` and `extra` hold until the next call. `extra` is a JSON
  /// object of what no column takes, empty when there is nothing.
  absl::Status Read(std::string_view value);
  absl::Span<const Cell> cells() const;
  std::string_view extra() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Looks at many values and answers the narrowest schema of their top-level fields: columns by order of first
/// appearance, all nullable. A field that was only ever null gets no column. A string column in which every value is an
/// RFC 3339 time is a timestamp. Objects and arrays become JSON text. What does not agree (a number and a string)
/// becomes JSON text too.
class SchemaInference {
 public:
  SchemaInference();
  ~SchemaInference();
  /// Values that are not JSON objects are passed over: they become dead letters later.
  void Add(std::string_view value);
  Schema Finish() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Event time of a record: an RFC 3339 string, or a number of ms (seconds when below 10^11) since 1970, at `pointer`.
class EventTimeReader {
 public:
  explicit EventTimeReader(std::string pointer) : pointer_(std::move(pointer)) {}
  /// INVALID_ARGUMENT: a dead letter.
  absl::StatusOr<int64_t> Read(std::string_view value) const;

 private:
  std::string pointer_;
};

/// RFC 3339 ("2026-01-01T00:00:00.5Z", also a space for the T) in ms since 1970.
bool ParseRfc3339Ms(std::string_view text, int64_t* ms);

}  // namespace sluice::connector
