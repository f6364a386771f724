// Operators: topics made, deleted, widened and altered, and records deleted.
#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/clients.h"

namespace sluice::cluster_simulation {

using broker::Reason;
using broker::Result;
using broker::TopicInfo;

namespace {

constexpr size_t kTopicsMax = 4;
constexpr int32_t kPartitionsMax = 5;

}  // namespace

void Operator::Begin() {
  const absl::Duration pause = site_.context.plan.admin_interval;
  site_.context.scheduler.At(Between(site_.context.random(), 0.1 * pause, 1.9 * pause), [this] {
    if (site_.clients_act) Act();
    Begin();
  });
}

std::optional<std::string> Operator::AnyTopic() const {
  const auto key = site_.AnyPartition();
  if (!key) return std::nullopt;
  return key->topic;
}

void Operator::Act() {
  SimRandom& random = site_.context.random();
  if (random.OneIn(8)) return LookAtCluster();
  const auto name = AnyTopic();
  size_t there = 0;
  for (const auto& [topic_name, topic] : site_.topics) there += topic.state != Topic::State::kGone ? 1 : 0;
  if (!name || (there < kTopicsMax && random.OneIn(4))) {
    if (there < 2 * kTopicsMax) Create(1 + static_cast<int32_t>(random.Below(3)), AnyReplicas(), [](bool) {});
    return;
  }
  switch (random.Below(8)) {
    case 0:
      return Delete(*name, [](bool) {});
    case 1:
      return AddPartition(*name);
    case 2:
      return Alter(*name);
    case 3:
      return ElectLeader(*site_.AnyPartition());
    default:
      return DeleteRecords(*site_.AnyPartition());
  }
}

// Where a disk will be lost, nothing may have been on that disk alone, nor where a second one could be missed.
int32_t Operator::AnyReplicas() const {
  if (site_.context.plan.loses_disk) return 3;
  return OneOf<int32_t>(site_.context.random(), {0, 0, 0, 1, 2, 3, 5});
}

void Operator::OnChanged(NodeId asked) {
  if (controller_ != NodeId(0) && asked != controller_) site_.context.hits.Add(Hit::kTopicChangeElsewhere);
}

void Operator::LookAtCluster() {
  ++site_.calls_under_way;
  site_.DescribeCluster(site_.AnyNode(), [this](std::optional<broker::ClusterInfo> cluster) {
    --site_.calls_under_way;
    if (!cluster) return;
    for (const broker::NodeInfo& node : cluster->nodes) {
      if (node.fenced) site_.context.hits.Add(Hit::kNodeFenced);
    }
    if (cluster->controller_node == NodeId(0) || cluster->controller_node == controller_) return;
    if (controller_ != NodeId(0)) site_.context.hits.Add(Hit::kControllerMoved);
    controller_ = cluster->controller_node;
  });
}

void Operator::ElectLeader(const PartitionKey& key) {
  const NodeId to = site_.AnyNode();
  ++site_.calls_under_way;
  site_.wire.Call<Result<broker::ElectedLeader>>(
      site_.AnyNode(), nullptr, std::nullopt,
      [key, to](Node& at, auto reply) {
        at.broker().ElectLeader({.topic = key.topic, .partition = PartitionId(key.partition), .node = to},
                                std::move(reply));
      },
      [this](Answer<Result<broker::ElectedLeader>> answer) {
        --site_.calls_under_way;
        if (answer.fate == Fate::kAnswered && answer.value->ok()) site_.context.hits.Add(Hit::kLeaderElected);
      });
}

void Operator::Create(int32_t partitions, int32_t replicas, absl::AnyInvocable<void(bool)> done) {
  if (site_.context.plan.loses_disk) replicas = 3;
  const NodeId asked = site_.AnyNode();
  const std::string name = Cat("topic-", ++topics_made_);
  Topic& topic = site_.topics[name];
  topic.partitions = topic.partitions_max = partitions;
  site_.context.trace.Say([&] {
    return Cat("create ", name, " with ", partitions, " partitions of ", replicas, " replicas at node ", asked);
  });
  ++site_.calls_under_way;
  site_.wire.Call<Result<TopicInfo>>(
      asked, nullptr, std::nullopt,
      [name, partitions, replicas](Node& at, auto reply) {
        at.broker().CreateTopic({.name = name, .partitions = partitions, .replicas = replicas}, std::move(reply));
      },
      [this, name, asked, &topic, among = site_.CountedOn(),
       done = std::move(done)](Answer<Result<TopicInfo>> answer) mutable {
        --site_.calls_under_way;
        const bool answered = answer.fate == Fate::kAnswered;
        if (answered && answer.value->ok()) {
          if (among == site_.CountedOn() && !among.empty()) {
            for (int32_t i = 0; i < topic.partitions; ++i) topic.placed_among[i] = among;
          }
          OnChanged(asked);
          topic.state = Topic::State::kThere;
        } else if (answer.fate == Fate::kUnknown ||
                   (answered && answer.value->error().reason == Reason::kOutcomeUnknown)) {
          topic.state = Topic::State::kMaybe;
        } else {
          topic.state = Topic::State::kGone;
        }
        if (answered && !answer.value->ok() && answer.value->error().reason == Reason::kTopicExists) {
          site_.context.history.Fail(Rule::kTopicsAsAnswered, Cat(name, " was never made, and is said to exist"));
        }
        site_.context.trace.Say([&] {
          return Cat(name, !answered            ? std::string(" has no answer")
                           : answer.value->ok() ? std::string(" is there")
                                                : Cat(" is refused: ", answer.value->error().message));
        });
        done(topic.state == Topic::State::kThere);
      });
}

void Operator::Delete(const std::string& name, absl::AnyInvocable<void(bool)> done) {
  Topic& topic = site_.topics.at(name);
  const bool sure = topic.usable();
  topic.state = Topic::State::kGoing;
  site_.context.trace.Say([&] { return Cat("delete ", name); });
  ++site_.calls_under_way;
  site_.wire.Call<Result<broker::Done>>(
      site_.AnyNode(), nullptr, std::nullopt,
      [name](Node& at, auto reply) { at.broker().DeleteTopic(name, std::move(reply)); },
      [this, name, &topic, sure, done = std::move(done)](Answer<Result<broker::Done>> answer) mutable {
        --site_.calls_under_way;
        const bool answered = answer.fate == Fate::kAnswered;
        topic.state = Topic::State::kThere;
        if (answered && answer.value->ok()) {
          topic.state = Topic::State::kGone;
          site_.context.hits.Add(Hit::kTopicDeleted);
        } else if (answer.fate == Fate::kUnknown ||
                   (answered && answer.value->error().reason == Reason::kOutcomeUnknown)) {
          topic.maybe_gone = true;
        } else if (answered && answer.value->error().reason == Reason::kUnknownTopic && sure) {
          site_.context.history.Fail(Rule::kTopicsAsAnswered, Cat(name, " is said not to exist"));
        }
        site_.context.trace.Say([&] {
          return Cat("deletion of ", name,
                     !answered            ? std::string(" has no answer")
                     : answer.value->ok() ? std::string(" is done")
                                          : Cat(" is refused: ", answer.value->error().message));
        });
        done(topic.state == Topic::State::kGone);
      });
}

void Operator::AddPartition(const std::string& name) {
  Topic& topic = site_.topics.at(name);
  if (topic.partitions_max != topic.partitions || topic.partitions >= kPartitionsMax) return;
  const int32_t wanted = ++topic.partitions_max;
  ++site_.calls_under_way;
  site_.wire.Call<Result<TopicInfo>>(
      site_.AnyNode(), nullptr, std::nullopt,
      [name, wanted](Node& at, auto reply) { at.broker().AddPartitions(name, wanted, std::move(reply)); },
      [this, name, wanted, &topic, among = site_.CountedOn()](Answer<Result<TopicInfo>> answer) {
        --site_.calls_under_way;
        if (answer.fate == Fate::kAnswered && answer.value->ok()) {
          site_.context.trace.Say([&] { return Cat(name, " has ", wanted, " partitions"); });
          site_.context.hits.Add(Hit::kPartitionsAdded);
          topic.partitions = wanted;
          if (among == site_.CountedOn() && !among.empty()) topic.placed_among[wanted - 1] = among;
        } else if (answer.fate == Fate::kNeverSent ||
                   (answer.fate == Fate::kAnswered && answer.value->error().reason != Reason::kOutcomeUnknown)) {
          topic.partitions_max = topic.partitions;
        }
      });
}

void Operator::Alter(const std::string& name) {
  broker::AlterTopicSpec spec{.name = name};
  if (site_.context.random().OneIn(2)) {
    spec.set["message.timestamp.type"] = site_.context.random().OneIn(2) ? "LogAppendTime" : "CreateTime";
  } else {
    spec.unset.push_back("message.timestamp.type");
  }
  ++site_.calls_under_way;
  site_.wire.Call<Result<TopicInfo>>(
      site_.AnyNode(), nullptr, std::nullopt,
      [spec = std::move(spec)](Node& at, auto reply) mutable {
        at.broker().AlterTopic(std::move(spec), std::move(reply));
      },
      [this](Answer<Result<TopicInfo>> answer) {
        --site_.calls_under_way;
        if (answer.fate == Fate::kAnswered && answer.value->ok()) site_.context.hits.Add(Hit::kTopicAltered);
      });
}

void Operator::DeleteRecords(const PartitionKey& key) {
  Context& context = site_.context;
  const Offset end = context.history.AcknowledgedEnd(key);
  const Offset before(static_cast<int64_t>(context.random().Below(static_cast<uint64_t>(end.value()) + 1)));
  context.history.OnDeleteAsked(key, before);
  const NodeId node = beliefs_.Leader(key);
  ++site_.calls_under_way;
  site_.wire.Call<std::vector<broker::DeleteRecordsOutcome>>(
      node, nullptr, std::nullopt,
      [key, before](Node& at, auto reply) {
        at.broker().DeleteRecords({{.topic = key.topic, .partition = PartitionId(key.partition), .before = before}},
                                  std::move(reply));
      },
      [this, key, before](Answer<std::vector<broker::DeleteRecordsOutcome>> answer) {
        --site_.calls_under_way;
        if (answer.fate != Fate::kAnswered) return beliefs_.Forget(key);
        const broker::DeleteRecordsOutcome& outcome = answer.value->front();
        if (outcome.error) return beliefs_.Learn(key, *outcome.error);
        site_.context.hits.Add(Hit::kRecordsDeleted);
        site_.context.trace.Say([&] { return Cat(key.ToString(), " begins at ", outcome.log_start); });
        site_.context.history.OnStartAnswered(key, outcome.log_start, before);
      });
}

}  // namespace sluice::cluster_simulation
