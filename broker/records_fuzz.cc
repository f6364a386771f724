// What group 0's log, the metadata store and other nodes say of topics and nodes, whatever bytes stand there: refused,
// or read as something that is written and read again as the same.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "broker/cluster_calls.h"
#include "broker/cluster_snapshot.h"
#include "broker/controller_record.h"
#include "broker/topic_calls.h"
#include "common/check.h"

using namespace sluice;          // NOLINT(google-build-using-namespace)
using namespace sluice::broker;  // NOLINT(google-build-using-namespace)

namespace {

template <class Decode, class Encode, class Same>
void Try(std::string_view bytes, Decode decode, Encode encode, Same same) {
  const auto read = decode(bytes);
  if (!read.ok()) return;
  const auto again = decode(encode(*read));
  SLUICE_CHECK(again.ok() && same(*again, *read)) << "what was written is not what was read";
}

template <class Decode, class Encode>
void Try(std::string_view bytes, Decode decode, Encode encode) {
  Try(bytes, decode, encode, [](const auto& one, const auto& other) { return one == other; });
}

// ---- Calls about topics, whose structs nothing else compares

struct SameChange {
  bool operator()(const CreateTopicSpec& a, const CreateTopicSpec& b) const {
    return a.name == b.name && a.partitions == b.partitions && a.replicas == b.replicas && a.config == b.config &&
           a.internal == b.internal;
  }
  bool operator()(const AlterTopicSpec& a, const AlterTopicSpec& b) const {
    return a.name == b.name && a.set == b.set && a.unset == b.unset;
  }
  bool operator()(const AddPartitionsSpec& a, const AddPartitionsSpec& b) const {
    return a.name == b.name && a.partitions == b.partitions;
  }
  bool operator()(const DeleteTopicSpec& a, const DeleteTopicSpec& b) const { return a.name == b.name; }
  template <class A, class B>
  bool operator()(const A&, const B&) const {
    return false;
  }
};

bool SameError(const Error& a, const Error& b) {
  return a.reason == b.reason && a.message == b.message && a.retriable == b.retriable && a.leader == b.leader &&
         a.topic == b.topic && a.partition == b.partition;
}

bool SameChanged(const Result<TopicChanged>& a, const Result<TopicChanged>& b) {
  if (a.ok() != b.ok()) return false;
  if (!a.ok()) return SameError(a.error(), b.error());
  const TopicInfo& one = a->topic;
  const TopicInfo& other = b->topic;
  return one.name == other.name && one.id == other.id && one.partitions == other.partitions &&
         one.replicas == other.replicas && one.config == other.config && one.created_ms == other.created_ms &&
         a->applied == b->applied;
}

bool SameReport(const ReplicaReport& a, const ReplicaReport& b) {
  const PartitionStatus& one = a.status;
  const PartitionStatus& other = b.status;
  const auto same_replica = [](const ReplicaStatus& x, const ReplicaStatus& y) {
    return x.node == y.node && x.learner == y.learner && x.in_sync == y.in_sync && x.lag == y.lag;
  };
  return a.replica == b.replica && a.leads == b.leads && one.leader_epoch == other.leader_epoch &&
         one.log_start == other.log_start && one.high_watermark == other.high_watermark &&
         one.size_bytes == other.size_bytes && one.error.has_value() == other.error.has_value() &&
         (!one.error.has_value() || SameError(*one.error, *other.error)) &&
         // Only who leads says anything of the others.
         (!a.leads || std::equal(one.replicas.begin(), one.replicas.end(), other.replicas.begin(), other.replicas.end(),
                                 same_replica));
}

// Written topic by topic.
bool SameReplicas(std::vector<ReplicaId> a, std::vector<ReplicaId> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

void TryTopicCall(int kind, std::string_view bytes) {
  switch (kind) {
    case 0:
      return Try(bytes, DecodeTopicChange, EncodeTopicChange,
                 [](const TopicChange& a, const TopicChange& b) { return std::visit(SameChange(), a, b); });
    case 1:
      return Try(bytes, DecodeTopicChanged, EncodeTopicChanged, SameChanged);
    case 2:
      return Try(bytes, DecodePartitionStatusRequest, EncodePartitionStatusRequest, SameReplicas);
    case 3:
      return Try(bytes, DecodePartitionStatusAnswer, EncodePartitionStatusAnswer,
                 [](const std::vector<ReplicaReport>& a, const std::vector<ReplicaReport>& b) {
                   return std::equal(a.begin(), a.end(), b.begin(), b.end(), SameReport);
                 });
    case 4:
      return Try(bytes, DecodeNodeStatus, EncodeNodeStatus);
    case 5:
      return Try(
          bytes, DecodeElectLeaderCall, EncodeElectLeaderCall,
          [](const ElectLeaderCall& a, const ElectLeaderCall& b) { return a.replica == b.replica && a.to == b.to; });
    default:
      return Try(bytes, DecodeElectLeaderAnswer, EncodeElectLeaderAnswer,
                 [](const Result<Done>& a, const Result<Done>& b) {
                   return a.ok() == b.ok() && (a.ok() || SameError(a.error(), b.error()));
                 });
  }
}

void TrySnapshot(std::string_view bytes) {
  const auto read = DecodeClusterSnapshot(bytes);
  if (!read.ok()) return;
  const auto again = DecodeClusterSnapshot(EncodeClusterSnapshot(read->state, read->applied));
  SLUICE_CHECK(again.ok() && again->state == read->state) << "what was written is not what was read";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  google::protobuf::LogSilencer silence;
  constexpr int kTopicCalls = 10;
  const int kind = data[0] % 17;
  switch (kind) {
    case 0:
      Try(bytes, DecodeControllerChange, EncodeControllerChange);
      break;
    case 1:
      Try(bytes, DecodeTopicRecord, EncodeTopicRecord);
      break;
    case 2:
      Try(bytes, DecodeRegisteredNode, EncodeRegisteredNode);
      break;
    case 3:
      Try(bytes, DecodeHeartbeat, EncodeHeartbeat);
      break;
    case 4:
      (void)DecodeRegisterRequest(bytes).ok();
      break;
    case 5:
      (void)DecodeRegisterAnswer(bytes).ok();
      break;
    case 6:
      TrySnapshot(bytes);
      break;
    case 7:
      (void)DecodeSnapshotPieceRequest(bytes).ok();
      break;
    case 8:
      Try(bytes, DecodeHeartbeatAnswer, EncodeHeartbeatAnswer);
      break;
    case 9:
      Try(bytes, DecodeSnapshotName, EncodeSnapshotName);
      break;
    default:
      TryTopicCall(kind - kTopicCalls, bytes);
      break;
  }
  return 0;
}
