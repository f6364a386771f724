#include "broker/produce_session.h"

#include <utility>

#include "broker/limits.h"

namespace sluice::broker {

const NodeSession::Route* NodeSession::Find(const CatalogCell& catalog, const std::string& topic,
                                            PartitionId partition) {
  if (catalog_ == nullptr || version_ != catalog.version()) {
    version_ = catalog.version();  // before Load: at worst one more look next time
    catalog_ = catalog.Load();
  }
  auto named = places_.find(topic);
  if (named == places_.end() || !named->second.contains(partition.value())) {
    if (places_count_ == kSessionLanesMax) return nullptr;
    ++places_count_;
    if (named == places_.end()) named = places_.try_emplace(topic).first;
  }
  Place& place = named->second[partition.value()];
  if (!place.used || place.version != version_) {
    const CatalogTopic* found = catalog_->Find(topic);
    const auto number = static_cast<size_t>(partition.value());
    std::shared_ptr<Partition> now;
    if (found != nullptr && partition.value() >= 0 && number < found->partitions.size()) {
      now = found->partitions[number];
    }
    if (!place.used || now != place.route.partition) {
      // Items sent before the topic was there, or to one of the same name that is gone, have failed or may yet: those
      // that follow must not be written as if nothing had happened.
      place.route.lane = std::make_shared<SessionLane>();
      place.route.lane->broken = place.used;
      place.route.partition = std::move(now);
    }
    place.version = version_;
    place.used = true;
  }
  return &place.route;
}

Partition* NodeSession::Known(const std::string& topic, PartitionId partition) const {
  const auto named = places_.find(topic);
  if (named == places_.end()) return nullptr;
  const auto place = named->second.find(partition.value());
  return place == named->second.end() ? nullptr : place->second.route.partition.get();
}

}  // namespace sluice::broker
