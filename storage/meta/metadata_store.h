// The metadata store: ordered keys and values that state machines (the controller, later consumer groups) keep, each
// change in one write with the index up to which its machine has applied the log.
//
// Always holds: after a crash or kill the store is what some prefix of the Apply calls made, and contains every call
// that returned OK; a machine's applied index and its keys are of the same prefix, and its index never goes back.
// Nothing that must be ordered against the journal lives here. What is here a machine's log may not have any
// more, so a store that cannot be read is an error to explain (DataLoss, naming the file), never read as an empty one.
//
// Two implementations, one conformance suite: RocksDB (rocks_store.h) and one file seam's log and snapshot
// (log_store.h), on which whole nodes run in the simulator.
// Threads: calls block, so make them on a blocking executor; safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::storage {

/// Changes that are applied together, in order.
class MetadataChanges {
 public:
  struct Change {
    std::string key;
    std::optional<std::string> value;  ///< Absent: the key goes.
  };

  void Put(std::string key, std::string value) { changes_.push_back({std::move(key), std::move(value)}); }
  void Delete(std::string key) { changes_.push_back({std::move(key), std::nullopt}); }
  const std::vector<Change>& changes() const { return changes_; }

 private:
  std::vector<Change> changes_;
};

struct MetadataEntry {
  std::string key;
  std::string value;
  bool operator==(const MetadataEntry&) const = default;
};

/// What one key or value may have at most; beyond it Apply answers InvalidArgument.
inline constexpr size_t kMetadataKeyBytesMax = 1024;
inline constexpr size_t kMetadataValueBytesMax = size_t{4} << 20;

class MetadataStore {
 public:
  virtual ~MetadataStore() = default;

  /// Applies `changes` to `machine`'s keys and sets its applied index, in one durable write. The index may stay the
  /// same (a change that no log entry caused) and may not go back: FailedPrecondition. ResourceExhausted when the disk
  /// or a quota is full: it counts as not applied, like a call that a crash cut off it may be there, and the next one
  /// tries anew. After any other failure every later Apply fails; reopen the store.
  virtual absl::Status Apply(std::string_view machine, int64_t applied, const MetadataChanges& changes) = 0;
  /// 0 for a machine that never applied anything.
  virtual absl::StatusOr<int64_t> Applied(std::string_view machine) = 0;
  /// nullopt when there is no such key.
  virtual absl::StatusOr<std::optional<std::string>> Get(std::string_view machine, std::string_view key) = 0;
  /// All of a machine's keys that begin with `prefix`, in the order of their bytes.
  virtual absl::StatusOr<std::vector<MetadataEntry>> Scan(std::string_view machine, std::string_view prefix) = 0;
};

/// InvalidArgument for a machine name that is not [a-z]{1,32}, or a key or value beyond its bound.
absl::Status CheckMetadataChanges(std::string_view machine, int64_t applied, const MetadataChanges& changes);

}  // namespace sluice::storage
