#include <algorithm>
#include <memory>
#include <utility>

#include "client/await.h"
#include "client/client_impl.h"
#include "client/error.h"
#include "client/wire.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/v1/cluster.pb.h"
#include "sluice/v1/log.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::client {
namespace {

constexpr absl::Duration kRetryPause = absl::Milliseconds(100);

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
                            Any<v1::CreateTopicResponse>("/sluice.v1.Topics/Create", request, spec.name));
    return FromProto(response.topic());
  }

  absl::StatusOr<std::vector<TopicInfo>> ListTopics(bool internal) override {
    v1::ListTopicsRequest request;
    request.set_internal(internal);
    SLUICE_ASSIGN_OR_RETURN(auto response, Any<v1::ListTopicsResponse>("/sluice.v1.Topics/List", request));
    std::vector<TopicInfo> topics;
    for (const v1::Topic& topic : response.topics()) topics.push_back(FromProto(topic));
    std::sort(topics.begin(), topics.end(), [](const TopicInfo& a, const TopicInfo& b) { return a.name < b.name; });
    return topics;
  }

  absl::StatusOr<TopicDescription> DescribeTopic(const std::string& name) override {
    v1::DescribeTopicRequest request;
    request.set_name(name);
    SLUICE_ASSIGN_OR_RETURN(auto response, Any<v1::DescribeTopicResponse>("/sluice.v1.Topics/Describe", request));
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
    SLUICE_ASSIGN_OR_RETURN(auto response, Any<v1::AlterTopicResponse>("/sluice.v1.Topics/Alter", request, name));
    return FromProto(response.topic());
  }

  absl::StatusOr<TopicInfo> AddPartitions(const std::string& name, int32_t partitions) override {
    v1::AddPartitionsRequest request;
    request.set_name(name);
    request.set_partitions(partitions);
    SLUICE_ASSIGN_OR_RETURN(auto response,
                            Any<v1::AddPartitionsResponse>("/sluice.v1.Topics/AddPartitions", request, name));
    return FromProto(response.topic());
  }

  absl::Status DeleteTopic(const std::string& name) override {
    v1::DeleteTopicRequest request;
    request.set_name(name);
    return Any<v1::DeleteTopicResponse>("/sluice.v1.Topics/Delete", request, name).status();
  }

  absl::StatusOr<std::vector<OffsetAnswer>> ListOffsets(absl::Span<const OffsetQuery> queries) override;
  absl::StatusOr<Offset> DeleteRecords(const TopicPartition& partition, std::optional<Offset> before) override;

  absl::StatusOr<ClusterInfo> DescribeCluster() override {
    SLUICE_ASSIGN_OR_RETURN(
        auto response, Any<v1::DescribeClusterResponse>("/sluice.v1.Cluster/Describe", v1::DescribeClusterRequest()));
    ClusterInfo info{response.cluster_id(), response.cluster_name(), NodeId(response.controller_node()), {},
                     response.topics(),     response.partitions()};
    for (const v1::Node& node : response.nodes()) {
      info.nodes.push_back({NodeId(node.id()), node.address(), node.rack(), node.version(), node.started_ms(),
                            node.disk_free_bytes(), node.disk_used_bytes(), node.alive()});
    }
    return info;
  }

 private:
  // `changes` names a topic whose routes may differ afterwards.
  template <class Response>
  absl::StatusOr<Response> Any(std::string_view method, const google::protobuf::MessageLite& request,
                               const std::string& changes = {}) {
    auto answer = Await<absl::StatusOr<Bytes>>(
        core_->executor(), [this, method, bytes = Serialize(request), changes](Core::Done done) mutable {
          if (!changes.empty()) core_->ForgetTopic(changes);
          core_->CallAny(method, std::move(bytes), core_->options().timeout, std::move(done));
        });
    if (answer.ok()) return ParseAs<Response>(*answer);
    if (changes.empty() || !WasAsked(answer.status())) return answer.status();
    return absl::Status(answer.status().code(),
                        Cat(answer.status().message(), "; it is unknown whether the change of ", changes, " was made"));
  }

  absl::StatusOr<std::string> Leader(const std::string& topic, PartitionId partition, absl::Duration timeout) {
    using Routes = absl::StatusOr<std::shared_ptr<const TopicRoutes>>;
    auto routes = Await<Routes>(core_->executor(), [this, &topic, timeout](absl::AnyInvocable<void(Routes)> done) {
      core_->FindTopic(topic, timeout, std::move(done));
    });
    if (!routes.ok()) return routes.status();
    return LeaderOf(**routes, topic, partition.value());
  }

  // Calls the leader of a partition until it answers, the error is final, or the time is over. Only for calls that may
  // be made twice.
  template <class Response>
  absl::StatusOr<Response> AtLeader(std::string_view method, const google::protobuf::MessageLite& request,
                                    const std::string& topic, PartitionId partition) {
    const absl::Duration deadline = core_->clock().Monotonic() + core_->options().timeout;
    while (true) {
      const absl::Duration left = deadline - core_->clock().Monotonic();
      absl::StatusOr<Response> response = AtLeaderOnce<Response>(method, request, topic, partition, left);
      if (response.ok()) return response;
      std::optional<ErrorDetail> detail = GetErrorDetail(response.status());
      if (!detail.has_value() || !detail->retriable || left < 2 * kRetryPause) return response;
      Await<bool>(core_->executor(), [this, &topic](absl::AnyInvocable<void(bool)> done) {
        core_->ForgetTopic(topic);
        core_->executor().PostAfter(kRetryPause, [done = std::move(done)]() mutable { done(true); });
      });
    }
  }

  template <class Response>
  absl::StatusOr<Response> AtLeaderOnce(std::string_view method, const google::protobuf::MessageLite& request,
                                        const std::string& topic, PartitionId partition, absl::Duration timeout) {
    SLUICE_ASSIGN_OR_RETURN(std::string leader, Leader(topic, partition, timeout));
    auto answer = Await<absl::StatusOr<Bytes>>(
        core_->executor(), [this, method, bytes = Serialize(request), &leader, timeout](Core::Done done) mutable {
          core_->CallAt(leader, method, std::move(bytes), timeout, std::move(done));
        });
    if (!answer.ok()) return answer.status();
    SLUICE_ASSIGN_OR_RETURN(Response response, ParseAs<Response>(*answer));
    if (response.results_size() != 1) return absl::InternalError("the broker answered another number of partitions");
    if (response.results(0).has_error()) return ItemError(response.results(0).error());
    return response;
  }

  const std::shared_ptr<Core> core_;
};

absl::StatusOr<std::vector<OffsetAnswer>> AdminImpl::ListOffsets(absl::Span<const OffsetQuery> queries) {
  std::vector<OffsetAnswer> answers;
  for (const OffsetQuery& query : queries) {
    v1::ListOffsetsRequest request;
    v1::ListOffsetsItem& item = *request.add_items();
    item.set_topic(query.topic);
    item.set_partition(query.partition.value());
    item.set_timestamp_ms(query.timestamp_ms);
    switch (query.kind) {
      case OffsetQuery::Kind::kLatest:
        item.set_kind(v1::ListOffsetsItem::LATEST);
        break;
      case OffsetQuery::Kind::kEarliest:
        item.set_kind(v1::ListOffsetsItem::EARLIEST);
        break;
      case OffsetQuery::Kind::kTimestamp:
        item.set_kind(v1::ListOffsetsItem::TIMESTAMP);
        break;
      case OffsetQuery::Kind::kLatestData:
        item.set_kind(v1::ListOffsetsItem::LATEST_DATA);
        break;
    }
    SLUICE_ASSIGN_OR_RETURN(auto response, AtLeader<v1::ListOffsetsResponse>("/sluice.v1.Log/ListOffsets", request,
                                                                             query.topic, query.partition));
    const v1::ListOffsetsResult& result = response.results(0);
    OffsetAnswer answer;
    if (result.offset() >= 0) answer.offset = Offset(result.offset());
    answer.timestamp_ms = query.kind == OffsetQuery::Kind::kTimestamp ? result.timestamp_ms() : -1;
    answer.leader_epoch = LeaderEpoch(result.leader_epoch());
    answer.log_end = Offset(result.log_end_offset());
    answers.push_back(answer);
  }
  return answers;
}

absl::StatusOr<Offset> AdminImpl::DeleteRecords(const TopicPartition& partition, std::optional<Offset> before) {
  v1::DeleteRecordsRequest request;
  v1::DeleteRecordsItem& item = *request.add_items();
  item.set_topic(partition.topic);
  item.set_partition(partition.partition.value());
  item.set_before_offset(before.has_value() ? before->value() : -1);
  SLUICE_ASSIGN_OR_RETURN(auto response, AtLeader<v1::DeleteRecordsResponse>("/sluice.v1.Log/DeleteRecords", request,
                                                                             partition.topic, partition.partition));
  return Offset(response.results(0).log_start_offset());
}

}  // namespace

std::unique_ptr<Admin> MakeAdmin(std::shared_ptr<Core> core) {
  return std::make_unique<AdminImpl>(std::move(core));
}

}  // namespace sluice::client
