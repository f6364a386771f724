#include "storage/segment_rewrite.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/status_macros.h"
#include "storage/journal_replay.h"

namespace sluice::storage {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;
// One sync carries about this much, so that it does not hold up the journal's on the same disk for long.
constexpr int64_t kSyncBytes = 8 << 20;

}  // namespace

absl::StatusOr<bool> SegmentRewrite::Step() {
  if (unsynced_ >= kSyncBytes) {
    unsynced_ = 0;
    SLUICE_RETURN_IF_ERROR(new_->Sync());
    return true;
  }
  switch (next_) {
    case Next::kCreate:
      SLUICE_RETURN_IF_ERROR(Create());
      return true;
    case Next::kCopy:
      SLUICE_RETURN_IF_ERROR(Copy());
      return true;
    case Next::kJournal:
      SLUICE_RETURN_IF_ERROR(TakeFromJournal());
      return true;
    case Next::kCheck:
      SLUICE_RETURN_IF_ERROR(Check());
      return true;
    case Next::kSync:
      SLUICE_RETURN_IF_ERROR(new_->Sync());
      next_ = Next::kDone;
      return false;
    case Next::kDone:
      break;
  }
  return false;
}

absl::Status SegmentRewrite::Create() {
  absl::Status removed = fs_.Remove(NewPath());
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  SLUICE_ASSIGN_OR_RETURN(new_, fs_.Open(NewPath(), {.mode = OpenOptions::Mode::kCreateNew}));
  if (job_.synced > 0) {
    SLUICE_ASSIGN_OR_RETURN(old_, fs_.Open(job_.path, {}));
  }
  next_ = Next::kCopy;
  return absl::OkStatus();
}

absl::Status SegmentRewrite::ReadChunk(File& file, int64_t until) {
  chunk_.resize(static_cast<size_t>(std::min(kChunkBytes, until - at_)));
  SLUICE_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(at_, absl::MakeSpan(chunk_)));
  if (got == chunk_.size()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file.path(), ": at byte ", at_ + static_cast<int64_t>(got),
                                          ": the file ends; expected ", until, " bytes"));
}

absl::Status SegmentRewrite::Copy() {
  if (at_ == job_.synced) {
    old_ = nullptr;
    next_ = Next::kJournal;
    return absl::OkStatus();
  }
  SLUICE_RETURN_IF_ERROR(ReadChunk(*old_, job_.synced));
  SLUICE_RETURN_IF_ERROR(new_->WriteAt(at_, chunk_));
  crc_ = Crc32c(chunk_, crc_);
  at_ += static_cast<int64_t>(chunk_.size());
  unsynced_ += static_cast<int64_t>(chunk_.size());
  return absl::OkStatus();
}

absl::Status SegmentRewrite::TakeFromJournal() {
  if (files_read_ == job_.files.size()) {
    next_ = Next::kCheck;
    return absl::OkStatus();
  }
  // A segment of that name that was taken back before may be in the journal too: what comes later stands.
  const auto take = [this](const AppendRecord& append) -> absl::Status {
    const int64_t length = static_cast<int64_t>(append.bytes.size());
    const int64_t begin = std::max(append.position, job_.synced);
    const int64_t end = std::min(append.position + length, job_.target.end_position);
    if (begin >= end) return absl::OkStatus();
    unsynced_ += end - begin;
    return new_->WriteAt(begin, append.bytes.view().substr(static_cast<size_t>(begin - append.position),
                                                           static_cast<size_t>(end - begin)));
  };
  const JournalFileInfo& file = job_.files[files_read_++];
  return ReadAppends(fs_, file, job_.replica, job_.target.id, take);
}

absl::Status SegmentRewrite::Check() {
  if (at_ < job_.target.end_position) {
    SLUICE_RETURN_IF_ERROR(ReadChunk(*new_, job_.target.end_position));
    crc_ = Crc32c(chunk_, crc_);
    at_ += static_cast<int64_t>(chunk_.size());
    return absl::OkStatus();
  }
  if (crc_ != job_.target.crc32c) {
    return absl::DataLossError(absl::StrCat(
        job_.path, ": bytes 0 to ", job_.synced, ", which were synced, and those from there to ", at_,
        ", which the journal holds, have checksum ", crc_, " together; the registry expects ", job_.target.crc32c));
  }
  next_ = Next::kSync;
  return absl::OkStatus();
}

absl::Status SegmentRewrite::Install() {
  new_ = nullptr;
  SLUICE_RETURN_IF_ERROR(fs_.Rename(NewPath(), job_.path));
  return fs_.SyncDir(job_.dir);
}

}  // namespace sluice::storage
