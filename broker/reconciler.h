// Reconciler: makes this node be what the controller's state says: opens the replicas that are its own, drops those of
// deleted topics, and publishes the catalog, in which partitions without a replica here refer to those who have one. It
// follows the state as it changes, whoever changed it; a start does the same for all of it, so a crash in between
// leaves nothing half done.
//
// Always holds: one topic is worked on by one task at a time, after whatever touched it last; several topics at once.
// What fails is tried again, later, and the rest goes on without it: a partition whose log cannot be opened is in the
// catalog as one that failed; what was dropped is forgotten only once its files are gone.
// Threads: everything is called on, and every callback runs on, the controller's executor (the first shard).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "broker/address_book.h"
#include "broker/catalog.h"
#include "broker/controller.h"
#include "broker/log_factory.h"
#include "broker/partition.h"
#include "broker/topic_settings.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

class Reconciler final : public ControllerObserver {
 public:
  /// All borrowed; they outlive the reconciler.
  struct Seams {
    const std::vector<Executor*>& shards;
    Controller& controller;
    LogFactory& logs;
    const Partition::Node& node;
    AddressBook& addresses;
    CatalogCell& catalog;
    const Logger& log;
  };

  Reconciler(TopicSettings defaults, Seams seams) : defaults_(defaults), seams_(seams) {}

  /// Once the controller has started: refuses replicas on disk that nothing knows, opens what the state says, drops
  /// what was being deleted.
  void Start(Callback<absl::Status> done);
  /// This start of the node is registered, and the state has that: what it does not know of by now was made since, and
  /// no earlier process of this node can have had a replica of it.
  void OnRegistered();
  /// Stops all partitions. No Settle is waiting.
  void Stop(absl::AnyInvocable<void()> done);
  /// Before Stop: all that waits for a partition's log is answered, with an unknown outcome where it may yet be
  /// written.
  void GiveUpWaiting();

  /// The state has a change of the topic that is committed, but not saved yet: it comes into force all the same. The
  /// next start applies it anew; until then a deleted topic would acknowledge what that drops.
  void Refresh(const TopicId& id);
  /// Answers once what the state says of the topic now is in force here, or could not be brought into force.
  void Settle(const TopicId& id, Callback<absl::Status> done);

  void OnApplied(const ClusterDelta& delta) override;

 private:
  struct Opened {
    std::shared_ptr<Partition> partition;  ///< One that failed, where it could not be opened.
    absl::Status failed;                   ///< Why it is to be tried again.
  };
  struct Work {
    bool running = false;
    bool again = false;  ///< Touched since it began.
    std::vector<Callback<absl::Status>> waiting;
    std::vector<Callback<absl::Status>> waiting_next;  ///< For the run after this one.
  };

  Executor& home() const { return *seams_.shards.front(); }
  Executor& ShardOf(const ReplicaId& replica) const;
  bool IsOfThisProcess(const ReplicaId& replica) const;

  absl::Status CheckReplicasOnDisk() const;
  void UpdateAddresses();
  void Touch(const TopicId& id);
  void Pump();
  void Finish(const TopicId& id, const absl::Status& status);
  void RetryLater();

  void Reconcile(const TopicId& id, Callback<absl::Status> done);
  void OpenMissing(const TopicRecord& topic, Callback<absl::Status> done);
  void OnOpened(const std::string& topic, std::vector<Opened> opened, Callback<absl::Status> done);
  void OpenReplica(const TopicRecord& topic, Partition::Identity identity, Callback<Opened> done);
  void StopAndDrop(TopicId id, int32_t partitions, Callback<absl::Status> done);
  void DropReplicas(TopicId id, int32_t partitions, Callback<absl::Status> done);
  void StopPartitions(absl::AnyInvocable<void()> done);
  absl::Status PublishTopic(const TopicRecord& topic);
  void Unpublish(TopicId id);
  void Publish();

  const TopicSettings defaults_;
  const Seams seams_;
  bool started_ = false;
  bool starting_ = false;  // the catalog is published once, at the end
  bool stopping_ = false;
  Callback<absl::Status> start_done_;
  absl::Status start_status_;
  absl::AnyInvocable<void()> stop_done_;

  std::map<TopicId, Work> work_;
  std::deque<TopicId> queue_;
  int running_ = 0;
  std::map<TopicId, absl::Status> failed_;  // as their last run ended
  Executor::TimerId retry_timer_ = 0;
  std::optional<std::map<TopicId, int32_t>> before_;  // topics and how many partitions they had: OnRegistered

  std::map<ReplicaId, std::shared_ptr<Partition>> open_;  // without a replica here, too
  std::set<ReplicaId> unmade_;                            // of those, the ones that failed and are tried again
  std::shared_ptr<Catalog> next_catalog_ = std::make_shared<Catalog>();
};

}  // namespace sluice::broker
