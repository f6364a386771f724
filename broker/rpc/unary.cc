// The rpcs of one small request and one small answer: ListOffsets, DeleteRecords, Topics, Cluster.
#include <functional>
#include <unordered_map>
#include <utility>

#include "broker/rpc/handlers.h"
#include "broker/topic_settings.h"
#include "common/text.h"
#include "sluice/v1/cluster.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::broker::rpc {
namespace {

// `Begin` asks the broker; what it is given as `call` takes the answer.
template <class Request>
class UnaryHandler final : public Handler {
 public:
  using Begin = void (*)(Services& services, Request request, std::shared_ptr<Call> call);
  UnaryHandler(Services& services, std::shared_ptr<Call> call, Begin begin)
      : services_(services), call_(std::move(call)), begin_(begin) {}

  void OnStart() override { call_->ReadNext(); }
  void OnReadsDone() override { call_->Fail(MakeError(Reason::kInvalidArgument, "the request has no message")); }
  void OnMessage(grpc::ByteBuffer message) override {
    Request request;
    if (!ParseSmall(&message, &request)) {
      return call_->Fail(
          MakeError(Reason::kInvalidArgument, "the request is not a " + request.GetTypeName() + " of at most 1 MiB"));
    }
    begin_(services_, std::move(request), call_);
  }
  void OnDrain() override {}  // what the broker was asked is answered soon
  void OnGone() override {}

 private:
  Services& services_;
  const std::shared_ptr<Call> call_;
  const Begin begin_;
};

TopicConfig FromProto(const google::protobuf::Map<std::string, std::string>& config) {
  return {config.begin(), config.end()};
}

void ToProto(const TopicInfo& topic, v1::Topic* out) {
  out->set_name(topic.name);
  out->set_id(std::string(topic.id.AsBytes()));
  out->set_partitions(topic.partitions);
  out->set_replicas(topic.replicas);
  for (const auto& [key, value] : topic.config) (*out->mutable_config())[key] = value;
  out->set_created_ms(topic.created_ms);
}

// Answers with a message that holds one topic, as four of the rpcs do.
template <class Response>
Callback<Result<TopicInfo>> AnswerTopic(std::shared_ptr<Call> call) {
  return [call = std::move(call)](Result<TopicInfo> topic) {
    if (!topic.ok()) return call->Fail(topic.error());
    Response response;
    ToProto(*topic, response.mutable_topic());
    call->Reply(Serialize(response));
  };
}

void CreateTopic(Services& services, v1::CreateTopicRequest request, std::shared_ptr<Call> call) {
  // There is no authentication yet that would tell Sluice's programs from others; their names do.
  if (request.internal() && IsInternalTopic(request.name()) && !IsProgramTopic(request.name())) {
    const std::string shown = request.name().substr(0, 249);
    Error error = MakeError(Reason::kInvalidArgument,
                            Cat("topic name \"", shown, "\": names that begin with \"__\" are the broker's own; with ",
                                "`internal` clients can make only __connect_state and __connect_runs"));
    error.topic = shown;
    return call->Fail(error);
  }
  CreateTopicSpec spec;
  spec.name = request.name();
  spec.partitions = request.partitions();
  spec.replicas = request.replicas();
  spec.config = FromProto(request.config());
  spec.internal = request.internal();
  services.broker.CreateTopic(std::move(spec), AnswerTopic<v1::CreateTopicResponse>(std::move(call)));
}

void ListTopics(Services& services, v1::ListTopicsRequest request, std::shared_ptr<Call> call) {
  services.broker.ListTopics(request.internal(), [call = std::move(call)](Result<std::vector<TopicInfo>> topics) {
    if (!topics.ok()) return call->Fail(topics.error());
    v1::ListTopicsResponse response;
    for (const TopicInfo& topic : *topics) ToProto(topic, response.add_topics());
    call->Reply(Serialize(response));
  });
}

void DescribeTopic(Services& services, v1::DescribeTopicRequest request, std::shared_ptr<Call> call) {
  services.broker.DescribeTopic(request.name(), [call = std::move(call)](Result<TopicDescription> description) {
    if (!description.ok()) return call->Fail(description.error());
    v1::DescribeTopicResponse response;
    ToProto(description->topic, response.mutable_topic());
    for (const PartitionInfo& partition : description->partitions) {
      v1::PartitionInfo& out = *response.add_partitions();
      out.set_partition(partition.partition.value());
      out.set_leader_node(partition.leader_node.value());
      out.set_leader(partition.leader);
      out.set_leader_epoch(partition.leader_epoch.value());
      for (const NodeId node : partition.replica_nodes) out.add_replica_nodes(node.value());
      out.set_log_start_offset(partition.log_start.value());
      out.set_high_watermark(partition.high_watermark.value());
      out.set_size_bytes(partition.size_bytes);
      if (partition.error) rpc::ToProto(*partition.error, out.mutable_error());
    }
    call->Reply(Serialize(response));
  });
}

void AlterTopic(Services& services, v1::AlterTopicRequest request, std::shared_ptr<Call> call) {
  AlterTopicSpec spec;
  spec.name = request.name();
  spec.set = FromProto(request.set());
  spec.unset = {request.unset().begin(), request.unset().end()};
  services.broker.AlterTopic(std::move(spec), AnswerTopic<v1::AlterTopicResponse>(std::move(call)));
}

void AddPartitions(Services& services, v1::AddPartitionsRequest request, std::shared_ptr<Call> call) {
  services.broker.AddPartitions(request.name(), request.partitions(),
                                AnswerTopic<v1::AddPartitionsResponse>(std::move(call)));
}

void DeleteTopic(Services& services, v1::DeleteTopicRequest request, std::shared_ptr<Call> call) {
  services.broker.DeleteTopic(request.name(), [call = std::move(call)](Result<Done> done) {
    if (!done.ok()) return call->Fail(done.error());
    call->Reply(Serialize(v1::DeleteTopicResponse()));
  });
}

void DescribeCluster(Services& services, v1::DescribeClusterRequest, std::shared_ptr<Call> call) {
  services.broker.DescribeCluster([call = std::move(call)](Result<ClusterInfo> cluster) {
    if (!cluster.ok()) return call->Fail(cluster.error());
    v1::DescribeClusterResponse response;
    response.set_cluster_id(cluster->cluster_id.ToString());
    response.set_cluster_name(cluster->cluster_name);
    response.set_controller_node(cluster->controller_node.value());
    response.set_topics(cluster->topics);
    response.set_partitions(cluster->partitions);
    response.set_under_replicated_partitions(cluster->under_replicated_partitions);
    response.set_leaderless_partitions(cluster->leaderless_partitions);
    response.set_offline_partitions(cluster->offline_partitions);
    response.set_feature_level(cluster->feature_level);
    for (const NodeInfo& node : cluster->nodes) {
      v1::Node& out = *response.add_nodes();
      out.set_id(node.id.value());
      out.set_address(node.address);
      out.set_rack(node.rack);
      out.set_version(node.version);
      out.set_started_ms(node.started_ms);
      out.set_disk_free_bytes(node.disk_free_bytes);
      out.set_disk_used_bytes(node.disk_used_bytes);
      out.set_alive(node.alive);
      out.set_fenced(node.fenced);
      out.set_draining(node.draining);
      out.set_feature_min(node.feature_min);
      out.set_feature_max(node.feature_max);
      out.set_peer_address(node.peer_address);
      out.set_controller_voter(node.controller_voter);
    }
    call->Reply(Serialize(response));
  });
}

void ToProto(const PartitionStatus& partition, v1::PartitionStatus* out) {
  out->set_topic(partition.topic);
  out->set_partition(partition.partition.value());
  out->set_leader_node(partition.leader_node.value());
  out->set_leader(partition.leader);
  out->set_leader_epoch(partition.leader_epoch.value());
  out->set_preferred_leader(partition.preferred_leader.value());
  for (const ReplicaStatus& replica : partition.replicas) {
    v1::ReplicaStatus& each = *out->add_replicas();
    each.set_node(replica.node.value());
    each.set_learner(replica.learner);
    each.set_in_sync(replica.in_sync);
    each.set_lag(replica.lag);
  }
  out->set_log_start_offset(partition.log_start.value());
  out->set_high_watermark(partition.high_watermark.value());
  out->set_size_bytes(partition.size_bytes);
  if (partition.error) rpc::ToProto(*partition.error, out->mutable_error());
}

void ListPartitions(Services& services, v1::ListPartitionsRequest request, std::shared_ptr<Call> call) {
  ListPartitionsSpec spec;
  spec.topic = request.topic();
  spec.node = NodeId(request.node());
  spec.under_replicated = request.under_replicated();
  spec.leaderless = request.leaderless();
  services.broker.ListPartitions(std::move(spec),
                                 [call = std::move(call)](Result<std::vector<PartitionStatus>> partitions) {
                                   if (!partitions.ok()) return call->Fail(partitions.error());
                                   v1::ListPartitionsResponse response;
                                   for (const PartitionStatus& each : *partitions) {
                                     ToProto(each, response.add_partitions());
                                   }
                                   call->Reply(Serialize(response));
                                 });
}

void ElectLeader(Services& services, v1::ElectLeaderRequest request, std::shared_ptr<Call> call) {
  if (request.partition() < 0 || request.node() < 0) {
    return call->Fail(
        MakeError(Reason::kInvalidArgument, Cat(request.node() < 0 ? "node" : "partition", ": must not be negative")));
  }
  services.broker.ElectLeader(
      {.topic = request.topic(), .partition = PartitionId(request.partition()), .node = NodeId(request.node())},
      [call = std::move(call)](Result<ElectedLeader> elected) {
        if (!elected.ok()) return call->Fail(elected.error());
        v1::ElectLeaderResponse response;
        response.set_leader_node(elected->leader_node.value());
        response.set_leader(elected->leader);
        response.set_leader_epoch(elected->leader_epoch.value());
        call->Reply(Serialize(response));
      });
}

void ListOffsets(Services& services, v1::ListOffsetsRequest request, std::shared_ptr<Call> call) {
  if (static_cast<size_t>(request.items_size()) > kItemsMax) {
    return call->Fail(MakeError(Reason::kInvalidArgument, "items: more than 10000"));
  }
  std::vector<ListOffsetsItem> items;
  for (const v1::ListOffsetsItem& item : request.items()) {
    if (!v1::ListOffsetsItem::Kind_IsValid(item.kind())) {
      return call->Fail(MakeError(Reason::kInvalidArgument, "kind: there is none of that number"));
    }
    items.push_back({item.topic(), PartitionId(item.partition()), static_cast<ListOffsetsItem::Kind>(item.kind()),
                     item.timestamp_ms()});
  }
  services.broker.ListOffsets(std::move(items),
                              [call = std::move(call)](const std::vector<ListOffsetsOutcome>& outcomes) {
                                v1::ListOffsetsResponse response;
                                for (const ListOffsetsOutcome& outcome : outcomes) {
                                  v1::ListOffsetsResult& out = *response.add_results();
                                  out.set_topic(outcome.topic);
                                  out.set_partition(outcome.partition.value());
                                  out.set_offset(outcome.offset.value());
                                  out.set_timestamp_ms(outcome.timestamp_ms);
                                  out.set_leader_epoch(outcome.leader_epoch.value());
                                  out.set_log_end_offset(outcome.log_end.value());
                                  if (outcome.error) rpc::ToProto(*outcome.error, out.mutable_error());
                                }
                                call->Reply(Serialize(response));
                              });
}

void DeleteRecords(Services& services, v1::DeleteRecordsRequest request, std::shared_ptr<Call> call) {
  if (static_cast<size_t>(request.items_size()) > kItemsMax) {
    return call->Fail(MakeError(Reason::kInvalidArgument, "items: more than 10000"));
  }
  std::vector<DeleteRecordsItem> items;
  for (const v1::DeleteRecordsItem& item : request.items()) {
    items.push_back({item.topic(), PartitionId(item.partition()), Offset(item.before_offset())});
  }
  services.broker.DeleteRecords(std::move(items),
                                [call = std::move(call)](const std::vector<DeleteRecordsOutcome>& outcomes) {
                                  v1::DeleteRecordsResponse response;
                                  for (const DeleteRecordsOutcome& outcome : outcomes) {
                                    v1::DeleteRecordsResult& out = *response.add_results();
                                    out.set_topic(outcome.topic);
                                    out.set_partition(outcome.partition.value());
                                    out.set_log_start_offset(outcome.log_start.value());
                                    if (outcome.error) rpc::ToProto(*outcome.error, out.mutable_error());
                                  }
                                  call->Reply(Serialize(response));
                                });
}

using Maker = std::function<std::shared_ptr<Handler>(Services&, std::shared_ptr<Call>)>;

template <class Request>
Maker Unary(void (*begin)(Services&, Request, std::shared_ptr<Call>)) {
  return [begin](Services& services, std::shared_ptr<Call> call) {
    return std::make_shared<UnaryHandler<Request>>(services, std::move(call), begin);
  };
}

}  // namespace

std::shared_ptr<Handler> MakeUnaryHandler(Services& services, const std::string& method, std::shared_ptr<Call> call) {
  static const auto* const kMethods = new std::unordered_map<std::string, Maker>{
      {"/sluice.v1.Log/ListOffsets", Unary(&ListOffsets)},
      {"/sluice.v1.Log/DeleteRecords", Unary(&DeleteRecords)},
      {"/sluice.v1.Topics/Create", Unary(&CreateTopic)},
      {"/sluice.v1.Topics/List", Unary(&ListTopics)},
      {"/sluice.v1.Topics/Describe", Unary(&DescribeTopic)},
      {"/sluice.v1.Topics/Alter", Unary(&AlterTopic)},
      {"/sluice.v1.Topics/AddPartitions", Unary(&AddPartitions)},
      {"/sluice.v1.Topics/Delete", Unary(&DeleteTopic)},
      {"/sluice.v1.Cluster/Describe", Unary(&DescribeCluster)},
      {"/sluice.v1.Cluster/ListPartitions", Unary(&ListPartitions)},
      {"/sluice.v1.Cluster/ElectLeader", Unary(&ElectLeader)},
  };
  const auto found = kMethods->find(method);
  return found == kMethods->end() ? nullptr : found->second(services, std::move(call));
}

}  // namespace sluice::broker::rpc
