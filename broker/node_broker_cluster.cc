// What operators ask of the cluster: its nodes, how its partitions stand, who leads them. And what nodes ask each other
// to be able to answer that.
#include <map>
#include <set>

#include "broker/node_broker_impl.h"
#include "broker/partition_survey.h"

namespace sluice::broker {
namespace {

constexpr absl::Duration kStatusDeadline = absl::Seconds(1);
// With the questions that may be under way then, each of kStatusDeadline, shorter than clients wait for one node.
constexpr absl::Duration kElectDeadline = absl::Milliseconds(2500);
constexpr absl::Duration kElectAskEvery = absl::Milliseconds(20);
constexpr const char* kNotTakenOver = "is it alive, and not behind?";

}  // namespace

// ---- Nodes ---------------------------------------------------------------------------------------------------------

void NodeBroker::DescribeCluster(Callback<Result<ClusterInfo>> done) {
  struct Parts {
    std::vector<PartitionStatus> partitions;
    std::map<NodeId, NodeStatus> nodes;
    int missing = 2;
  };
  AtHome<ClusterInfo>(std::move(done), [this](Callback<Result<ClusterInfo>> answer) {
    auto parts = std::make_shared<Parts>();
    const auto arrived = [this, parts, answer = std::make_shared<Callback<Result<ClusterInfo>>>(std::move(answer))] {
      if (--parts->missing == 0) (*answer)(Describe(parts->partitions, parts->nodes));
    };
    CollectPartitions({}, [parts, arrived](std::vector<PartitionStatus> partitions) {
      parts->partitions = std::move(partitions);
      arrived();
    });
    CollectNodes([parts, arrived](std::map<NodeId, NodeStatus> nodes) {
      parts->nodes = std::move(nodes);
      arrived();
    });
  });
}

ClusterInfo NodeBroker::Describe(const std::vector<PartitionStatus>& partitions,
                                 const std::map<NodeId, NodeStatus>& nodes) {
  const ControllerState& state = controller_.state();
  ClusterInfo cluster;
  cluster.cluster_id = options_.cluster_id;
  cluster.cluster_name = state.cluster_name.empty() ? options_.cluster_name : state.cluster_name;
  // Who is said to lead and does not take this node's heartbeats is the past, and so is what it said of who lives.
  const bool heard = options_.membership.disk.IsNil() || IsHeard();
  cluster.controller_node = heard ? controller_.leader().value_or(NodeId(0)) : NodeId(0);
  cluster.topics = static_cast<int32_t>(catalog_.Load()->topics.size());
  cluster.partitions = static_cast<int32_t>(partitions.size());
  cluster.feature_level = state.feature_level;
  for (const PartitionStatus& partition : partitions) {
    if (IsUnderReplicated(partition)) ++cluster.under_replicated_partitions;
    if (IsLeaderless(partition)) ++cluster.leaderless_partitions;
    if (IsOffline(partition)) ++cluster.offline_partitions;
  }
  if (!state.nodes.contains(options_.node)) {
    NodeInfo& self = cluster.nodes.emplace_back();
    self.id = options_.node;
    self.address = options_.address;
    self.rack = options_.rack;
    self.version = options_.version;
    self.alive = true;
  }
  for (const auto& [id, registered] : state.nodes) {
    NodeInfo& node = cluster.nodes.emplace_back();
    node.id = id;
    node.address = registered.node.grpc_address;
    node.peer_address = registered.node.peer_address;
    node.rack = registered.node.rack;
    node.version = registered.node.version;
    node.alive = heard ? !registered.fenced : nodes.contains(id);
    node.fenced = registered.fenced;
    node.feature_min = registered.node.feature_min;
    node.feature_max = registered.node.feature_max;
  }
  std::set<NodeId> voters;
  if (controller_.log() != nullptr) {
    for (const VoterId& voter : controller_.log()->raft().configuration().voters) voters.insert(voter.node);
  }
  for (NodeInfo& node : cluster.nodes) {
    node.controller_voter = voters.contains(node.id);
    const auto said = nodes.find(node.id);
    if (said == nodes.end()) continue;
    node.started_ms = said->second.started_ms;
    node.disk_free_bytes = said->second.disk_free_bytes;
    node.disk_used_bytes = said->second.disk_used_bytes;
    node.draining = said->second.draining;
  }
  return cluster;
}

// Of each node that can be asked in time.
void NodeBroker::CollectNodes(Callback<std::map<NodeId, NodeStatus>> done) {
  struct Nodes {
    std::map<NodeId, NodeStatus> said;
    size_t missing = 1;
    Callback<std::map<NodeId, NodeStatus>> done;
    void Arrived() {
      if (--missing == 0) done(std::move(said));
    }
  };
  auto all = std::make_shared<Nodes>();
  all->done = std::move(done);
  for (const auto& [node, registered] : controller_.state().nodes) {
    if (node == options_.node || seams_.peers == nullptr || !addresses_.IsAlive(node)) continue;
    ++all->missing;
    AskNode(node, kNodeStatusCall, {}, kStatusDeadline, DecodeNodeStatus,
            [all, node = node](const absl::StatusOr<NodeStatus>& status) {
              if (status.ok()) all->said[node] = *status;
              all->Arrived();
            });
  }
  StatusOfSelf([this, all](NodeStatus self) {
    all->said[options_.node] = self;
    all->Arrived();
  });
}

void NodeBroker::StatusOfSelf(Callback<NodeStatus> done) {
  NodeStatus status{.started_ms = started_ms_,
                    .disk_free_bytes = disk_.free_bytes(),
                    .disk_used_bytes = 0,
                    .draining = client_.draining()};
  std::vector<std::shared_ptr<Partition>> own;
  const auto catalog = catalog_.Load();
  for (const auto& [name, topic] : catalog->topics) {
    for (const auto& partition : topic->partitions) {
      if (!partition->remote()) own.push_back(partition);
    }
  }
  if (own.empty()) return home().Post([status, done = std::move(done)]() mutable { done(status); });
  auto sizes = std::make_shared<Gather<int64_t>>(
      own.size(), [status, &home = home(), done = std::move(done)](const std::vector<int64_t>& bytes) mutable {
        for (const int64_t size : bytes) status.disk_used_bytes += size;
        home.Post([status, done = std::move(done)]() mutable { done(status); });
      });
  for (size_t i = 0; i < own.size(); ++i) {
    own[i]->shard().Post([partition = own[i], sizes, i] { sizes->Set(i, partition->status().size_bytes); });
  }
}

// ---- Partitions ----------------------------------------------------------------------------------------------------

struct NodeBroker::Collection {
  ListPartitionsSpec spec;
  std::vector<std::shared_ptr<Partition>> partitions;
  PartitionSurvey survey{{}};
  size_t unanswered = 0;
  bool finished = false;
  Callback<std::vector<PartitionStatus>> done;

  void Finish() {
    finished = true;
    std::vector<PartitionStatus> statuses = std::move(survey).Finish();
    std::erase_if(statuses, [&](const PartitionStatus& status) { return !Matches(spec, status); });
    done(std::move(statuses));
  }
};

void NodeBroker::CollectPartitions(ListPartitionsSpec spec, Callback<std::vector<PartitionStatus>> done) {
  auto all = std::make_shared<Collection>();
  const auto catalog = catalog_.Load();
  for (const auto& [name, topic] : catalog->topics) {
    if (!spec.topic.empty() && name != spec.topic) continue;
    all->partitions.insert(all->partitions.end(), topic->partitions.begin(), topic->partitions.end());
  }
  all->spec = std::move(spec);
  all->done = std::move(done);
  if (all->partitions.empty()) {
    return home().Post([all] { all->Finish(); });
  }
  auto local = std::make_shared<Gather<PartitionStatus>>(
      all->partitions.size(), [this, all](std::vector<PartitionStatus> statuses) mutable {
        home().Post([this, all, statuses = std::move(statuses)]() mutable {
          all->survey = PartitionSurvey(std::move(statuses));
          AskPeers(std::move(all));
        });
      });
  for (size_t i = 0; i < all->partitions.size(); ++i) {
    const auto& partition = all->partitions[i];
    partition->shard().Post([partition, local, i] { local->Set(i, partition->status()); });
  }
}

void NodeBroker::AskPeers(std::shared_ptr<Collection> all) {
  std::map<NodeId, std::vector<ReplicaId>> asked;
  for (size_t i = 0; i < all->partitions.size(); ++i) {
    if (all->survey.statuses()[i].leader_node == options_.node) continue;
    const Partition& partition = *all->partitions[i];
    all->survey.AskOthers(i, partition.replica(), !partition.remote());
    for (const NodeId node : partition.replicas()) {
      if (node != options_.node && addresses_.IsAlive(node)) asked[node].push_back(partition.replica());
    }
  }
  if (seams_.peers == nullptr || asked.empty()) return all->Finish();
  for (const auto& [node, replicas] : asked) all->unanswered += (replicas.size() + kStatusesMax - 1) / kStatusesMax;
  for (auto& [node, replicas] : asked) {
    for (size_t from = 0; from < replicas.size(); from += kStatusesMax) {
      const size_t to = std::min(replicas.size(), from + kStatusesMax);
      const std::vector<ReplicaId> some(replicas.begin() + static_cast<ptrdiff_t>(from),
                                        replicas.begin() + static_cast<ptrdiff_t>(to));
      AskNode(node, kPartitionStatusCall, EncodePartitionStatusRequest(some), kStatusDeadline,
              DecodePartitionStatusAnswer,
              [all, node = node, &addresses = addresses_](const absl::StatusOr<std::vector<ReplicaReport>>& reports) {
                if (all->finished) return;
                --all->unanswered;
                if (reports.ok()) all->survey.Take(node, addresses.ClientAddress(node), *reports);
                if (all->unanswered == 0 || all->survey.all_led()) all->Finish();
              });
    }
  }
}

void NodeBroker::ListPartitions(ListPartitionsSpec spec, Callback<Result<std::vector<PartitionStatus>>> done) {
  using Answer = Result<std::vector<PartitionStatus>>;
  AtHome<std::vector<PartitionStatus>>(
      std::move(done), [this, spec = std::move(spec)](Callback<Answer> answer) mutable {
        if (!spec.topic.empty() && catalog_.Load()->Find(spec.topic) == nullptr) {
          const std::string shown = spec.topic.substr(0, 249);
          return answer(MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", shown, "\""), shown));
        }
        CollectPartitions(std::move(spec), [answer = std::move(answer)](std::vector<PartitionStatus> found) mutable {
          answer(std::move(found));
        });
      });
}

// ---- Elections -----------------------------------------------------------------------------------------------------

void NodeBroker::ElectLeader(ElectLeaderSpec spec, Callback<Result<ElectedLeader>> done) {
  AtHome<ElectedLeader>(
      std::move(done), [this, spec = std::move(spec)](Callback<Result<ElectedLeader>> answer) mutable {
        Found found = Find(*catalog_.Load(), spec.topic, spec.partition);
        if (found.error.has_value()) return answer(*std::move(found.error));
        const std::vector<NodeId>& replicas = found.partition->replicas();
        if (spec.node == NodeId(0)) spec.node = replicas.front();
        if (std::find(replicas.begin(), replicas.end(), spec.node) == replicas.end()) {
          std::string nodes;
          for (const NodeId node : replicas) nodes += Cat(nodes.empty() ? "" : ", ", node);
          return answer(MakeError(Reason::kInvalidArgument,
                                  Cat("node ", spec.node, " has no replica of ", spec.topic, "/", spec.partition,
                                      ": the replicas are on node ", nodes),
                                  spec.topic, spec.partition));
        }
        AwaitElected(std::move(spec), seams_.clock.Monotonic() + kElectDeadline, kNotTakenOver, std::move(answer));
      });
}

// Asks the leader, whoever it is then, at the beginning and now and again. `why` it did not come to lead so far.
void NodeBroker::AwaitElected(ElectLeaderSpec spec, absl::Duration deadline, std::string why,
                              Callback<Result<ElectedLeader>> done) {
  ListPartitionsSpec one{.topic = spec.topic};
  CollectPartitions(std::move(one), [this, spec = std::move(spec), deadline, why = std::move(why),
                                     done = std::move(done)](std::vector<PartitionStatus> partitions) mutable {
    const auto at = std::find_if(partitions.begin(), partitions.end(),
                                 [&](const auto& status) { return status.partition == spec.partition; });
    Found found = Find(*catalog_.Load(), spec.topic, spec.partition);
    if (found.error.has_value() || at == partitions.end()) {
      return done(MakeError(Reason::kUnknownTopic, "the topic was deleted", spec.topic, spec.partition));
    }
    if (at->leader_node == spec.node) {
      if (at->error.has_value()) return done(*std::move(at->error));
      return done(ElectedLeader{at->leader_node, std::move(at->leader), at->leader_epoch});
    }
    if (seams_.clock.Monotonic() >= deadline) {
      if (at->leader_node != NodeId(0))
        why = Cat("node ", spec.node, " did not come to lead: ", why);
      else if (at->error.has_value())
        why = "the partition has no leader now: " + at->error->message;
      else
        why = "the partition has no leader now";
      return done(MakeError(Reason::kNotAvailable, std::move(why), spec.topic, spec.partition));
    }
    const NodeId leader = at->leader_node;
    // What was begun, and did not work out, is asked for again; why it was refused before that is past.
    auto again = [this, spec, deadline, done = std::move(done)](Result<Done> begun) mutable {
      if (!begun.ok() && begun.error().reason == Reason::kCorruptLog) return done(std::move(begun).error());
      std::string refusal = begun.ok() ? kNotTakenOver : std::move(begun).error().message;
      home().PostAfter(kElectAskEvery, [this, spec = std::move(spec), deadline, why = std::move(refusal),
                                        done = std::move(done)]() mutable {
        AwaitElected(std::move(spec), deadline, std::move(why), std::move(done));
      });
    };
    if (leader == NodeId(0)) return again(MakeError(Reason::kNotAvailable, std::move(why)));
    HandOver(std::move(found.partition), leader, spec.node, std::move(again));
  });
}

void NodeBroker::HandOver(std::shared_ptr<Partition> partition, NodeId leader, NodeId to, Callback<Result<Done>> done) {
  if (leader == options_.node) {
    Executor& shard = partition->shard();
    shard.Post([this, partition = std::move(partition), to, done = std::move(done)]() mutable {
      const absl::Status begun = partition->TransferLeadership(to);
      Result<Done> answer = Done{};
      if (!begun.ok()) {
        const Reason reason = absl::IsFailedPrecondition(begun) ? Reason::kCorruptLog : Reason::kNotAvailable;
        answer = MakeError(reason, std::string(Message(begun)), partition->topic(), partition->replica().partition);
      }
      home().Post([answer = std::move(answer), done = std::move(done)]() mutable { done(std::move(answer)); });
    });
    return;
  }
  if (seams_.peers == nullptr) return done(MakeError(Reason::kNotAvailable, "this node has no peers"));
  AskNode(leader, kElectLeaderCall, EncodeElectLeaderCall({partition->replica(), to}), kStatusDeadline,
          DecodeElectLeaderAnswer, [done = std::move(done)](const absl::StatusOr<Result<Done>>& answer) mutable {
            if (answer.ok()) return done(*answer);
            done(MakeError(Reason::kNotAvailable, answer.status().ToString()));
          });
}

// ---- What other nodes ask ------------------------------------------------------------------------------------------

void NodeBroker::AnswerPeer(PeerCall call, PeerReply reply) {
  CallGate::Pass pass = gate_->Enter();
  if (!pass) return reply(absl::UnavailableError("the node is starting or shutting down"));
  auto guarded = [pass = std::move(pass), reply = std::move(reply)](absl::StatusOr<std::string> answer) mutable {
    reply(std::move(answer));
  };
  home().Post([this, call = std::move(call), guarded = std::move(guarded)]() mutable {
    AnswerPeerAtHome(call, std::move(guarded));
  });
}

void NodeBroker::AnswerPeerAtHome(const PeerCall& call, PeerReply reply) {
  if (ClusterService::Serves(call.kind)) return service_.Answer(call, std::move(reply));
  switch (call.kind) {
    case kTopicChangeCall: {
      auto change = DecodeTopicChange(call.request);
      if (!change.ok()) return reply(change.status());
      return topics_.Decide(*std::move(change),
                            [reply = std::move(reply)](const Result<TopicChanged>& changed) mutable {
                              reply(EncodeTopicChanged(changed));
                            });
    }
    case kPartitionStatusCall: {
      const auto replicas = DecodePartitionStatusRequest(call.request);
      if (!replicas.ok()) return reply(replicas.status());
      return AnswerPartitionStatus(*replicas, std::move(reply));
    }
    case kNodeStatusCall:
      return StatusOfSelf(
          [reply = std::move(reply)](const NodeStatus& status) mutable { reply(EncodeNodeStatus(status)); });
    case kElectLeaderCall: {
      const auto asked = DecodeElectLeaderCall(call.request);
      if (!asked.ok()) return reply(asked.status());
      auto partition = FindById(*catalog_.Load(), asked->replica);
      if (partition == nullptr) {
        return reply(EncodeElectLeaderAnswer(MakeError(Reason::kUnknownTopic, "no such partition here")));
      }
      return HandOver(
          std::move(partition), options_.node, asked->to,
          [reply = std::move(reply)](const Result<Done>& begun) mutable { reply(EncodeElectLeaderAnswer(begun)); });
    }
    default:
      reply(absl::UnimplementedError(Cat("a call of kind ", call.kind, ", which this version does not know")));
  }
}

std::shared_ptr<Partition> NodeBroker::FindById(const Catalog& catalog, const ReplicaId& replica) const {
  const ControllerState& state = controller_.state();
  const auto record = state.topics.find(replica.topic);
  const CatalogTopic* topic = record == state.topics.end() ? nullptr : catalog.Find(record->second.name);
  const auto number = static_cast<size_t>(replica.partition.value());
  if (topic == nullptr || topic->info.id != replica.topic || number >= topic->partitions.size()) return nullptr;
  return topic->partitions[number];
}

void NodeBroker::AnswerPartitionStatus(const std::vector<ReplicaId>& replicas, PeerReply reply) {
  const auto catalog = catalog_.Load();
  std::vector<std::shared_ptr<Partition>> known;
  for (const ReplicaId& replica : replicas) {
    auto partition = FindById(*catalog, replica);
    if (partition != nullptr && !partition->remote()) known.push_back(std::move(partition));
  }
  if (known.empty()) return reply(EncodePartitionStatusAnswer({}));
  auto all = std::make_shared<Gather<ReplicaReport>>(
      known.size(), [reply = std::move(reply)](const std::vector<ReplicaReport>& reports) mutable {
        reply(EncodePartitionStatusAnswer(reports));
      });
  for (size_t i = 0; i < known.size(); ++i) {
    Executor& shard = known[i]->shard();
    shard.Post([partition = std::move(known[i]), node = options_.node, all, i] {
      ReplicaReport report{.replica = partition->replica(), .leads = false, .status = partition->status()};
      report.leads = report.status.leader_node == node;
      all->Set(i, std::move(report));
    });
  }
}

}  // namespace sluice::broker
