#include "common/record/batch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/planted_bug.h"
#include "common/record/record_walk.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::record {

namespace {

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(Cat("not a sound record batch: ", what));
}

absl::Status FromClientError(const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(status.message());
}

uint32_t CrcOfCovered(std::string_view bytes) {
  return Crc32c(bytes.substr(kCrcCoversFrom));
}

// The walk over records that are not compressed (any more).
absl::Status WalkRecords(const BatchView& batch, std::string_view rest) {
  int64_t latest = std::numeric_limits<int64_t>::min();
  const int64_t first = batch.first_timestamp_ms();
  for (int32_t i = 0; i < batch.record_count(); ++i) {
    RawRecord record;
    SLUICE_RETURN_IF_ERROR(TakeRecord(&rest, i, &record));
    if (record.offset_delta != i) {
      return Damaged(Cat("record ", i, " has offset delta ", record.offset_delta));
    }
    int64_t timestamp;
    if (__builtin_add_overflow(first, record.timestamp_delta, &timestamp)) {
      return Damaged(Cat("the timestamp of record ", i, " overflows"));
    }
    latest = std::max(latest, timestamp);
  }
  if (!rest.empty()) return Damaged(Cat(rest.size(), " bytes are left over behind its records"));
  // Retention and time indexes trust this field, and where the broker did not give it, nothing else vouches for it.
  if (batch.record_count() > 0 && !batch.is_log_append_time() && latest != batch.max_timestamp_ms()) {
    return Damaged(Cat("largest timestamp ", batch.max_timestamp_ms(), " where its records say ", latest));
  }
  return absl::OkStatus();
}

absl::Status CheckCounts(const BatchView& batch) {
  const int64_t base = batch.base_offset().value();
  const int64_t delta = batch.last_offset_delta();
  const int64_t count = batch.record_count();
  if (base < 0) return Damaged(Cat("base offset ", base));
  if (delta < 0) return Damaged(Cat("last offset delta ", delta));
  // The offset behind the last one must exist too.
  if (base >= std::numeric_limits<int64_t>::max() - delta) return Damaged(Cat("base offset ", base, " is too large"));
  if (batch.leader_epoch().value() < kNoLeaderEpoch) {
    return Damaged(Cat("leader epoch ", batch.leader_epoch().value()));
  }
  if (count < 0 || (count != 0 && count != delta + 1)) {
    return Damaged(Cat(count, " records over ", delta + 1, " offsets"));
  }
  const size_t payload = batch.payload().size();
  if (count == 0 && payload != 0) return Damaged(Cat("no records, but ", payload, " bytes of them"));
  if (count != 0 && payload == 0) return Damaged(Cat(count, " records, but no bytes of them"));
  if (batch.codec() == Codec::kNone && static_cast<size_t>(count) > payload / kRecordBytesMin) {
    return Damaged(Cat(count, " records cannot stand in ", payload, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<size_t> BatchView::PeekSize(std::string_view bytes) {
  if (bytes.size() < kLengthCountsFrom) {
    return Damaged(Cat(bytes.size(), " bytes are too few for a length field"));
  }
  const int32_t length = LoadBig<int32_t>(bytes.data() + kBatchLengthAt);
  if (length < kBatchLengthMin) return Damaged(Cat("length field ", length, ", at least ", kBatchLengthMin));
  return static_cast<size_t>(length) + kLengthCountsFrom;
}

absl::StatusOr<BatchView> BatchView::ParseFirst(std::string_view bytes) {
  SLUICE_ASSIGN_OR_RETURN(const size_t size, PeekSize(bytes));
  if (size > bytes.size()) return Damaged(Cat("it says ", size, " bytes, and ", bytes.size(), " are there"));
  const BatchView batch(bytes.substr(0, size));
  const int8_t magic = LoadBig<int8_t>(bytes.data() + kMagicAt);
  if (magic != kMagic) return Damaged(Cat("magic ", magic, ", expected ", kMagic));
  if ((batch.attributes() & kCodecMask) > static_cast<uint16_t>(Codec::kZstd)) {
    return Damaged(Cat("unknown codec ", batch.attributes() & kCodecMask));
  }
  SLUICE_RETURN_IF_ERROR(CheckCounts(batch));
  return batch;
}

absl::StatusOr<BatchView> BatchView::Parse(std::string_view bytes) {
  SLUICE_ASSIGN_OR_RETURN(const BatchView batch, ParseFirst(bytes));
  if (batch.size_bytes() != bytes.size()) {
    return Damaged(Cat("it says ", batch.size_bytes(), " bytes, and ", bytes.size(), " are there"));
  }
  return batch;
}

Offset BatchView::base_offset() const {
  return Offset(LoadBig<int64_t>(bytes_.data() + kBaseOffsetAt));
}
Offset BatchView::last_offset() const {
  return base_offset() + last_offset_delta();
}
LeaderEpoch BatchView::leader_epoch() const {
  return LeaderEpoch(LoadBig<int32_t>(bytes_.data() + kLeaderEpochAt));
}
uint32_t BatchView::crc() const {
  return LoadBig<uint32_t>(bytes_.data() + kCrcAt);
}
uint16_t BatchView::attributes() const {
  return LoadBig<uint16_t>(bytes_.data() + kAttributesAt);
}
int32_t BatchView::last_offset_delta() const {
  return LoadBig<int32_t>(bytes_.data() + kLastOffsetDeltaAt);
}
int64_t BatchView::first_timestamp_ms() const {
  return LoadBig<int64_t>(bytes_.data() + kFirstTimestampAt);
}
int64_t BatchView::max_timestamp_ms() const {
  return LoadBig<int64_t>(bytes_.data() + kMaxTimestampAt);
}
int64_t BatchView::producer_id() const {
  return LoadBig<int64_t>(bytes_.data() + kProducerIdAt);
}
int16_t BatchView::producer_epoch() const {
  return LoadBig<int16_t>(bytes_.data() + kProducerEpochAt);
}
int32_t BatchView::base_sequence() const {
  return LoadBig<int32_t>(bytes_.data() + kBaseSequenceAt);
}
int32_t BatchView::record_count() const {
  return LoadBig<int32_t>(bytes_.data() + kRecordCountAt);
}

absl::Status BatchView::VerifyCrc() const {
  const uint32_t found = CrcOfCovered(bytes_);
  if (found == crc()) return absl::OkStatus();
  return Damaged(Cat("CRC32C is ", Hex{found, 8}, ", its header says ", Hex{crc(), 8}));
}

absl::Status BatchView::VerifyRecords(const DecompressLimits& limits) const {
  if (codec() == Codec::kNone || record_count() == 0) return WalkRecords(*this, payload());
  SLUICE_ASSIGN_OR_RETURN(const std::string records, Decompress(codec(), payload(), limits));
  return WalkRecords(*this, records);
}

absl::Status BatchView::VerifyClientAttributes() const {
  if ((attributes() & kNotForClientsMask) != 0) {
    return absl::InvalidArgumentError(Cat("attributes ", Hex{attributes(), 4}, ": bits 3 to 15 are not for clients"));
  }
  if (record_count() == 0) return absl::InvalidArgumentError("a batch without records");
  return absl::OkStatus();
}

Batch::Batch(Bytes bytes) : bytes_(std::move(bytes)) {
  const BatchView view(bytes_.view());
  base_offset_ = view.base_offset();
  last_offset_ = view.last_offset();
  epoch_ = view.leader_epoch();
  record_count_ = view.record_count();
  max_timestamp_ms_ = view.max_timestamp_ms();
  attributes_ = view.attributes();
  const uint32_t head = Crc32c(bytes_.view().substr(0, kCrcCoversFrom));
  whole_crc32c_ = Crc32cCombine(head, view.crc(), bytes_.size() - kCrcCoversFrom);
}

absl::StatusOr<Batch> Batch::FromStored(Bytes bytes) {
  SLUICE_ASSIGN_OR_RETURN(const BatchView view, BatchView::Parse(bytes.view()));
  if (!Planted(PlantedBug::kTrustTheDisk)) SLUICE_RETURN_IF_ERROR(view.VerifyCrc());
  if (view.leader_epoch().value() < 0) return Damaged("it has no leader epoch");
  return Batch(std::move(bytes));
}

absl::StatusOr<PendingBatch> PendingBatch::FromClient(MutableBytes bytes) {
  const absl::StatusOr<BatchView> view = BatchView::Parse(bytes.view());
  SLUICE_RETURN_IF_ERROR(FromClientError(view.status()));
  SLUICE_RETURN_IF_ERROR(FromClientError(view->VerifyCrc()));
  SLUICE_RETURN_IF_ERROR(view->VerifyClientAttributes());
  if (view->codec() == Codec::kNone) {
    SLUICE_RETURN_IF_ERROR(FromClientError(view->VerifyRecords(DecompressLimits{})));
  }
  return PendingBatch(std::move(bytes));
}

PendingBatch PendingBatch::FromBuilder(MutableBytes bytes) {
  const absl::StatusOr<BatchView> view = BatchView::Parse(bytes.view());
  SLUICE_CHECK(view.ok()) << Message(view.status());
  return PendingBatch(std::move(bytes));
}

void PendingBatch::SetLogAppendTime(int64_t ms) {
  // From the attributes to the end of the largest timestamp.
  constexpr size_t kFrom = kAttributesAt;
  constexpr size_t kTo = kMaxTimestampAt + sizeof(int64_t);
  static_assert(kFrom == kCrcCoversFrom);
  char delta[kTo - kFrom];
  char* const at = bytes_.data();
  std::memcpy(delta, at + kFrom, sizeof(delta));
  StoreBig<uint16_t>(at + kAttributesAt, static_cast<uint16_t>(view().attributes() | kLogAppendTimeBit));
  StoreBig<int64_t>(at + kMaxTimestampAt, ms);
  for (size_t i = 0; i < sizeof(delta); ++i) delta[i] = static_cast<char>(delta[i] ^ at[kFrom + i]);
  const uint32_t change = Crc32cOfChange({delta, sizeof(delta)}, bytes_.size() - kTo);
  StoreBig<uint32_t>(at + kCrcAt, view().crc() ^ change);
}

Batch PendingBatch::Assign(Offset base, LeaderEpoch epoch) && {
  SLUICE_CHECK(base.value() >= 0 && epoch.value() >= 0) << "offset " << base << ", epoch " << epoch;
  StoreBig<int64_t>(bytes_.data() + kBaseOffsetAt, base.value());
  StoreBig<int32_t>(bytes_.data() + kLeaderEpochAt, epoch.value());
  return Batch(std::move(bytes_).Freeze());
}

}  // namespace sluice::record
