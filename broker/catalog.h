// The catalog: which topics this node serves, as an immutable snapshot that is swapped as a whole. A topic is in it
// once all its partitions take requests, and no longer once its deletion is committed.
//
// Threads: a Catalog is immutable; CatalogCell may be used from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/api.h"
#include "broker/partition.h"
#include "broker/topic_settings.h"

namespace sluice::broker {

struct CatalogTopic {
  TopicInfo info;
  TopicSettings settings;
  std::vector<std::shared_ptr<Partition>> partitions;  ///< By number; none is null.
};

struct Catalog {
  std::map<std::string, std::shared_ptr<const CatalogTopic>, std::less<>> topics;

  const CatalogTopic* Find(std::string_view name) const {
    const auto it = topics.find(name);
    return it == topics.end() ? nullptr : it->second.get();
  }
};

class CatalogCell {
 public:
  /// Changes with each Publish: who keeps what Load gave need not take the lock while this is the same.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  std::shared_ptr<const Catalog> Load() const {
    std::lock_guard lock(mutex_);
    return catalog_;
  }
  void Publish(std::shared_ptr<const Catalog> catalog) {
    {
      std::lock_guard lock(mutex_);
      catalog_.swap(catalog);
      version_.fetch_add(1, std::memory_order_release);
    }  // the old one is destroyed outside the lock
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Catalog> catalog_ = std::make_shared<const Catalog>();
  std::atomic<uint64_t> version_{0};
};

}  // namespace sluice::broker
