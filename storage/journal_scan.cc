#include "storage/journal_scan.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace sluice::storage {

namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 32;

// Whether a header is, or was before a flipped bit, one of this life of the file: an earlier life of a recycled file
// shares only the magic number.
bool Recognize(const FrameHeader& header, const FileScan& scan) {
  const int alike = int{header.magic == journal_format::kMagic} + int{header.file_sequence == scan.info.sequence} +
                    int{scan.file_id.has_value() && header.file_id == *scan.file_id};
  return alike >= 2;
}

void LookBeyondTheEnd(std::string_view data, FileScan& scan) {
  const auto size = static_cast<int64_t>(data.size());
  scan.cut_end = scan.end;
  for (int64_t at = scan.end; at < size; at += kBlockBytes) {
    const std::string_view rest = data.substr(static_cast<size_t>(at));
    const auto header = PeekFrameHeader(rest);
    if (!header || !Recognize(*header, scan)) continue;
    scan.cut_end = std::max(scan.cut_end, std::min(size, at + std::max(kBlockBytes, RoundUpToBlock(header->length))));
    if (DecodeFrame(rest, nullptr).ok()) {
      scan.stray_frame = std::max(scan.stray_frame, header->frame);
      scan.last_synced = std::max(scan.last_synced, header->last_synced);
    }
  }
}

}  // namespace

absl::StatusOr<int64_t> JournalFileSize(File& file) {
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, file.Size());
  if (size > kFileBytesMax) return DamagedAt(file.path(), 0, absl::StrCat("a journal file of ", size, " bytes"));
  return size;
}

absl::StatusOr<int64_t> WalkFrames(std::string_view data, const std::shared_ptr<const void>& owner,
                                   const JournalFileInfo& info, std::optional<Uuid> id, std::string* why,
                                   const JournalFileReader::Visit& visit) {
  int64_t at = 0;
  uint64_t expected = 0;
  while (true) {
    const auto frame = DecodeFrame(data.substr(std::min(static_cast<size_t>(at), data.size())), owner);
    if (!frame.ok()) {
      *why = std::string(frame.status().message());
      return at;
    }
    const FrameHeader& header = frame->header;
    if (header.file_sequence != info.sequence || (id && header.file_id != *id) ||
        (expected != 0 && header.frame != expected)) {
      *why = "a frame of another file, or of an earlier life of this one";
      return at;
    }
    id = header.file_id;
    expected = header.frame + 1;
    SLUICE_RETURN_IF_ERROR(visit(*frame, at));
    at += frame->PaddedBytes();
  }
}

absl::StatusOr<std::string_view> JournalFileReader::Load(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs_.Open(path, {}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, JournalFileSize(*file));
  if (static_cast<size_t>(size) > buffer_.capacity()) buffer_.Reserve(static_cast<size_t>(size), 0);
  SLUICE_ASSIGN_OR_RETURN(const size_t count,
                          file->ReadAt(0, absl::MakeSpan(buffer_.data(), static_cast<size_t>(size))));
  return std::string_view(buffer_.data(), count);
}

absl::Status JournalFileReader::TakeFrame(const Frame& frame, int64_t at, FileScan& scan) const {
  if (at == 0) {
    const auto* opening = frame.records.empty() ? nullptr : std::get_if<OpeningRecord>(&frame.records.front());
    if (opening == nullptr) return DamagedAt(scan.info.path, at, "the first frame does not open a journal file");
    if (opening->disk != disk_) {
      return ErrorAt(absl::StatusCode::kFailedPrecondition, scan.info.path, at,
                     absl::StrCat("journal of disk ", opening->disk.ToString(), ", this is disk ", disk_.ToString()));
    }
    scan.opening = *opening;
    scan.marked = frame.header.version >= journal_format::kVersionMarked;
    scan.says_data_ends = frame.header.version >= journal_format::kVersionDataEnd;
    scan.first_frame = frame.header.frame;
    scan.file_id = frame.header.file_id;
  }
  if ((frame.header.flags & journal_format::kFlagOpeningEnd) != 0) scan.opening_complete = true;
  scan.last_frame = frame.header.frame;
  scan.last_synced = std::max(scan.last_synced, frame.header.last_synced);
  return absl::OkStatus();
}

absl::Status JournalFileReader::ScanOnce(FileScan& scan, int64_t* visited_to, const Visit& visit) {
  SLUICE_ASSIGN_OR_RETURN(const std::string_view data, Load(scan.info.path));
  scan.info.bytes = static_cast<int64_t>(data.size());
  const auto each = [&](const Frame& frame, int64_t at) -> absl::Status {
    SLUICE_RETURN_IF_ERROR(TakeFrame(frame, at, scan));
    if (at < *visited_to) return absl::OkStatus();
    *visited_to = at + frame.PaddedBytes();
    return visit(frame, at);
  };
  SLUICE_ASSIGN_OR_RETURN(scan.end, WalkFrames(data, nullptr, scan.info, scan.file_id, &scan.why, each));
  LookBeyondTheEnd(data, scan);
  return absl::OkStatus();
}

absl::Status JournalFileReader::Scan(FileScan& scan, const Visit& visit) {
  const FileScan before{.info = scan.info, .file_id = {}, .opening = {}, .why = {}};
  int64_t visited_to = 0;
  scan = before;
  SLUICE_RETURN_IF_ERROR(ScanOnce(scan, &visited_to, visit));
  if (scan.cut_end == scan.end && scan.opening_complete) return absl::OkStatus();
  FileScan second = before;
  SLUICE_RETURN_IF_ERROR(ScanOnce(second, &visited_to, visit));
  if (second.end > scan.end) scan = std::move(second);
  return absl::OkStatus();
}

absl::Status JournalFileReader::Peek(FileScan& scan) {
  for (int attempt = 0; attempt < 2 && scan.first_frame == 0; ++attempt) {
    SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs_.Open(scan.info.path, {}));
    SLUICE_ASSIGN_OR_RETURN(scan.info.bytes, JournalFileSize(*file));
    size_t count = 0;
    for (int64_t wanted = std::min(kBlockBytes, scan.info.bytes); static_cast<int64_t>(count) < wanted;) {
      if (static_cast<size_t>(wanted) > buffer_.capacity()) buffer_.Reserve(static_cast<size_t>(wanted), 0);
      SLUICE_ASSIGN_OR_RETURN(count, file->ReadAt(0, absl::MakeSpan(buffer_.data(), static_cast<size_t>(wanted))));
      if (static_cast<int64_t>(count) < wanted) break;
      const auto header = PeekFrameHeader({buffer_.data(), count});
      if (header) wanted = std::min<int64_t>(std::max<int64_t>(wanted, header->length), scan.info.bytes);
    }
    const auto frame = DecodeFrame({buffer_.data(), count}, nullptr);
    if (!frame.ok()) {
      scan.why = std::string(frame.status().message());
    } else if (frame->header.file_sequence != scan.info.sequence) {
      scan.why = "a frame of another file, or of an earlier life of this one";
    } else {
      SLUICE_RETURN_IF_ERROR(TakeFrame(*frame, 0, scan));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::storage
