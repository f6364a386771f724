// The connector's durable memory: small values by key, kept in the internal topic `__connect_state`
// (topic_state_store.h) or, in tests, in a map.
//
// Always holds: a Put that answered OK survives every crash; of two writers that read the same version of a key only
// one can Put next (compare and append on the topic), which is what fences a connector that another has replaced.
// Threads: any. Calls block, with the client's timeout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::connector {

struct StateEntry {
  std::string value;
  int64_t version = -1;  ///< offset of the record that holds it; -1: the key was never written
};

class StateStore {
 public:
  virtual ~StateStore() = default;
  /// The newest committed value; version -1 and an empty value when there is none.
  virtual absl::StatusOr<StateEntry> Get(std::string_view key) = 0;
  /// Writes `value` if the key still has `version`; the new version. Aborted when another writer changed the key (the
  /// caller must stop, or start again from Get). An unknown outcome is resolved inside, by reading the topic's tail.
  virtual absl::StatusOr<int64_t> Put(std::string_view key, std::string_view value, int64_t version) = 0;
};

}  // namespace sluice::connector
