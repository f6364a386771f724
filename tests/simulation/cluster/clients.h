// The clients of the world: producers, consumers and operators. They know only what they were told, go to a node that
// they believe to lead, and report everything to the History.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "broker/api.h"
#include "common/record/record.h"
#include "tests/simulation/cluster/context.h"
#include "tests/simulation/cluster/node.h"
#include "tests/simulation/cluster/wire.h"

namespace sluice::cluster_simulation {

/// What operators know of a topic. A name is used once.
struct Topic {
  enum class State : uint8_t { kMaking, kThere, kMaybe, kGoing, kGone } state = State::kMaking;
  bool maybe_gone = false;     ///< A deletion's outcome is not known.
  int32_t partitions = 0;      ///< There are at least so many.
  int32_t partitions_max = 0;  ///< And at most so many.
  /// Of partitions that were placed while all nodes were counted on: these.
  std::map<int32_t, std::vector<NodeId>> placed_among;
  bool usable() const { return state == State::kThere && !maybe_gone; }
};

struct Site {
  Context& context;
  Wire& wire;
  std::map<NodeId, std::unique_ptr<Node>>& nodes;
  std::map<std::string, Topic> topics;
  bool clients_act = false;
  bool settled = false;  ///< All nodes are counted on, and nothing happens to them.
  int calls_under_way = 0;
  /// Of each node's process, by its life: what it said last.
  std::map<std::pair<NodeId, uint64_t>, int32_t> feature_levels = {};

  NodeId AnyNode() const;
  /// 0: none is there.
  NodeId AtAddress(const std::string& address) const;
  /// Those that are not gone, where `settled`; else none.
  std::vector<NodeId> CountedOn() const;
  /// A partition of a usable topic.
  std::optional<PartitionKey> AnyPartition() const;
  std::vector<PartitionKey> Partitions() const;
  /// What all nodes support that are or were registered.
  int32_t CommonFeatureLevel() const;
  /// The cluster, as that node has it; checks the feature level.
  void DescribeCluster(NodeId asked, absl::AnyInvocable<void(std::optional<broker::ClusterInfo>)> done);
};

/// Whom a client takes for the leader of what.
class Beliefs {
 public:
  explicit Beliefs(Site& site) : site_(site) {}
  NodeId Leader(const PartitionKey& key);
  void Learn(const PartitionKey& key, const broker::Error& error);
  void Forget(const PartitionKey& key) { leaders_.erase(key); }

 private:
  Site& site_;
  std::map<PartitionKey, NodeId> leaders_;
};

struct SendResult {
  enum class Kind : uint8_t { kDone, kRefused, kUnknown } kind = Kind::kUnknown;
  broker::Reason reason = broker::Reason::kUnknown;
};

/// Sends items in sessions, one a node, as a client does that never sends twice what may have been written.
class Sender {
 public:
  explicit Sender(Site& site) : site_(site), beliefs_(site) {}
  void Send(const PartitionKey& key, absl::AnyInvocable<void(SendResult)> done);

 private:
  struct Lot {  // of one partition in one session
    int64_t resets = 0;
    bool broken = false;
  };
  struct Session {
    uint64_t name = 0;
    uint64_t life = 0;
    std::shared_ptr<Lane> lane = std::make_shared<Lane>();
    int64_t sequence = 0;
    std::map<PartitionKey, Lot> lots;
  };
  struct Known {
    std::optional<Offset> end;
    LeaderEpoch epoch;
  };

  Session& SessionWith(NodeId node);
  std::optional<record::PendingBatch> BatchOf(const Attempt& attempt);
  SendResult OnAnswer(const Attempt& attempt, NodeId node, Answer<broker::ProduceOutcome> answer);
  SendResult OnError(const Attempt& attempt, NodeId node, const broker::Error& error);

  Site& site_;
  Beliefs beliefs_;
  std::map<NodeId, Session> sessions_;
  std::map<PartitionKey, Known> known_;
  record::BatchBuilder builder_;
};

class Producer {
 public:
  explicit Producer(Site& site) : site_(site), sender_(site) {}
  void Begin();

 private:
  void Act();
  Site& site_;
  Sender sender_;
  std::map<PartitionKey, int> in_flight_;
};

/// Reads one partition from some offset on, now and then another one, or from somewhere else.
class Consumer {
 public:
  explicit Consumer(Site& site) : site_(site), beliefs_(site) {}
  void Begin();

 private:
  void ActLater(absl::Duration pause);
  void Act();
  void Fetch();
  void OnFetched(NodeId from, bool waits, broker::FetchOutcome outcome);
  void AskOffsets();

  Site& site_;
  Beliefs beliefs_;
  std::optional<PartitionKey> key_;
  Offset offset_;
  Offset reached_;          ///< Known to be committed in reached_in_ or before.
  LeaderEpoch reached_in_;  ///< The highest that answered.
  LeaderEpoch epoch_;       ///< The same, since an answer told that there is a later one.
};

/// Creates, deletes, widens and alters topics, and deletes records.
class Operator {
 public:
  explicit Operator(Site& site) : site_(site), beliefs_(site) {}
  void Begin();
  /// `done` with whether it is there now.
  void Create(int32_t partitions, int32_t replicas, absl::AnyInvocable<void(bool)> done);
  void Delete(const std::string& name, absl::AnyInvocable<void(bool)> done);

 private:
  void Act();
  void AddPartition(const std::string& name);
  void Alter(const std::string& name);
  void DeleteRecords(const PartitionKey& key);
  void ElectLeader(const PartitionKey& key);
  void LookAtCluster();
  std::optional<std::string> AnyTopic() const;
  int32_t AnyReplicas() const;
  /// A change was made that was asked of that node.
  void OnChanged(NodeId asked);

  Site& site_;
  Beliefs beliefs_;
  int topics_made_ = 0;
  NodeId controller_;  ///< As last seen.
};

/// What a batch that was fetched must be; reports it.
void CheckFetched(Site& site, const PartitionKey& key, Offset asked, const broker::FetchOutcome& outcome, NodeId from);

}  // namespace sluice::cluster_simulation
