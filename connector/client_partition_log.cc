#include <utility>

#include "absl/time/time.h"
#include "client/admin.h"
#include "client/client.h"
#include "client/consumer.h"
#include "client/error.h"
#include "client/producer.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "connector/partition_log.h"

namespace sluice::connector {
namespace {

constexpr absl::Duration kAppendTimeout = absl::Seconds(30);
constexpr absl::Duration kPollTimeout = absl::Seconds(5);
constexpr int kEmptyPollsMax = 6;

class ClientPartitionLog final : public PartitionLog {
 public:
  ClientPartitionLog(client::Client& client, const std::string& topic, PartitionId partition)
      : client_(client),
        where_{.topic = topic, .partition = partition},
        name_(Cat(topic, "/", partition)),
        admin_(client.NewAdmin()),
        appender_(client.NewAppender()) {}

  const std::string& name() const override { return name_; }

  absl::StatusOr<End> ReadEnd() override {
    using Kind = client::OffsetQuery::Kind;
    const client::OffsetQuery bounds[] = {
        {.topic = where_.topic, .partition = where_.partition, .kind = Kind::kEarliest},
        {.topic = where_.topic, .partition = where_.partition, .kind = Kind::kLatest}};
    SLUICE_ASSIGN_OR_RETURN(const client::TopicDescription topic, admin_->DescribeTopic(where_.topic));
    SLUICE_ASSIGN_OR_RETURN(const std::vector<client::OffsetAnswer> first, admin_->ListOffsets(bounds));
    if (first.size() != 2) return absl::InternalError(Cat(name_, ": the broker answered other offsets than asked for"));
    SLUICE_ASSIGN_OR_RETURN(
        const client::OffsetAnswer data,
        admin_->ListOffset({.topic = where_.topic, .partition = where_.partition, .kind = Kind::kLatestData}));
    End end;
    end.topic_id = topic.topic.id.ToString();
    end.log_start = first[0].offset.value_or(Offset(0));
    // Not where the log ends now: what is appended there but not committed, our own lost batch perhaps, cannot be read
    // yet, so nothing may be written behind it. And asked before the data's end: nothing below it is missing there.
    end.log_end = first[1].offset.value_or(first[1].log_end);
    // Retention may have moved the start past the last data batch.
    end.data_end = std::max(std::min(data.offset.value_or(end.log_start), end.log_end), end.log_start);
    return end;
  }

  absl::StatusOr<Offset> Append(Offset expected, absl::Span<const record::Record> batch, record::Codec codec) override {
    builder_.Reset();
    for (const record::Record& record : batch) {
      // What no reader would unpack must not get into the log, however well it compresses.
      const size_t size =
          builder_.size_bytes() + record::BatchBuilder::RecordBytesMax(record.key, record.value,
                                                                       {record.headers.data(), record.headers.size()});
      if (size > record::DecompressLimits().bytes_max) return TooLarge(size);
      SLUICE_RETURN_IF_ERROR(builder_.Append(record));
    }
    SLUICE_ASSIGN_OR_RETURN(record::PendingBatch pending, builder_.Build(codec));
    SLUICE_ASSIGN_OR_RETURN(const client::AppendResult result,
                            appender_->AppendBatch({.topic = where_.topic,
                                                    .partition = where_.partition,
                                                    .batch = std::move(pending).Freeze(),
                                                    .expected_base_offset = expected},
                                                   kAppendTimeout));
    return result.next_offset;
  }

  absl::Status Read(Offset from, Offset to, const Visitor& visit) override {
    if (from >= to) return absl::OkStatus();
    const std::unique_ptr<client::Consumer> consumer = client_.NewConsumer();
    consumer->Assign(where_, from);
    int empty = 0;
    while (consumer->Position(where_).value_or(to) < to) {
      SLUICE_ASSIGN_OR_RETURN(const std::vector<client::ConsumedBatch> batches, consumer->PollBatches(kPollTimeout));
      empty = batches.empty() ? empty + 1 : 0;
      if (empty == kEmptyPollsMax) {
        return absl::DeadlineExceededError(Cat(name_, ": nothing came from offset ", *consumer->Position(where_)));
      }
      for (const client::ConsumedBatch& consumed : batches) {
        if (consumed.batch.base_offset() >= to) return absl::OkStatus();
        SLUICE_ASSIGN_OR_RETURN(const bool more, Visit(consumed, visit));
        if (!more) return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  absl::Status DeleteBefore(Offset before) override { return admin_->DeleteRecords(where_, before).status(); }

 private:
  absl::StatusOr<bool> Visit(const client::ConsumedBatch& consumed, const Visitor& visit) {
    SLUICE_ASSIGN_OR_RETURN(record::RecordReader reader, record::RecordReader::Open(consumed.batch.view()));
    std::vector<record::Record> records;
    record::Record record;
    for (;;) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, reader.Next(&record));
      if (!more) break;
      records.push_back(record);
    }
    if (records.empty()) return true;
    return visit(records, consumed.next_offset);
  }

  absl::Status TooLarge(size_t size) const {
    client::ErrorDetail detail;
    detail.reason = client::Reason::kMessageTooLarge;
    detail.message = Cat("a batch of ", size, " bytes before compression; readers unpack up to ",
                         record::DecompressLimits().bytes_max);
    detail.topic = where_.topic;
    detail.partition = where_.partition.value();
    return client::MakeError(detail);
  }

  client::Client& client_;
  const client::TopicPartition where_;
  const std::string name_;
  const std::unique_ptr<client::Admin> admin_;
  const std::unique_ptr<client::Appender> appender_;
  record::BatchBuilder builder_;
};

}  // namespace

bool PartitionLog::IsMismatch(const absl::Status& status) {
  return client::HasReason(status, client::Reason::kExpectedOffsetMismatch);
}

bool PartitionLog::IsUnknown(const absl::Status& status) {
  return client::IsOutcomeUnknown(status);
}

bool PartitionLog::IsTooLarge(const absl::Status& status) {
  if (client::HasReason(status, client::Reason::kMessageTooLarge)) return true;
  // Beyond the node's own bound of a message it is gRPC that refuses, with no more than a text to tell it by.
  return absl::IsResourceExhausted(status) && !client::GetErrorDetail(status).has_value() &&
         Message(status).find("larger than max") != std::string_view::npos;
}

std::unique_ptr<PartitionLog> OpenPartitionLog(client::Client& client, const std::string& topic,
                                               PartitionId partition) {
  return std::make_unique<ClientPartitionLog>(client, topic, partition);
}

}  // namespace sluice::connector
