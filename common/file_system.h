// The file seam: all that storage asks of a file system. runtime/ implements it on POSIX, tests/simulation/ in memory
// with crashes and faults.
//
// Calls block; make them on a BlockingExecutor, each a task of its own. A FileSystem may be used from any thread; a
// File from one thread at a time, except that ReadAt may run beside itself and beside WriteAt to other bytes.
// Errors: NotFound, AlreadyExists, ResourceExhausted (no space), DataLoss (EIO), PermissionDenied, otherwise Internal;
// the message names path, call and errno.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice {

/// What O_DIRECT asks of address, offset and length; also the journal's block and the unit of a torn write.
inline constexpr int64_t kBlockBytes = 4096;

struct OpenOptions {
  enum class Mode { kReadOnly, kReadWrite, kCreateNew };  // kCreateNew fails with AlreadyExists
  Mode mode = Mode::kReadOnly;
  /// Ask for O_DIRECT. Where the file system refuses it the file opens buffered and IsDirect() is false.
  bool direct = false;
};

class File {
 public:
  virtual ~File() = default;  // closes; never syncs
  virtual const std::string& path() const = 0;
  virtual bool IsDirect() const = 0;
  /// Reads at `offset` until `out` is full or the file ends; the count read. Of a direct file all three are aligned.
  virtual absl::StatusOr<size_t> ReadAt(int64_t offset, absl::Span<char> out) = 0;
  /// Writes all of `data` or fails; a failure may have written a part. Of a direct file all three are aligned.
  virtual absl::Status WriteAt(int64_t offset, std::string_view data) = 0;
  /// Writes the parts one behind the other, as WriteAt would their concatenation. Of a direct file each part's address
  /// and length are aligned. The default is a WriteAt for each part.
  virtual absl::Status WritePartsAt(int64_t offset, absl::Span<const std::string_view> parts);
  /// fdatasync: what was written, and the size needed to read it, survives a power loss. After a failure the file's
  /// unsynced contents are unknown; never sync it again.
  virtual absl::Status Sync() = 0;
  virtual absl::Status Truncate(int64_t size) = 0;
  /// Reserves blocks for [0, size) without changing the file's size.
  virtual absl::Status Allocate(int64_t size) = 0;
  virtual absl::StatusOr<int64_t> Size() = 0;
};

/// Held until destroyed; another process's LockFile on the same path fails.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) = 0;
  /// Makes the folder and its parents; OK when it is there. Durable after SyncDir of each parent.
  virtual absl::Status CreateDirs(const std::string& path) = 0;
  /// Makes creations, renames and removals in `path` survive a power loss.
  virtual absl::Status SyncDir(const std::string& path) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  virtual absl::Status RemoveDir(const std::string& path) = 0;  // empty folders only
  /// Names in a folder, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual absl::StatusOr<bool> Exists(const std::string& path) = 0;
  virtual absl::StatusOr<bool> IsDir(const std::string& path) = 0;
  /// FailedPrecondition when someone else holds it; the message names the holder where it can.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> LockFile(const std::string& path) = 0;
  /// Bytes an unprivileged writer may still use on the file system of `path`.
  virtual absl::StatusOr<int64_t> FreeBytes(const std::string& path) = 0;
};

/// Whole small files (node.yaml, snapshots). Read fails with ResourceExhausted beyond `bytes_max`; the write goes to
/// "<path>.tmp", is synced, renamed and the folder synced, so that a crash leaves the old or the new file.
absl::StatusOr<std::string> ReadWholeFile(FileSystem& fs, const std::string& path, int64_t bytes_max);
absl::Status WriteWholeFile(FileSystem& fs, const std::string& path, std::string_view contents);

}  // namespace sluice
