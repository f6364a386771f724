#include "client/producer_wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "common/check.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;
using Item = v1::ProduceItem;

size_t Length(size_t bytes) {
  return CodedOutputStream::VarintSize64(bytes) + bytes;
}

// Every field of these messages has a number below 16, so a tag is one byte.
constexpr size_t kTag = 1;

size_t ItemBytes(const ProduceItemToSend& item) {
  size_t size = kTag + Length(item.topic.size()) + kTag + Length(item.batch.size());
  if (item.partition != 0) size += kTag + CodedOutputStream::VarintSize32SignExtended(item.partition);
  if (item.expected_base_offset.has_value()) {
    size += kTag + CodedOutputStream::VarintSize64(static_cast<uint64_t>(item.expected_base_offset->value()));
  }
  if (item.reset) size += kTag + 1;
  return size;
}

uint8_t* WriteBytes(int field, std::string_view bytes, uint8_t* at) {
  at = WireFormatLite::WriteTagToArray(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED, at);
  at = CodedOutputStream::WriteVarint64ToArray(bytes.size(), at);
  return CodedOutputStream::WriteRawToArray(bytes.data(), static_cast<int>(bytes.size()), at);
}

}  // namespace

Bytes EncodeProduceRequest(uint64_t correlation_id, absl::Span<const ProduceItemToSend> items) {
  size_t total = kTag + CodedOutputStream::VarintSize64(correlation_id);
  for (const ProduceItemToSend& item : items) total += kTag + Length(ItemBytes(item));
  MutableBytes message(total);
  auto* const begin = reinterpret_cast<uint8_t*>(message.data());
  uint8_t* at =
      WireFormatLite::WriteUInt64ToArray(v1::ProduceRequest::kCorrelationIdFieldNumber, correlation_id, begin);
  for (const ProduceItemToSend& item : items) {
    at = WireFormatLite::WriteTagToArray(v1::ProduceRequest::kItemsFieldNumber,
                                         WireFormatLite::WIRETYPE_LENGTH_DELIMITED, at);
    at = CodedOutputStream::WriteVarint64ToArray(ItemBytes(item), at);
    at = WriteBytes(Item::kTopicFieldNumber, item.topic, at);
    if (item.partition != 0) at = WireFormatLite::WriteInt32ToArray(Item::kPartitionFieldNumber, item.partition, at);
    at = WriteBytes(Item::kBatchFieldNumber, item.batch, at);
    if (item.expected_base_offset.has_value()) {
      at = WireFormatLite::WriteInt64ToArray(Item::kExpectedBaseOffsetFieldNumber, item.expected_base_offset->value(),
                                             at);
    }
    if (item.reset) at = WireFormatLite::WriteBoolToArray(Item::kResetFieldNumber, true, at);
  }
  SLUICE_CHECK(at == begin + total) << "a produce request of " << total << " bytes took " << (at - begin);
  return std::move(message).Freeze();
}

}  // namespace sluice::client
