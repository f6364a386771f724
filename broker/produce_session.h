// The state of one produce session: where its items go, cached, and whether they may.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "broker/api.h"
#include "broker/catalog.h"
#include "broker/partition.h"

namespace sluice::broker {

/// Threads: the one that calls Produce; only SessionLane::broken is the shard's.
class NodeSession final : public ProduceSession {
 public:
  struct Route {
    std::shared_ptr<Partition> partition;  ///< Null: there is none.
    std::shared_ptr<SessionLane> lane;
  };

  /// The way of an item; nullptr when the session has too many. Valid until the next call.
  const Route* Find(const CatalogCell& catalog, const std::string& topic, PartitionId partition);
  /// The partition where it was found before, else nullptr.
  Partition* Known(const std::string& topic, PartitionId partition) const;

 private:
  struct Place {
    Route route;
    uint64_t version = 0;  // of the catalog it was looked up in
    bool used = false;
  };

  std::shared_ptr<const Catalog> catalog_;
  uint64_t version_ = 0;
  absl::flat_hash_map<std::string, absl::flat_hash_map<int32_t, Place>> places_;
  size_t places_count_ = 0;
};

}  // namespace sluice::broker
