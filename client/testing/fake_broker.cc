#include "client/testing/fake_broker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "client/await.h"
#include "client/producer_wire.h"
#include "client/wire.h"
#include "common/check.h"
#include "common/record/control.h"
#include "common/record/record.h"
#include "common/text.h"
#include "sluice/v1/cluster.pb.h"
#include "sluice/v1/log.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::client {

// The part of a stream that callbacks under way may still refer to.
struct FakeStreamState {
  Stream::Callbacks callbacks;
  std::vector<Bytes> held;
  std::set<TopicPartition> refused;
  bool closed = false;
};

class FakeStream : public Stream {
 public:
  FakeStream(FakeBroker* broker, std::string address, Callbacks callbacks)
      : broker_(broker), address_(std::move(address)), state_(std::make_shared<FakeStreamState>()) {
    state_->callbacks = std::move(callbacks);
    broker_->streams_.insert(this);
  }
  ~FakeStream() override {
    state_->closed = true;
    broker_->streams_.erase(this);
  }

  void Send(std::vector<Bytes> pieces) override {
    broker_->executor_.Post([broker = broker_, alive = broker_->alive_, address = address_, state = state_,
                             message = Join(pieces)] {
      if (!*alive || state->closed) return;
      const FakeBroker::Node& node = broker->node(address);
      if (node.silent) return;
      if (const size_t max = broker->message_bytes_max; max > 0 && message.size() > max) {
        state->closed = true;
        return state->callbacks.on_close(
            absl::ResourceExhaustedError(Cat("Received message larger than max (", message.size(), " vs. ", max, ")")),
            0);
      }
      state->held.push_back(Bytes::Adopt(broker->Produce(address, message, &state->refused)));
      if (broker->hold_answers) return;
      if (node.slow == absl::ZeroDuration()) return Release(state);
      broker->executor_.PostAfter(node.slow, [state] { Release(state); });
    });
  }
  void CloseSend() override { End(absl::OkStatus()); }

  static void Release(const std::shared_ptr<FakeStreamState>& state) {
    std::vector<Bytes> held = std::exchange(state->held, {});
    for (Bytes& answer : held) {
      if (!state->closed) state->callbacks.on_message(std::move(answer));
    }
  }

  static void ReleaseNewest(const std::shared_ptr<FakeStreamState>& state) {
    if (state->held.empty() || state->closed) return;
    Bytes answer = std::move(state->held.back());
    state->held.pop_back();
    state->callbacks.on_message(std::move(answer));
  }

  void End(const absl::Status& status) {
    broker_->executor_.Post([state = state_, status] {
      if (std::exchange(state->closed, true)) return;
      state->callbacks.on_close(status, 0);
    });
  }

  FakeBroker* const broker_;
  const std::string address_;
  const std::shared_ptr<FakeStreamState> state_;
};

class FakeChannel : public Channel {
 public:
  FakeChannel(FakeBroker* broker, std::string address) : broker_(broker), address_(std::move(address)) {}
  ~FakeChannel() override {
    for (const std::shared_ptr<Done>& waiting : unanswered_) {
      broker_->executor_.Post([waiting] { Fail(*waiting, absl::CancelledError("the channel is closed")); });
    }
  }
  const std::string& address() const override { return address_; }
  void Connect(absl::Duration timeout, absl::AnyInvocable<void(absl::Status)> done) override {
    const FakeBroker::Node& node = broker_->node(address_);
    auto connect = [broker = broker_, alive = broker_->alive_, address = address_, done = std::move(done)]() mutable {
      if (!*alive) return;
      const FakeBroker::Node& now = broker->node(address);
      const bool there = broker->reachable && now.reachable && !now.black_hole;
      done(there ? absl::OkStatus() : absl::UnavailableError(Cat("cannot connect to ", address)));
    };
    if (node.black_hole) {
      broker_->executor_.PostAfter(timeout, std::move(connect));
    } else {
      broker_->executor_.Post(std::move(connect));
    }
  }
  void Call(std::string_view method, Bytes request, absl::Duration timeout,
            absl::AnyInvocable<void(absl::StatusOr<Bytes>)> done) override {
    FakeBroker::Node& node = broker_->node(address_);
    ++node.calls;
    ++broker_->calls[std::string(method)];
    if (broker_->on_call) broker_->on_call(std::string(method));
    // The first of these answers: the broker, the time limit, the end of the channel.
    auto waiting = std::make_shared<Done>(std::move(done));
    unanswered_.push_back(waiting);
    if (broker_->silent || node.silent || node.black_hole || node.slow >= timeout) {
      broker_->executor_.PostAfter(timeout,
                                   [waiting] { Fail(*waiting, absl::DeadlineExceededError("no answer in time")); });
    }
    if (broker_->silent || node.silent || node.black_hole) return;
    // A pause, so that a fetch at the end of a log does not spin.
    broker_->executor_.PostAfter(std::max(node.slow, absl::Milliseconds(1)),
                                 [broker = broker_, alive = broker_->alive_, address = address_,
                                  method = std::string(method), request = std::move(request), waiting] {
                                   if (!*alive || *waiting == nullptr) return;
                                   if (!broker->reachable || !broker->node(address).reachable) {
                                     return Fail(*waiting, absl::UnavailableError("connection lost"));
                                   }
                                   std::exchange(*waiting, nullptr)(broker->Answer(address, method, request));
                                 });
    std::erase_if(unanswered_, [](const std::shared_ptr<Done>& each) { return *each == nullptr; });
  }
  std::unique_ptr<Stream> OpenStream(std::string_view, Stream::Callbacks callbacks) override {
    ++broker_->streams_opened;
    return std::make_unique<FakeStream>(broker_, address_, std::move(callbacks));
  }

 private:
  using Done = absl::AnyInvocable<void(absl::StatusOr<Bytes>)>;
  static void Fail(Done& done, const absl::Status& status) {
    if (done) std::exchange(done, nullptr)(status);
  }

  FakeBroker* const broker_;
  const std::string address_;
  std::vector<std::shared_ptr<Done>> unanswered_;
};

namespace {

ErrorDetail Unknown(const std::string& topic, int32_t partition) {
  ErrorDetail detail;
  detail.reason = Reason::kUnknownTopic;
  detail.message = Cat("there is no topic ", topic, " with a partition ", partition);
  return detail;
}

void Set(v1::ErrorDetail* out, const ErrorDetail& detail) {
  out->set_reason(static_cast<v1::ErrorDetail::Reason>(detail.reason));
  out->set_message(detail.message);
  out->set_retriable(detail.retriable);
  out->set_log_end_offset(detail.log_end_offset);
  out->set_leader(detail.leader);
}

absl::StatusOr<record::Batch> Place(std::string_view bytes, Offset at, LeaderEpoch epoch) {
  MutableBytes copy(bytes.size());
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  absl::StatusOr<record::PendingBatch> pending = record::PendingBatch::FromClient(std::move(copy));
  if (!pending.ok()) return pending.status();
  return std::move(*pending).Assign(at, epoch);
}

}  // namespace

FakeBroker::~FakeBroker() {
  RunOn(executor_, [this] { *alive_ = false; });
}

std::unique_ptr<Channel> FakeBroker::Open(const std::string& address) {
  ++channels_opened;
  return std::make_unique<FakeChannel>(this, address);
}

void FakeBroker::CreateTopic(const std::string& name, int partitions) {
  for (int i = 0; i < partitions; ++i) {
    const TopicPartition partition{name, PartitionId(i)};
    logs[partition];
    AppendControl(partition);
  }
}

void FakeBroker::Kill(const std::string& address) {
  nodes_[address].reachable = false;
  for (FakeStream* stream : std::set<FakeStream*>(streams_)) {
    if (stream->address_ == address) stream->End(absl::UnavailableError(Cat("connection to ", address, " lost")));
  }
}

void FakeBroker::Lead(const TopicPartition& partition, const std::string& address) {
  Log& log = logs.at(partition);
  log.leader = address;
  if (address.empty()) return;
  ++log.epoch;
  AppendControl(partition);
}

std::optional<ErrorDetail> FakeBroker::NotServed(const std::string& address, const TopicPartition& partition) const {
  ErrorDetail detail;
  detail.topic = partition.topic;
  detail.partition = partition.partition.value();
  detail.retriable = true;
  detail.reason = Reason::kNotAvailable;
  detail.message = "the node is starting";
  const auto node = nodes_.find(address);
  if (node != nodes_.end() && node->second.unready) return detail;
  const auto found = logs.find(partition);
  if (found == logs.end()) return Unknown(partition.topic, partition.partition.value());
  detail.message = "no leader is elected yet";
  if (found->second.leader.empty()) return detail;
  if (found->second.leader == address) return std::nullopt;
  detail.reason = Reason::kNotLeader;
  detail.leader = hint ? hint(address, partition) : found->second.leader;
  detail.message = Cat(address, " does not lead it");
  return detail;
}

void FakeBroker::AppendControl(const TopicPartition& partition) {
  Log& log = logs.at(partition);
  const Offset at = log.end();
  log.batches.push_back(record::MakeControlBatch(record::LeaderChange{NodeId(1)}, 1).Assign(at, log.epoch));
}

void FakeBroker::AppendValues(const TopicPartition& partition, const std::vector<std::string>& values) {
  record::BatchBuilder builder;
  for (const std::string& value : values) SLUICE_CHECK(builder.Append(1000, std::nullopt, value).ok());
  Log& log = logs.at(partition);
  const Offset at = log.end();
  log.batches.push_back(builder.Build().value().Assign(at, log.epoch));
}

std::vector<std::string> FakeBroker::Values(const TopicPartition& partition) const {
  std::vector<std::string> values;
  for (const record::Batch& batch : logs.at(partition).batches) {
    if (batch.is_control()) continue;
    record::RecordReader reader = record::RecordReader::Open(batch.view()).value();
    record::Record record;
    while (reader.Next(&record).value()) values.emplace_back(record.value.value_or("<null>"));
  }
  return values;
}

void FakeBroker::BreakStreams(const absl::Status& status) {
  for (FakeStream* stream : std::set<FakeStream*>(streams_)) stream->End(status);
}

void FakeBroker::Release() {
  for (FakeStream* stream : std::set<FakeStream*>(streams_)) FakeStream::Release(stream->state_);
}

void FakeBroker::ReleaseNewest() {
  for (FakeStream* stream : std::set<FakeStream*>(streams_)) FakeStream::ReleaseNewest(stream->state_);
}

absl::StatusOr<Bytes> FakeBroker::Describe(const std::string& node, const Bytes& request) {
  const std::string name = ParseAs<v1::DescribeTopicRequest>(request).value().name();
  if (nodes_[node].ignorant) return MakeError(Unknown(name, 0));
  v1::DescribeTopicResponse response;
  for (const auto& [partition, log] : logs) {
    if (partition.topic != name) continue;
    v1::PartitionInfo& info = *response.add_partitions();
    info.set_partition(partition.partition.value());
    info.set_leader(told ? told(node, partition) : log.leader);
    info.set_leader_epoch(info.leader().empty() ? 0 : log.epoch.value());
    info.mutable_error()->set_message(log.trouble);
    info.set_high_watermark(log.end().value());
  }
  if (response.partitions_size() == 0) return MakeError(Unknown(name, 0));
  response.mutable_topic()->set_name(name);
  response.mutable_topic()->set_partitions(response.partitions_size());
  return Serialize(response);
}

absl::StatusOr<Bytes> FakeBroker::Answer(const std::string& node, std::string_view method, const Bytes& request) {
  if (nodes_[node].unready) {
    ErrorDetail detail;
    detail.reason = Reason::kNotAvailable;
    detail.retriable = true;
    detail.message = "the node is starting";
    return MakeError(detail);
  }
  if (method == "/sluice.v1.Log/Append") {
    std::set<TopicPartition> refused;
    Bytes answer = Bytes::Adopt(Produce(node, request, &refused));
    const auto item = ParseAs<v1::ProduceRequest>(request).value().items(0);
    const TopicPartition partition{item.topic(), PartitionId(item.partition())};
    if (refused.empty() && stall && stall(partition)) {
      ++logs.at(partition).uncommitted;
      return absl::UnavailableError("connection lost");
    }
    return answer;
  }
  if (method == "/sluice.v1.Log/Fetch") return Bytes::Adopt(Fetch(node, request));
  if (method == "/sluice.v1.Log/ListOffsets") return Bytes::Adopt(ListOffsets(node, request));
  if (method == "/sluice.v1.Log/DeleteRecords") return Bytes::Adopt(DeleteRecords(node, request));
  if (method == "/sluice.v1.Topics/Describe") return Describe(node, request);
  if (method == "/sluice.v1.Cluster/Describe") {
    v1::DescribeClusterResponse response;
    for (const auto& [address, each] : nodes_) response.add_nodes()->set_address(address);
    return Serialize(response);
  }
  if (method == "/sluice.v1.Topics/Create") {
    const auto create = ParseAs<v1::CreateTopicRequest>(request).value();
    if (refuse_topic) {
      if (const std::optional<ErrorDetail> error = refuse_topic(create.name())) return MakeError(*error);
    }
    CreateTopic(create.name(), std::max(1, create.partitions()));
    v1::CreateTopicResponse response;
    response.mutable_topic()->set_name(create.name());
    response.mutable_topic()->set_partitions(std::max(1, create.partitions()));
    return Serialize(response);
  }
  return absl::UnimplementedError(Cat("the fake broker has no ", method));
}

std::string FakeBroker::Produce(const std::string& node, const Bytes& request, std::set<TopicPartition>* refused) {
  const auto produce = ParseAs<v1::ProduceRequest>(request).value();
  ++requests;
  v1::ProduceResponse response;
  response.set_correlation_id(produce.correlation_id());
  for (const v1::ProduceItem& item : produce.items()) {
    ++items;
    ++nodes_[node].items;
    const TopicPartition partition{item.topic(), PartitionId(item.partition())};
    v1::ProduceResult& result = *response.add_results();
    result.set_base_offset(-1);
    result.set_next_offset(-1);
    result.set_log_append_time_ms(-1);
    if (item.reset()) {
      ++resets;
      refused->erase(partition);
    }
    std::optional<ErrorDetail> error;
    if (refused->count(partition) != 0) {
      error.emplace().reason = Reason::kSequenceBroken;
    } else if (auto elsewhere = NotServed(node, partition)) {
      error = elsewhere;
    } else if (refuse) {
      error = refuse(partition);
    }
    if (!error.has_value() && item.has_expected_base_offset() &&
        logs[partition].end() != Offset(item.expected_base_offset())) {
      error.emplace().reason = Reason::kExpectedOffsetMismatch;
      error->log_end_offset = logs[partition].end().value();
    }
    if (error.has_value()) {
      refused->insert(partition);
      Set(result.mutable_error(), *error);
      continue;
    }
    Log& log = logs[partition];
    absl::StatusOr<record::Batch> batch = Place(item.batch(), log.end(), log.epoch);
    SLUICE_CHECK(batch.ok()) << std::string(batch.status().message());
    result.set_base_offset(batch->base_offset().value());
    result.set_next_offset(batch->next_offset().value());
    log.batches.push_back(*std::move(batch));
  }
  return response.SerializeAsString();
}

std::string FakeBroker::Fetch(const std::string& node, const Bytes& request) {
  const auto fetch = ParseAs<v1::FetchRequest>(request).value();
  v1::FetchResponse response;
  size_t bytes = 0;
  for (const v1::FetchItem& item : fetch.items()) {
    v1::FetchResult& result = *response.add_results();
    const TopicPartition partition{item.topic(), PartitionId(item.partition())};
    if (const auto elsewhere = NotServed(node, partition)) {
      Set(result.mutable_error(), *elsewhere);
      continue;
    }
    const Log& log = logs.at(partition);
    if (Offset(item.offset()) < log.start || Offset(item.offset()) > log.end()) {
      result.mutable_error()->set_reason(v1::ErrorDetail::OFFSET_OUT_OF_RANGE);
      result.mutable_error()->set_log_start_offset(log.start.value());
      continue;
    }
    Offset next(item.offset());
    for (const record::Batch& batch : log.batches) {
      if (batch.last_offset() < Offset(item.offset())) continue;
      if (batch.base_offset() >= log.committed()) break;
      if (!result.batches().empty() &&
          result.batches().size() + batch.size_bytes() > static_cast<size_t>(item.max_bytes()))
        break;
      if (bytes > 0 && bytes + batch.size_bytes() > static_cast<size_t>(fetch.max_bytes())) break;
      bytes += batch.size_bytes();
      result.mutable_batches()->append(batch.bytes().view());
      next = batch.next_offset();
    }
    if (tamper) tamper(result.mutable_batches());
    result.set_next_offset(next.value());
    result.set_high_watermark(log.committed().value());
  }
  return response.SerializeAsString();
}

std::string FakeBroker::ListOffsets(const std::string& node, const Bytes& request) {
  const auto list = ParseAs<v1::ListOffsetsRequest>(request).value();
  v1::ListOffsetsResponse response;
  for (const v1::ListOffsetsItem& item : list.items()) {
    v1::ListOffsetsResult& result = *response.add_results();
    const TopicPartition partition{item.topic(), PartitionId(item.partition())};
    if (const auto elsewhere = NotServed(node, partition)) {
      Set(result.mutable_error(), *elsewhere);
      continue;
    }
    const Log& log = logs.at(partition);
    result.set_log_end_offset(log.end().value());
    Offset offset = item.kind() == v1::ListOffsetsItem::EARLIEST ? log.start : log.committed();
    if (item.kind() == v1::ListOffsetsItem::LATEST_DATA) {
      offset = log.start;
      for (const record::Batch& batch : log.batches) {
        if (!batch.is_control() && batch.base_offset() < log.committed()) offset = batch.next_offset();
      }
    }
    result.set_offset(offset.value());
  }
  return response.SerializeAsString();
}

std::string FakeBroker::DeleteRecords(const std::string& node, const Bytes& request) {
  const auto remove = ParseAs<v1::DeleteRecordsRequest>(request).value();
  v1::DeleteRecordsResponse response;
  for (const v1::DeleteRecordsItem& item : remove.items()) {
    v1::DeleteRecordsResult& result = *response.add_results();
    const TopicPartition partition{item.topic(), PartitionId(item.partition())};
    if (const auto elsewhere = NotServed(node, partition)) {
      Set(result.mutable_error(), *elsewhere);
      continue;
    }
    Log& log = logs.at(partition);
    log.start = std::max(log.start, item.before_offset() < 0 ? log.end() : Offset(item.before_offset()));
    result.set_log_start_offset(log.start.value());
  }
  return response.SerializeAsString();
}

}  // namespace sluice::client
