// A Broker that answers everything at once with next to nothing; tests override what they are about. Included by tests
// only.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "broker/api.h"

namespace sluice::broker::rpc {

class StubBroker : public Broker {
 public:
  std::shared_ptr<ProduceSession> NewSession() override {
    struct Session final : ProduceSession {};
    return std::make_shared<Session>();
  }
  void Produce(ProduceItem, const std::shared_ptr<ProduceSession>&, Callback<ProduceOutcome> done) override {
    done(Ack());
  }
  static ProduceAck Ack() {
    return {.base_offset = Offset(0), .next_offset = Offset(1), .leader_epoch = LeaderEpoch(1)};
  }

  bool IsServing() const override { return true; }
  void Start(Callback<absl::Status> done) override { done(absl::OkStatus()); }
  void Stop(Callback<Done> done) override { done({}); }
  FetchHandle Fetch(FetchSpec, Callback<std::vector<FetchOutcome>>) override { return nullptr; }
  void ListOffsets(std::vector<ListOffsetsItem>, Callback<std::vector<ListOffsetsOutcome>> done) override { done({}); }
  void DeleteRecords(std::vector<DeleteRecordsItem>, Callback<std::vector<DeleteRecordsOutcome>> done) override {
    done({});
  }
  void CreateTopic(CreateTopicSpec, Callback<Result<TopicInfo>> done) override { done(TopicInfo()); }
  void ListTopics(bool, Callback<Result<std::vector<TopicInfo>>> done) override { done(std::vector<TopicInfo>()); }
  void DescribeTopic(std::string, Callback<Result<TopicDescription>> done) override { done(TopicDescription()); }
  void AlterTopic(AlterTopicSpec, Callback<Result<TopicInfo>> done) override { done(TopicInfo()); }
  void AddPartitions(std::string, int32_t, Callback<Result<TopicInfo>> done) override { done(TopicInfo()); }
  void DeleteTopic(std::string, Callback<Result<Done>> done) override { done(Done()); }
  void DescribeCluster(Callback<Result<ClusterInfo>> done) override { done(ClusterInfo()); }
  void ListPartitions(ListPartitionsSpec, Callback<Result<std::vector<PartitionStatus>>> done) override {
    done(std::vector<PartitionStatus>());
  }
  void ElectLeader(ElectLeaderSpec, Callback<Result<ElectedLeader>> done) override { done(ElectedLeader()); }
  void Stats(Callback<BrokerStats> done) override { done(BrokerStats()); }
};

}  // namespace sluice::broker::rpc
