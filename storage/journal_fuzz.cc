// Frames made of anything: decoding must end in a frame or a status, and a frame must give the same bytes again. And
// the same bytes as the journal's mark: what counts is a block of it, the one written last.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "common/crc32c.h"
#include "common/endian.h"
#include "storage/journal_codec.h"
#include "storage/journal_mark.h"

namespace {

namespace format = sluice::storage::journal_format;

// Puts in the checksums that the bytes ask for, so that the fuzzer gets past them.
void Repair(std::string& frame) {
  if (frame.size() < format::kFrameHeaderBytes) return;
  sluice::StoreLittle(frame.data() + format::kMagicAt, format::kMagic);
  sluice::StoreLittle(frame.data() + format::kVersionAt, format::kVersion);
  sluice::StoreLittle(frame.data() + format::kLengthAt, static_cast<uint32_t>(frame.size()));
  std::string covered = frame.substr(0, format::kChecksumAt);
  uint32_t count = 0;
  for (size_t at = format::kFrameHeaderBytes; frame.size() - at >= format::kRecordHeaderBytes; ++count) {
    char* record = frame.data() + at;
    const size_t fields = format::kRecordHeaderBytes + sluice::LoadLittle<uint16_t>(record + format::kFieldBytesAt);
    if (frame.size() - at < fields) break;
    const size_t payload = sluice::LoadLittle<uint32_t>(record + format::kPayloadBytesAt);
    if (frame.size() - at - fields < payload) break;
    sluice::StoreLittle(record + format::kPayloadChecksumAt, sluice::Crc32c({record + fields, payload}));
    covered.append(record, fields);
    at += fields + payload;
  }
  sluice::StoreLittle(frame.data() + format::kRecordCountAt, count);
  sluice::StoreLittle(covered.data() + format::kRecordCountAt, count);
  sluice::StoreLittle(frame.data() + format::kChecksumAt, sluice::Crc32c(covered));
}

void Check(const std::string& bytes) {
  const auto frame = sluice::storage::DecodeFrame(bytes, nullptr);
  if (!frame.ok()) return;
  sluice::storage::FrameBuilder builder;
  builder.Begin();
  for (const auto& record : frame->records) std::visit([&](const auto& r) { builder.Add(r); }, record);
  std::string again;
  for (const std::string_view part : builder.Finish(frame->header)) again.append(part);
  const auto second = sluice::storage::DecodeFrame(again, nullptr);
  if (!second.ok() || second->records.size() != frame->records.size()) std::abort();
}

// The disk and the checksums that the blocks of a mark ask for.
sluice::Uuid RepairMark(std::string& mark) {
  sluice::Uuid disk;
  for (size_t at = 0; at < mark.size() && mark.size() - at >= format::kMarkBytes; at += sluice::kBlockBytes) {
    char* block = mark.data() + at;
    disk = *sluice::Uuid::FromBytes({mark.data() + format::kMarkDiskAt, 16});
    std::memcpy(block + format::kMarkDiskAt, disk.bytes.data(), disk.bytes.size());
    sluice::StoreLittle(block + format::kMarkMagicAt, format::kMarkMagic);
    const bool first_version = sluice::LoadLittle<uint32_t>(block + format::kMarkVersionAt) == 1;
    const size_t checksum_at = first_version ? format::kMarkChecksumAtV1 : format::kMarkChecksumAt;
    sluice::StoreLittle(block + checksum_at, sluice::Crc32c({block, checksum_at}));
  }
  return disk;
}

void CheckMark(const std::string& bytes, const sluice::Uuid& disk) {
  const auto mark = sluice::storage::DecodeJournalMark(bytes, disk, "newest");
  if (!mark.ok()) return;
  for (size_t at = 0; at < bytes.size(); at += sluice::kBlockBytes) {
    const auto block = sluice::storage::DecodeJournalMark(bytes.substr(at, sluice::kBlockBytes), disk, "newest");
    if (block.ok() && block->turn > mark->turn) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  Check(bytes);
  CheckMark(bytes, {});
  std::string mark = bytes;
  const sluice::Uuid disk = RepairMark(mark);
  CheckMark(mark, disk);
  Repair(bytes);
  Check(bytes);
  return 0;
}
