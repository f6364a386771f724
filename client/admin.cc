#include <algorithm>
#include <memory>
#include <utility>

#include "client/await.h"
#include "client/client_impl.h"
#include "client/error.h"
#include "client/leader_calls.h"
#include "client/wire.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/v1/cluster.pb.h"
#include "sluice/v1/log.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::client {
namespace {

TopicInfo FromProto(const v1::Topic& proto) {
  TopicInfo topic;
  topic.name = proto.name();
  topic.id = Uuid::FromBytes(proto.id()).value_or(Uuid{});
  topic.partitions = proto.partitions();
  topic.replicas = proto.replicas();
  topic.config.insert(proto.config().begin(), proto.config().end());
  topic.created_ms = proto.created_ms();
  return topic;
}

PartitionInfo FromProto(const v1::PartitionInfo& proto) {
  PartitionInfo info;
  info.partition = PartitionId(proto.partition());
  info.leader_node = NodeId(proto.leader_node());
  info.leader = proto.leader();
  info.leader_epoch = LeaderEpoch(proto.leader_epoch());
  for (int32_t node : proto.replica_nodes()) info.replicas.emplace_back(node);
  info.log_start = Offset(proto.log_start_offset());
  info.high_watermark = Offset(proto.high_watermark());
  info.size_bytes = proto.size_bytes();
  info.error = proto.error().message();
  return info;
}

NodeInfo FromProto(const v1::Node& proto) {
  NodeInfo node;
  node.id = NodeId(proto.id());
  node.address = proto.address();
  node.rack = proto.rack();
  node.version = proto.version();
  node.started_ms = proto.started_ms();
  node.disk_free_bytes = proto.disk_free_bytes();
  node.disk_used_bytes = proto.disk_used_bytes();
  node.alive = proto.alive();
  node.fenced = proto.fenced();
  node.draining = proto.draining();
  node.feature_min = proto.feature_min();
  node.feature_max = proto.feature_max();
  node.peer_address = proto.peer_address();
  node.controller_voter = proto.controller_voter();
  return node;
}

PartitionStatus FromProto(const v1::PartitionStatus& proto) {
  PartitionStatus status;
  status.topic = proto.topic();
  status.partition = PartitionId(proto.partition());
  status.leader_node = NodeId(proto.leader_node());
  status.leader = proto.leader();
  status.leader_epoch = LeaderEpoch(proto.leader_epoch());
  status.preferred_leader = NodeId(proto.preferred_leader());
  for (const v1::ReplicaStatus& each : proto.replicas()) {
    status.replicas.push_back({NodeId(each.node()), each.learner(), each.in_sync(), each.lag()});
  }
  status.log_start = Offset(proto.log_start_offset());
  status.high_watermark = Offset(proto.high_watermark());
  status.size_bytes = proto.size_bytes();
  status.error = proto.error().message();
  return status;
}

class AdminImpl : public Admin {
 public:
  explicit AdminImpl(std::shared_ptr<Core> core) : core_(std::move(core)) {}

  absl::StatusOr<TopicInfo> CreateTopic(const TopicSpec& spec) override {
    v1::CreateTopicRequest request;
    request.set_name(spec.name);
    request.set_partitions(spec.partitions);
    request.set_replicas(spec.replicas);
    request.set_internal(spec.internal);
    request.mutable_config()->insert(spec.config.begin(), spec.config.end());
    SLUICE_ASSIGN_OR_RETURN(auto response,
                            Change<v1::CreateTopicResponse>("/sluice.v1.Topics/Create", request, spec.name));
    return FromProto(response.topic());
  }

  absl::StatusOr<std::vector<TopicInfo>> ListTopics(bool internal) override {
    v1::ListTopicsRequest request;
    request.set_internal(internal);
    SLUICE_ASSIGN_OR_RETURN(auto response, Ask<v1::ListTopicsResponse>("/sluice.v1.Topics/List", request));
    std::vector<TopicInfo> topics;
    for (const v1::Topic& topic : response.topics()) topics.push_back(FromProto(topic));
    std::sort(topics.begin(), topics.end(), [](const TopicInfo& a, const TopicInfo& b) { return a.name < b.name; });
    return topics;
  }

  absl::StatusOr<TopicDescription> DescribeTopic(const std::string& name) override {
    v1::DescribeTopicRequest request;
    request.set_name(name);
    SLUICE_ASSIGN_OR_RETURN(auto response, Ask<v1::DescribeTopicResponse>("/sluice.v1.Topics/Describe", request));
    TopicDescription description;
    description.topic = FromProto(response.topic());
    for (const v1::PartitionInfo& partition : response.partitions()) {
      description.partitions.push_back(FromProto(partition));
    }
    std::sort(description.partitions.begin(), description.partitions.end(),
              [](const PartitionInfo& a, const PartitionInfo& b) { return a.partition < b.partition; });
    return description;
  }

  absl::StatusOr<TopicInfo> AlterTopic(const std::string& name, const std::map<std::string, std::string>& set,
                                       const std::vector<std::string>& unset) override {
    v1::AlterTopicRequest request;
    request.set_name(name);
    request.mutable_set()->insert(set.begin(), set.end());
    request.mutable_unset()->Add(unset.begin(), unset.end());
    SLUICE_ASSIGN_OR_RETURN(auto response, Change<v1::AlterTopicResponse>("/sluice.v1.Topics/Alter", request, name));
    return FromProto(response.topic());
  }

  absl::StatusOr<TopicInfo> AddPartitions(const std::string& name, int32_t partitions) override {
    v1::AddPartitionsRequest request;
    request.set_name(name);
    request.set_partitions(partitions);
    SLUICE_ASSIGN_OR_RETURN(auto response,
                            Change<v1::AddPartitionsResponse>("/sluice.v1.Topics/AddPartitions", request, name));
    return FromProto(response.topic());
  }

  absl::Status DeleteTopic(const std::string& name) override {
    v1::DeleteTopicRequest request;
    request.set_name(name);
    return Change<v1::DeleteTopicResponse>("/sluice.v1.Topics/Delete", request, name).status();
  }

  absl::StatusOr<std::vector<OffsetAnswer>> ListOffsets(absl::Span<const OffsetQuery> queries) override;
  absl::StatusOr<std::vector<Offset>> DeleteRecords(absl::Span<const RecordsToDelete> partitions) override;

  absl::StatusOr<ClusterInfo> DescribeCluster() override;
  absl::StatusOr<std::vector<PartitionStatus>> ListPartitions(const PartitionFilter& filter) override;
  absl::StatusOr<ElectedLeader> ElectLeader(const TopicPartition& partition, NodeId node) override;

 private:
  absl::StatusOr<Bytes> Any(Core::Kind kind, std::string_view method, const google::protobuf::MessageLite& request) {
    return Await<absl::StatusOr<Bytes>>(
        core_->executor(), [this, kind, method, bytes = Serialize(request)](Core::Done done) mutable {
          core_->CallAny(kind, method, std::move(bytes), core_->options().timeout, std::move(done));
        });
  }

  template <class Response>
  absl::StatusOr<Response> Ask(std::string_view method, const google::protobuf::MessageLite& request) {
    SLUICE_ASSIGN_OR_RETURN(const Bytes answer, Any(Core::Kind::kQuestion, method, request));
    return ParseAs<Response>(answer);
  }

  // Of a topic, whose routes may differ afterwards.
  template <class Response>
  absl::StatusOr<Response> Change(std::string_view method, const google::protobuf::MessageLite& request,
                                  const std::string& topic) {
    const absl::StatusOr<Bytes> answer = Any(Core::Kind::kChange, method, request);
    RunOn(core_->executor(), [&] { core_->metadata().Forget(topic); });
    if (answer.ok()) return ParseAs<Response>(*answer);
    if (!WasAsked(answer.status())) return answer.status();
    return absl::Status(answer.status().code(),
                        Cat(answer.status().message(), "; it is unknown whether the change of ", topic, " was made"));
  }

  std::vector<absl::Status> AtLeaders(LeaderCall call) {
    return Await<std::vector<absl::Status>>(
        core_->executor(),
        [this, call = std::move(call)](absl::AnyInvocable<void(std::vector<absl::Status>)> done) mutable {
          CallLeaders(core_, std::move(call), core_->options().timeout, std::move(done));
        });
  }

  const std::shared_ptr<Core> core_;
};

v1::ListOffsetsItem::Kind ToProto(OffsetQuery::Kind kind) {
  switch (kind) {
    case OffsetQuery::Kind::kLatest:
      return v1::ListOffsetsItem::LATEST;
    case OffsetQuery::Kind::kEarliest:
      return v1::ListOffsetsItem::EARLIEST;
    case OffsetQuery::Kind::kTimestamp:
      return v1::ListOffsetsItem::TIMESTAMP;
    case OffsetQuery::Kind::kLatestData:
      return v1::ListOffsetsItem::LATEST_DATA;
  }
  return v1::ListOffsetsItem::LATEST;
}

// One status an index; `take` has the results without an error.
template <class Response, class Take>
absl::StatusOr<std::vector<absl::Status>> TakeResults(const Bytes& answer, absl::Span<const size_t> indexes,
                                                      Take take) {
  SLUICE_ASSIGN_OR_RETURN(const Response response, ParseAs<Response>(answer));
  if (static_cast<size_t>(response.results_size()) != indexes.size()) {
    return absl::InternalError("the broker answered another number of partitions than asked");
  }
  std::vector<absl::Status> statuses;
  for (size_t k = 0; k < indexes.size(); ++k) {
    const auto& result = response.results(static_cast<int>(k));
    statuses.push_back(result.has_error() ? ItemError(result.error()) : absl::OkStatus());
    if (!result.has_error()) take(indexes[k], result);
  }
  return statuses;
}

absl::StatusOr<std::vector<OffsetAnswer>> AdminImpl::ListOffsets(absl::Span<const OffsetQuery> queries) {
  // What the executor works on lives until it has answered, and so does what the caller gave.
  std::vector<OffsetAnswer> answers(queries.size());
  LeaderCall call;
  call.method = "/sluice.v1.Log/ListOffsets";
  for (const OffsetQuery& query : queries) call.items.push_back({query.topic, query.partition});
  call.encode = [queries](absl::Span<const size_t> indexes) {
    v1::ListOffsetsRequest request;
    for (const size_t i : indexes) {
      v1::ListOffsetsItem& item = *request.add_items();
      item.set_topic(queries[i].topic);
      item.set_partition(queries[i].partition.value());
      item.set_timestamp_ms(queries[i].timestamp_ms);
      item.set_kind(ToProto(queries[i].kind));
    }
    return Serialize(request);
  };
  call.decode = [queries, &answers](const Bytes& bytes, absl::Span<const size_t> indexes) {
    return TakeResults<v1::ListOffsetsResponse>(bytes, indexes, [&](size_t i, const v1::ListOffsetsResult& result) {
      OffsetAnswer& answer = answers[i];
      if (result.offset() >= 0) answer.offset = Offset(result.offset());
      answer.timestamp_ms = queries[i].kind == OffsetQuery::Kind::kTimestamp ? result.timestamp_ms() : -1;
      answer.leader_epoch = LeaderEpoch(result.leader_epoch());
      answer.log_end = Offset(result.log_end_offset());
    });
  };
  for (absl::Status& status : AtLeaders(std::move(call))) {
    if (!status.ok()) return std::move(status);
  }
  return answers;
}

absl::StatusOr<std::vector<Offset>> AdminImpl::DeleteRecords(absl::Span<const RecordsToDelete> partitions) {
  std::vector<Offset> starts(partitions.size());
  LeaderCall call;
  call.method = "/sluice.v1.Log/DeleteRecords";
  for (const RecordsToDelete& each : partitions) call.items.push_back(each.partition);
  call.encode = [partitions](absl::Span<const size_t> indexes) {
    v1::DeleteRecordsRequest request;
    for (const size_t i : indexes) {
      v1::DeleteRecordsItem& item = *request.add_items();
      item.set_topic(partitions[i].partition.topic);
      item.set_partition(partitions[i].partition.partition.value());
      item.set_before_offset(partitions[i].before.value_or(Offset(-1)).value());
    }
    return Serialize(request);
  };
  call.decode = [&starts](const Bytes& bytes, absl::Span<const size_t> indexes) {
    return TakeResults<v1::DeleteRecordsResponse>(bytes, indexes, [&](size_t i, const v1::DeleteRecordsResult& result) {
      starts[i] = Offset(result.log_start_offset());
    });
  };
  for (absl::Status& status : AtLeaders(std::move(call))) {
    if (!status.ok()) return std::move(status);
  }
  return starts;
}

absl::StatusOr<ClusterInfo> AdminImpl::DescribeCluster() {
  SLUICE_ASSIGN_OR_RETURN(
      auto response, Ask<v1::DescribeClusterResponse>("/sluice.v1.Cluster/Describe", v1::DescribeClusterRequest()));
  ClusterInfo info;
  info.cluster_id = response.cluster_id();
  info.cluster_name = response.cluster_name();
  info.controller = NodeId(response.controller_node());
  info.topics = response.topics();
  info.partitions = response.partitions();
  info.under_replicated_partitions = response.under_replicated_partitions();
  info.leaderless_partitions = response.leaderless_partitions();
  info.offline_partitions = response.offline_partitions();
  info.feature_level = response.feature_level();
  for (const v1::Node& node : response.nodes()) info.nodes.push_back(FromProto(node));
  std::sort(info.nodes.begin(), info.nodes.end(), [](const NodeInfo& a, const NodeInfo& b) { return a.id < b.id; });
  return info;
}

absl::StatusOr<std::vector<PartitionStatus>> AdminImpl::ListPartitions(const PartitionFilter& filter) {
  v1::ListPartitionsRequest request;
  request.set_topic(filter.topic);
  request.set_node(filter.node.value());
  request.set_under_replicated(filter.under_replicated);
  request.set_leaderless(filter.leaderless);
  SLUICE_ASSIGN_OR_RETURN(auto response, Ask<v1::ListPartitionsResponse>("/sluice.v1.Cluster/ListPartitions", request));
  std::vector<PartitionStatus> partitions;
  for (const v1::PartitionStatus& each : response.partitions()) partitions.push_back(FromProto(each));
  return partitions;
}

absl::StatusOr<ElectedLeader> AdminImpl::ElectLeader(const TopicPartition& partition, NodeId node) {
  v1::ElectLeaderRequest request;
  request.set_topic(partition.topic);
  request.set_partition(partition.partition.value());
  request.set_node(node.value());
  // Asked twice it does nothing more: who leads already stays.
  SLUICE_ASSIGN_OR_RETURN(auto response, Ask<v1::ElectLeaderResponse>("/sluice.v1.Cluster/ElectLeader", request));
  RunOn(core_->executor(), [&] { core_->metadata().Forget(partition.topic); });
  return ElectedLeader{NodeId(response.leader_node()), response.leader(), LeaderEpoch(response.leader_epoch())};
}

}  // namespace

std::unique_ptr<Admin> MakeAdmin(std::shared_ptr<Core> core) {
  return std::make_unique<AdminImpl>(std::move(core));
}

}  // namespace sluice::client
