// What must hold in quiet times, and at the end.
#include <algorithm>
#include <set>
#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/world.h"

namespace sluice::cluster_simulation {

using broker::ClusterInfo;
using broker::FetchOutcome;
using broker::ListOffsetsItem;
using broker::ListOffsetsOutcome;
using broker::NodeInfo;
using broker::PartitionStatus;
using broker::TopicInfo;

namespace {

/// How long a world without faults may take for each thing that it must do.
constexpr absl::Duration kSoon = absl::Seconds(100);

}  // namespace

template <class Wrong>
void World::MustBecome(Rule rule, const Wrong& wrong) {
  const absl::Duration end = context_.scheduler.now() + kSoon;
  while (!failed()) {
    const std::string what = wrong();
    if (what.empty() || failed()) return;
    if (context_.scheduler.now() > end) return context_.history.Fail(rule, what);
    RunFor(absl::Milliseconds(100));
  }
}

bool World::AllReady() const {
  const auto is_ready = [](const auto& each) {
    const Node& node = *each.second;
    return node.gone() || (node.ready() && !node.stopping() && !node.lost_disk());
  };
  const auto there = std::count_if(nodes_.begin(), nodes_.end(), [](const auto& each) { return !each.second->gone(); });
  // For a node that is gone another one comes.
  return std::all_of(nodes_.begin(), nodes_.end(), is_ready) && there + (disk_lost_ ? 1 : 0) == std::ssize(nodes_);
}

void World::MustWork() {
  if (!RunUntil([&] { return AllReady(); }, kSoon) && !failed()) {
    std::string who;
    for (const auto& [id, node] : nodes_) who += Cat(" ", node->Describe(), ";");
    return context_.history.Fail(Rule::kLiveness, Cat("not all nodes are ready:", who));
  }
  CheckCluster();
  for (const auto& [id, node] : nodes_) {
    if (!node->gone()) known_.insert(id);
  }
  site_.settled = !failed();
  MustChangeTopics();
  for (const PartitionKey& key : site_.Partitions()) {
    if (failed()) return;
    MustTakeValue(key);
  }
}

void World::MustTakeValue(const PartitionKey& key) {
  const absl::Duration end = context_.scheduler.now() + kSoon;
  std::string last = "nothing was answered";
  // A topic may be deleted meanwhile: its clients go on.
  while (!failed() && context_.scheduler.now() < end && site_.topics.at(key.topic).usable()) {
    const auto result = Await<SendResult>([&](auto done) { probe_.Send(key, std::move(done)); });
    if (failed() || !result || result->kind == SendResult::Kind::kDone) return;
    last = std::string(broker::ReasonName(result->reason));
    RunFor(absl::Milliseconds(100));
  }
  if (!failed() && site_.topics.at(key.topic).usable()) {
    context_.history.Fail(Rule::kLiveness, Cat(key.ToString(), " takes no values: ", last));
  }
}

void World::MustChangeTopics() {
  // Where there are racks, also fewer than there are nodes, so that they have to be chosen.
  const int32_t replicas =
      context_.plan.racks.empty() || site_.CountedOn().size() < 2 ? 0 : OneOf<int32_t>(context_.random(), {0, 2});
  const absl::Duration end = context_.scheduler.now() + kSoon;
  while (!failed() && context_.scheduler.now() < end) {
    const auto made = Await<bool>([&](auto done) {
      operator_.Create(1 + static_cast<int32_t>(context_.random().Below(3)), replicas, std::move(done));
    });
    if (made.value_or(false)) {
      const std::vector<PartitionKey> all = site_.Partitions();
      if (all.size() <= 6 || !AllReady()) return;
      const std::string name = all[context_.random().Below(all.size())].topic;
      Await<bool>([&](auto done) { operator_.Delete(name, std::move(done)); });
      return;
    }
    RunFor(absl::Milliseconds(100));
  }
  if (!failed()) context_.history.Fail(Rule::kLiveness, "no topic can be made");
}

// ---- Comparing

std::string World::WrongInCluster(NodeId asked) {
  const auto answer =
      Await<std::optional<ClusterInfo>>([&](auto done) { site_.DescribeCluster(asked, std::move(done)); });
  const std::optional<ClusterInfo> cluster = answer.value_or(std::nullopt);
  if (!cluster) return Cat("node ", asked, " does not describe the cluster");
  size_t voters = 0;
  size_t known = 0;
  for (const NodeInfo& node : cluster->nodes) {
    voters += node.controller_voter ? 1 : 0;
    const auto at = nodes_.find(node.id);
    if (at == nodes_.end()) return Cat("node ", asked, " knows a node ", node.id, ", and there is none");
    ++known;
    const Place& place = at->second->place();
    if (!at->second->gone() && (node.peer_address != place.peer() || node.address != place.client())) {
      return Cat("node ", asked, " takes node ", node.id, " to be at ", node.peer_address, " and ", node.address);
    }
    if (node.id != asked && !at->second->gone() && !nodes_.at(asked)->Finds(node.id)) {
      return Cat("node ", asked, " sends to node ", node.id, " where it is not");
    }
    if (node.alive == at->second->gone() || node.fenced == node.alive) {
      return Cat("node ", asked, " takes node ", node.id, node.alive ? " for alive" : " for dead");
    }
  }
  if (known != nodes_.size()) return Cat("node ", asked, " knows ", known, " of ", nodes_.size(), " nodes");
  const size_t most = std::min<size_t>(known, 5);
  const size_t wanted = most - (most % 2 == 0 ? 1 : 0);
  if (voters != wanted) return Cat("of ", known, " nodes ", voters, " vote in group 0, as node ", asked, " has it");
  const std::string wrong = WrongInMembers(asked, *cluster);
  if (!wrong.empty()) return wrong;
  if (!nodes_.contains(cluster->controller_node)) return Cat("node ", asked, " knows no leader of the controller");
  return {};
}

void World::CheckCluster() {
  for (const auto& [id, node] : nodes_) {
    if (failed()) return;
    if (node->gone()) continue;
    MustBecome(Rule::kClusterAsItIs, [this, asked = id] { return WrongInCluster(asked); });
  }
}

std::string World::WrongInTopics(NodeId asked) {
  const auto listed = AskNode<std::vector<TopicInfo>>(
      asked, [](Node& at, auto reply) { at.broker().ListTopics(false, std::move(reply)); });
  if (!listed) return Cat("node ", asked, " lists no topics");
  std::map<std::string, int32_t> there;
  for (const TopicInfo& topic : *listed) there[topic.name] = topic.partitions;
  for (const auto& [name, topic] : site_.topics) {
    const bool must = topic.usable();
    const bool may = topic.state != Topic::State::kGone;
    const auto at = there.find(name);
    if (at == there.end() ? must : !may) {
      return Cat("as node ", asked, " has it, ", name, at == there.end() ? " is missing" : " is there");
    }
    if (at == there.end()) continue;
    if (at->second < topic.partitions || at->second > topic.partitions_max) {
      return Cat("as node ", asked, " has it, ", name, " has ", at->second, " partitions instead of ",
                 topic.partitions);
    }
    there.erase(at);
  }
  return there.empty() ? std::string() : Cat("node ", asked, " has ", there.begin()->first, ", which was never made");
}

void World::CheckTopics() {
  for (const auto& [id, node] : nodes_) {
    if (failed()) return;
    if (node->gone()) continue;
    MustBecome(Rule::kTopicsAsAnswered, [this, asked = id] { return WrongInTopics(asked); });
  }
}

std::optional<std::map<ReplicaId, Placed>> World::Placement(NodeId asked) {
  const auto topics = AskNode<std::vector<TopicInfo>>(
      asked, [](Node& at, auto reply) { at.broker().ListTopics(true, std::move(reply)); });
  const auto partitions = AskNode<std::vector<PartitionStatus>>(
      asked, [](Node& at, auto reply) { at.broker().ListPartitions({}, std::move(reply)); });
  if (!topics || !partitions) return std::nullopt;
  std::map<std::string, TopicId> ids;
  for (const TopicInfo& topic : *topics) ids[topic.name] = topic.id;
  std::map<ReplicaId, Placed> placed;
  for (const PartitionStatus& status : *partitions) {
    Placed& one = placed[{ids[status.topic], status.partition}];
    one.key = {status.topic, status.partition.value()};
    for (const broker::ReplicaStatus& replica : status.replicas) one.nodes.push_back(replica.node);
  }
  return placed;
}

// What was deleted is gone from every disk, what was placed is there.
void World::CheckPlacement() {
  for (const auto& [id, node] : nodes_) {
    if (failed()) return;
    if (node->gone()) continue;
    MustBecome(Rule::kReplicasAsPlaced, [this, asked = id, &there = *node]() -> std::string {
      const auto all = Placement(asked);
      if (!all || !there.serving()) return Cat("node ", asked, " does not say where replicas are");
      std::set<ReplicaId> wanted = {broker::kControllerReplica};
      for (const auto& [replica, placed] : *all) {
        placed_[placed.key] = {replica, placed.nodes};
        if (std::count(placed.nodes.begin(), placed.nodes.end(), asked) > 0) wanted.insert(replica);
      }
      for (const ReplicaId& replica : there.Replicas()) {
        if (wanted.erase(replica) == 0) return Cat("node ", asked, " has a replica ", replica, " of no topic");
      }
      return wanted.empty() ? std::string() : Cat("node ", asked, " has no replica ", *wanted.begin());
    });
  }
}

// Of partitions that were placed when everybody was there: no rack has two more than one that could have had another.
void World::CheckRacks() {
  if (context_.plan.racks.empty()) return;
  for (const auto& [key, replica_and_nodes] : placed_) {
    const std::vector<NodeId>& nodes = replica_and_nodes.second;
    const auto& placed_among = site_.topics.at(key.topic).placed_among;
    const auto among = placed_among.find(key.partition);
    if (among == placed_among.end() || nodes.size() < 2) continue;
    std::map<std::string, std::pair<int, int>> racks;  // how many are used, and how many there were
    for (const NodeId id : among->second) ++racks[nodes_.at(id)->rack()].second;
    for (const NodeId id : nodes) ++racks[nodes_.at(id)->rack()].first;
    if (nodes.size() < among->second.size()) {
      context_.hits.Add(nodes.size() > racks.size() ? Hit::kMoreThanRacks : Hit::kSpreadOverRacks);
    }
    for (const auto& [most, most_of] : racks) {
      for (const auto& [least, least_of] : racks) {
        if (most_of.first < least_of.first + 2 || least_of.first == least_of.second) continue;
        return context_.history.Fail(
            Rule::kRacksSpread, Cat(key.ToString(), " has ", most_of.first, " replicas in rack \"", most, "\" and ",
                                    least_of.first, " in \"", least, "\", which had ", least_of.second, " nodes"));
      }
    }
  }
}

Offset World::AskOffset(const PartitionKey& key, ListOffsetsItem::Kind kind) {
  const absl::Duration end = context_.scheduler.now() + kSoon;
  const Offset end_then = context_.history.AcknowledgedEnd(key);
  const Offset start_then = context_.history.LogStartKnown(key);
  while (!failed() && context_.scheduler.now() < end) {
    const auto answer = Await<Answer<std::vector<ListOffsetsOutcome>>>([&](auto done) {
      wire_.Call<std::vector<ListOffsetsOutcome>>(
          beliefs_.Leader(key), nullptr, std::nullopt,
          [&key, kind](Node& at, auto reply) {
            at.broker().ListOffsets({{.topic = key.topic, .partition = PartitionId(key.partition), .kind = kind}},
                                    std::move(reply));
          },
          std::move(done));
    });
    if (answer && answer->fate == Fate::kAnswered && !answer->value->front().error) {
      const Offset offset = answer->value->front().offset;
      if (kind == ListOffsetsItem::Kind::kLatest) {
        context_.history.OnEndAnswered(key, offset, end_then);
      } else {
        context_.history.OnStartAnswered(key, offset, start_then);
      }
      return offset;
    }
    if (answer && answer->fate == Fate::kAnswered) {
      beliefs_.Learn(key, *answer->value->front().error);
    } else {
      beliefs_.Forget(key);
    }
    RunFor(absl::Milliseconds(100));
  }
  context_.history.Fail(Rule::kLiveness, Cat(key.ToString(), " does not say where it begins and ends"));
  return Offset(0);
}

void World::CheckPartition(const PartitionKey& key) {
  const Offset log_start = AskOffset(key, ListOffsetsItem::Kind::kEarliest);
  const Offset log_end = AskOffset(key, ListOffsetsItem::Kind::kLatest);
  // For each step: a long log is read in many, by a client that may be far away.
  absl::Duration end = context_.scheduler.now() + kSoon;
  Offset at = log_start;
  while (!failed() && at < log_end) {
    if (context_.scheduler.now() > end) {
      return context_.history.Fail(Rule::kLiveness, Cat(key.ToString(), " cannot be read at ", at));
    }
    const NodeId node = beliefs_.Leader(key);
    const auto answer = Await<Answer<std::vector<FetchOutcome>>>([&](auto done) {
      broker::FetchSpec spec;
      spec.items.push_back({.topic = key.topic, .partition = PartitionId(key.partition), .offset = at});
      wire_.Call<std::vector<FetchOutcome>>(
          node, nullptr, std::nullopt,
          [spec = std::move(spec)](Node& there, auto reply) mutable {
            there.broker().Fetch(std::move(spec), std::move(reply));
          },
          std::move(done));
    });
    if (!answer || answer->fate != Fate::kAnswered) {
      beliefs_.Forget(key);
    } else if (const FetchOutcome& outcome = answer->value->front(); outcome.error) {
      context_.trace.Say([&] { return Cat(key.ToString(), " at ", at, ": ", outcome.error->message); });
      beliefs_.Learn(key, *outcome.error);
      RunFor(absl::Milliseconds(50));
    } else {
      CheckFetched(site_, key, at, outcome, node);
      if (outcome.next_offset > at) end = context_.scheduler.now() + kSoon;
      at = outcome.next_offset;
    }
  }
  if (!failed()) context_.history.CheckComplete(key, log_start, log_end);
  if (failed()) return;
  const auto& [replica, nodes] = placed_[key];
  if (nodes.size() > 1) CompareReplicas(key, replica, nodes, log_start, log_end);
}

void World::CompareReplicas(const PartitionKey& key, const ReplicaId& replica, const std::vector<NodeId>& nodes,
                            Offset log_start, Offset log_end) {
  for (const NodeId id : nodes) {
    Node* const node = nodes_.at(id).get();
    if (node->gone()) continue;
    const absl::Duration end = context_.scheduler.now() + kSoon;
    Offset at = log_start;
    while (!failed() && at < log_end) {
      const auto read = Await<absl::StatusOr<replication::ReadResult>>(
          [&, &there = *node](auto done) { there.ReadReplica(replica, at, std::move(done)); });
      const bool some = read && read->ok() && !(*read)->batches.empty();
      if (some) {
        for (const record::Batch& batch : (*read)->batches) context_.history.OnSeen(key, batch);
        at = (*read)->next_offset;
      } else if (context_.scheduler.now() > end) {
        return context_.history.Fail(
            Rule::kReplicasEqual,
            Cat("the replica of ", key.ToString(), " on node ", id, " has not got ", at, " of ", log_start, " to ",
                log_end, ": ", read ? read->status().ToString() : std::string("no answer")));
      } else {
        RunFor(absl::Milliseconds(50));
      }
    }
  }
}

void World::CompareEverything() {
  if (failed()) return;
  CheckCluster();
  CheckTopics();
  CheckPlacement();
  CheckRacks();
  for (const PartitionKey& key : site_.Partitions()) {
    if (failed()) return;
    CheckPartition(key);
  }
}

}  // namespace sluice::cluster_simulation
