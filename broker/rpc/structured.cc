// Records as simple clients see them, to and from batches; and the small messages that every handler reads and writes.
#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <utility>

#include "broker/read_quota.h"
#include "broker/rpc/handlers.h"
#include "common/record/record.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

// What a record takes beside its bytes, here and on the wire.
constexpr int64_t kRecordOverhead = 48;

// Decodes into one answer until it is large enough.
class Decoder {
 public:
  explicit Decoder(int64_t bytes_max) : room_(bytes_max) {}

  bool full() const { return room_ <= 0; }

  // The records of one batch from `from` on; `next_offset` behind the last that was taken.
  absl::Status Append(const record::Batch& batch, Offset from, v1::FetchResult* result) {
    auto reader = record::RecordReader::Open(batch.view(), {.bytes_max = kDecompressedBytesMax});
    if (!reader.ok()) return reader.status();
    record::Record record;
    while (!full()) {
      auto more = reader->Next(&record);
      if (!more.ok()) return more.status();
      if (!*more) {
        result->set_next_offset(batch.next_offset().value());
        return absl::OkStatus();
      }
      if (record.offset < from) continue;
      Take(record, result->add_records());
      result->set_next_offset(record.offset.value() + 1);
    }
    return absl::OkStatus();
  }

 private:
  void Take(const record::Record& record, v1::Record* out) {
    room_ -= kRecordOverhead;
    if (record.key) out->set_key(record.key->data(), Count(record.key->size()));
    if (record.value) out->set_value(record.value->data(), Count(record.value->size()));
    for (const record::Header& header : record.headers) {
      v1::RecordHeader& to = *out->add_headers();
      to.set_key(std::string(header.key));
      room_ -= kRecordOverhead + static_cast<int64_t>(header.key.size());
      if (header.value) to.set_value(header.value->data(), Count(header.value->size()));
    }
    out->set_timestamp_ms(record.timestamp_ms);
    out->set_offset(record.offset.value());
  }
  size_t Count(size_t bytes) {
    room_ -= static_cast<int64_t>(bytes);
    return bytes;
  }

  int64_t room_;
};

Error DecodeError(const absl::Status& status, const FetchOutcome& outcome) {
  Error error = MakeError(Reason::kCorruptBatch, std::string(Message(status)));
  if (absl::IsResourceExhausted(status)) {
    error.reason = Reason::kMessageTooLarge;
    error.message += "; fetch batches rather than structured records";
  }
  error.topic = outcome.topic;
  error.partition = outcome.partition;
  return error;
}

// The one hold that all outcomes share.
std::shared_ptr<ReadHold> MemoryOf(const std::vector<FetchOutcome>& outcomes) {
  const auto found =
      std::find_if(outcomes.begin(), outcomes.end(), [](const auto& one) { return one.memory != nullptr; });
  return found == outcomes.end() ? nullptr : found->memory;
}

// From here on the memory is the client's to free, by reading.
void CallInLater(const Services& services, const std::shared_ptr<Call>& call, ReadHold& memory) {
  memory.CallIn(services.read_stall_max, [&services, weak = std::weak_ptr(call)] {
    const auto held_up = weak.lock();
    if (held_up == nullptr) return;
    if (const int64_t count = services.slow_readers_logged.Due(services.clock.Monotonic()); count > 0) {
      services.log.Warn("cut off readers that did not take their answers while others waited for memory",
                        {{"count", count}, {"latest", held_up->peer()}});
    }
    held_up->Cancel();
  });
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
                                 const std::vector<FetchOutcome>& outcomes, int64_t bytes_max) {
  v1::FetchResponse response;
  response.set_correlation_id(correlation_id);
  Decoder decoder(bytes_max);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const FetchOutcome& outcome = outcomes[i];
    v1::FetchResult& result = *response.add_results();
    result.set_topic(outcome.topic);
    result.set_partition(outcome.partition.value());
    result.set_next_offset(outcome.batches.empty() ? outcome.next_offset.value() : asked[i].value());
    result.set_high_watermark(outcome.high_watermark.value());
    result.set_log_start_offset(outcome.log_start.value());
    result.set_leader_epoch(outcome.leader_epoch.value());
    if (outcome.error) ToProto(*outcome.error, result.mutable_error());
    for (const record::Batch& batch : outcome.batches) {
      if (decoder.full()) break;
      if (batch.is_control()) {
        result.set_next_offset(batch.next_offset().value());
        continue;
      }
      const absl::Status status = decoder.Append(batch, asked[i], &result);
      if (status.ok()) continue;
      // What came before the batch stays; an answer that holds nothing else tells the error.
      if (result.records_size() == 0) ToProto(DecodeError(status, outcome), result.mutable_error());
      break;
    }
  }
  return response;
}

grpc::ByteBuffer FetchAnswer(const Services& services, const std::shared_ptr<Call>& call, uint64_t correlation_id,
                             std::vector<FetchOutcome> outcomes) {
  const std::shared_ptr<ReadHold> memory = MemoryOf(outcomes);
  if (memory != nullptr) CallInLater(services, call, *memory);
  return ToByteBuffer(EncodeFetchResponse(correlation_id, outcomes), memory);
}

grpc::ByteBuffer StructuredAnswer(const Services& services, const std::shared_ptr<Call>& call, uint64_t correlation_id,
                                  const std::vector<Offset>& asked, std::vector<FetchOutcome> outcomes,
                                  int64_t bytes_max) {
  const std::shared_ptr<ReadHold> memory = MemoryOf(outcomes);
  if (memory != nullptr) bytes_max = std::max(kStructuredBytesMin, std::min(bytes_max, memory->Room()));
  const v1::FetchResponse response = DecodeOutcomes(correlation_id, asked, outcomes, bytes_max);
  outcomes.clear();
  std::string text = response.SerializeAsString();
  if (memory != nullptr) {
    memory->Resize(static_cast<int64_t>(text.size()));
    CallInLater(services, call, *memory);
  }
  return ToByteBuffer({Bytes::Adopt(std::move(text))}, memory);
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
