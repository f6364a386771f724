// TopicManager: what people ask of topics. A change is decided where the controller leads; elsewhere it is passed on to
// there. Either way it is answered once it is in force on this node, too.
//
// Threads: everything is called on, and every callback runs on, the controller's executor (the first shard).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "broker/api.h"
#include "broker/controller.h"
#include "broker/limits.h"
#include "broker/reconciler.h"
#include "broker/topic_change.h"
#include "broker/topic_settings.h"
#include "common/executor.h"
#include "common/log.h"
#include "common/topic_setting.h"

namespace sluice::broker {

class TopicManager {
 public:
  struct Options {
    NodeId node;
    int32_t default_partitions = 1;
    int32_t default_replicas = 0;  ///< 0: min(3, nodes).
    TopicSettings defaults;
    int64_t message_bytes_max = kTopicMessageBytesMax;  ///< Of one message of a client (limits.message_bytes).
  };
  /// Asks another node's TopicManager to Decide. `done` on the controller's executor.
  using Forward = absl::AnyInvocable<void(NodeId to, const TopicChange& change, Callback<Result<TopicChanged>> done)>;
  /// All borrowed; they outlive the manager.
  struct Seams {
    Executor& home;
    Controller& controller;
    Reconciler& reconciler;
    Clock& clock;
    Random& random;
    const Logger& log;
    Forward* forward = nullptr;  ///< Null on a node without peers.
    /// At the leader: the nodes without which group 0 has no majority, and whose disks are full; none where there is
    /// room enough. May be empty.
    std::function<std::vector<NodeId>()> without_room = nullptr;
  };

  TopicManager(Options options, Seams seams) : options_(options), seams_(seams) {}

  /// For what people ask of this node.
  void Apply(TopicChange change, Callback<Result<TopicInfo>> done);
  /// For what people asked of another one: kNotLeader where the controller does not lead here. Answers once committed
  /// and applied, or after kChangeWaitMax: kOutcomeUnknown where it may still be made. What nodes that have just come,
  /// or are away, cannot hold yet waits for them for a moment. Where there is no room (kDiskFull) nothing is made
  /// larger; topics can be deleted and altered as long as the disks take anything at all.
  void Decide(TopicChange change, Callback<Result<TopicChanged>> done);

 private:
  /// What a decision found out, beside the change to be made.
  struct Verdict {
    std::optional<Error> refused;
    TopicInfo topic;
    bool created = false;
    bool later = false;  ///< Refused for now: what stands in the way passes.
  };
  /// Of one change, as far as its answer goes.
  struct Waiting {
    TopicChange change;  ///< Empty once it was answered without having been decided.
    bool proposed = false;
    bool decided = false;  ///< Out of the controller's line; what it came to is being found out.
    Executor::TimerId timer = 0;
    Callback<Result<TopicChanged>> done;  ///< Null: answered.
  };
  using Decided = absl::StatusOr<std::optional<ControllerChange>>;

  /// Where the controller has no leader, tries again until then (Clock::Monotonic).
  void Route(TopicChange change, absl::Duration until, Callback<Result<TopicChanged>> done);
  void RouteLater(TopicChange change, absl::Duration until, Callback<Result<TopicChanged>> done);
  /// `done` is called once, after kChangeWaitMax at the latest.
  std::shared_ptr<Waiting> AnswerInTime(TopicChange change, Callback<Result<TopicChanged>> done);
  /// In words, where group 0 has no room; empty where it has.
  std::string NoRoom() const;
  void DecideUntil(absl::Duration until, std::shared_ptr<Waiting> waiting);
  void Answer(Waiting& waiting, Result<TopicChanged> changed);
  void OnDecided(Verdict verdict, absl::Status status, const std::string& name, Callback<Result<TopicChanged>> done);
  void OnRouted(const TopicChange& change, TopicInfo changed, Callback<Result<TopicInfo>> done);
  void UndoCreate(TopicInfo topic, absl::Status why, Callback<Result<TopicInfo>> done);

  Decided DecideOne(const CreateTopicSpec& spec, const ControllerState& state, Verdict* verdict);
  Decided DecideOne(const AlterTopicSpec& spec, const ControllerState& state, Verdict* verdict);
  Decided DecideOne(const AddPartitionsSpec& spec, const ControllerState& state, Verdict* verdict);
  Decided DecideOne(const DeleteTopicSpec& spec, const ControllerState& state, Verdict* verdict);
  absl::StatusOr<std::vector<PartitionAssignment>> Place(const ControllerState& state, int32_t count,
                                                         int32_t* replicas);
  /// What does not fit into group 0's log and the metadata store is refused before it is there.
  static absl::Status CheckSize(const TopicRecord& topic);
  /// What is set anew has to be what clients can send and nodes can replicate; what topics have already stays.
  absl::Status CheckMessageBytes(const TopicConfig& set) const;
  TopicId DrawId();

  const Options options_;
  const Seams seams_;
  int overdue_ = 0;  ///< Were answered, and are still in the controller's line.
};

}  // namespace sluice::broker
