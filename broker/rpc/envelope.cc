#include "broker/rpc/envelope.h"

#include <utility>

#include "absl/status/status.h"

#include "broker/rpc/errors.h"
#include "broker/rpc/wire.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

// A batch this small is copied into the text around it.
constexpr size_t kCopyBelow = 2048;

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Cat("the request is not a ProduceRequest: ", what));
}

// A repeated scalar field takes its last value, as protobuf has it.
template <class T>
bool ReadScalar(WireReader& in, T* value) {
  uint64_t bits = 0;
  if (!in.ReadVarint(&bits)) return false;
  *value = static_cast<T>(bits);
  return true;
}

absl::Status ReadRecord(WireReader& in, size_t* records, ProduceEnvelopeItem* item) {
  if (++*records > kStructuredRecordsMax) {
    return absl::InvalidArgumentError(Cat("more than ", kStructuredRecordsMax, " records in one request"));
  }
  std::string bytes;
  if (!in.ReadString(&bytes) || !item->records.emplace_back().ParseFromString(bytes)) {
    return Malformed("a record cannot be read");
  }
  return absl::OkStatus();
}

absl::Status ReadBatch(WireReader& in, PlaceOfBatch place_of, ProduceEnvelopeItem* item) {
  size_t length = 0;
  if (!in.ReadLength(&length)) return Malformed("the batch is cut short");
  item->batch.reset();
  if (length == 0) return absl::OkStatus();
  item->batch.emplace(length, place_of(item->topic, item->partition, length));
  return in.Copy(item->batch->data(), length) ? absl::OkStatus() : Malformed("the batch is cut short");
}

absl::Status ReadItem(WireReader& in, PlaceOfBatch place_of, size_t* records, ProduceEnvelopeItem* item) {
  using Item = v1::ProduceItem;
  while (!in.AtEnd()) {
    WireTag tag;
    if (!in.ReadTag(&tag)) return Malformed("a field's tag cannot be read");
    const bool varint = tag.type == WireType::kVarint;
    const bool length = tag.type == WireType::kLength;
    bool ok = true;
    if (tag.field == Item::kBatchFieldNumber && length) {
      SLUICE_RETURN_IF_ERROR(ReadBatch(in, place_of, item));
    } else if (tag.field == Item::kRecordsFieldNumber && length) {
      SLUICE_RETURN_IF_ERROR(ReadRecord(in, records, item));
    } else if (tag.field == Item::kTopicFieldNumber && length) {
      ok = in.ReadString(&item->topic) && IsUtf8(item->topic);
    } else if (tag.field == Item::kPartitionFieldNumber && varint) {
      ok = ReadScalar(in, &item->partition);
    } else if (tag.field == Item::kExpectedBaseOffsetFieldNumber && varint) {
      ok = ReadScalar(in, &item->expected_base_offset.emplace());
    } else if (tag.field == Item::kLeaderEpochFieldNumber && varint) {
      ok = ReadScalar(in, &item->leader_epoch);
    } else if (tag.field == Item::kResetFieldNumber && varint) {
      ok = ReadScalar(in, &item->reset);
    } else {
      ok = in.Skip(tag);
    }
    if (!ok) return Malformed(Cat("field ", tag.field, " of an item cannot be read"));
  }
  return absl::OkStatus();
}

void PutError(std::string* out, uint32_t field, const Error& error) {
  v1::ErrorDetail detail;
  ToProto(error, &detail);
  PutLengthDelimited(out, field, detail.SerializeAsString());
}

}  // namespace

absl::StatusOr<ProduceEnvelope> ParseProduceRequest(std::span<const std::string_view> slices, PlaceOfBatch place_of) {
  WireReader in(slices);
  ProduceEnvelope envelope;
  size_t records = 0;
  while (!in.AtEnd()) {
    WireTag tag;
    if (!in.ReadTag(&tag)) return Malformed("a field's tag cannot be read");
    if (tag.field == v1::ProduceRequest::kItemsFieldNumber && tag.type == WireType::kLength) {
      if (envelope.items.size() == kItemsMax) {
        return absl::InvalidArgumentError(Cat("more than ", kItemsMax, " items in one request"));
      }
      size_t length = 0;
      if (!in.ReadLength(&length)) return Malformed("an item is cut short");
      const size_t outer = in.Enter(length);
      SLUICE_RETURN_IF_ERROR(ReadItem(in, place_of, &records, &envelope.items.emplace_back()));
      in.Leave(outer);
    } else if (tag.field == v1::ProduceRequest::kCorrelationIdFieldNumber && tag.type == WireType::kVarint) {
      if (!in.ReadVarint(&envelope.correlation_id)) return Malformed("correlation_id cannot be read");
    } else if (!in.Skip(tag)) {
      return Malformed(Cat("field ", tag.field, " cannot be read"));
    }
  }
  return envelope;
}

std::string EncodeProduceResponse(uint64_t correlation_id, std::span<const ProduceAnswerItem> items) {
  using Result = v1::ProduceResult;
  std::string out;
  PutUint64(&out, v1::ProduceResponse::kCorrelationIdFieldNumber, correlation_id);
  std::string body;
  for (const ProduceAnswerItem& item : items) {
    body.clear();
    PutString(&body, Result::kTopicFieldNumber, item.topic);
    PutInt32(&body, Result::kPartitionFieldNumber, item.partition);
    const ProduceOutcome& outcome = *item.outcome;
    PutInt64(&body, Result::kBaseOffsetFieldNumber, outcome.ok() ? outcome->base_offset.value() : -1);
    PutInt64(&body, Result::kNextOffsetFieldNumber, outcome.ok() ? outcome->next_offset.value() : -1);
    if (outcome.ok()) PutInt32(&body, Result::kLeaderEpochFieldNumber, outcome->leader_epoch.value());
    PutInt64(&body, Result::kLogAppendTimeMsFieldNumber, outcome.ok() ? outcome->log_append_time_ms : -1);
    if (!outcome.ok()) PutError(&body, Result::kErrorFieldNumber, outcome.error());
    PutLengthDelimited(&out, v1::ProduceResponse::kResultsFieldNumber, body);
  }
  return out;
}

std::vector<Piece> EncodeFetchResponse(uint64_t correlation_id, std::span<const FetchOutcome> outcomes) {
  using Result = v1::FetchResult;
  std::vector<Piece> pieces;
  std::string text;
  PutUint64(&text, v1::FetchResponse::kCorrelationIdFieldNumber, correlation_id);
  for (const FetchOutcome& outcome : outcomes) {
    size_t batch_bytes = 0;
    for (const record::Batch& batch : outcome.batches) batch_bytes += batch.size_bytes();
    // Everything but the batches, in two parts around them, so that fields stand in the order of their numbers.
    std::string head;
    PutString(&head, Result::kTopicFieldNumber, outcome.topic);
    PutInt32(&head, Result::kPartitionFieldNumber, outcome.partition.value());
    std::string tail;
    PutInt64(&tail, Result::kNextOffsetFieldNumber, outcome.next_offset.value());
    PutInt64(&tail, Result::kHighWatermarkFieldNumber, outcome.high_watermark.value());
    PutInt64(&tail, Result::kLogStartOffsetFieldNumber, outcome.log_start.value());
    PutInt32(&tail, Result::kLeaderEpochFieldNumber, outcome.leader_epoch.value());
    if (outcome.error) PutError(&tail, Result::kErrorFieldNumber, *outcome.error);
    if (batch_bytes > 0) {
      PutTag(&head, Result::kBatchesFieldNumber, WireType::kLength);
      PutVarint(&head, batch_bytes);
    }
    PutTag(&text, v1::FetchResponse::kResultsFieldNumber, WireType::kLength);
    PutVarint(&text, head.size() + batch_bytes + tail.size());
    text += head;
    for (const record::Batch& batch : outcome.batches) {
      if (batch.size_bytes() < kCopyBelow) {
        text += batch.bytes().view();
        continue;
      }
      if (!text.empty()) pieces.push_back(Bytes::Adopt(std::exchange(text, {})));
      pieces.push_back(batch.bytes());
    }
    text += tail;
  }
  if (!text.empty()) pieces.push_back(Bytes::Adopt(std::move(text)));
  return pieces;
}

}  // namespace sluice::broker::rpc
