// What is asked of topics, at the controller's home.
#include "broker/node_broker_impl.h"

namespace sluice::broker {

void NodeBroker::CreateTopic(CreateTopicSpec spec, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done), [this, spec = std::move(spec)](Callback<Result<TopicInfo>> answer) mutable {
    topics_.Create(std::move(spec), std::move(answer));
  });
}

void NodeBroker::AlterTopic(AlterTopicSpec spec, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done), [this, spec = std::move(spec)](Callback<Result<TopicInfo>> answer) mutable {
    topics_.Alter(std::move(spec), std::move(answer));
  });
}

void NodeBroker::AddPartitions(std::string name, int32_t partitions, Callback<Result<TopicInfo>> done) {
  AtHome<TopicInfo>(std::move(done),
                    [this, name = std::move(name), partitions](Callback<Result<TopicInfo>> answer) mutable {
                      topics_.AddPartitions(std::move(name), partitions, std::move(answer));
                    });
}

void NodeBroker::DeleteTopic(std::string name, Callback<Result<Done>> done) {
  AtHome<Done>(std::move(done), [this, name = std::move(name)](Callback<Result<Done>> answer) mutable {
    topics_.Delete(std::move(name), std::move(answer));
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
        auto all = std::make_shared<Gather<PartitionInfo>>(
            topic->partitions.size(),
            [info = topic->info, answer = std::move(answer)](std::vector<PartitionInfo> partitions) mutable {
              answer(TopicDescription{.topic = std::move(info), .partitions = std::move(partitions)});
            });
        for (size_t i = 0; i < topic->partitions.size(); ++i) {
          const auto& partition = topic->partitions[i];
          partition->shard().Post([partition, all, i] { all->Set(i, partition->info()); });
        }
      });
}

}  // namespace sluice::broker
