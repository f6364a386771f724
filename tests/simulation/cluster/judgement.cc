// What must hold in quiet times, and at the end.
#include <algorithm>
#include <set>
#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/replicated_broker.h"
#include "tests/simulation/cluster/world.h"

namespace sluice::cluster_simulation {

using broker::FetchOutcome;
using broker::ListOffsetsItem;
using broker::ListOffsetsOutcome;
using broker::Result;
using broker::TopicInfo;

namespace {

/// How long a world without faults may take for each thing that it must do.
constexpr absl::Duration kSoon = absl::Seconds(100);

}  // namespace

bool World::AllServe() const {
  return std::all_of(nodes_.begin(), nodes_.end(),
                     [](const auto& node) { return node.second->serving() && !node.second->stopping(); });
}

void World::MustWork() {
  if (!RunUntil([&] { return AllServe(); }, kSoon) && !failed()) {
    std::string who;
    for (const auto& [id, node] : nodes_) who += Cat(" ", node->Describe(), ";");
    return context_.history.Fail(Rule::kLiveness, Cat("not all nodes serve:", who));
  }
  if (nodes_.size() == 1) MustChangeTopics();
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
  const absl::Duration end = context_.scheduler.now() + kSoon;
  while (!failed() && context_.scheduler.now() < end) {
    const auto made = Await<bool>(
        [&](auto done) { operator_.Create(1 + static_cast<int32_t>(context_.random().Below(3)), std::move(done)); });
    if (made.value_or(false)) {
      const std::vector<PartitionKey> all = site_.Partitions();
      if (all.size() <= 6 || !AllServe()) return;
      const std::string name = all[context_.random().Below(all.size())].topic;
      Await<bool>([&](auto done) { operator_.Delete(name, std::move(done)); });
      return;
    }
    RunFor(absl::Milliseconds(100));
  }
  if (!failed()) context_.history.Fail(Rule::kLiveness, "no topic can be made");
}

// ---- Comparing

void World::CheckTopics() {
  for (const auto& [id, node] : nodes_) {
    std::string wrong = "no answer";
    const auto agrees = [&] {
      const auto listed = Await<Answer<Result<std::vector<TopicInfo>>>>([&, to = id](auto done) {
        wire_.Call<Result<std::vector<TopicInfo>>>(
            to, nullptr, std::nullopt, [](Node& at, auto reply) { at.broker().ListTopics(false, std::move(reply)); },
            std::move(done));
      });
      if (!listed || listed->fate != Fate::kAnswered || !listed->value->ok()) return false;
      std::map<std::string, int32_t> there;
      for (const TopicInfo& topic : **listed->value) there[topic.name] = topic.partitions;
      for (const auto& [name, topic] : site_.topics) {
        const bool must = topic.usable();
        const bool may = topic.state != Topic::State::kGone;
        const auto at = there.find(name);
        if (at == there.end() ? must : !may) {
          wrong = Cat(name, at == there.end() ? " is missing" : " is there");
          return false;
        }
        if (at != there.end() && (at->second < topic.partitions || at->second > topic.partitions_max)) {
          wrong = Cat(name, " has ", at->second, " partitions instead of ", topic.partitions);
          return false;
        }
        there.erase(name);
      }
      if (!there.empty()) wrong = Cat(there.begin()->first, " was never made");
      return there.empty();
    };
    const absl::Duration end = context_.scheduler.now() + kSoon;
    while (!failed() && !agrees()) {
      if (context_.scheduler.now() > end) {
        return context_.history.Fail(Rule::kTopicsAsAnswered, Cat("as node ", id, " has it, ", wrong));
      }
      RunFor(absl::Milliseconds(100));
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
  const absl::Duration end = context_.scheduler.now() + kSoon;
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
      at = outcome.next_offset;
    }
  }
  if (!failed()) context_.history.CheckComplete(key, log_start, log_end);
  if (!failed() && nodes_.size() > 1) CompareReplicas(key, log_start, log_end);
}

void World::CompareReplicas(const PartitionKey& key, Offset log_start, Offset log_end) {
  const ReplicaId replica = ReplicatedGroup(key.partition);
  for (const auto& [id, node] : nodes_) {
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
  if (nodes_.size() == 1) CheckTopics();
  for (const PartitionKey& key : site_.Partitions()) {
    if (failed()) return;
    CheckPartition(key);
  }
}

}  // namespace sluice::cluster_simulation
