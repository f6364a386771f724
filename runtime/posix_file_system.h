// The file seam on POSIX. Stateless; one object serves the whole process, from any thread.
//
// Files asked for as direct are opened with O_DIRECT where the file system has it, else buffered (File::IsDirect says
// which). Calls that a signal interrupts, and short reads and writes, are continued.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/file_system.h"

namespace sluice::runtime {

class PosixFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) override;
  absl::Status CreateDirs(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status RemoveDir(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  absl::StatusOr<bool> Exists(const std::string& path) override;
  absl::StatusOr<bool> IsDir(const std::string& path) override;
  /// flock(2): freed by the kernel when the process dies, however it dies. The file holds the holder's process id.
  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(const std::string& path) override;
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) override;
};

}  // namespace sluice::runtime
