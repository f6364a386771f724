#include "client/testing/fake_broker.h"

#include <cstring>
#include <utility>

#include "client/await.h"
#include "client/wire.h"
#include "common/check.h"
#include "common/record/control.h"
#include "common/record/record.h"
#include "common/text.h"
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
  FakeStream(FakeBroker* broker, Callbacks callbacks) : broker_(broker), state_(std::make_shared<FakeStreamState>()) {
    state_->callbacks = std::move(callbacks);
    broker_->streams_.insert(this);
  }
  ~FakeStream() override {
    state_->closed = true;
    broker_->streams_.erase(this);
  }

  void Send(Bytes message) override {
    broker_->executor_.Post([broker = broker_, alive = broker_->alive_, state = state_, message = std::move(message)] {
      if (!*alive || state->closed) return;
      state->held.push_back(Bytes::Adopt(broker->Produce(message, &state->refused)));
      if (!broker->hold_answers) Release(state);
    });
  }
  void CloseSend() override { End(absl::OkStatus()); }

  static void Release(const std::shared_ptr<FakeStreamState>& state) {
    std::vector<Bytes> held = std::exchange(state->held, {});
    for (Bytes& answer : held) {
      if (!state->closed) state->callbacks.on_message(std::move(answer));
    }
  }

  void End(const absl::Status& status) {
    broker_->executor_.Post([state = state_, status] {
      if (std::exchange(state->closed, true)) return;
      state->callbacks.on_close(status, 0);
    });
  }

  FakeBroker* const broker_;
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
  void Connect(absl::Duration, absl::AnyInvocable<void(absl::Status)> done) override {
    broker_->executor_.Post(
        [broker = broker_, alive = broker_->alive_, address = address_, done = std::move(done)]() mutable {
          if (!*alive) return;
          done(broker->reachable ? absl::OkStatus() : absl::UnavailableError(Cat("cannot connect to ", address)));
        });
  }
  void Call(std::string_view method, Bytes request, absl::Duration timeout,
            absl::AnyInvocable<void(absl::StatusOr<Bytes>)> done) override {
    ++broker_->calls[std::string(method)];
    if (broker_->on_call) broker_->on_call(std::string(method));
    if (broker_->silent) {
      // The first of the two, the time limit or the end of the channel, answers.
      auto waiting = std::make_shared<Done>(std::move(done));
      unanswered_.push_back(waiting);
      broker_->executor_.PostAfter(timeout,
                                   [waiting] { Fail(*waiting, absl::DeadlineExceededError("no answer in time")); });
      return;
    }
    // A pause, so that a fetch at the end of a log does not spin.
    broker_->executor_.PostAfter(absl::Milliseconds(1),
                                 [broker = broker_, alive = broker_->alive_, method = std::string(method),
                                  request = std::move(request), done = std::move(done)]() mutable {
                                   if (!*alive) return;
                                   if (!broker->reachable) return done(absl::UnavailableError("connection lost"));
                                   done(broker->Answer(method, request));
                                 });
  }
  std::unique_ptr<Stream> OpenStream(std::string_view, Stream::Callbacks callbacks) override {
    ++broker_->streams_opened;
    return std::make_unique<FakeStream>(broker_, std::move(callbacks));
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
}

absl::StatusOr<record::Batch> Place(std::string_view bytes, Offset at) {
  MutableBytes copy(bytes.size());
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  absl::StatusOr<record::PendingBatch> pending = record::PendingBatch::FromClient(std::move(copy));
  if (!pending.ok()) return pending.status();
  return std::move(*pending).Assign(at, LeaderEpoch(1));
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

void FakeBroker::AppendControl(const TopicPartition& partition) {
  Log& log = logs.at(partition);
  const Offset at = log.end();
  log.batches.push_back(record::MakeControlBatch(record::LeaderChange{NodeId(1)}, 1).Assign(at, LeaderEpoch(1)));
}

void FakeBroker::AppendValues(const TopicPartition& partition, const std::vector<std::string>& values) {
  record::BatchBuilder builder;
  for (const std::string& value : values) SLUICE_CHECK(builder.Append(1000, std::nullopt, value).ok());
  Log& log = logs.at(partition);
  const Offset at = log.end();
  log.batches.push_back(builder.Build().value().Assign(at, LeaderEpoch(1)));
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

absl::StatusOr<Bytes> FakeBroker::Answer(std::string_view method, const Bytes& request) {
  if (method == "/sluice.v1.Log/Append") {
    std::set<TopicPartition> refused;
    return Bytes::Adopt(Produce(request, &refused));
  }
  if (method == "/sluice.v1.Log/Fetch") return Bytes::Adopt(Fetch(request));
  if (method == "/sluice.v1.Log/ListOffsets") return Bytes::Adopt(ListOffsets(request));
  if (method == "/sluice.v1.Topics/Describe") {
    const std::string name = ParseAs<v1::DescribeTopicRequest>(request).value().name();
    v1::DescribeTopicResponse response;
    for (const auto& [partition, log] : logs) {
      if (partition.topic != name) continue;
      v1::PartitionInfo& info = *response.add_partitions();
      info.set_partition(partition.partition.value());
      info.set_leader(kAddress);
      info.set_high_watermark(log.end().value());
    }
    if (response.partitions_size() == 0) return MakeError(Unknown(name, 0));
    response.mutable_topic()->set_name(name);
    response.mutable_topic()->set_partitions(response.partitions_size());
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

std::string FakeBroker::Produce(const Bytes& request, std::set<TopicPartition>* refused) {
  const auto produce = ParseAs<v1::ProduceRequest>(request).value();
  ++requests;
  v1::ProduceResponse response;
  response.set_correlation_id(produce.correlation_id());
  for (const v1::ProduceItem& item : produce.items()) {
    ++items;
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
    } else if (logs.count(partition) == 0) {
      error = Unknown(item.topic(), item.partition());
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
    absl::StatusOr<record::Batch> batch = Place(item.batch(), log.end());
    SLUICE_CHECK(batch.ok()) << std::string(batch.status().message());
    result.set_base_offset(batch->base_offset().value());
    result.set_next_offset(batch->next_offset().value());
    log.batches.push_back(*std::move(batch));
  }
  return response.SerializeAsString();
}

std::string FakeBroker::Fetch(const Bytes& request) {
  const auto fetch = ParseAs<v1::FetchRequest>(request).value();
  v1::FetchResponse response;
  size_t bytes = 0;
  for (const v1::FetchItem& item : fetch.items()) {
    v1::FetchResult& result = *response.add_results();
    const TopicPartition partition{item.topic(), PartitionId(item.partition())};
    auto found = logs.find(partition);
    if (found == logs.end()) {
      Set(result.mutable_error(), Unknown(item.topic(), item.partition()));
      continue;
    }
    const Log& log = found->second;
    if (Offset(item.offset()) < log.start || Offset(item.offset()) > log.end()) {
      result.mutable_error()->set_reason(v1::ErrorDetail::OFFSET_OUT_OF_RANGE);
      result.mutable_error()->set_log_start_offset(log.start.value());
      continue;
    }
    Offset next(item.offset());
    for (const record::Batch& batch : log.batches) {
      if (batch.last_offset() < Offset(item.offset())) continue;
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
    result.set_high_watermark(log.end().value());
  }
  return response.SerializeAsString();
}

std::string FakeBroker::ListOffsets(const Bytes& request) {
  const auto list = ParseAs<v1::ListOffsetsRequest>(request).value();
  v1::ListOffsetsResponse response;
  for (const v1::ListOffsetsItem& item : list.items()) {
    v1::ListOffsetsResult& result = *response.add_results();
    auto found = logs.find({item.topic(), PartitionId(item.partition())});
    if (found == logs.end()) {
      Set(result.mutable_error(), Unknown(item.topic(), item.partition()));
      continue;
    }
    result.set_log_end_offset(found->second.end().value());
    Offset offset = item.kind() == v1::ListOffsetsItem::EARLIEST ? found->second.start : found->second.end();
    if (item.kind() == v1::ListOffsetsItem::LATEST_DATA) {
      offset = found->second.start;
      for (const record::Batch& batch : found->second.batches) {
        if (!batch.is_control()) offset = batch.next_offset();
      }
    }
    result.set_offset(offset.value());
  }
  return response.SerializeAsString();
}

}  // namespace sluice::client
