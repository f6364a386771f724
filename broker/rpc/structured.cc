// Records as simple clients see them, to and from batches; and the small messages that every handler reads and writes.
#include <grpcpp/impl/codegen/proto_utils.h>

#include <utility>

#include "broker/rpc/handlers.h"
#include "common/record/record.h"

namespace sluice::broker::rpc {
namespace {

// What one structured answer may decompress to; all of its records are in memory at once, and again as a message.
constexpr size_t kDecompressedMax = size_t{64} << 20;

// The records of one batch from `from` on.
absl::Status AppendRecords(const record::Batch& batch, Offset from, v1::FetchResult* result) {
  auto reader = record::RecordReader::Open(batch.view(), {.bytes_max = kDecompressedMax});
  if (!reader.ok()) return reader.status();
  record::Record record;
  while (true) {
    auto more = reader->Next(&record);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (record.offset < from) continue;
    v1::Record& out = *result->add_records();
    if (record.key) out.set_key(record.key->data(), record.key->size());
    if (record.value) out.set_value(record.value->data(), record.value->size());
    for (const record::Header& header : record.headers) {
      v1::RecordHeader& to = *out.add_headers();
      to.set_key(std::string(header.key));
      if (header.value) to.set_value(header.value->data(), header.value->size());
    }
    out.set_timestamp_ms(record.timestamp_ms);
    out.set_offset(record.offset.value());
  }
}

}  // namespace

bool ParseSmall(grpc::ByteBuffer* buffer, google::protobuf::MessageLite* message) {
  if (buffer->Length() > kSmallRequestBytesMax) return false;
  grpc::ProtoBufferReader reader(buffer);
  const bool parsed = reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
  buffer->Clear();
  return parsed;
}

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  return ToByteBuffer(message.SerializeAsString());
}

v1::FetchResponse DecodeOutcomes(uint64_t correlation_id, const std::vector<Offset>& asked,
                                 const std::vector<FetchOutcome>& outcomes) {
  v1::FetchResponse response;
  response.set_correlation_id(correlation_id);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const FetchOutcome& outcome = outcomes[i];
    v1::FetchResult& result = *response.add_results();
    result.set_topic(outcome.topic);
    result.set_partition(outcome.partition.value());
    result.set_next_offset(outcome.next_offset.value());
    result.set_high_watermark(outcome.high_watermark.value());
    result.set_log_start_offset(outcome.log_start.value());
    result.set_leader_epoch(outcome.leader_epoch.value());
    if (outcome.error) ToProto(*outcome.error, result.mutable_error());
    for (const record::Batch& batch : outcome.batches) {
      if (batch.is_control()) continue;
      const absl::Status status = AppendRecords(batch, asked[i], &result);
      if (status.ok()) continue;
      result.clear_records();
      result.set_next_offset(asked[i].value());
      Error error = MakeError(Reason::kCorruptBatch, std::string(status.message()));
      error.topic = outcome.topic;
      error.partition = outcome.partition;
      ToProto(error, result.mutable_error());
      break;
    }
  }
  return response;
}

Result<record::PendingBatch> BuildBatch(const std::vector<v1::Record>& records, int64_t now_ms) {
  record::BatchBuilder builder;
  const auto view = [](bool has, const std::string& bytes) {
    return has ? std::optional<std::string_view>(bytes) : std::nullopt;
  };
  for (const v1::Record& record : records) {
    record::Record out;
    out.timestamp_ms = record.timestamp_ms() == 0 ? now_ms : record.timestamp_ms();
    if (out.timestamp_ms < 0) return MakeError(Reason::kInvalidArgument, "timestamp_ms: must not be negative");
    out.key = view(record.has_key(), record.key());
    out.value = view(record.has_value(), record.value());
    for (const v1::RecordHeader& header : record.headers()) {
      out.headers.push_back({header.key(), view(header.has_value(), header.value())});
    }
    const absl::Status status = builder.Append(out);
    if (!status.ok()) return MakeError(Reason::kMessageTooLarge, std::string(status.message()));
  }
  auto batch = builder.Build();
  if (!batch.ok()) return MakeError(Reason::kInvalidArgument, std::string(batch.status().message()));
  return *std::move(batch);
}

FetchItem FromProto(const v1::FetchItem& item) {
  FetchItem out;
  out.topic = item.topic();
  out.partition = PartitionId(item.partition());
  out.offset = Offset(item.offset());
  out.bytes_max = item.max_bytes();
  out.leader_epoch = LeaderEpoch(item.leader_epoch());
  return out;
}

}  // namespace sluice::broker::rpc
