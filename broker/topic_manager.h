// TopicManager: what people ask of topics, one change at a time, and the partitions that follow from the controller's
// state. A change is committed first; then the node reconciles what is open with what the state says. A restart does
// the same reconciling, so a crash between the two leaves nothing half done.
//
// Threads: everything is called on, and every callback runs on, the controller's executor (the first shard).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "broker/api.h"
#include "broker/catalog.h"
#include "broker/controller.h"
#include "broker/log_factory.h"
#include "broker/partition.h"
#include "broker/topic_settings.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

class TopicManager {
 public:
  struct Options {
    int32_t default_partitions = 1;
    TopicSettings defaults;
  };
  /// All borrowed; they outlive the manager.
  struct Seams {
    const std::vector<Executor*>& shards;
    Controller& controller;
    LogFactory& logs;
    Clock& clock;
    Random& random;
    const Partition::Node& node;
    CatalogCell& catalog;
    const Logger& log;
  };

  TopicManager(Options options, Seams seams) : options_(options), seams_(seams) {}

  /// Once the controller has started: refuses replicas on disk that nothing knows, opens what the state says, drops
  /// what was being deleted.
  void Start(Callback<absl::Status> done);
  /// Stops all partitions. No call is under way.
  void Stop(absl::AnyInvocable<void()> done);

  void Create(CreateTopicSpec spec, Callback<Result<TopicInfo>> done);
  void Alter(AlterTopicSpec spec, Callback<Result<TopicInfo>> done);
  void AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done);
  void Delete(std::string name, Callback<Result<Done>> done);

 private:
  using Release = absl::AnyInvocable<void()>;
  using Opened = absl::StatusOr<std::shared_ptr<Partition>>;

  Executor& home() const { return *seams_.shards.front(); }
  Executor& ShardOf(const ReplicaId& replica) const;

  /// Runs `work` when all work before it has called its release.
  void Serially(absl::AnyInvocable<void(Release)> work);
  void RunNext();

  absl::StatusOr<TopicRecord> MakeTopic(const CreateTopicSpec& spec);
  const TopicRecord* FindTopic(std::string_view name) const;
  void CreateNow(CreateTopicSpec spec, Callback<Result<TopicInfo>> done);
  void UndoCreate(TopicRecord topic, absl::Status why, Callback<Result<TopicInfo>> done);
  void AlterNow(AlterTopicSpec spec, Callback<Result<TopicInfo>> done);
  void AddPartitionsNow(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done);
  void DeleteNow(std::string name, Callback<Result<Done>> done);
  /// Commits a change of the topic, reconciles it, and answers with what it is then.
  void ChangeTopic(TopicId id, ControllerChange change, Callback<Result<TopicInfo>> done);

  absl::Status CheckReplicasOnDisk() const;
  void Reconcile(TopicId id, Callback<absl::Status> done);
  void OpenMissing(const TopicRecord& topic, Callback<absl::Status> done);
  void StopAndDrop(TopicId id, int32_t partitions, Callback<absl::Status> done);
  void DropReplicas(TopicId id, int32_t partitions, Callback<absl::Status> done);
  void ReconcileAll(std::vector<TopicId> ids, size_t next, Callback<absl::Status> done);
  absl::Status PublishTopic(const TopicRecord& topic);
  void Unpublish(TopicId id);

  const Options options_;
  const Seams seams_;
  std::deque<absl::AnyInvocable<void(Release)>> waiting_;
  bool busy_ = false;
  std::map<ReplicaId, std::shared_ptr<Partition>> open_;
  bool starting_ = false;  // the catalog is published once, at the end
  std::shared_ptr<Catalog> next_catalog_ = std::make_shared<Catalog>();
};

}  // namespace sluice::broker
