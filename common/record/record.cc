#include "common/record/record.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/record/record_walk.h"
#include "common/record/varint.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::record {

namespace {

constexpr size_t kBatchBytesMax = size_t{std::numeric_limits<int32_t>::max()};

constexpr size_t kBufferBytesFirst = 512;
constexpr size_t kRoomBeyondLast = 16;  // a sixteenth: batches of one producer are about equal

MutableBytes CopyOf(std::string_view view) {
  MutableBytes copy(view.size());
  std::memcpy(copy.data(), view.data(), view.size());
  return copy;
}

size_t NullableBytes(std::optional<std::string_view> field) {
  if (!field.has_value()) return VarintBytes(-1);
  return VarintBytes(static_cast<int64_t>(field->size())) + field->size();
}

char* PutNullable(char* to, std::optional<std::string_view> field) {
  if (!field.has_value()) return PutVarint(to, -1);
  to = PutVarint(to, static_cast<int64_t>(field->size()));
  if (!field->empty()) std::memcpy(to, field->data(), field->size());
  return to + field->size();
}

// Everything of a record but its length, timestamp delta and offset delta.
size_t FieldBytes(std::optional<std::string_view> key, std::optional<std::string_view> value,
                  std::span<const Header> headers) {
  size_t bytes = 1 + NullableBytes(key) + NullableBytes(value) + VarintBytes(static_cast<int64_t>(headers.size()));
  for (const Header& header : headers) bytes += NullableBytes(header.key) + NullableBytes(header.value);
  return bytes;
}

}  // namespace

BatchBuilder::BatchBuilder() : size_(kBatchHeaderBytes), capacity_wanted_(kBufferBytesFirst) {}

// Room for `bytes` in all; what was written stays.
void BatchBuilder::Reserve(size_t bytes) {
  if (bytes <= buffer_.size()) return;
  MutableBytes larger(std::max({bytes, capacity_wanted_, 2 * buffer_.size()}));
  if (size_ > kBatchHeaderBytes) {
    std::memcpy(larger.data() + kBatchHeaderBytes, buffer_.data() + kBatchHeaderBytes, size_ - kBatchHeaderBytes);
  }
  buffer_ = std::move(larger);
}

void BatchBuilder::SetProducer(int64_t id, int16_t epoch, int32_t base_sequence) {
  producer_id_ = id;
  producer_epoch_ = epoch;
  base_sequence_ = base_sequence;
}

size_t BatchBuilder::RecordBytesMax(std::optional<std::string_view> key, std::optional<std::string_view> value,
                                    std::span<const Header> headers) {
  return 2 * kVarint32BytesMax + kVarintBytesMax + FieldBytes(key, value, headers);
}

absl::Status BatchBuilder::Append(const Record& record) {
  return Append(record.timestamp_ms, record.key, record.value, record.headers);
}

absl::Status BatchBuilder::Append(int64_t timestamp_ms, std::optional<std::string_view> key,
                                  std::optional<std::string_view> value, std::span<const Header> headers) {
  const int64_t first = count_ == 0 ? timestamp_ms : first_timestamp_ms_;
  int64_t delta;
  if (__builtin_sub_overflow(timestamp_ms, first, &delta)) {
    return absl::InvalidArgumentError("timestamps of one batch are too far apart");
  }
  const size_t body = VarintBytes(delta) + VarintBytes(count_) + FieldBytes(key, value, headers);
  const size_t size = VarintBytes(static_cast<int64_t>(body)) + body;
  if (size > kBatchBytesMax - size_) {
    return absl::ResourceExhaustedError(Cat("a record of ", size, " bytes does not fit behind ", size_));
  }
  const size_t from = size_;
  // A varint may be written with slack behind it.
  Reserve(from + size + kVarintBytesMax);
  char* to = PutVarint(buffer_.data() + from, static_cast<int64_t>(body));
  *to++ = 0;  // attributes
  to = PutVarint(to, delta);
  to = PutVarint(to, count_);
  to = PutNullable(to, key);
  to = PutNullable(to, value);
  to = PutVarint(to, static_cast<int64_t>(headers.size()));
  for (const Header& header : headers) to = PutNullable(PutNullable(to, header.key), header.value);
  SLUICE_CHECK(to == buffer_.data() + from + size);
  size_ = from + size;
  max_timestamp_ms_ = count_ == 0 ? timestamp_ms : std::max(max_timestamp_ms_, timestamp_ms);
  first_timestamp_ms_ = first;
  ++count_;
  return absl::OkStatus();
}

void BatchBuilder::Reset() {
  size_ = kBatchHeaderBytes;
  count_ = 0;
}

void BatchBuilder::WriteHeader(uint16_t attributes, char* header, size_t size) const {
  StoreBig<int64_t>(header + kBaseOffsetAt, 0);
  StoreBig<int32_t>(header + kBatchLengthAt, static_cast<int32_t>(size - kLengthCountsFrom));
  StoreBig<int32_t>(header + kLeaderEpochAt, kNoLeaderEpoch);
  StoreBig<int8_t>(header + kMagicAt, kMagic);
  StoreBig<uint16_t>(header + kAttributesAt, attributes);
  StoreBig<int32_t>(header + kLastOffsetDeltaAt, count_ - 1);
  StoreBig<int64_t>(header + kFirstTimestampAt, first_timestamp_ms_);
  StoreBig<int64_t>(header + kMaxTimestampAt, max_timestamp_ms_);
  StoreBig<int64_t>(header + kProducerIdAt, producer_id_);
  StoreBig<int16_t>(header + kProducerEpochAt, producer_epoch_);
  StoreBig<int32_t>(header + kBaseSequenceAt, base_sequence_);
  StoreBig<int32_t>(header + kRecordCountAt, count_);
  StoreBig<uint32_t>(header + kCrcAt, Crc32c(std::string_view(header, size).substr(kCrcCoversFrom)));
}

PendingBatch BatchBuilder::FinishRecords(uint16_t attributes) {
  WriteHeader(attributes, buffer_.data(), size_);
  const size_t size = size_;
  Reset();
  capacity_wanted_ = std::max(kBufferBytesFirst, size + size / kRoomBeyondLast);
  MutableBytes bytes = std::move(buffer_);
  // What is kept of it counts as its size, so it does not keep much more.
  if (size < bytes.size() / 4 * 3) return PendingBatch::FromBuilder(CopyOf(bytes.view().substr(0, size)));
  bytes.Truncate(size);
  return PendingBatch::FromBuilder(std::move(bytes));
}

absl::StatusOr<PendingBatch> BatchBuilder::Build(Codec codec, int level) {
  if (count_ == 0) return absl::FailedPreconditionError("a batch needs at least one record");
  if (codec == Codec::kNone) return FinishRecords(0);
  compressed_.resize(kBatchHeaderBytes);
  const std::string_view records = buffer_.view().substr(kBatchHeaderBytes, size_ - kBatchHeaderBytes);
  SLUICE_RETURN_IF_ERROR(Compress(codec, level, records, &compressed_));
  if (compressed_.size() > kBatchBytesMax) return absl::ResourceExhaustedError("a compressed batch of over 2 GiB");
  WriteHeader(static_cast<uint16_t>(codec), compressed_.data(), compressed_.size());
  Reset();
  return PendingBatch::FromBuilder(CopyOf(compressed_));
}

absl::StatusOr<PendingBatch> BatchBuilder::BuildControl() {
  if (count_ == 0) return absl::FailedPreconditionError("a batch needs at least one record");
  return FinishRecords(kControlBit);
}

RecordReader::RecordReader(const BatchView& batch, std::unique_ptr<std::string> decompressed)
    : batch_(batch), decompressed_(std::move(decompressed)) {
  rest_ = decompressed_ == nullptr ? batch_.payload() : std::string_view(*decompressed_);
}

absl::StatusOr<RecordReader> RecordReader::Open(const BatchView& batch, const DecompressLimits& limits) {
  if (batch.codec() == Codec::kNone || batch.record_count() == 0) return RecordReader(batch, nullptr);
  SLUICE_ASSIGN_OR_RETURN(std::string records, Decompress(batch.codec(), batch.payload(), limits));
  return RecordReader(batch, std::make_unique<std::string>(std::move(records)));
}

absl::StatusOr<bool> RecordReader::Next(Record* record) {
  SLUICE_RETURN_IF_ERROR(failed_);
  if (read_ == batch_.record_count()) {
    if (!rest_.empty()) {
      failed_ = absl::DataLossError(Cat(rest_.size(), " bytes are left over behind the batch's records"));
      return failed_;
    }
    return false;
  }
  RawRecord raw;
  failed_ = TakeRecord(&rest_, read_, &raw);
  SLUICE_RETURN_IF_ERROR(failed_);
  int64_t timestamp;
  if (raw.offset_delta != read_ ||
      __builtin_add_overflow(batch_.first_timestamp_ms(), raw.timestamp_delta, &timestamp)) {
    failed_ = absl::DataLossError(Cat("record ", read_, " of the batch has offset delta ", raw.offset_delta,
                                      ", timestamp delta ", raw.timestamp_delta));
    return failed_;
  }
  record->timestamp_ms = batch_.is_log_append_time() ? batch_.max_timestamp_ms() : timestamp;
  record->key = raw.key;
  record->value = raw.value;
  record->offset = batch_.base_offset() + raw.offset_delta;
  record->headers.resize(static_cast<size_t>(raw.header_count));
  for (Header& header : record->headers) SLUICE_CHECK(TakeHeader(&raw.headers, &header.key, &header.value));
  ++read_;
  return true;
}

}  // namespace sluice::record
