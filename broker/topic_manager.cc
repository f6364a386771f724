#include "broker/topic_manager.h"

#include <algorithm>
#include <set>
#include <utility>

#include "broker/error.h"
#include "broker/gather.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

TopicInfo InfoOf(const TopicRecord& topic) {
  return {.name = topic.name,
          .id = topic.id,
          .partitions = topic.partitions,
          .replicas = topic.replicas,
          .config = topic.config,
          .created_ms = topic.created_ms};
}

Partition::Identity IdentityOf(const TopicRecord& topic, const ReplicaId& replica, const TopicSettings& settings) {
  Partition::Identity identity{.replica = replica, .topic = topic.name, .settings = settings, .replicas = {}};
  for (const ReplicaAssignment& one : topic.assignments.at(static_cast<size_t>(replica.partition.value()))) {
    identity.replicas.push_back(one.node);
  }
  return identity;
}

Error UnknownTopic(std::string_view name) {
  return MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", name.substr(0, 249), "\""), name.substr(0, 249));
}

Error Invalid(const absl::Status& status, std::string_view topic) {
  return MakeError(Reason::kInvalidArgument, std::string(Message(status)), topic.substr(0, 249));
}

/// What a status of Controller::Change or of opening logs means.
Error ChangeError(const absl::Status& status, std::string_view topic) {
  Reason reason = Reason::kOutcomeUnknown;
  if (absl::IsUnavailable(status)) reason = Reason::kNotAvailable;
  if (absl::IsResourceExhausted(status)) reason = ExhaustedReason(status);
  if (absl::IsDataLoss(status)) reason = Reason::kCorruptLog;
  return MakeError(reason, std::string(Message(status)), topic);
}

absl::Status FirstError(const std::vector<absl::Status>& statuses) {
  const auto bad = std::find_if(statuses.begin(), statuses.end(), [](const auto& status) { return !status.ok(); });
  return bad == statuses.end() ? absl::OkStatus() : *bad;
}

}  // namespace

Executor& TopicManager::ShardOf(const ReplicaId& replica) const {
  // Partitions of one topic spread evenly; where a topic begins follows from its random id.
  const uint64_t start = uint64_t{replica.topic.bytes[14]} << 8 | replica.topic.bytes[15];
  const auto number = start + static_cast<uint64_t>(replica.partition.value());
  return *seams_.shards[number % seams_.shards.size()];
}

void TopicManager::Serially(absl::AnyInvocable<void(Release)> work) {
  waiting_.push_back(std::move(work));
  if (!busy_) RunNext();
}

void TopicManager::RunNext() {
  busy_ = !waiting_.empty();
  if (!busy_) return;
  auto work = std::move(waiting_.front());
  waiting_.pop_front();
  // By way of the executor, so that a long queue is no deep stack.
  work([this] { home().Post([this] { RunNext(); }); });
}

const TopicRecord* TopicManager::FindTopic(std::string_view name) const {
  const ControllerState& state = seams_.controller.state();
  const auto it = state.by_name.find(name);
  return it == state.by_name.end() ? nullptr : &state.topics.at(it->second);
}

// ---- Starting and stopping -----------------------------------------------------------------------------------------

absl::Status TopicManager::CheckReplicasOnDisk() const {
  const ControllerState& state = seams_.controller.state();
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

void TopicManager::Start(Callback<absl::Status> done) {
  if (absl::Status known = CheckReplicasOnDisk(); !known.ok()) return done(known);
  const ControllerState& state = seams_.controller.state();
  std::vector<TopicId> ids;
  for (const auto& [id, topic] : state.topics) ids.push_back(id);
  for (const auto& [id, partitions] : state.dropping) ids.push_back(id);
  starting_ = true;
  ReconcileAll(std::move(ids), 0, [this, done = std::move(done)](absl::Status status) mutable {
    starting_ = false;
    if (status.ok()) seams_.catalog.Publish(std::make_shared<const Catalog>(*next_catalog_));
    done(status);
  });
}

void TopicManager::ReconcileAll(std::vector<TopicId> ids, size_t next, Callback<absl::Status> done) {
  if (next == ids.size()) return done(absl::OkStatus());
  const TopicId id = ids[next];
  Reconcile(id, [this, id, ids = std::move(ids), next, done = std::move(done)](absl::Status status) mutable {
    // What cannot be dropped costs room; what cannot be opened is missing.
    if (!status.ok() && !seams_.controller.state().dropping.contains(id)) return done(status);
    home().Post([this, ids = std::move(ids), next, done = std::move(done)]() mutable {
      ReconcileAll(std::move(ids), next + 1, std::move(done));
    });
  });
}

void TopicManager::Stop(absl::AnyInvocable<void()> done) {
  auto partitions = std::exchange(open_, {});
  next_catalog_ = std::make_shared<Catalog>();
  if (partitions.empty()) return done();
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

// ---- Following the controller's state ------------------------------------------------------------------------------

void TopicManager::Reconcile(TopicId id, Callback<absl::Status> done) {
  const ControllerState& state = seams_.controller.state();
  if (const auto topic = state.topics.find(id); topic != state.topics.end()) {
    return OpenMissing(topic->second, [this, id, done = std::move(done)](absl::Status opened) mutable {
      if (!opened.ok()) return done(opened);
      done(PublishTopic(seams_.controller.state().topics.at(id)));
    });
  }
  if (const auto dropping = state.dropping.find(id); dropping != state.dropping.end()) {
    Unpublish(id);
    return StopAndDrop(id, dropping->second, std::move(done));
  }
  done(absl::OkStatus());
}

void TopicManager::OpenMissing(const TopicRecord& topic, Callback<absl::Status> done) {
  auto parsed = ParseTopicSettings(topic.config, options_.defaults);
  if (!parsed.ok()) {
    return done(absl::DataLossError(Cat("topic ", topic.name, ": ", Message(parsed.status()))));
  }
  std::vector<ReplicaId> missing;
  for (int32_t p = 0; p < topic.partitions; ++p) {
    const ReplicaId replica{topic.id, PartitionId(p)};
    if (!open_.contains(replica)) missing.push_back(replica);
  }
  if (missing.empty()) return done(absl::OkStatus());
  auto all = std::make_shared<Gather<Opened>>(
      missing.size(), [this, done = std::move(done)](std::vector<Opened> opened) mutable {
        home().Post([this, opened = std::move(opened), done = std::move(done)]() mutable {
          absl::Status status;
          for (auto& one : opened) {
            if (one.ok()) {
              const ReplicaId replica = (*one)->replica();
              open_[replica] = *std::move(one);
            } else if (status.ok()) {
              status = one.status();
            }
          }
          done(status);
        });
      });
  const TopicSettings settings = *parsed;
  const LogSettings log_settings{.segment_bytes = settings.segment_bytes, .segment_age = settings.segment_age};
  for (size_t i = 0; i < missing.size(); ++i) {
    const ReplicaId replica = missing[i];
    Executor& shard = ShardOf(replica);
    seams_.logs.Open(
        {.replica = replica, .settings = log_settings}, shard,
        [this, all, i, identity = IdentityOf(topic, replica, settings),
         &shard](absl::StatusOr<std::unique_ptr<PartitionLog>> log) {
          // A damaged log is its partition's own trouble. What is made now is not damaged, but cannot be made.
          if (absl::IsDataLoss(log.status()) && starting_) {
            seams_.log.Error(
                "a partition cannot be opened and is not served; the others are",
                {{"topic", identity.topic}, {"partition", identity.replica.partition}, {"error", log.status()}});
            return all->Set(i, std::make_shared<Partition>(seams_.node, identity, shard, log.status()));
          }
          if (!log.ok()) return all->Set(i, log.status());
          all->Set(i, std::make_shared<Partition>(seams_.node, identity, shard, *std::move(log)));
        });
  }
}

void TopicManager::StopAndDrop(TopicId id, int32_t partitions, Callback<absl::Status> done) {
  std::vector<std::shared_ptr<Partition>> running;
  for (int32_t p = 0; p < partitions; ++p) {
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

void TopicManager::DropReplicas(TopicId id, int32_t partitions, Callback<absl::Status> done) {
  auto all = std::make_shared<Gather<absl::Status>>(
      static_cast<size_t>(partitions), [this, id, done = std::move(done)](std::vector<absl::Status> dropped) mutable {
        const absl::Status status = FirstError(dropped);
        if (!status.ok()) {
          seams_.log.Warn("a deleted topic's replicas could not be dropped; the next start tries again",
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

absl::Status TopicManager::PublishTopic(const TopicRecord& topic) {
  SLUICE_ASSIGN_OR_RETURN(const TopicSettings settings, ParseTopicSettings(topic.config, options_.defaults));
  auto entry = std::make_shared<CatalogTopic>();
  entry->info = InfoOf(topic);
  entry->settings = settings;
  for (int32_t p = 0; p < topic.partitions; ++p) {
    const auto& partition = open_.at({topic.id, PartitionId(p)});
    partition->shard().Post([partition = partition, settings] { partition->ApplySettings(settings); });
    entry->partitions.push_back(partition);
  }
  next_catalog_->topics[topic.name] = std::move(entry);
  if (!starting_) seams_.catalog.Publish(std::make_shared<const Catalog>(*next_catalog_));
  return absl::OkStatus();
}

void TopicManager::Unpublish(TopicId id) {
  const size_t gone =
      std::erase_if(next_catalog_->topics, [&id](const auto& entry) { return entry.second->info.id == id; });
  if (gone > 0 && !starting_) seams_.catalog.Publish(std::make_shared<const Catalog>(*next_catalog_));
}

// ---- What people ask -----------------------------------------------------------------------------------------------

// A change that is committed stands in the controller's state even where the metadata store could not take it yet: the
// next start applies it anew. So it comes into force here and now whatever the answer is; else a deleted topic would
// acknowledge records that the next start drops.

absl::StatusOr<TopicRecord> TopicManager::MakeTopic(const CreateTopicSpec& spec) {
  SLUICE_RETURN_IF_ERROR(CheckTopicName(spec.name, spec.internal));
  SLUICE_RETURN_IF_ERROR(ParseTopicSettings(spec.config, options_.defaults).status());
  TopicRecord topic;
  topic.partitions = spec.partitions == 0 ? options_.default_partitions : spec.partitions;
  if (topic.partitions < 1 || topic.partitions > kPartitionsMax) {
    return absl::InvalidArgumentError(Cat("partitions: expected 1 to ", kPartitionsMax, ", got ", spec.partitions));
  }
  topic.replicas = spec.replicas == 0 ? 1 : spec.replicas;
  if (topic.replicas != 1) {
    return absl::InvalidArgumentError(Cat("replicas: expected 1, as there is one node, got ", spec.replicas));
  }
  const uint64_t high = seams_.random.Next();
  topic.id = Uuid::FromRandom(high, seams_.random.Next());
  topic.name = spec.name;
  topic.config = spec.config;
  topic.created_ms = absl::ToUnixMillis(seams_.clock.Wall());
  topic.assignments.assign(static_cast<size_t>(topic.partitions), {{.node = seams_.node.id, .incarnation = {}}});
  return topic;
}

void TopicManager::Create(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) {
  Serially([this, spec = std::move(spec), done = std::move(done)](Release release) mutable {
    CreateNow(std::move(spec), [done = std::move(done), release = std::move(release)](Result<TopicInfo> made) mutable {
      done(std::move(made));
      release();
    });
  });
}

void TopicManager::CreateNow(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) {
  auto topic = MakeTopic(spec);
  if (!topic.ok()) return done(Invalid(topic.status(), spec.name));
  if (FindTopic(topic->name) != nullptr) {
    return done(MakeError(Reason::kTopicExists, Cat("topic \"", topic->name, "\" exists"), topic->name));
  }
  ControllerChange change = TopicCreated{*topic};
  seams_.controller.Change(
      std::move(change), [this, topic = *std::move(topic), done = std::move(done)](absl::Status committed) mutable {
        const TopicId id = topic.id;
        if (!seams_.controller.state().topics.contains(id)) return done(ChangeError(committed, topic.name));
        Reconcile(id, [this, committed = std::move(committed), topic = std::move(topic),
                       done = std::move(done)](absl::Status opened) mutable {
          if (!opened.ok()) return UndoCreate(std::move(topic), std::move(opened), std::move(done));
          if (!committed.ok()) return done(ChangeError(committed, topic.name));
          seams_.log.Info("topic created",
                          {{"topic", topic.name}, {"topic_id", topic.id}, {"partitions", topic.partitions}});
          done(InfoOf(topic));
        });
      });
}

// The logs could not be made (a full disk, mostly): take the topic back, so that the error means "there is none".
void TopicManager::UndoCreate(TopicRecord topic, absl::Status why, Callback<Result<TopicInfo>> done) {
  const TopicId id = topic.id;
  seams_.controller.Change(TopicDeleted{id}, [this, topic = std::move(topic), why = std::move(why),
                                              done = std::move(done)](absl::Status committed) mutable {
    if (!committed.ok()) {
      return done(MakeError(
          Reason::kOutcomeUnknown,
          Cat("the topic is made, but its logs are not, and will be at the next start: ", why.ToString()), topic.name));
    }
    const TopicId gone = topic.id;
    Reconcile(gone, [topic = std::move(topic), why = std::move(why), done = std::move(done)](absl::Status) mutable {
      done(ChangeError(why, topic.name));
    });
  });
}

void TopicManager::ChangeTopic(TopicId id, ControllerChange change, Callback<Result<TopicInfo>> done) {
  seams_.controller.Change(std::move(change), [this, id, done = std::move(done)](absl::Status committed) mutable {
    const std::string name = seams_.controller.state().topics.at(id).name;
    if (!committed.ok() && !absl::IsUnknown(committed)) return done(ChangeError(committed, name));
    Reconcile(
        id, [this, id, name, committed = std::move(committed), done = std::move(done)](absl::Status opened) mutable {
          if (!committed.ok()) return done(ChangeError(committed, name));
          if (opened.ok()) return done(InfoOf(seams_.controller.state().topics.at(id)));
          done(MakeError(Reason::kOutcomeUnknown,
                         Cat("the change is committed and will be in force after the next start: ", opened.ToString()),
                         name));
        });
  });
}

void TopicManager::Alter(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) {
  Serially([this, spec = std::move(spec), done = std::move(done)](Release release) mutable {
    AlterNow(std::move(spec), [done = std::move(done), release = std::move(release)](Result<TopicInfo> info) mutable {
      done(std::move(info));
      release();
    });
  });
}

void TopicManager::AlterNow(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) {
  const TopicRecord* topic = FindTopic(spec.name);
  if (topic == nullptr) return done(UnknownTopic(spec.name));
  TopicConfig config = topic->config;
  for (const auto& key : spec.unset) {
    // Unset of what is not set is fine; of what is no setting at all it is a slip of the pen.
    const absl::Status known = ParseTopicSettings({{key, ""}}, options_.defaults).status();
    if (Message(known).starts_with("unknown")) return done(Invalid(known, spec.name));
    config.erase(key);
  }
  for (const auto& [key, value] : spec.set) config[key] = value;
  if (auto parsed = ParseTopicSettings(config, options_.defaults); !parsed.ok()) {
    return done(Invalid(parsed.status(), spec.name));
  }
  if (config == topic->config) return done(InfoOf(*topic));
  ChangeTopic(topic->id, TopicAltered{topic->id, std::move(config)}, std::move(done));
}

void TopicManager::AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) {
  Serially([this, name = std::move(name), partitions, done = std::move(done)](Release release) mutable {
    AddPartitionsNow(std::move(name), partitions,
                     [done = std::move(done), release = std::move(release)](Result<TopicInfo> info) mutable {
                       done(std::move(info));
                       release();
                     });
  });
}

void TopicManager::AddPartitionsNow(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) {
  const TopicRecord* topic = FindTopic(name);
  if (topic == nullptr) return done(UnknownTopic(name));
  if (partitions <= topic->partitions || partitions > kPartitionsMax) {
    return done(Invalid(absl::InvalidArgumentError(Cat("partitions: expected a new total from ", topic->partitions + 1,
                                                       " to ", kPartitionsMax, ", got ", partitions)),
                        name));
  }
  PartitionsAdded added{.id = topic->id, .partitions = partitions, .assignments = {}};
  added.assignments.assign(static_cast<size_t>(partitions - topic->partitions),
                           {{.node = seams_.node.id, .incarnation = {}}});
  const TopicId id = topic->id;
  ChangeTopic(id, std::move(added), std::move(done));
}

void TopicManager::Delete(std::string name, Callback<Result<Done>> done) {
  Serially([this, name = std::move(name), done = std::move(done)](Release release) mutable {
    DeleteNow(std::move(name), [done = std::move(done), release = std::move(release)](Result<Done> gone) mutable {
      done(std::move(gone));
      release();
    });
  });
}

void TopicManager::DeleteNow(std::string name, Callback<Result<Done>> done) {
  const TopicRecord* topic = FindTopic(name);
  if (topic == nullptr) return done(UnknownTopic(name));
  const TopicId id = topic->id;
  seams_.controller.Change(TopicDeleted{id},
                           [this, id, name = std::move(name), done = std::move(done)](absl::Status committed) mutable {
                             if (seams_.controller.state().topics.contains(id)) {
                               return done(ChangeError(committed, name));
                             }
                             // The topic is gone whatever becomes of its files: what cannot be dropped now stays
                             // marked, and is at a restart.
                             Reconcile(id, [this, name = std::move(name), committed = std::move(committed),
                                            done = std::move(done)](absl::Status) mutable {
                               seams_.log.Info("topic deleted", {{"topic", name}});
                               if (!committed.ok()) return done(ChangeError(committed, name));
                               done(Done{});
                             });
                           });
}

}  // namespace sluice::broker
