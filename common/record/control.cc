#include "common/record/control.h"

#include <type_traits>

#include "common/check.h"
#include "common/endian.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::record {

namespace {

constexpr int16_t kKeyVersion = 0;
constexpr int16_t kValueVersion = 0;
constexpr size_t kKeyBytes = 4;
constexpr size_t kValueBodyAt = 2;

template <class T>
std::string BigEndian(T value) {
  std::string out(sizeof(T), '\0');
  StoreBig<T>(out.data(), value);
  return out;
}

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(Cat("control batch: ", what));
}

absl::StatusOr<ControlRecord> DecodeBody(ControlType type, std::string_view body) {
  switch (type) {
    case ControlType::kLeaderChange:
      if (body.size() != sizeof(int32_t)) return Damaged("a leader change is 4 bytes");
      return LeaderChange{NodeId(LoadBig<int32_t>(body.data()))};
    case ControlType::kLogStartAdvance: {
      if (body.size() != sizeof(int64_t)) return Damaged("a log start is 8 bytes");
      const Offset start(LoadBig<int64_t>(body.data()));
      if (start.value() < 0) return Damaged(Cat("log start ", start.value()));
      return LogStartAdvance{start};
    }
    case ControlType::kMembership:
      return Membership{std::string(body)};
  }
  return Damaged(Cat("unknown type ", static_cast<int16_t>(type)));
}

}  // namespace

PendingBatch MakeControlBatch(const ControlRecord& record, int64_t timestamp_ms) {
  ControlType type{};
  std::string value = BigEndian<int16_t>(kValueVersion);
  if (const auto* leader = std::get_if<LeaderChange>(&record)) {
    type = ControlType::kLeaderChange;
    value += BigEndian<int32_t>(leader->leader.value());
  } else if (const auto* start = std::get_if<LogStartAdvance>(&record)) {
    type = ControlType::kLogStartAdvance;
    value += BigEndian<int64_t>(start->log_start.value());
  } else {
    type = ControlType::kMembership;
    value += std::get<Membership>(record).configuration;
  }
  const std::string key = BigEndian<int16_t>(kKeyVersion) + BigEndian<int16_t>(static_cast<int16_t>(type));
  BatchBuilder builder;
  const absl::Status appended = builder.Append(timestamp_ms, key, value);
  SLUICE_CHECK(appended.ok()) << Message(appended);
  return *builder.BuildControl();
}

absl::StatusOr<ControlRecord> DecodeControlBatch(const BatchView& batch) {
  if (!batch.is_control()) return Damaged("the control bit is not set");
  if (batch.codec() != Codec::kNone) return Damaged("it is compressed");
  if (batch.record_count() != 1) return Damaged(Cat(batch.record_count(), " records, not 1"));
  SLUICE_RETURN_IF_ERROR(batch.VerifyRecords(DecompressLimits{}));
  SLUICE_ASSIGN_OR_RETURN(RecordReader reader, RecordReader::Open(batch));
  Record record;
  SLUICE_RETURN_IF_ERROR(reader.Next(&record).status());
  if (!record.key || record.key->size() != kKeyBytes || !record.value || record.value->size() < kValueBodyAt) {
    return Damaged("key or value is too short");
  }
  const int16_t key_version = LoadBig<int16_t>(record.key->data());
  const int16_t value_version = LoadBig<int16_t>(record.value->data());
  if (key_version != kKeyVersion || value_version != kValueVersion) {
    return Damaged(Cat("key version ", key_version, ", value version ", value_version));
  }
  const auto type = static_cast<ControlType>(LoadBig<int16_t>(record.key->data() + sizeof(int16_t)));
  return DecodeBody(type, record.value->substr(kValueBodyAt));
}

}  // namespace sluice::record
