#include "storage/journal_files.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace sluice::storage {

namespace {

constexpr char kSpare[] = "spare";
// Recyclable files kept for later: each saves writing a whole file of zeros at a rotation, which under load costs as
// much as what is journaled. So many stay however little the journal may take, and more while all files together take
// no more than this share of total_bytes_max: pressure, at half of it, frees many files at once, and as many are needed
// next.
constexpr size_t kSparesMin = 4;
constexpr double kSparesShare = 0.75;
// A file made under a configuration with smaller ones is used as it is, down to this size.
constexpr int64_t kUsableBytesMin = int64_t{1} << 20;

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == 0) return "/";
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

}  // namespace

absl::Status JournalFiles::PrepareDir() {
  SLUICE_RETURN_IF_ERROR(fs_.CreateDirs(options_.dir));
  SLUICE_RETURN_IF_ERROR(fs_.SyncDir(ParentOf(options_.dir)));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(options_.dir));
  for (const std::string& name : names) {
    if (absl::EndsWith(name, kUnfinishedEnding)) {
      SLUICE_RETURN_IF_ERROR(fs_.Remove(absl::StrCat(options_.dir, "/", name)));
    }
  }
  SLUICE_ASSIGN_OR_RETURN(has_spare_, fs_.Exists(SparePath()));
  if (!has_spare_) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<File> spare, fs_.Open(SparePath(), {}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, spare->Size());
  has_spare_ = IsUsable(bytes);
  return has_spare_ ? absl::OkStatus() : fs_.Remove(SparePath());
}

std::string JournalFiles::SparePath() const {
  return absl::StrCat(options_.dir, "/", kSpare);
}

absl::Status JournalFiles::Adopt(const ReplayedJournal& replayed) {
  older_.assign(replayed.files.begin(), replayed.files.end());
  held_ = replayed.last_counting_file;
  last_sequence_ = replayed.last_file;
  last_frame_ = replayed.last_frame;
  last_synced_ = replayed.last_synced;
  return mark_.Open(replayed.mark);
}

void JournalFiles::Supersede(uint64_t from) {
  for (JournalFileInfo& file : older_) file.superseded = file.superseded || file.sequence >= from;
  held_ = 0;
}

std::vector<size_t> JournalFiles::Recyclable(const JournalPins& pins) const {
  std::vector<size_t> found;
  bool oldest = true;  // replay walks the files in order, so of those that count only the oldest can go
  for (size_t i = 0; i < older_.size(); ++i) {
    const JournalFileInfo& file = older_[i];
    if (!file.superseded) oldest = oldest && file.sequence != held_ && !pins.IsPinned(file.sequence);
    if (file.superseded || oldest) found.push_back(i);
  }
  return found;
}

std::vector<size_t> JournalFiles::Reusable(const JournalPins& pins) const {
  std::vector<size_t> found = Recyclable(pins);
  std::erase_if(found, [&](size_t i) { return !IsUsable(older_[i].bytes); });
  return found;
}

bool JournalFiles::IsUsable(int64_t bytes) const {
  return bytes >= std::min(options_.file_bytes, kUsableBytesMin);
}

absl::Status JournalFiles::Create(const std::string& path) {
  JournalFileMaker maker(fs_, options_.dir, path, options_.file_bytes);
  for (bool more = true; more;) {
    SLUICE_ASSIGN_OR_RETURN(more, maker.Step());
  }
  return absl::OkStatus();
}

std::unique_ptr<JournalFileMaker> JournalFiles::MakeSpare() const {
  return std::make_unique<JournalFileMaker>(fs_, options_.dir, SparePath(), options_.file_bytes);
}

absl::Status JournalFiles::StartFile(const JournalPins& pins, int64_t opening_bytes) {
  const uint64_t sequence = last_sequence_ + 1;
  const std::string path = JournalFilePath(options_.dir, sequence);
  const std::vector<size_t> reusable = Reusable(pins);
  JournalFileInfo next{.sequence = sequence, .path = path};
  if (reusable.empty() && !has_spare_) {
    SLUICE_RETURN_IF_ERROR(Create(SparePath()));
    has_spare_ = true;
  }
  const std::string from = reusable.empty() ? SparePath() : older_[reusable.front()].path;
  {
    // Before it has its name: from then on a full disk is no reason to wait any more.
    SLUICE_ASSIGN_OR_RETURN(const auto file, fs_.Open(from, {.mode = OpenOptions::Mode::kReadWrite}));
    SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, file->Size());
    SLUICE_RETURN_IF_ERROR(ReserveIn(*file, bytes, opening_bytes));
  }
  SLUICE_RETURN_IF_ERROR(fs_.Rename(from, path));
  if (reusable.empty()) {
    has_spare_ = false;
    ++created_;
  } else {
    older_.erase(older_.begin() + static_cast<std::ptrdiff_t>(reusable.front()));
    ++recycled_;
  }
  SLUICE_RETURN_IF_ERROR(fs_.SyncDir(options_.dir));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                          fs_.Open(path, {.mode = OpenOptions::Mode::kReadWrite, .direct = true}));
  // What was made under another configuration has another size. And it may have grown: but that size is vouched for
  // only by a sync, which may have failed in an earlier process. What it was made with was synced before it had its
  // name.
  SLUICE_ASSIGN_OR_RETURN(next.bytes, file->Size());
  const int64_t made_before = made_bytes_;
  made_bytes_ = full_at_ = std::min(options_.file_bytes, next.bytes);
  if (file_ != nullptr) {
    current_.written = std::max(offset_, made_before);
    older_.push_back(current_);
  }
  file_ = std::move(file);
  current_ = std::move(next);
  last_sequence_ = sequence;
  file_id_ = Uuid::FromRandom(options_.random->Next(), options_.random->Next());
  offset_ = 0;
  opening_end_ = 0;
  NoteNeeded(pins);
  return absl::OkStatus();
}

void JournalFiles::NoteNeeded(const JournalPins& pins) {
  needed_from_ = current_.sequence;
  for (const JournalFileInfo& file : older_) {
    if (!file.superseded && (file.sequence == held_ || pins.IsPinned(file.sequence))) {
      needed_from_ = file.sequence;
      return;
    }
  }
}

absl::Status JournalFiles::Reserve(int64_t bytes) {
  return ReserveIn(*file_, current_.bytes, offset_ + bytes);
}

absl::Status JournalFiles::ReserveIn(File& file, int64_t bytes_now, int64_t bytes) {
  const int64_t grows = bytes - bytes_now;
  if (grows <= 0) return absl::OkStatus();
  // A failed reservation gives back what it got, and had better not be tried: for a moment it holds the last space of
  // others. And where nothing can be reserved this is all that can be known.
  SLUICE_ASSIGN_OR_RETURN(const int64_t free_bytes, fs_.FreeBytes(options_.dir));
  if (free_bytes < grows) {
    return absl::ResourceExhaustedError(absl::StrCat("no space left on device for a journal file to grow: ",
                                                     options_.dir, " has ", free_bytes, " of ", grows, " bytes free"));
  }
  absl::Status reserved = file.Allocate(bytes);
  if (!reserved.ok()) SLUICE_RETURN_IF_ERROR(file.Truncate(bytes_now));
  return reserved;
}

absl::Status JournalFiles::WriteFrame(absl::Span<const std::string_view> parts) {
  SLUICE_RETURN_IF_ERROR(file_->WritePartsAt(offset_, parts));
  for (const std::string_view part : parts) offset_ += static_cast<int64_t>(part.size());
  current_.bytes = std::max(current_.bytes, offset_);
  return absl::OkStatus();
}

absl::Status JournalFiles::RemoveSpares(const JournalPins& pins) {
  const auto bytes_max = static_cast<int64_t>(kSparesShare * static_cast<double>(options_.total_bytes_max));
  int64_t bytes = current_.bytes;
  for (const JournalFileInfo& file : older_) bytes += file.bytes;
  bool removed = false;
  for (std::vector<size_t> spares = Recyclable(pins); !spares.empty(); spares = Recyclable(pins)) {
    const auto useless =
        std::find_if(spares.begin(), spares.end(), [&](size_t i) { return !IsUsable(older_[i].bytes); });
    if (useless == spares.end() && (spares.size() <= kSparesMin || bytes <= bytes_max)) break;
    const auto spare =
        older_.begin() + static_cast<std::ptrdiff_t>(useless == spares.end() ? spares.front() : *useless);
    SLUICE_RETURN_IF_ERROR(fs_.Remove(spare->path));
    bytes -= spare->bytes;
    older_.erase(spare);
    removed = true;
  }
  if (!removed) return absl::OkStatus();
  // A removed file that came back while a newer one stayed away would look like a gap.
  return fs_.SyncDir(options_.dir);
}

FrameHeader JournalFiles::NextHeader(uint16_t flags) {
  FrameHeader header;
  header.flags = flags;
  header.file_sequence = current_.sequence;
  header.file_id = file_id_;
  header.frame = ++last_frame_;
  header.last_synced = last_synced_;
  return header;
}

uint64_t JournalFiles::OldestPinned(const JournalPins& pins) const {
  for (const JournalFileInfo& file : older_) {
    if (!file.superseded && pins.IsPinned(file.sequence)) return file.sequence;
  }
  return 0;
}

int64_t JournalFiles::UsedBytes(const JournalPins& pins) const {
  // A file that has grown once and is used again holds nothing behind what was written of it this time.
  int64_t used = std::max(offset_, made_bytes_);
  bool counts = false;
  for (const JournalFileInfo& file : older_) {
    if (file.superseded) continue;
    counts = counts || pins.IsPinned(file.sequence);
    if (counts) used += file.written != 0 ? file.written : file.bytes;
  }
  return used;
}

}  // namespace sluice::storage
