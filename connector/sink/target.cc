#include "connector/sink/target.h"

#include <set>
#include <utility>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::connector {

namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr size_t kSureMax = 1000;

class LocalFile : public OutputFile {
 public:
  LocalFile(FileSystem* files, std::string folder, std::string name, std::unique_ptr<File> file)
      : files_(files), folder_(std::move(folder)), name_(std::move(name)), file_(std::move(file)) {}

  ~LocalFile() override {
    if (file_ == nullptr) return;
    const std::string temporary = file_->path();
    file_.reset();
    files_->Remove(temporary).IgnoreError();
  }

  absl::Status Write(std::string_view data) override {
    bytes_written_ += static_cast<int64_t>(data.size());
    buffer_.append(data);
    return buffer_.size() < kBufferBytes ? absl::OkStatus() : Flush();
  }

  absl::Status Commit() override {
    SLUICE_RETURN_IF_ERROR(Flush());
    SLUICE_RETURN_IF_ERROR(file_->Sync());
    const std::string temporary = file_->path();
    SLUICE_RETURN_IF_ERROR(files_->Rename(temporary, folder_ + "/" + name_));
    file_.reset();
    return files_->SyncDir(folder_);
  }

 private:
  absl::Status Flush() {
    if (buffer_.empty()) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(file_->WriteAt(position_, buffer_));
    position_ += static_cast<int64_t>(buffer_.size());
    buffer_.clear();
    return absl::OkStatus();
  }

  FileSystem* const files_;
  const std::string folder_;
  const std::string name_;
  std::unique_ptr<File> file_;
  std::string buffer_;
  int64_t position_ = 0;
};

class LocalTarget : public Target {
 public:
  LocalTarget(FileSystem* files, std::string folder) : files_(files), folder_(std::move(folder)) {}

  absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path) override {
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? folder_ : folder_ + "/" + path.substr(0, slash);
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    const std::string temporary = Cat(folder, "/.", name, ".tmp");
    SLUICE_RETURN_IF_ERROR(MakeFolder(folder));
    auto file = Open(temporary);
    if (absl::IsNotFound(file.status())) {  // somebody has removed a folder meanwhile
      sure_.clear();
      SLUICE_RETURN_IF_ERROR(MakeFolder(folder));
      file = Open(temporary);
    }
    if (!file.ok()) return std::move(file).status();
    return std::make_unique<LocalFile>(files_, folder, name, *std::move(file));
  }

 private:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& temporary) {
    SLUICE_ASSIGN_OR_RETURN(const bool left_over, files_->Exists(temporary));
    if (left_over) SLUICE_RETURN_IF_ERROR(files_->Remove(temporary));
    return files_->Open(temporary, {.mode = OpenOptions::Mode::kCreateNew});
  }

  // A folder must survive a power loss as well as the file in it. One that is there may be of a process that was killed
  // before it had synced the parent, so each is made sure of once.
  absl::Status MakeFolder(const std::string& folder) {
    if (sure_.contains(folder)) return absl::OkStatus();
    SLUICE_ASSIGN_OR_RETURN(const bool there, files_->Exists(folder));
    const size_t slash = folder.rfind('/');
    const bool has_parent = slash != std::string::npos && slash > 0;
    const std::string parent = has_parent ? folder.substr(0, slash) : slash == 0 ? "/" : ".";
    if (has_parent) SLUICE_RETURN_IF_ERROR(MakeFolder(parent));
    if (!there) SLUICE_RETURN_IF_ERROR(files_->CreateDirs(folder));
    absl::Status synced = files_->SyncDir(parent);
    // Who may not read the parent has not made the folder; nor is it new where folders cannot be synced, as on an
    // image.
    const bool not_ours = there && (absl::IsPermissionDenied(synced) || absl::IsInvalidArgument(synced));
    if (!synced.ok() && !not_ours) return synced;
    if (sure_.size() >= kSureMax) sure_.clear();
    sure_.insert(folder);
    return absl::OkStatus();
  }

  FileSystem* const files_;
  const std::string folder_;
  std::set<std::string> sure_;
};

bool TakePrefix(std::string_view prefix, std::string_view* text) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

}  // namespace

std::unique_ptr<Target> MakeLocalTarget(FileSystem* files, std::string folder) {
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return std::make_unique<LocalTarget>(files, std::move(folder));
}

absl::Status CheckTarget(const SinkConfig& config) {
  std::string_view rest = config.to;
  if ((TakePrefix("file://", &rest) || TakePrefix("s3://", &rest)) && !rest.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("sink target '", config.to, "': must be file://FOLDER or s3://BUCKET/PREFIX"));
}

absl::StatusOr<std::unique_ptr<Target>> MakeTarget(const SinkConfig& config, FileSystem* files) {
  SLUICE_RETURN_IF_ERROR(CheckTarget(config));
  std::string_view rest = config.to;
  if (TakePrefix("file://", &rest)) return MakeLocalTarget(files, std::string(rest));
  TakePrefix("s3://", &rest);
  return MakeS3Target(std::string(rest), config.s3);
}

}  // namespace sluice::connector
