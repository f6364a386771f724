#include "broker/reconciler.h"

#include <algorithm>
#include <utility>

#include "broker/gather.h"
#include "common/check.h"
#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

/// Topics that are worked on at a time: enough to share syncs, few enough that a start does not flood the journal.
constexpr int kTopicsAtOnce = 32;
constexpr absl::Duration kRetryEvery = absl::Seconds(5);

TopicInfo InfoOf(const TopicRecord& topic) {
  return {.name = topic.name,
          .id = topic.id,
          .partitions = topic.partitions,
          .replicas = topic.replicas,
          .config = topic.config,
          .created_ms = topic.created_ms};
}

const PartitionAssignment& AssignmentOf(const TopicRecord& topic, PartitionId partition) {
  return topic.assignments.at(static_cast<size_t>(partition.value()));
}

absl::Status FirstError(const std::vector<absl::Status>& statuses) {
  const auto bad = std::find_if(statuses.begin(), statuses.end(), [](const auto& status) { return !status.ok(); });
  return bad == statuses.end() ? absl::OkStatus() : *bad;
}

}  // namespace

Executor& Reconciler::ShardOf(const ReplicaId& replica) const {
  // Partitions of one topic spread evenly; where a topic begins follows from its random id.
  const uint64_t start = uint64_t{replica.topic.bytes[14]} << 8 | replica.topic.bytes[15];
  const auto number = start + static_cast<uint64_t>(replica.partition.value());
  return *seams_.shards[number % seams_.shards.size()];
}

void Reconciler::OnRegistered() {
  std::map<TopicId, int32_t>& before = before_.emplace();
  for (const auto& [id, topic] : seams_.controller.state().topics) before[id] = topic.partitions;
}

bool Reconciler::IsOfThisProcess(const ReplicaId& replica) const {
  if (!before_.has_value()) return false;
  const auto it = before_->find(replica.topic);
  return it == before_->end() || replica.partition.value() >= it->second;
}

// ---- Starting and stopping -----------------------------------------------------------------------------------------

absl::Status Reconciler::CheckReplicasOnDisk() const {
  const ControllerState& state = seams_.controller.state();
  // Where others vote as well, this node may have more to hear before it knows all that was ever made here.
  if (!seams_.controller.IsLeader()) return absl::OkStatus();
  for (const ReplicaId& replica : seams_.logs.Replicas()) {
    if (replica == kControllerReplica) continue;
    int32_t partitions = 0;
    if (const auto it = state.topics.find(replica.topic); it != state.topics.end()) partitions = it->second.partitions;
    if (const auto it = state.dropping.find(replica.topic); it != state.dropping.end()) partitions = it->second;
    if (replica.partition.value() >= partitions) {
      return absl::FailedPreconditionError(Cat(
          "replica ", replica, " is on disk, but the controller's log knows no such topic or partition. Nothing is ",
          "deleted that nobody deleted: was a part of the data folder replaced by another one's?"));
    }
  }
  return absl::OkStatus();
}

void Reconciler::Start(Callback<absl::Status> done) {
  if (absl::Status known = CheckReplicasOnDisk(); !known.ok()) return done(known);
  started_ = true;
  starting_ = true;
  start_done_ = std::move(done);
  UpdateAddresses();
  const ControllerState& state = seams_.controller.state();
  for (const auto& [id, topic] : state.topics) Touch(id);
  for (const auto& [id, partitions] : state.dropping) Touch(id);
  Pump();
}

void Reconciler::Stop(absl::AnyInvocable<void()> done) {
  stopping_ = true;
  home().Cancel(std::exchange(retry_timer_, 0));
  queue_.clear();
  stop_done_ = std::move(done);
  Pump();
}

void Reconciler::GiveUpWaiting() {
  for (auto& [replica, partition] : open_) {
    partition->shard().Post([partition = partition] { partition->GiveUpWaiting(); });
  }
}

void Reconciler::StopPartitions(absl::AnyInvocable<void()> done) {
  auto partitions = std::exchange(open_, {});
  next_catalog_ = std::make_shared<Catalog>();
  if (partitions.empty()) return home().Post(std::move(done));
  auto all = std::make_shared<Gather<bool>>(
      partitions.size(), [this, done = std::move(done)](std::vector<bool>) mutable { home().Post(std::move(done)); });
  size_t index = 0;
  for (auto& [replica, partition] : partitions) {
    partition->shard().Post([partition = partition, all, index] {
      partition->Stop(Reason::kNotAvailable, "the node is shutting down", [all, index] { all->Set(index, true); });
    });
    ++index;
  }
}

// ---- What is to be done --------------------------------------------------------------------------------------------

void Reconciler::OnApplied(const ClusterDelta& delta) {
  if (!started_ || stopping_) return;
  if (!delta.nodes.empty()) UpdateAddresses();
  for (const TopicId& id : delta.topics) Touch(id);
  for (const auto& [id, topic] : delta.deleted) Touch(id);
  Pump();
}

void Reconciler::Refresh(const TopicId& id) {
  if (!started_ || stopping_) return;
  Touch(id);
  Pump();
}

void Reconciler::UpdateAddresses() {
  std::map<NodeId, AddressBook::Entry> nodes;
  for (const auto& [id, registered] : seams_.controller.state().nodes) {
    nodes[id] = {.client = registered.node.grpc_address, .alive = !registered.fenced};
  }
  nodes[seams_.node.id] = {.client = seams_.node.address, .alive = true};
  seams_.addresses.Set(std::move(nodes));
}

void Reconciler::Touch(const TopicId& id) {
  const auto [it, is_new] = work_.try_emplace(id);
  if (is_new) {
    queue_.push_back(id);
  } else if (it->second.running) {
    it->second.again = true;
  }
}

void Reconciler::Settle(const TopicId& id, Callback<absl::Status> done) {
  const auto it = work_.find(id);
  if (it == work_.end() || stopping_) {
    absl::Status status = stopping_ ? absl::UnavailableError("the node is shutting down") : absl::OkStatus();
    if (const auto failed = failed_.find(id); failed != failed_.end()) status = failed->second;
    return home().Post([status = std::move(status), done = std::move(done)]() mutable { done(std::move(status)); });
  }
  (it->second.again ? it->second.waiting_next : it->second.waiting).push_back(std::move(done));
}

void Reconciler::Pump() {
  while (!stopping_ && running_ < kTopicsAtOnce && !queue_.empty()) {
    const TopicId id = queue_.front();
    queue_.pop_front();
    work_.at(id).running = true;
    ++running_;
    Reconcile(id, [this, id](absl::Status status) {
      home().Post([this, id, status = std::move(status)] { Finish(id, status); });
    });
  }
  if (running_ > 0) return;
  if (stopping_ && stop_done_ != nullptr) {
    for (auto& [id, work] : std::exchange(work_, {})) {
      for (auto* waiting : {&work.waiting, &work.waiting_next}) {
        for (auto& done : *waiting) done(absl::UnavailableError("the node is shutting down"));
      }
    }
    return StopPartitions(std::exchange(stop_done_, nullptr));
  }
  if (starting_ && queue_.empty()) {
    starting_ = false;
    if (start_status_.ok()) seams_.catalog.Publish(std::make_shared<const Catalog>(*next_catalog_));
    home().Post([done = std::exchange(start_done_, nullptr), status = start_status_]() mutable { done(status); });
  }
}

void Reconciler::Finish(const TopicId& id, const absl::Status& status) {
  Work& work = work_.at(id);
  --running_;
  const bool dropping = seams_.controller.state().dropping.contains(id);
  failed_.erase(id);
  if (!status.ok()) {
    failed_[id] = status;
    // What cannot be dropped costs room, what cannot be opened now is reported. What the state says must make sense.
    if (starting_ && !dropping && absl::IsDataLoss(status)) start_status_.Update(status);
    RetryLater();
  }
  auto answered = std::exchange(work.waiting, {});
  if (std::exchange(work.again, false)) {
    work.running = false;
    work.waiting = std::exchange(work.waiting_next, {});
    queue_.push_back(id);
  } else {
    work_.erase(id);
  }
  for (auto& done : answered) done(status);
  Pump();
}

void Reconciler::RetryLater() {
  if (retry_timer_ != 0 || stopping_) return;
  retry_timer_ = home().PostAfter(kRetryEvery, [this] {
    retry_timer_ = 0;
    for (const auto& [id, status] : failed_) Touch(id);
    Pump();
  });
}

// ---- Following the controller's state ------------------------------------------------------------------------------

void Reconciler::Reconcile(const TopicId& id, Callback<absl::Status> done) {
  const ControllerState& state = seams_.controller.state();
  if (const auto topic = state.topics.find(id); topic != state.topics.end()) {
    return OpenMissing(topic->second, [this, id, done = std::move(done)](absl::Status opened) mutable {
      const auto now = seams_.controller.state().topics.find(id);
      // Deleted meanwhile: then it was touched, and the next run drops it. Widened: the next run opens the rest.
      if (now == seams_.controller.state().topics.end()) return done(absl::OkStatus());
      opened.Update(PublishTopic(now->second));
      done(std::move(opened));
    });
  }
  if (const auto dropping = state.dropping.find(id); dropping != state.dropping.end()) {
    Unpublish(id);
    return StopAndDrop(id, dropping->second, std::move(done));
  }
  done(absl::OkStatus());
}

void Reconciler::OpenMissing(const TopicRecord& topic, Callback<absl::Status> done) {
  auto settings = ParseTopicSettings(topic.config, defaults_);
  if (!settings.ok()) {
    return done(absl::DataLossError(Cat("topic ", topic.name, ": ", Message(settings.status()))));
  }
  std::vector<Partition::Identity> missing;
  for (int32_t p = 0; p < topic.partitions; ++p) {
    const ReplicaId replica{topic.id, PartitionId(p)};
    if (open_.contains(replica) && !unmade_.contains(replica)) continue;
    Partition::Identity identity{.replica = replica, .topic = topic.name, .settings = *settings, .replicas = {}};
    bool here = false;
    for (const ReplicaAssignment& one : AssignmentOf(topic, replica.partition)) {
      identity.replicas.push_back(one.node);
      here = here || one.node == seams_.node.id;
    }
    if (here) {
      missing.push_back(std::move(identity));
    } else {
      open_[replica] = std::make_shared<Partition>(seams_.node, std::move(identity), ShardOf(replica));
    }
  }
  if (missing.empty()) return done(absl::OkStatus());
  auto all = std::make_shared<Gather<Opened>>(
      missing.size(), [this, name = topic.name, done = std::move(done)](std::vector<Opened> opened) mutable {
        home().Post([this, name = std::move(name), opened = std::move(opened), done = std::move(done)]() mutable {
          OnOpened(name, std::move(opened), std::move(done));
        });
      });
  for (size_t i = 0; i < missing.size(); ++i) {
    OpenReplica(topic, std::move(missing[i]), [all, i](Opened opened) { all->Set(i, std::move(opened)); });
  }
}

void Reconciler::OnOpened(const std::string& topic, std::vector<Opened> opened, Callback<absl::Status> done) {
  // Where there is nobody else to make them, whoever creates the topic is told, and takes it back.
  const bool shown = starting_ || seams_.controller.state().nodes.size() > 1;
  absl::Status status;
  for (Opened& one : opened) {
    const ReplicaId replica = one.partition->replica();
    if (one.failed.ok()) {
      unmade_.erase(replica);
    } else {
      status.Update(one.failed);
      if (!shown) continue;
      if (unmade_.insert(replica).second) {
        seams_.log.Error("a partition cannot be opened now; it is tried again, and the others are served",
                         {{"topic", topic}, {"partition", replica.partition}, {"error", one.failed}});
      }
    }
    open_[replica] = std::move(one.partition);
  }
  done(std::move(status));
}

void Reconciler::OpenReplica(const TopicRecord& topic, Partition::Identity identity, Callback<Opened> done) {
  ReplicaSpec spec{
      .replica = identity.replica,
      .settings = {.segment_bytes = identity.settings.segment_bytes, .segment_age = identity.settings.segment_age},
      .incarnation = {},
      .members = {},
      .never_before = IsOfThisProcess(identity.replica)};
  std::vector<VoterId> voters;
  for (const ReplicaAssignment& one : AssignmentOf(topic, identity.replica.partition)) {
    if (one.node == seams_.node.id) spec.incarnation = one.incarnation;
    voters.push_back({one.node, one.incarnation});
  }
  if (!spec.incarnation.IsNil()) {
    auto members = raft::Configuration::Make(std::move(voters), {});
    if (!members.ok()) {
      const absl::Status bad = absl::DataLossError(Cat(spec.replica, ": ", Message(members.status())));
      return done({std::make_shared<Partition>(seams_.node, std::move(identity), ShardOf(spec.replica), bad), bad});
    }
    spec.members = *std::move(members);
  }
  Executor& shard = ShardOf(identity.replica);
  const bool preferred = identity.replicas.front() == seams_.node.id;
  seams_.logs.Open(
      std::move(spec), shard,
      [this, starting = starting_, preferred, identity = std::move(identity), &shard,
       done = std::move(done)](absl::StatusOr<std::unique_ptr<PartitionLog>> log) mutable {
        // A damaged log is its partition's own trouble. What is made now is not damaged, but cannot be made.
        if (absl::IsDataLoss(log.status()) && starting) {
          seams_.log.Error(
              "a partition cannot be opened and is not served; the others are",
              {{"topic", identity.topic}, {"partition", identity.replica.partition}, {"error", log.status()}});
          return done({std::make_shared<Partition>(seams_.node, std::move(identity), shard, log.status()), {}});
        }
        if (!log.ok()) {
          return done(
              {std::make_shared<Partition>(seams_.node, std::move(identity), shard, log.status()), log.status()});
        }
        const bool is_new = (*log)->log().raft().term() == LeaderEpoch(0);
        auto partition = std::make_shared<Partition>(seams_.node, std::move(identity), shard, *std::move(log));
        if (preferred && is_new) partition->CampaignUntilLed();
        done({std::move(partition), {}});
      });
}

void Reconciler::StopAndDrop(TopicId id, int32_t partitions, Callback<absl::Status> done) {
  if (before_.has_value()) before_->erase(id);
  std::vector<std::shared_ptr<Partition>> running;
  for (int32_t p = 0; p < partitions; ++p) {
    unmade_.erase({id, PartitionId(p)});
    if (const auto it = open_.find({id, PartitionId(p)}); it != open_.end()) {
      running.push_back(std::move(it->second));
      open_.erase(it);
    }
  }
  if (running.empty()) return DropReplicas(id, partitions, std::move(done));
  auto all = std::make_shared<Gather<bool>>(running.size(),
                                            [this, id, partitions, done = std::move(done)](std::vector<bool>) mutable {
                                              home().Post([this, id, partitions, done = std::move(done)]() mutable {
                                                DropReplicas(id, partitions, std::move(done));
                                              });
                                            });
  for (size_t i = 0; i < running.size(); ++i) {
    running[i]->shard().Post([partition = running[i], all, i] {
      partition->Stop(Reason::kUnknownTopic, "the topic was deleted", [all, i] { all->Set(i, true); });
    });
  }
}

void Reconciler::DropReplicas(TopicId id, int32_t partitions, Callback<absl::Status> done) {
  if (Planted(PlantedBug::kForgetToDropReplicas)) return seams_.controller.ForgetDropped(id, std::move(done));
  auto all = std::make_shared<Gather<absl::Status>>(
      static_cast<size_t>(partitions), [this, id, done = std::move(done)](std::vector<absl::Status> dropped) mutable {
        const absl::Status status = FirstError(dropped);
        if (!status.ok()) {
          seams_.log.Warn("a deleted topic's replicas could not be dropped; it is tried again",
                          {{"topic_id", id}, {"error", status}});
          return done(status);
        }
        seams_.controller.ForgetDropped(id, std::move(done));
      });
  for (int32_t p = 0; p < partitions; ++p) {
    seams_.logs.Drop({id, PartitionId(p)}, home(),
                     [all, p](absl::Status status) { all->Set(static_cast<size_t>(p), std::move(status)); });
  }
}

// ---- The catalog ---------------------------------------------------------------------------------------------------

absl::Status Reconciler::PublishTopic(const TopicRecord& topic) {
  SLUICE_ASSIGN_OR_RETURN(const TopicSettings settings, ParseTopicSettings(topic.config, defaults_));
  auto entry = std::make_shared<CatalogTopic>();
  entry->info = InfoOf(topic);
  entry->settings = settings;
  for (int32_t p = 0; p < topic.partitions; ++p) {
    const auto it = open_.find({topic.id, PartitionId(p)});
    if (it == open_.end()) return absl::OkStatus();  // added since this run began, which another one follows
    const auto& partition = it->second;
    partition->shard().Post([partition, settings] { partition->ApplySettings(settings); });
    entry->partitions.push_back(partition);
  }
  next_catalog_->topics[topic.name] = std::move(entry);
  Publish();
  return absl::OkStatus();
}

void Reconciler::Unpublish(TopicId id) {
  const size_t gone =
      std::erase_if(next_catalog_->topics, [&id](const auto& entry) { return entry.second->info.id == id; });
  if (gone > 0) Publish();
}

void Reconciler::Publish() {
  if (!starting_ && !stopping_) seams_.catalog.Publish(std::make_shared<const Catalog>(*next_catalog_));
}

}  // namespace sluice::broker
