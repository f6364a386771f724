#include "runtime/posix_file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::runtime {

namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      return absl::StatusCode::kResourceExhausted;
    case EIO:
      return absl::StatusCode::kDataLoss;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status Failed(const std::string& path, const char* call, int error) {
  char text[256] = {};
  const char* reason = ::strerror_r(error, text, sizeof text);
  return absl::Status(CodeOf(error), absl::StrCat(path, ": ", call, ": ", reason, " (errno ", error, ")"));
}

// Repeats a call that a signal interrupted before it did anything.
template <class Call>
auto Uninterrupted(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

class PosixFile final : public File {
 public:
  PosixFile(std::string path, int fd, bool direct) : path_(std::move(path)), fd_(fd), direct_(direct) {}
  ~PosixFile() override { ::close(fd_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  const std::string& path() const override { return path_; }
  bool IsDirect() const override { return direct_; }

  absl::StatusOr<size_t> ReadAt(int64_t offset, absl::Span<char> out) override {
    size_t got = 0;
    while (got < out.size()) {
      const ssize_t n = Uninterrupted(
          [&] { return ::pread(fd_, out.data() + got, out.size() - got, offset + static_cast<int64_t>(got)); });
      if (n < 0) return Failed(path_, "pread", errno);
      if (n == 0) break;
      got += static_cast<size_t>(n);
      // A direct read comes up short only at the end of the file, and could not go on from an unaligned place.
      if (direct_ && got % kBlockBytes != 0) break;
    }
    return got;
  }

  absl::Status WriteAt(int64_t offset, std::string_view data) override {
    while (!data.empty()) {
      const ssize_t n = Uninterrupted([&] { return ::pwrite(fd_, data.data(), data.size(), offset); });
      if (n < 0) return Failed(path_, "pwrite", errno);
      if (n == 0) return Failed(path_, "pwrite", EIO);
      if (direct_ && n % kBlockBytes != 0) return Failed(path_, "pwrite (short, not at a block)", EIO);
      data.remove_prefix(static_cast<size_t>(n));
      offset += n;
    }
    return absl::OkStatus();
  }

  absl::Status WritePartsAt(int64_t offset, absl::Span<const std::string_view> parts) override {
    constexpr size_t kPartsMax = 64;  // in one call; the system takes 1,024
    struct iovec vector[kPartsMax];
    while (!parts.empty()) {
      const size_t count = std::min(parts.size(), kPartsMax);
      size_t bytes = 0;
      for (size_t i = 0; i < count; ++i) {
        vector[i] = {const_cast<char*>(parts[i].data()), parts[i].size()};
        bytes += parts[i].size();
      }
      const ssize_t n = Uninterrupted([&] { return ::pwritev(fd_, vector, static_cast<int>(count), offset); });
      if (n < 0) return Failed(path_, "pwritev", errno);
      if (static_cast<size_t>(n) < bytes) {
        // What is left goes part by part; a short write is rare and may be the disk's last space.
        return WriteRestAt(offset, parts, static_cast<size_t>(n));
      }
      parts.remove_prefix(count);
      offset += n;
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (Uninterrupted([&] { return ::fdatasync(fd_); }) != 0) return Failed(path_, "fdatasync", errno);
    return absl::OkStatus();
  }

  absl::Status Truncate(int64_t size) override {
    if (Uninterrupted([&] { return ::ftruncate(fd_, size); }) != 0) return Failed(path_, "ftruncate", errno);
    return absl::OkStatus();
  }

  absl::Status Allocate(int64_t size) override {
    const int result = Uninterrupted([&] { return ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, size); });
    if (result != 0 && errno != EOPNOTSUPP) return Failed(path_, "fallocate", errno);
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Size() override {
    struct stat info;
    if (::fstat(fd_, &info) != 0) return Failed(path_, "fstat", errno);
    return static_cast<int64_t>(info.st_size);
  }

 private:
  // The parts from byte `done` on.
  absl::Status WriteRestAt(int64_t offset, absl::Span<const std::string_view> parts, size_t done) {
    for (const std::string_view part : parts) {
      const size_t skip = std::min(done, part.size());
      done -= skip;
      if (absl::Status status = WriteAt(offset + static_cast<int64_t>(skip), part.substr(skip)); !status.ok()) {
        return status;
      }
      offset += static_cast<int64_t>(part.size());
    }
    return absl::OkStatus();
  }

  const std::string path_;
  const int fd_;
  const bool direct_;
};

class PosixFileLock final : public FileLock {
 public:
  explicit PosixFileLock(int fd) : fd_(fd) {}
  ~PosixFileLock() override { ::close(fd_); }  // closing lets go
  PosixFileLock(const PosixFileLock&) = delete;
  PosixFileLock& operator=(const PosixFileLock&) = delete;

 private:
  const int fd_;
};

// What the holder of a lock file wrote into it; for the error message only.
std::string HolderOf(int fd) {
  char text[32];
  const ssize_t n = ::pread(fd, text, sizeof text, 0);
  std::string holder(text, n > 0 ? static_cast<size_t>(n) : 0);
  holder.erase(std::find_if(holder.begin(), holder.end(), [](char c) { return c < '0' || c > '9'; }), holder.end());
  return holder.empty() ? "another process" : absl::StrCat("process ", holder);
}

absl::StatusOr<bool> StatMode(const std::string& path, mode_t* mode) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return Failed(path, "stat", errno);
  }
  *mode = info.st_mode;
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<File>> PosixFileSystem::Open(const std::string& path, OpenOptions options) {
  int flags = O_CLOEXEC;
  if (options.mode == OpenOptions::Mode::kReadOnly) flags |= O_RDONLY;
  if (options.mode == OpenOptions::Mode::kReadWrite) flags |= O_RDWR;
  if (options.mode == OpenOptions::Mode::kCreateNew) flags |= O_RDWR | O_CREAT | O_EXCL;
  bool direct = options.direct;
  const auto open_with = [&](int more) {
    return Uninterrupted([&] { return ::open(path.c_str(), flags | more, 0644); });
  };
  int fd = open_with(direct ? O_DIRECT : 0);
  if (fd < 0 && direct && errno == EINVAL) {
    direct = false;
    // A refused O_DIRECT may have created the file all the same; that file is ours.
    flags &= ~O_EXCL;
    fd = open_with(0);
  }
  if (fd < 0) return Failed(path, "open", errno);
  return std::make_unique<PosixFile>(path, fd, direct);
}

absl::Status PosixFileSystem::CreateDirs(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (!part.empty() && ::mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) return Failed(part, "mkdir", errno);
    if (slash == std::string::npos) break;
  }
  auto is_dir = IsDir(path);
  if (!is_dir.ok()) return is_dir.status();
  return *is_dir ? absl::OkStatus() : Failed(path, "mkdir", EEXIST);
}

absl::Status PosixFileSystem::SyncDir(const std::string& path) {
  const int fd = Uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) return Failed(path, "open", errno);
  const int result = Uninterrupted([&] { return ::fsync(fd); });
  const int error = errno;
  ::close(fd);
  if (result == 0) return absl::OkStatus();
  absl::Status failed = Failed(path, "fsync", error);
  // A file system without a sync of folders: told apart from failures, for who has made nothing there.
  return error == EINVAL ? absl::InvalidArgumentError(failed.message()) : failed;
}

absl::Status PosixFileSystem::Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return Failed(absl::StrCat(from, " -> ", to), "rename", errno);
  return absl::OkStatus();
}

absl::Status PosixFileSystem::Remove(const std::string& path) {
  if (::unlink(path.c_str()) != 0) return Failed(path, "unlink", errno);
  return absl::OkStatus();
}

absl::Status PosixFileSystem::RemoveDir(const std::string& path) {
  if (::rmdir(path.c_str()) != 0) return Failed(path, "rmdir", errno);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> PosixFileSystem::List(const std::string& path) {
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) return Failed(path, "opendir", errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(dir);
  if (error != 0) return Failed(path, "readdir", error);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<bool> PosixFileSystem::Exists(const std::string& path) {
  mode_t mode = 0;
  return StatMode(path, &mode);
}

absl::StatusOr<bool> PosixFileSystem::IsDir(const std::string& path) {
  mode_t mode = 0;
  auto there = StatMode(path, &mode);
  if (!there.ok()) return there;
  return *there && S_ISDIR(mode);
}

absl::StatusOr<std::unique_ptr<FileLock>> PosixFileSystem::LockFile(const std::string& path) {
  const int fd = Uninterrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644); });
  if (fd < 0) return Failed(path, "open", errno);
  if (Uninterrupted([&] { return ::flock(fd, LOCK_EX | LOCK_NB); }) != 0) {
    const int error = errno;
    absl::Status status = Failed(path, "flock", error);
    if (error == EWOULDBLOCK) {
      status = absl::FailedPreconditionError(absl::StrCat(path, ": in use by ", HolderOf(fd)));
    }
    ::close(fd);
    return status;
  }
  const std::string holder = absl::StrCat(::getpid(), "\n");
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, holder.data(), holder.size(), 0) < 0) {
    const int error = errno;
    ::close(fd);
    return Failed(path, "pwrite", error);
  }
  return std::make_unique<PosixFileLock>(fd);
}

absl::StatusOr<int64_t> PosixFileSystem::FreeBytes(const std::string& path) {
  struct statvfs info;
  if (Uninterrupted([&] { return ::statvfs(path.c_str(), &info); }) != 0) return Failed(path, "statvfs", errno);
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

}  // namespace sluice::runtime
