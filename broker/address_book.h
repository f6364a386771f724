// Where clients find the nodes of the cluster, as group 0 has it: what answers "not here" with "there".
//
// Threads: any. Written where the controller's changes are followed, read by every shard, but only for answers that
// say where to go.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/types.h"

namespace sluice::broker {

class AddressBook {
 public:
  struct Entry {
    std::string client;  ///< host:port
    bool alive = true;   ///< Not fenced.
  };

  void Set(std::map<NodeId, Entry> nodes) {
    std::lock_guard lock(mutex_);
    nodes_.swap(nodes);
  }
  /// Empty for a node that is not known.
  std::string ClientAddress(NodeId node) const {
    std::lock_guard lock(mutex_);
    const auto it = nodes_.find(node);
    return it == nodes_.end() ? std::string() : it->second.client;
  }
  bool IsAlive(NodeId node) const {
    std::lock_guard lock(mutex_);
    const auto it = nodes_.find(node);
    return it != nodes_.end() && it->second.alive;
  }
  /// Of the first of `nodes` that is alive, or known at all: somebody who will know more.
  std::string AnyOf(const std::vector<NodeId>& nodes) const {
    std::lock_guard lock(mutex_);
    std::string known;
    for (const NodeId node : nodes) {
      const auto it = nodes_.find(node);
      if (it == nodes_.end()) continue;
      if (it->second.alive) return it->second.client;
      if (known.empty()) known = it->second.client;
    }
    return known;
  }

 private:
  mutable std::mutex mutex_;
  std::map<NodeId, Entry> nodes_;
};

}  // namespace sluice::broker
