// A file of SimFileSystem, open. Internal to it: all state is the file system's, and under its mutex.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::simulation {

inline absl::Status IoError(const std::string& path, const char* call) {
  return absl::DataLossError(absl::StrCat(path, ": ", call, ": injected (errno 5)"));
}

/// As POSIX calls it; a capacity of which a file system does not tell beforehand is a quota.
inline const char* NoSpace(bool quota) {
  return quota ? "Disk quota exceeded (errno 122)" : "no space left on device (errno 28)";
}

inline absl::Status PowerIsOff() {
  return absl::UnavailableError("simulated crash");
}

class SimFile final : public File {
 public:
  SimFile(SimFileSystem& fs, std::string path, SimFileSystem::NodePtr node, OpenOptions options)
      : fs_(fs), path_(std::move(path)), node_(std::move(node)), options_(options), life_(fs.life_) {}

  const std::string& path() const override { return path_; }
  bool IsDirect() const override { return options_.direct; }
  absl::StatusOr<size_t> ReadAt(int64_t offset, absl::Span<char> out) override;
  absl::Status WriteAt(int64_t offset, std::string_view data) override;
  absl::Status Sync() override;
  absl::Status Truncate(int64_t size) override;
  /// A failed one keeps what it got, as ext4 does.
  absl::Status Allocate(int64_t size) override;
  absl::StatusOr<int64_t> Size() override;

 private:
  absl::Status Alive() const { return life_ == fs_.life_ ? fs_.CheckAlive() : PowerIsOff(); }
  absl::Status ReadOnly() const {
    return absl::InternalError(absl::StrCat(path_, ": pwrite: opened for reading (errno 9)"));
  }
  absl::Status Check(int64_t offset, const char* address, size_t length) const {
    const uint64_t bits = reinterpret_cast<uintptr_t>(address) | static_cast<uint64_t>(offset) | length;
    if (offset < 0 || (options_.direct && bits % kBlockBytes != 0)) {
      return absl::InternalError(absl::StrCat(path_, ": not aligned, or a negative offset (errno 22)"));
    }
    return Alive();
  }
  void Record(SimFileSystem::Change change) {
    SimFileSystem::ApplyChange(node_->seen, change);
    node_->changes.push_back(std::move(change));
  }

  SimFileSystem& fs_;
  const std::string path_;
  const SimFileSystem::NodePtr node_;
  const OpenOptions options_;
  const uint64_t life_;
};

}  // namespace sluice::simulation
