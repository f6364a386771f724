#include "storage/journal_codec.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/status_macros.h"

namespace sluice::storage {

namespace {

using journal_format::RecordType;

// Writes fixed fields one after the other.
class FieldWriter {
 public:
  template <class T>
  FieldWriter& Put(T value) {
    StoreLittle(fields_ + size_, value);
    size_ += sizeof(T);
    return *this;
  }
  FieldWriter& Put(const Uuid& value) {
    std::memcpy(fields_ + size_, value.bytes.data(), value.bytes.size());
    size_ += value.bytes.size();
    return *this;
  }
  FieldWriter& Put(const ReplicaId& value) { return Put(value.topic).Put(value.partition.value()); }
  FieldWriter& Put(Offset value) { return Put(value.value()); }
  FieldWriter& Put(LeaderEpoch value) { return Put(value.value()); }
  FieldWriter& Put(const SegmentId& value) { return Put(value.base).Put(value.epoch); }
  FieldWriter& Put(const HardState& value) {
    return Put(value.term).Put(value.voted_for.node.value()).Put(value.voted_for.incarnation);
  }
  std::string_view view() const { return {fields_, size_}; }

 private:
  char fields_[journal_format::kFieldBytesMax];
  size_t size_ = 0;
};

// Reads them back; past the end it yields zeros and remembers.
class FieldReader {
 public:
  explicit FieldReader(std::string_view fields) : left_(fields) {}

  template <class T>
  T Get() {
    T value{};
    if (left_.size() < sizeof(T)) {
      short_ = true;
      return value;
    }
    value = LoadLittle<T>(left_.data());
    left_.remove_prefix(sizeof(T));
    return value;
  }
  Uuid GetUuid() {
    Uuid value;
    if (left_.size() < value.bytes.size()) {
      short_ = true;
      return value;
    }
    std::memcpy(value.bytes.data(), left_.data(), value.bytes.size());
    left_.remove_prefix(value.bytes.size());
    return value;
  }
  ReplicaId GetReplica() {
    const Uuid topic = GetUuid();
    return {topic, PartitionId(Get<int32_t>())};
  }
  Offset GetOffset() { return Offset(Get<int64_t>()); }
  SegmentId GetSegment() {
    const Offset base = GetOffset();
    return {base, LeaderEpoch(Get<int32_t>())};
  }
  HardState GetHardState() {
    const LeaderEpoch term(Get<int32_t>());
    const NodeId node(Get<int32_t>());
    return {term, {node, GetUuid()}};
  }
  bool Complete() const { return !short_ && left_.empty(); }

 private:
  std::string_view left_;
  bool short_ = false;
};

struct Parts {
  RecordType type;
  FieldWriter fields;
  std::string_view payload;
  uint32_t payload_crc32c = 0;
};

Parts PartsOf(const AppendRecord& r) {
  Parts parts{RecordType::kAppend, {}, r.bytes.view(), r.crc32c};
  parts.fields.Put(r.replica).Put(r.segment).Put(r.position).Put(r.next_offset).Put(r.max_timestamp_ms);
  parts.fields.Put(static_cast<uint8_t>(r.holds));
  return parts;
}
Parts PartsOf(const TruncateRecord& r) {
  Parts parts{RecordType::kTruncate, {}, {}};
  parts.fields.Put(r.replica).Put(r.keep).Put(r.position).Put(r.crc32c).Put(r.next_offset).Put(r.max_timestamp_ms);
  return parts;
}
Parts PartsOf(const ResetRecord& r) {
  Parts parts{RecordType::kReset, {}, {}};
  parts.fields.Put(r.replica).Put(r.next_offset);
  return parts;
}
Parts PartsOf(const LogStartRecord& r) {
  Parts parts{RecordType::kLogStart, {}, {}};
  parts.fields.Put(r.replica).Put(r.log_start);
  return parts;
}
Parts PartsOf(const HardStateRecord& r) {
  Parts parts{RecordType::kHardState, {}, {}};
  parts.fields.Put(r.replica).Put(r.hard_state);
  return parts;
}
Parts PartsOf(const RaftConfigRecord& r) {
  Parts parts{RecordType::kRaftConfig, {}, r.config.view(), Crc32c(r.config.view())};
  parts.fields.Put(r.replica);
  return parts;
}
Parts PartsOf(const CheckpointRecord& r) {
  Parts parts{RecordType::kCheckpoint, {}, {}};
  parts.fields.Put(r.replica).Put(r.segment).Put(r.position);
  return parts;
}
Parts PartsOf(const CreateRecord& r) {
  Parts parts{RecordType::kCreate, {}, {}};
  parts.fields.Put(r.replica).Put(r.incarnation);
  return parts;
}
Parts PartsOf(const DropRecord& r) {
  Parts parts{RecordType::kDrop, {}, {}};
  parts.fields.Put(r.replica);
  return parts;
}

absl::StatusOr<AnyJournalRecord> DecodeSnapshot(uint16_t version, FieldReader& fields, std::string_view payload) {
  ReplicaSnapshotRecord r;
  r.replica = fields.GetReplica();
  r.state.incarnation = fields.GetUuid();
  r.state.hard_state = fields.GetHardState();
  r.state.log_start = fields.GetOffset();
  r.state.next_offset = fields.GetOffset();
  r.state.checkpoint.segment = fields.GetSegment();
  r.state.checkpoint.position = fields.Get<int64_t>();
  const uint64_t segments = fields.Get<uint32_t>();
  const bool says_data_end = version >= journal_format::kVersionDataEnd;
  r.state.data_end = says_data_end ? fields.GetOffset() : ReplicaState::kDataEndUnknown;
  if (segments * journal_format::kSnapshotSegmentBytes > payload.size()) {
    return absl::DataLossError("a replica's snapshot is shorter than its number of segments");
  }
  for (uint64_t i = 0; i < segments; ++i) {
    FieldReader one(payload.substr(0, journal_format::kSnapshotSegmentBytes));
    SegmentState segment;
    segment.id = one.GetSegment();
    segment.end_position = one.Get<int64_t>();
    segment.crc32c = one.Get<uint32_t>();
    segment.next_offset = one.GetOffset();
    segment.max_timestamp_ms = one.Get<int64_t>();
    segment.closed = one.Get<uint8_t>() != 0;
    r.state.segments.push_back(segment);
    payload.remove_prefix(journal_format::kSnapshotSegmentBytes);
  }
  r.state.raft_config = Bytes::Copy(payload);
  return r;
}

absl::StatusOr<AnyJournalRecord> DecodeRecord(uint16_t version, RecordType type, FieldReader& fields,
                                              std::string_view payload, uint32_t payload_crc32c,
                                              const std::shared_ptr<const void>& owner) {
  switch (type) {
    case RecordType::kAppend: {
      AppendRecord r;
      r.replica = fields.GetReplica();
      r.segment = fields.GetSegment();
      r.position = fields.Get<int64_t>();
      r.next_offset = fields.GetOffset();
      r.max_timestamp_ms = fields.Get<int64_t>();
      if (version >= journal_format::kVersionDataEnd) {
        const auto holds = fields.Get<uint8_t>();
        if (holds > static_cast<uint8_t>(AppendHolds::kControlOnly)) {
          return absl::DataLossError(absl::StrCat("an append that holds ", holds, ", which no version has"));
        }
        r.holds = static_cast<AppendHolds>(holds);
      }
      r.bytes = Bytes::Wrap(payload, owner);
      r.crc32c = payload_crc32c;
      return JournalRecord(std::move(r));
    }
    case RecordType::kTruncate: {
      TruncateRecord r;
      r.replica = fields.GetReplica();
      r.keep = fields.GetSegment();
      r.position = fields.Get<int64_t>();
      r.crc32c = fields.Get<uint32_t>();
      r.next_offset = fields.GetOffset();
      r.max_timestamp_ms = fields.Get<int64_t>();
      return JournalRecord(r);
    }
    case RecordType::kReset: {
      const ReplicaId replica = fields.GetReplica();
      return JournalRecord(ResetRecord{replica, fields.GetOffset()});
    }
    case RecordType::kLogStart: {
      const ReplicaId replica = fields.GetReplica();
      return JournalRecord(LogStartRecord{replica, fields.GetOffset()});
    }
    case RecordType::kHardState: {
      const ReplicaId replica = fields.GetReplica();
      return JournalRecord(HardStateRecord{replica, fields.GetHardState()});
    }
    case RecordType::kRaftConfig:
      return JournalRecord(RaftConfigRecord{fields.GetReplica(), Bytes::Copy(payload)});
    case RecordType::kCheckpoint: {
      const ReplicaId replica = fields.GetReplica();
      const SegmentId segment = fields.GetSegment();
      return JournalRecord(CheckpointRecord{replica, segment, fields.Get<int64_t>()});
    }
    case RecordType::kCreate: {
      const ReplicaId replica = fields.GetReplica();
      return JournalRecord(CreateRecord{replica, fields.GetUuid()});
    }
    case RecordType::kDrop:
      return JournalRecord(DropRecord{fields.GetReplica()});
    case RecordType::kOpening: {
      OpeningRecord r;
      r.disk = fields.GetUuid();
      r.supersedes_from = fields.Get<uint64_t>();
      r.continues_after = fields.Get<uint64_t>();
      r.replica_count = fields.Get<uint64_t>();
      if (version >= journal_format::kVersionMarked) r.file_bytes = fields.Get<uint64_t>();
      return r;
    }
    case RecordType::kReplicaSnapshot:
      return DecodeSnapshot(version, fields, payload);
    case RecordType::kPad:
      break;  // DecodeFrame keeps these
    case RecordType::kSegmentRange:
      return absl::DataLossError("a SegmentRange record, which the format reserves and never writes");
  }
  return absl::DataLossError(
      absl::StrCat("record type ", static_cast<int>(type), ", which version ", version, " does not have"));
}

struct RecordSpan {
  RecordType type;
  std::string_view fields;
  std::string_view payload;
  uint32_t payload_crc32c;
};

// Splits the records part of a frame without believing any length; `*crc` is extended over headers and fields.
absl::StatusOr<std::vector<RecordSpan>> SplitRecords(std::string_view records, uint32_t count, uint32_t* crc) {
  using namespace journal_format;
  std::vector<RecordSpan> spans;
  for (uint32_t i = 0; i < count; ++i) {
    if (records.size() < kRecordHeaderBytes) return absl::DataLossError("records run past the frame's end");
    const size_t field_bytes = LoadLittle<uint16_t>(records.data() + kFieldBytesAt);
    const size_t payload_bytes = LoadLittle<uint32_t>(records.data() + kPayloadBytesAt);
    const size_t covered = kRecordHeaderBytes + field_bytes;
    if (records.size() < covered || records.size() - covered < payload_bytes) {
      return absl::DataLossError("records run past the frame's end");
    }
    *crc = Crc32c(records.substr(0, covered), *crc);
    spans.push_back({static_cast<RecordType>(records[kTypeAt]), records.substr(kRecordHeaderBytes, field_bytes),
                     records.substr(covered, payload_bytes),
                     LoadLittle<uint32_t>(records.data() + kPayloadChecksumAt)});
    records.remove_prefix(covered + payload_bytes);
  }
  if (!records.empty()) return absl::DataLossError("records end before the frame does");
  return spans;
}

}  // namespace

size_t EncodedBytes(const JournalRecord& record) {
  size_t payload = 0;
  if (const auto* append = std::get_if<AppendRecord>(&record)) {
    payload = append->bytes.size();
    if (payload >= FrameBuilder::kInPlaceBytesMin) payload += journal_format::kRecordHeaderBytes + kBlockBytes;
  }
  if (const auto* config = std::get_if<RaftConfigRecord>(&record)) payload = config->config.size();
  // No record has more than 64 bytes of fields; an upper bound is all that is asked.
  return journal_format::kRecordHeaderBytes + 64 + payload;
}

void FrameBuilder::Begin() {
  Release();
  staged_ = 0;
  StageRoom(journal_format::kFrameHeaderBytes);  // filled in by Finish
  in_place_bytes_ = 0;
  record_count_ = 0;
  covered_crc32c_ = 0;
  covered_bytes_ = 0;
}

void FrameBuilder::Release() {
  in_place_.clear();
  parts_.clear();
}

char* FrameBuilder::StageRoom(size_t bytes) {
  const size_t needed = staged_ + bytes;
  // Grows by halves, so that a frame of many records is not moved for each.
  if (needed > buffer_.capacity()) buffer_.Reserve(std::max(needed, buffer_.capacity() * 3 / 2), staged_);
  char* room = buffer_.data() + staged_;
  staged_ = needed;
  return room;
}

void FrameBuilder::Stage(std::string_view bytes) {
  if (!bytes.empty()) std::memcpy(StageRoom(bytes.size()), bytes.data(), bytes.size());
}

void FrameBuilder::AddHeader(RecordType type, std::string_view fields, size_t payload_bytes, uint32_t payload_crc32c) {
  using namespace journal_format;
  const size_t covered = kRecordHeaderBytes + fields.size();
  char* at = StageRoom(covered);
  StoreLittle(at + kTypeAt, static_cast<uint8_t>(type));
  StoreLittle(at + kRecordReservedAt, uint8_t{0});
  StoreLittle(at + kFieldBytesAt, static_cast<uint16_t>(fields.size()));
  StoreLittle(at + kPayloadBytesAt, static_cast<uint32_t>(payload_bytes));
  StoreLittle(at + kPayloadChecksumAt, payload_crc32c);
  std::memcpy(at + kRecordHeaderBytes, fields.data(), fields.size());
  covered_crc32c_ = Crc32c({at, covered}, covered_crc32c_);
  covered_bytes_ += covered;
  ++record_count_;
}

void FrameBuilder::AddParts(RecordType type, std::string_view fields, std::string_view payload,
                            uint32_t payload_crc32c) {
  AddHeader(type, fields, payload.size(), payload_crc32c);
  Stage(payload);
}

void FrameBuilder::AddInPlace(std::string_view fields, const Bytes& payload, uint32_t payload_crc32c) {
  using namespace journal_format;
  static constexpr char kZeros[kBlockBytes + kRecordHeaderBytes] = {};
  constexpr size_t kBlock = kBlockBytes;
  // Only whole blocks are ever outside the buffer, so places within a block are the same in buffer and file.
  const size_t in_memory = reinterpret_cast<uintptr_t>(payload.data()) % kBlock;
  size_t pad = (in_memory + 2 * kBlock - (staged_ + kRecordHeaderBytes + fields.size()) % kBlock) % kBlock;
  if (pad > 0) {
    if (pad < kRecordHeaderBytes) pad += kBlock;
    AddHeader(RecordType::kPad, {kZeros, pad - kRecordHeaderBytes}, 0, 0);
  }
  AddHeader(RecordType::kAppend, fields, payload.size(), payload_crc32c);
  const std::string_view bytes = payload.view();
  const size_t first = (kBlock - in_memory) % kBlock;
  const size_t whole = (bytes.size() - first) / kBlock * kBlock;
  Stage(bytes.substr(0, first));
  in_place_.push_back({staged_, bytes.substr(first, whole), payload});
  in_place_bytes_ += whole;
  Stage(bytes.substr(first + whole));
}

void FrameBuilder::Add(const JournalRecord& record) {
  if (const auto* append = std::get_if<AppendRecord>(&record);
      append != nullptr && append->bytes.size() >= kInPlaceBytesMin) {
    return AddInPlace(PartsOf(*append).fields.view(), append->bytes, append->crc32c);
  }
  std::visit(
      [this](const auto& r) {
        const Parts parts = PartsOf(r);
        AddParts(parts.type, parts.fields.view(), parts.payload, parts.payload_crc32c);
      },
      record);
}

void FrameBuilder::Add(const OpeningRecord& r) {
  FieldWriter fields;
  fields.Put(r.disk).Put(r.supersedes_from).Put(r.continues_after).Put(r.replica_count).Put(r.file_bytes);
  AddParts(RecordType::kOpening, fields.view(), {}, 0);
}

void FrameBuilder::Add(const ReplicaSnapshotRecord& r) {
  const ReplicaState& state = r.state;
  FieldWriter fields;
  fields.Put(r.replica).Put(state.incarnation).Put(state.hard_state).Put(state.log_start).Put(state.next_offset);
  fields.Put(state.checkpoint.segment).Put(state.checkpoint.position);
  fields.Put(static_cast<uint32_t>(state.segments.size())).Put(state.data_end);
  std::string payload;
  payload.reserve(state.segments.size() * journal_format::kSnapshotSegmentBytes + state.raft_config.size());
  for (const SegmentState& segment : state.segments) {
    FieldWriter one;
    one.Put(segment.id).Put(segment.end_position).Put(segment.crc32c).Put(segment.next_offset);
    one.Put(segment.max_timestamp_ms).Put(static_cast<uint8_t>(segment.closed));
    payload.append(one.view());
  }
  payload.append(state.raft_config.view());
  AddParts(RecordType::kReplicaSnapshot, fields.view(), payload, Crc32c(payload));
}

absl::Span<const std::string_view> FrameBuilder::Finish(FrameHeader header) {
  using namespace journal_format;
  const size_t length = size();
  const size_t padding = static_cast<size_t>(RoundUpToBlock(static_cast<int64_t>(length))) - length;
  if (padding > 0) std::memset(StageRoom(padding), 0, padding);
  char* at = buffer_.data();
  StoreLittle(at + kMagicAt, kMagic);
  StoreLittle(at + kVersionAt, kVersion);
  StoreLittle(at + kFlagsAt, header.flags);
  StoreLittle(at + kFileSequenceAt, header.file_sequence);
  std::memcpy(at + kFileIdAt, header.file_id.bytes.data(), header.file_id.bytes.size());
  StoreLittle(at + kFrameAt, header.frame);
  StoreLittle(at + kLastSyncedAt, header.last_synced);
  StoreLittle(at + kLengthAt, static_cast<uint32_t>(length));
  StoreLittle(at + kRecordCountAt, record_count_);
  StoreLittle(at + kReservedAt, uint32_t{0});
  StoreLittle(at + kChecksumAt, Crc32cCombine(Crc32c({at, kChecksumAt}), covered_crc32c_, covered_bytes_));
  size_t from = 0;
  for (const InPlace& piece : in_place_) {
    if (piece.staged_before > from) parts_.emplace_back(at + from, piece.staged_before - from);
    if (!piece.blocks.empty()) parts_.push_back(piece.blocks);
    from = piece.staged_before;
  }
  if (staged_ > from) parts_.emplace_back(at + from, staged_ - from);
  return parts_;
}

std::optional<FrameHeader> PeekFrameHeader(std::string_view data) {
  using namespace journal_format;
  if (data.size() < kFrameHeaderBytes) return std::nullopt;
  FrameHeader header;
  header.magic = LoadLittle<uint32_t>(data.data() + kMagicAt);
  header.version = LoadLittle<uint16_t>(data.data() + kVersionAt);
  header.flags = LoadLittle<uint16_t>(data.data() + kFlagsAt);
  header.file_sequence = LoadLittle<uint64_t>(data.data() + kFileSequenceAt);
  header.file_id = *Uuid::FromBytes(data.substr(kFileIdAt, 16));
  header.frame = LoadLittle<uint64_t>(data.data() + kFrameAt);
  header.last_synced = LoadLittle<uint64_t>(data.data() + kLastSyncedAt);
  header.length = LoadLittle<uint32_t>(data.data() + kLengthAt);
  header.record_count = LoadLittle<uint32_t>(data.data() + kRecordCountAt);
  return header;
}

absl::StatusOr<Frame> DecodeFrame(std::string_view data, const std::shared_ptr<const void>& owner) {
  using namespace journal_format;
  const std::optional<FrameHeader> header = PeekFrameHeader(data);
  if (!header || header->magic != kMagic) return absl::DataLossError("no frame starts here");
  if (header->length < kFrameHeaderBytes || header->length > data.size()) {
    return absl::DataLossError(absl::StrCat("frame of ", header->length, " bytes, ", data.size(), " are there"));
  }
  uint32_t crc = Crc32c(data.substr(0, kChecksumAt));
  SLUICE_ASSIGN_OR_RETURN(
      const std::vector<RecordSpan> spans,
      SplitRecords(data.substr(kFrameHeaderBytes, header->length - kFrameHeaderBytes), header->record_count, &crc));
  if (crc != LoadLittle<uint32_t>(data.data() + kChecksumAt)) {
    return absl::DataLossError("the frame's checksum does not fit");
  }
  if (header->version < kVersionOldest || header->version > kVersion) {
    return absl::DataLossError(
        absl::StrCat("format version ", header->version, ", this program reads ", kVersionOldest, " to ", kVersion));
  }
  Frame frame{*header, {}};
  frame.records.reserve(spans.size());
  for (const RecordSpan& span : spans) {
    if (span.type == RecordType::kPad) continue;
    if (Crc32c(span.payload) != span.payload_crc32c) {
      return absl::DataLossError("a record's payload does not fit its checksum");
    }
    FieldReader fields(span.fields);
    SLUICE_ASSIGN_OR_RETURN(AnyJournalRecord record,
                            DecodeRecord(header->version, span.type, fields, span.payload, span.payload_crc32c, owner));
    if (!fields.Complete()) {
      return absl::DataLossError(
          absl::StrCat("fields of record type ", static_cast<int>(span.type), " are too short or too long"));
    }
    frame.records.push_back(std::move(record));
  }
  return frame;
}

}  // namespace sluice::storage
