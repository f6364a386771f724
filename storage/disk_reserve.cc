#include "storage/disk_reserve.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace sluice::storage {

DiskReserve::DiskReserve(FileSystem& fs, const std::string& data_dir, int64_t bytes)
    : fs_(fs), data_dir_(data_dir), path_(absl::StrCat(data_dir, "/RESERVE")), bytes_(bytes) {}

absl::Status DiskReserve::GiveUpIfFull() {
  SLUICE_ASSIGN_OR_RETURN(kept_, fs_.Exists(path_));
  if (!kept_) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const int64_t free_bytes, fs_.FreeBytes(data_dir_));
  if (bytes_ > 0 && free_bytes >= bytes_) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(fs_.Remove(path_));
  kept_ = false;
  return absl::OkStatus();
}

void DiskReserve::Keep(int64_t spare_bytes) {
  if (kept_ || bytes_ == 0 || spare_bytes < bytes_) return;
  const absl::Status made = [&]() -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const auto file, fs_.Open(path_, {.mode = OpenOptions::Mode::kCreateNew}));
    SLUICE_RETURN_IF_ERROR(file->Allocate(bytes_));
    return file->Truncate(bytes_);
  }();
  kept_ = made.ok();
  if (!kept_) fs_.Remove(path_).IgnoreError();
}

}  // namespace sluice::storage
