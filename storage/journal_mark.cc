#include "storage/journal_mark.h"

#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/status_macros.h"
#include "storage/journal_format.h"
#include "storage/journal_place.h"

namespace sluice::storage {
namespace {

namespace format = journal_format;

constexpr char kName[] = "newest";
constexpr int64_t kBlocks = 2;  // written in turn, so that a torn write leaves the one before

void Encode(const JournalMark& mark, const Uuid& disk, char* block) {
  std::memset(block, 0, kBlockBytes);
  StoreLittle(block + format::kMarkMagicAt, format::kMarkMagic);
  StoreLittle(block + format::kMarkVersionAt, format::kMarkVersion);
  StoreLittle(block + format::kMarkTurnAt, mark.turn);
  std::memcpy(block + format::kMarkDiskAt, disk.bytes.data(), disk.bytes.size());
  StoreLittle(block + format::kMarkFileAt, mark.file);
  StoreLittle(block + format::kMarkFrameAt, mark.frame);
  StoreLittle(block + format::kMarkNeededFromAt, mark.needed_from);
  StoreLittle(block + format::kMarkChecksumAt, Crc32c({block, format::kMarkChecksumAt}));
}

// Nullopt when the block is not a mark.
std::optional<JournalMark> Decode(std::string_view block, Uuid* disk) {
  if (block.size() < format::kMarkBytes) return std::nullopt;
  const char* at = block.data();
  if (LoadLittle<uint32_t>(at + format::kMarkMagicAt) != format::kMarkMagic) return std::nullopt;
  const auto version = LoadLittle<uint32_t>(at + format::kMarkVersionAt);
  if (version == 0 || version > format::kMarkVersion) return std::nullopt;
  const bool says_needed = version >= format::kMarkVersionUnneeded;
  const size_t checksum_at = says_needed ? format::kMarkChecksumAt : format::kMarkChecksumAtV1;
  if (LoadLittle<uint32_t>(at + checksum_at) != Crc32c(block.substr(0, checksum_at))) return std::nullopt;
  *disk = *Uuid::FromBytes(block.substr(format::kMarkDiskAt, 16));
  return JournalMark{.turn = LoadLittle<uint64_t>(at + format::kMarkTurnAt),
                     .file = LoadLittle<uint64_t>(at + format::kMarkFileAt),
                     .frame = LoadLittle<uint64_t>(at + format::kMarkFrameAt),
                     .needed_from = says_needed ? LoadLittle<uint64_t>(at + format::kMarkNeededFromAt) : 0};
}

}  // namespace

std::string JournalMarkPath(const std::string& dir) {
  return absl::StrCat(dir, "/", kName);
}

absl::StatusOr<JournalMark> DecodeJournalMark(std::string_view bytes, const Uuid& disk, const std::string& path) {
  std::optional<JournalMark> newest;
  for (size_t at = 0; at < bytes.size(); at += kBlockBytes) {
    Uuid its_disk;
    const auto mark = Decode(bytes.substr(at, kBlockBytes), &its_disk);
    if (!mark) continue;
    if (its_disk != disk) {
      return ErrorAt(absl::StatusCode::kFailedPrecondition, path, static_cast<int64_t>(at),
                     absl::StrCat("of the journal of disk ", its_disk.ToString(), ", this is disk ", disk.ToString()));
    }
    if (!newest || mark->turn > newest->turn) newest = mark;
  }
  if (!newest) {
    return DamagedAt(path, 0, "neither of two blocks says which journal file is the newest; expected at least one to");
  }
  return *newest;
}

absl::StatusOr<std::optional<JournalMark>> ReadJournalMark(FileSystem& fs, const std::string& dir, const Uuid& disk) {
  const std::string path = JournalMarkPath(dir);
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(path));
  if (!there) return std::nullopt;
  SLUICE_ASSIGN_OR_RETURN(const std::string bytes, ReadWholeFile(fs, path, kBlocks * kBlockBytes));
  return DecodeJournalMark(bytes, disk, path);
}

absl::Status JournalMarkWriter::Open(const std::optional<JournalMark>& found) {
  const std::string path = JournalMarkPath(dir_);
  block_.Reserve(kBlockBytes, 0);
  if (found) {
    last_ = *found;
  } else {
    Encode(last_, disk_, block_.data());
    std::string contents(block_.data(), kBlockBytes);
    contents.resize(kBlocks * kBlockBytes);
    SLUICE_RETURN_IF_ERROR(WriteWholeFile(fs_, path, contents));
  }
  SLUICE_ASSIGN_OR_RETURN(file_, fs_.Open(path, {.mode = OpenOptions::Mode::kReadWrite, .direct = true}));
  return absl::OkStatus();
}

absl::Status JournalMarkWriter::Write(uint64_t file, uint64_t frame, uint64_t needed_from) {
  const JournalMark mark{.turn = last_.turn + 1, .file = file, .frame = frame, .needed_from = needed_from};
  Encode(mark, disk_, block_.data());
  const auto at = static_cast<int64_t>(mark.turn % kBlocks) * kBlockBytes;
  SLUICE_RETURN_IF_ERROR(file_->WriteAt(at, {block_.data(), kBlockBytes}));
  SLUICE_RETURN_IF_ERROR(file_->Sync());
  last_ = mark;
  return absl::OkStatus();
}

}  // namespace sluice::storage
