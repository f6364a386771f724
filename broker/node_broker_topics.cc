// What is asked of topics, at the controller's home.
#include "broker/node_broker_impl.h"

namespace sluice::broker {

namespace {

constexpr absl::Duration kForwardDeadline = absl::Seconds(15);
constexpr absl::Duration kLeadersWaitMax = absl::Seconds(5);
constexpr absl::Duration kLeadersAskEvery = absl::Milliseconds(20);

}  // namespace

void NodeBroker::CreateTopic(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done), [this, spec = std::move(spec)](Callback<Result<TopicInfo>> answer) mutable {
    topics_.Apply(std::move(spec), [this, answer = std::move(answer)](Result<TopicInfo> made) mutable {
      if (!made.ok()) return answer(std::move(made));
      AwaitLeaders(*std::move(made), seams_.clock.Monotonic() + kLeadersWaitMax, std::move(answer));
    });
  });
}

// Who makes a topic wants to use it: not before its partitions can be.
void NodeBroker::AwaitLeaders(TopicInfo topic, absl::Duration deadline, Callback<Result<TopicInfo>> done) {
  ListPartitionsSpec spec{.topic = topic.name};
  CollectPartitions(std::move(spec), [this, topic = std::move(topic), deadline,
                                      done = std::move(done)](const std::vector<PartitionStatus>& partitions) mutable {
    const bool led = std::none_of(partitions.begin(), partitions.end(), IsLeaderless);
    if (led || seams_.clock.Monotonic() >= deadline) return done(std::move(topic));
    home().PostAfter(kLeadersAskEvery, [this, topic = std::move(topic), deadline, done = std::move(done)]() mutable {
      AwaitLeaders(std::move(topic), deadline, std::move(done));
    });
  });
}

void NodeBroker::AlterTopic(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done), [this, spec = std::move(spec)](Callback<Result<TopicInfo>> answer) mutable {
    topics_.Apply(std::move(spec), std::move(answer));
  });
}

void NodeBroker::AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done),
                    [this, name = std::move(name), partitions](Callback<Result<TopicInfo>> answer) mutable {
                      topics_.Apply(AddPartitionsSpec{.name = std::move(name), .partitions = partitions},
                                    [this, answer = std::move(answer)](Result<TopicInfo> widened) mutable {
                                      if (!widened.ok()) return answer(std::move(widened));
                                      AwaitLeaders(*std::move(widened), absl::ZeroDuration(), std::move(answer));
                                    });
                    });
}

void NodeBroker::DeleteTopic(std::string name, Callback<Result<Done>> done) {
  AtHome<Done>(std::move(done), [this, name = std::move(name)](Callback<Result<Done>> answer) mutable {
    topics_.Apply(DeleteTopicSpec{.name = std::move(name)},
                  [answer = std::move(answer)](Result<TopicInfo> deleted) mutable {
                    if (!deleted.ok()) return answer(std::move(deleted).error());
                    answer(Done{});
                  });
  });
}

void NodeBroker::ForwardChange(NodeId to, const TopicChange& change, Callback<Result<TopicChanged>> done) {
  const std::string name = NameOf(change).substr(0, 249);
  AskNode(
      to, kTopicChangeCall, EncodeTopicChange(change), kForwardDeadline, DecodeTopicChanged,
      [name, to, done = std::move(done)](absl::StatusOr<Result<TopicChanged>> changed) mutable {
        if (changed.ok()) return done(*std::move(changed));
        // What was refused before it was handled changed nothing; of the rest nobody knows.
        const absl::Status failed = changed.status();
        const bool refused = absl::IsNotFound(failed) || absl::IsFailedPrecondition(failed);
        done(MakeError(
            refused ? Reason::kNotLeader : Reason::kOutcomeUnknown,
            Cat("the change was passed on to node ", to, ", which leads the controller: ", failed.ToString()), name));
      });
}

void NodeBroker::ListTopics(bool internal, Callback<Result<std::vector<TopicInfo>>> done) {
  AtHome<std::vector<TopicInfo>>(std::move(done), [this, internal](Callback<Result<std::vector<TopicInfo>>> answer) {
    std::vector<TopicInfo> topics;
    const auto catalog = catalog_.Load();
    for (const auto& [name, topic] : catalog->topics) {
      if (internal || !IsInternalTopic(name)) topics.push_back(topic->info);
    }
    answer(std::move(topics));
  });
}

void NodeBroker::DescribeTopic(std::string name, Callback<Result<TopicDescription>> done) {
  AtHome<TopicDescription>(
      std::move(done), [this, name = std::move(name)](Callback<Result<TopicDescription>> answer) mutable {
        const auto catalog = catalog_.Load();
        const CatalogTopic* topic = catalog->Find(name);
        if (topic == nullptr) {
          const std::string shown = name.substr(0, 249);
          return answer(MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", shown, "\""), shown));
        }
        TopicDescription description{.topic = topic->info, .partitions = {}};
        CollectPartitions({.topic = name}, [description = std::move(description), answer = std::move(answer)](
                                               std::vector<PartitionStatus> partitions) mutable {
          for (PartitionStatus& status : partitions) {
            PartitionInfo info{.partition = status.partition,
                               .leader_node = status.leader_node,
                               .leader = std::move(status.leader),
                               .leader_epoch = status.leader_epoch,
                               .replica_nodes = {},
                               .log_start = status.log_start,
                               .high_watermark = status.high_watermark,
                               .size_bytes = status.size_bytes,
                               .error = std::move(status.error)};
            for (const ReplicaStatus& replica : status.replicas) info.replica_nodes.push_back(replica.node);
            description.partitions.push_back(std::move(info));
          }
          answer(std::move(description));
        });
      });
}

}  // namespace sluice::broker
