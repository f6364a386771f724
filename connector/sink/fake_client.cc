#include "connector/sink/fake_client.h"

#include <utility>

#include "common/check.h"
#include "common/record/record.h"
#include "common/text.h"

namespace sluice::connector {

namespace {

using client::OffsetQuery;
using client::TopicPartition;

class FakeAdmin : public client::Admin {
 public:
  explicit FakeAdmin(FakeClient* fake) : fake_(fake) {}
  absl::StatusOr<client::TopicInfo> CreateTopic(const client::TopicSpec& spec) override {
    if (fake_->topics().count(spec.name) > 0) return absl::AlreadyExistsError(spec.name);
    const CrashPoint::Fate fate = fake_->crash()->Next();
    if (fate.happens) fake_->Make(spec.name, spec.partitions);
    if (!fate.answered) return absl::UnavailableError("crashed");
    return fake_->topics()[spec.name].info;
  }
  absl::StatusOr<std::vector<client::TopicInfo>> ListTopics(bool) override { return Unused(); }
  absl::StatusOr<client::TopicDescription> DescribeTopic(const std::string& name) override {
    const auto at = fake_->topics().find(name);
    if (at == fake_->topics().end()) return absl::NotFoundError(name);
    return client::TopicDescription{at->second.info, {}};
  }
  absl::StatusOr<client::TopicInfo> AlterTopic(const std::string&, const std::map<std::string, std::string>&,
                                               const std::vector<std::string>&) override {
    return Unused();
  }
  absl::StatusOr<client::TopicInfo> AddPartitions(const std::string&, int32_t) override { return Unused(); }
  absl::Status DeleteTopic(const std::string&) override { return Unused(); }
  absl::StatusOr<std::vector<client::OffsetAnswer>> ListOffsets(absl::Span<const OffsetQuery> queries) override {
    std::vector<client::OffsetAnswer> answers;
    for (const OffsetQuery& query : queries) {
      if (fake_->topics().count(query.topic) == 0) return absl::NotFoundError(query.topic);
      const Offset end = fake_->End(query.topic, query.partition.value());
      client::OffsetAnswer answer;
      answer.offset = query.kind == OffsetQuery::Kind::kEarliest ? Offset(0) : end;
      answer.log_end = end;
      answers.push_back(answer);
    }
    return answers;
  }
  absl::StatusOr<std::vector<Offset>> DeleteRecords(absl::Span<const client::RecordsToDelete>) override {
    return Unused();
  }
  absl::StatusOr<client::ClusterInfo> DescribeCluster() override { return Unused(); }
  absl::StatusOr<std::vector<client::PartitionStatus>> ListPartitions(const client::PartitionFilter&) override {
    return Unused();
  }
  absl::StatusOr<client::ElectedLeader> ElectLeader(const TopicPartition&, NodeId) override { return Unused(); }

 private:
  static absl::Status Unused() { return absl::UnimplementedError("not asked of this fake"); }
  FakeClient* const fake_;
};

class FakeAppender : public client::Appender {
 public:
  explicit FakeAppender(FakeClient* fake) : fake_(fake) {}
  absl::StatusOr<client::AppendResult> AppendBatch(const client::AppendRequest& request, absl::Duration) override {
    const Offset end = fake_->End(request.topic, request.partition.value());
    SLUICE_CHECK(!request.expected_base_offset.has_value() || *request.expected_base_offset == end)
        << "one writer expected " << *request.expected_base_offset << ", the log ends at " << end;
    const CrashPoint::Fate fate = fake_->crash()->Next();
    if (fate.happens) {
      MutableBytes bytes(request.batch.size());
      std::copy(request.batch.view().begin(), request.batch.view().end(), bytes.data());
      auto pending = record::PendingBatch::FromClient(std::move(bytes));
      SLUICE_CHECK(pending.ok()) << pending.status();
      fake_->topics()[request.topic].partitions[static_cast<size_t>(request.partition.value())].push_back(
          std::move(*pending).Assign(end, LeaderEpoch(1)));
    }
    if (!fate.answered) return absl::UnavailableError("crashed");
    return client::AppendResult{
        .base_offset = end, .next_offset = fake_->End(request.topic, request.partition.value()), .leader_epoch = {}};
  }

 private:
  FakeClient* const fake_;
};

class FakeConsumer : public client::Consumer {
 public:
  explicit FakeConsumer(FakeClient* fake) : fake_(fake) {}
  void Assign(const TopicPartition& partition, Offset offset) override { positions_[partition] = offset; }
  void Unassign(const TopicPartition& partition) override { positions_.erase(partition); }
  absl::Status Seek(const TopicPartition& partition, Offset offset) override {
    positions_[partition] = offset;
    return absl::OkStatus();
  }
  std::optional<Offset> Position(const TopicPartition& partition) const override {
    const auto at = positions_.find(partition);
    return at == positions_.end() ? std::nullopt : std::optional(at->second);
  }
  std::optional<Offset> HighWatermark(const TopicPartition& partition) const override {
    return fake_->End(partition.topic, partition.partition.value());
  }
  absl::Status Pause(const TopicPartition&) override { return absl::OkStatus(); }
  absl::Status Resume(const TopicPartition&) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<client::ConsumedRecord>> Poll(absl::Duration timeout, size_t) override {
    auto batches = PollBatches(timeout, 1 << 20);
    if (!batches.ok()) return batches.status();
    std::vector<client::ConsumedRecord> records;
    kept_ = *std::move(batches);
    for (const client::ConsumedBatch& consumed : kept_) {
      readers_.push_back(*record::RecordReader::Open(consumed.batch.view()));
      record::Record record;
      while (*readers_.back().Next(&record)) {
        if (record.offset >= consumed.first_offset) {
          records.push_back({positions_.begin()->first.topic, consumed.source.partition, record});
        }
      }
    }
    return records;
  }
  absl::StatusOr<std::vector<client::ConsumedBatch>> PollBatches(absl::Duration, size_t) override {
    std::vector<client::ConsumedBatch> out;
    for (auto& [source, position] : positions_) {
      for (const record::Batch& batch :
           fake_->topics()[source.topic].partitions[static_cast<size_t>(source.partition.value())]) {
        if (batch.next_offset() <= position) continue;
        out.push_back({source, batch, position, batch.next_offset()});
        position = batch.next_offset();
        break;
      }
    }
    return out;
  }
  void Wake() override {}
  void OnReady(absl::AnyInvocable<void()>) override {}

 private:
  FakeClient* const fake_;
  std::map<TopicPartition, Offset> positions_;
  std::vector<client::ConsumedBatch> kept_;
  std::vector<record::RecordReader> readers_;
};

}  // namespace

CrashPoint::Fate CrashPoint::Next() {
  if (crashed) return {false, false};
  if (++writes != crash_at) return {true, true};
  crashed = true;
  return {crash_after, false};
}

std::unique_ptr<client::Admin> FakeClient::NewAdmin() {
  return std::make_unique<FakeAdmin>(this);
}
std::unique_ptr<client::Producer> FakeClient::NewProducer(client::ProducerOptions) {
  return nullptr;
}
std::unique_ptr<client::Appender> FakeClient::NewAppender() {
  return std::make_unique<FakeAppender>(this);
}
std::unique_ptr<client::Consumer> FakeClient::NewConsumer(client::ConsumerOptions) {
  return std::make_unique<FakeConsumer>(this);
}

void FakeClient::Make(const std::string& topic, int32_t partitions) {
  Topic& made = topics_[topic];
  made = {};
  made.info.name = topic;
  made.info.id = Uuid::FromRandom(1, ++topics_made_);
  made.info.partitions = partitions;
  made.partitions.resize(static_cast<size_t>(partitions));
}

Offset FakeClient::End(const std::string& topic, int32_t partition) const {
  const auto& batches = topics_.at(topic).partitions[static_cast<size_t>(partition)];
  return batches.empty() ? Offset(0) : batches.back().next_offset();
}

void FakeClient::Fill(const std::string& topic, int32_t partition, const std::vector<std::string>& values) {
  record::BatchBuilder builder;
  const Offset base = End(topic, partition);
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t offset = base.value() + static_cast<int64_t>(i);
    const std::string key = Cat("k", offset);
    SLUICE_CHECK(builder.Append(1000 + offset, key, values[i]).ok());
  }
  topics_[topic].partitions[static_cast<size_t>(partition)].push_back(
      std::move(*builder.Build(record::Codec::kZstd)).Assign(base, LeaderEpoch(1)));
}

absl::StatusOr<StateEntry> FakeStateStore::Get(std::string_view key) {
  const auto at = entries_.find(key);
  return at == entries_.end() ? StateEntry{} : at->second;
}

absl::StatusOr<int64_t> FakeStateStore::Put(std::string_view key, std::string_view value, int64_t version) {
  StateEntry& entry = entries_[std::string(key)];
  if (entry.version != version) return absl::AbortedError("another version");
  const CrashPoint::Fate fate = crash_->Next();
  if (fate.happens) entry = {std::string(value), next_version_++};
  if (!fate.answered) return absl::UnavailableError("crashed");
  return entry.version;
}

}  // namespace sluice::connector
