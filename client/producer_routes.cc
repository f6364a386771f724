// Where a producer's batches go: which leaders it knows, which proved wrong, and what becomes of a topic that is gone.
#include <algorithm>
#include <utility>

#include "client/error.h"
#include "client/producer_core.h"

namespace sluice::client {

// `leader`, where it is given, failed; otherwise what is known was corrected already.
void ProducerCore::Lose(Partition& partition, std::string_view leader) {
  partition.lost = true;
  partition.lost_at = core_->metadata().last_question();
  if (!leader.empty()) core_->metadata().Failed(partition.topic->name, partition.id, leader);
}

// Everything that would go to a broker that cannot be reached.
void ProducerCore::LoseAllAt(const std::string& address) {
  for (Partition* partition : pending_) {
    const Topic& topic = *partition->topic;
    if (topic.routes == nullptr || partition->lost) continue;
    const absl::StatusOr<std::string> leader = LeaderOf(*topic.routes, topic.name, partition->id);
    if (leader.ok() && *leader == address) Lose(*partition, address);
  }
}

void ProducerCore::Ask(Topic& topic) {
  topic.asking = true;
  uint64_t since = topic.routes == nullptr ? 0 : topic.routes->question;
  for (const auto& partition : topic.partitions) {
    if (partition->lost) since = std::max(since, partition->lost_at);
  }
  // Posted: the answer may be at hand, and callers hold the lock.
  core_->executor().Post([self = shared_from_this(), &topic, since] {
    self->core_->metadata().Refresh(
        topic.name, since, std::min(self->core_->options().timeout, self->options_.delivery_timeout),
        [self, &topic](const absl::StatusOr<Metadata::Routes>& routes) { self->OnRoutes(topic, routes); });
  });
}

void ProducerCore::OnRoutes(Topic& topic, const absl::StatusOr<Metadata::Routes>& routes) {
  std::vector<Refused> refused;
  Results results;
  {
    std::unique_lock lock(mutex_);
    topic.asking = false;
    if (closed_) return;
    const std::optional<ErrorDetail> detail = GetErrorDetail(routes.status());
    topic.last_error = routes.status();
    if (routes.ok()) {
      TakeRoutes(topic, *routes, results);
      PlaceWaiting(topic, refused);
    } else if (core_->closed() || (detail.has_value() && !detail->retriable)) {
      // The cluster's own word that it cannot be, such as an unknown topic.
      FailTopic(topic, routes.status(), results, refused);
    } else if (!topic.waiting.empty()) {
      Ask(topic);
    }
    SchedulePump();
  }
  Give(std::move(results), std::move(refused));
}

void ProducerCore::TakeRoutes(Topic& topic, const Metadata::Routes& routes, Results& results) {
  topic.routes = routes;
  while (topic.partitions.size() < routes->partitions.size()) {
    auto partition = std::make_unique<Partition>();
    partition->topic = &topic;
    partition->id = static_cast<int32_t>(topic.partitions.size());
    topic.partitions.push_back(std::move(partition));
  }
  for (auto& partition : topic.partitions) {
    if (partition->lost_at < routes->question) partition->lost = false;
  }
  // Of a topic that was made again with fewer.
  for (size_t i = routes->partitions.size(); i < topic.partitions.size(); ++i) {
    Partition& partition = *topic.partitions[i];
    FailUnsent(partition, LeaderOf(*routes, topic.name, partition.id).status(), results);
  }
}

void ProducerCore::FailTopic(Topic& topic, const absl::Status& why, Results& results, std::vector<Refused>& refused) {
  topic.routes = nullptr;
  for (WaitingRecord& waiting : std::exchange(topic.waiting, {})) {
    refused.push_back({std::move(waiting.done), why, waiting.memory});
  }
  for (auto& partition : topic.partitions) FailUnsent(*partition, why, results);
}

// In the order sent.
void ProducerCore::FailUnsent(Partition& partition, const absl::Status& why, Results& results) {
  if (partition.open != nullptr) partition.ready.push_back(std::move(partition.open));
  for (auto* queue : {&partition.retry, &partition.ready}) {
    for (BatchPtr& batch : std::exchange(*queue, {})) results.push_back({std::move(batch), why, false});
  }
}

}  // namespace sluice::client
