#include "common/file_system.h"

#include "absl/strings/str_cat.h"

namespace sluice {

absl::Status File::WritePartsAt(int64_t offset, absl::Span<const std::string_view> parts) {
  for (const std::string_view part : parts) {
    if (auto status = WriteAt(offset, part); !status.ok()) return status;
    offset += static_cast<int64_t>(part.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadWholeFile(FileSystem& fs, const std::string& path, int64_t bytes_max) {
  auto file = fs.Open(path, {});
  if (!file.ok()) return file.status();
  auto size = (*file)->Size();
  if (!size.ok()) return size.status();
  if (*size > bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": ", *size, " bytes, at most ", bytes_max, " expected"));
  }
  std::string contents(static_cast<size_t>(*size), '\0');
  auto count = (*file)->ReadAt(0, absl::MakeSpan(contents.data(), contents.size()));
  if (!count.ok()) return count.status();
  contents.resize(*count);
  return contents;
}

absl::Status WriteWholeFile(FileSystem& fs, const std::string& path, std::string_view contents) {
  const std::string temporary = path + ".tmp";
  if (auto exists = fs.Exists(temporary); exists.ok() && *exists) {
    if (auto status = fs.Remove(temporary); !status.ok()) return status;
  }
  {
    auto file = fs.Open(temporary, {.mode = OpenOptions::Mode::kCreateNew});
    if (!file.ok()) return file.status();
    if (auto status = (*file)->WriteAt(0, contents); !status.ok()) return status;
    if (auto status = (*file)->Sync(); !status.ok()) return status;
  }
  if (auto status = fs.Rename(temporary, path); !status.ok()) return status;
  const size_t slash = path.rfind('/');
  return fs.SyncDir(slash == std::string::npos ? "." : path.substr(0, slash));
}

}  // namespace sluice
