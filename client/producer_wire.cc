#include "client/producer_wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <cstring>
#include <utility>

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

// A piece costs gRPC about as much as this many bytes to copy.
constexpr size_t kOwnPieceFrom = size_t{8} << 10;

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

uint8_t* WriteLength(int field, size_t bytes, uint8_t* at) {
  at = WireFormatLite::WriteTagToArray(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED, at);
  return CodedOutputStream::WriteVarint64ToArray(bytes, at);
}

uint8_t* WriteBytes(int field, std::string_view bytes, uint8_t* at) {
  return CodedOutputStream::WriteRawToArray(bytes.data(), static_cast<int>(bytes.size()),
                                            WriteLength(field, bytes.size(), at));
}

}  // namespace

std::vector<Bytes> EncodeProduceRequest(uint64_t correlation_id, absl::Span<const ProduceItemToSend> items) {
  const auto is_piece = [](const ProduceItemToSend& item) { return item.batch.size() >= kOwnPieceFrom; };
  // All that lies around the pieces is written into one block.
  size_t total = kTag + CodedOutputStream::VarintSize64(correlation_id);
  for (const ProduceItemToSend& item : items) {
    total += kTag + Length(ItemBytes(item)) - (is_piece(item) ? item.batch.size() : 0);
  }
  MutableBytes memory(total);
  auto* const begin = reinterpret_cast<uint8_t*>(memory.data());
  std::vector<size_t> cuts;  // where in the block a batch is to stand
  uint8_t* at =
      WireFormatLite::WriteUInt64ToArray(v1::ProduceRequest::kCorrelationIdFieldNumber, correlation_id, begin);
  for (const ProduceItemToSend& item : items) {
    at = WriteLength(v1::ProduceRequest::kItemsFieldNumber, ItemBytes(item), at);
    at = WriteBytes(Item::kTopicFieldNumber, item.topic, at);
    if (item.partition != 0) at = WireFormatLite::WriteInt32ToArray(Item::kPartitionFieldNumber, item.partition, at);
    if (is_piece(item)) {
      at = WriteLength(Item::kBatchFieldNumber, item.batch.size(), at);
      cuts.push_back(static_cast<size_t>(at - begin));
    } else {
      at = WriteBytes(Item::kBatchFieldNumber, item.batch.view(), at);
    }
    if (item.expected_base_offset.has_value()) {
      at = WireFormatLite::WriteInt64ToArray(Item::kExpectedBaseOffsetFieldNumber, item.expected_base_offset->value(),
                                             at);
    }
    if (item.reset) at = WireFormatLite::WriteBoolToArray(Item::kResetFieldNumber, true, at);
  }
  SLUICE_CHECK(at == begin + total) << "a produce request of " << total << " bytes took " << (at - begin);
  const Bytes block = std::move(memory).Freeze();

  std::vector<Bytes> pieces;
  size_t from = 0;
  auto cut = cuts.begin();
  for (const ProduceItemToSend& item : items) {
    if (!is_piece(item)) continue;
    pieces.push_back(block.Slice(from, *cut - from));
    pieces.push_back(item.batch);
    from = *cut++;
  }
  if (from < block.size()) pieces.push_back(block.Slice(from, block.size() - from));
  return pieces;
}

Bytes Join(absl::Span<const Bytes> pieces) {
  if (pieces.size() == 1) return pieces.front();
  size_t total = 0;
  for (const Bytes& piece : pieces) total += piece.size();
  MutableBytes all(total);
  char* at = all.data();
  for (const Bytes& piece : pieces) {
    if (!piece.empty()) std::memcpy(at, piece.data(), piece.size());
    at += piece.size();
  }
  return std::move(all).Freeze();
}

}  // namespace sluice::client
