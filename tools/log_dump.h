// Reads a node's files while no broker runs on them: segments, journal, or a whole data folder, and checks every
// checksum on the way. Writes nothing.
//
// Blocks. What is damaged is reported with file and byte and counted, and the reading goes on with the next file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/file_system.h"

namespace sluice::tools {

/// Names may stand there more than once, and a value may be null.
using DumpHeaders = std::vector<std::pair<std::string, std::optional<std::string>>>;
/// std::monostate is a null.
using DumpValue = std::variant<int64_t, std::string, std::monostate, DumpHeaders>;

/// One line of a dump: what it is about, then named values in order.
struct DumpLine {
  std::string kind;  // "segment", "batch", "record", "frame", "journal_record", "journal", "replica", "damage", "total"
  std::vector<std::pair<std::string, DumpValue>> fields;

  /// For people: nulls and empty lists are left out.
  std::string Text() const;
  std::string Json() const;
};

struct DumpOptions {
  bool records = false;  // also the records of each batch
};

using DumpSink = std::function<void(const DumpLine&)>;

/// `path` is a data folder, its journal folder, the folder of one partition, a segment (*.log) or a journal file
/// (*.journal). Ends with a "total" line. DATA_LOSS when there was damage, FAILED_PRECONDITION when a broker has the
/// folder open, NOT_FOUND and INVALID_ARGUMENT for a path that is none of these.
absl::Status DumpLog(FileSystem& fs, const std::string& path, const DumpOptions& options, const DumpSink& sink);

}  // namespace sluice::tools
