#include "storage/journal_file_maker.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "storage/aligned_buffer.h"

namespace sluice::storage {
namespace {

constexpr int64_t kWriteBytes = int64_t{1} << 20;
constexpr int64_t kSyncBytes = int64_t{4} << 20;

// Never written to, so that it takes no memory: the system has one page of zeros for all of it. A buffer made for each
// write left the heap in pieces.
alignas(kBlockBytes) char zeros[kWriteBytes];

}  // namespace

absl::StatusOr<bool> JournalFileMaker::Step() {
  absl::StatusOr<bool> more = TryStep();
  if (!more.ok()) Abandon();  // gives the space back; what went wrong is the error to report
  return more;
}

absl::StatusOr<bool> JournalFileMaker::TryStep() {
  if (file_ == nullptr) {
    const absl::Status removed = fs_.Remove(UnfinishedPath());
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    // On a full disk not even for a moment what others could still use.
    SLUICE_ASSIGN_OR_RETURN(const int64_t free_bytes, fs_.FreeBytes(dir_));
    if (free_bytes < bytes_) {
      return absl::ResourceExhaustedError(absl::StrCat("no space left on device for another journal file: ", dir_,
                                                       " has ", free_bytes, " of ", bytes_, " bytes free"));
    }
    SLUICE_ASSIGN_OR_RETURN(file_, fs_.Open(UnfinishedPath(), {.mode = OpenOptions::Mode::kCreateNew, .direct = true}));
    SLUICE_RETURN_IF_ERROR(file_->Allocate(bytes_));
    return true;
  }
  const int64_t ahead = written_ - synced_;
  if (ahead >= kSyncBytes || (ahead > 0 && written_ == bytes_)) {
    SLUICE_RETURN_IF_ERROR(file_->Sync());
    synced_ = written_;
    return true;
  }
  if (written_ < bytes_) {
    const int64_t count = std::min(kWriteBytes, bytes_ - written_);
    SLUICE_RETURN_IF_ERROR(file_->WriteAt(written_, {zeros, static_cast<size_t>(count)}));
    written_ += count;
    return true;
  }
  file_ = nullptr;
  SLUICE_RETURN_IF_ERROR(fs_.Rename(UnfinishedPath(), path_));
  SLUICE_RETURN_IF_ERROR(fs_.SyncDir(dir_));
  return false;
}

void JournalFileMaker::Abandon() {
  file_ = nullptr;
  fs_.Remove(UnfinishedPath()).IgnoreError();
}

}  // namespace sluice::storage
