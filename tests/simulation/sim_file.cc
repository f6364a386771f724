#include "tests/simulation/sim_file.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace sluice::simulation {

absl::StatusOr<size_t> SimFile::ReadAt(int64_t offset, absl::Span<char> out) {
  const std::lock_guard<std::mutex> lock(fs_.mutex_);
  if (auto status = Check(offset, out.data(), out.size()); !status.ok()) return status;
  const uint64_t call = ++fs_.calls_[SimFileSystem::Call::kRead];
  if (fs_.failures_[SimFileSystem::Call::kRead].erase(call) > 0) {
    ++fs_.counts_.read_errors;
    return IoError(path_, "pread");
  }
  const std::string& seen = node_->seen;
  if (offset >= static_cast<int64_t>(seen.size())) return size_t{0};
  const size_t count = std::min(out.size(), seen.size() - static_cast<size_t>(offset));
  std::copy_n(seen.data() + offset, count, out.data());
  if (count > 0 && fs_.flips_.erase(call) > 0) {
    out[fs_.random_.Below(count)] ^= static_cast<char>(1 << fs_.random_.Below(8));
    ++fs_.counts_.bits_flipped;
  }
  return count;
}

absl::Status SimFile::WriteAt(int64_t offset, std::string_view data) {
  const std::lock_guard<std::mutex> lock(fs_.mutex_);
  if (auto status = Check(offset, data.data(), data.size()); !status.ok()) return status;
  if (options_.mode == OpenOptions::Mode::kReadOnly) return ReadOnly();
  const uint64_t call = ++fs_.calls_[SimFileSystem::Call::kWrite];
  if (fs_.failures_[SimFileSystem::Call::kWrite].erase(call) > 0) {
    ++fs_.counts_.write_errors;
    // A failed write may have written a part.
    Record({offset, std::string(data.substr(0, fs_.random_.Below(data.size() + 1)))});
    return IoError(path_, "pwrite");
  }
  const int64_t end = offset + static_cast<int64_t>(data.size());
  const int64_t grows = end - SimFileSystem::UsedBytesOf(*node_);
  if (fs_.capacity_ >= 0 && grows > 0 && fs_.UsedBytesLocked() + grows > fs_.capacity_) {
    ++fs_.counts_.full;
    return absl::ResourceExhaustedError(absl::StrCat(path_, ": pwrite: ", NoSpace(fs_.capacity_hidden_)));
  }
  bool happens = true;
  const bool alive = fs_.Operate(&happens);
  // Also when the world stops here: the crash then decides what is left of it.
  Record({offset, std::string(data)});
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::Status SimFile::Sync() {
  const std::lock_guard<std::mutex> lock(fs_.mutex_);
  if (auto status = Alive(); !status.ok()) return status;
  const uint64_t call = ++fs_.calls_[SimFileSystem::Call::kSync];
  if (fs_.failures_[SimFileSystem::Call::kSync].erase(call) > 0) {
    ++fs_.counts_.sync_errors;
    fs_.SettleFile(*node_);
    return IoError(path_, "fdatasync");
  }
  if (fs_.failing_syncs_ > 0 && absl::EndsWith(path_, fs_.failing_syncs_of_)) {
    --fs_.failing_syncs_;
    ++fs_.counts_.sync_errors;
    fs_.SettleFile(*node_);
    if (fs_.failing_syncs_drop_) node_->seen = node_->durable;
    return IoError(path_, "fdatasync");
  }
  bool happens = true;
  const bool alive = fs_.Operate(&happens);
  if (happens) {
    for (const auto& change : node_->changes) SimFileSystem::ApplyChange(node_->durable, change);
    node_->changes.clear();
    ++fs_.syncs_[path_];
  }
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::Status SimFile::Truncate(int64_t size) {
  const std::lock_guard<std::mutex> lock(fs_.mutex_);
  if (auto status = Alive(); !status.ok()) return status;
  if (options_.mode == OpenOptions::Mode::kReadOnly) return ReadOnly();
  bool happens = true;
  const bool alive = fs_.Operate(&happens);
  node_->allocated = 0;
  Record({.offset = size, .data = {}, .is_truncate = true});
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::Status SimFile::Allocate(int64_t size) {
  const std::lock_guard<std::mutex> lock(fs_.mutex_);
  if (auto status = Alive(); !status.ok()) return status;
  if (!fs_.allocates_) return absl::OkStatus();
  const int64_t used = SimFileSystem::UsedBytesOf(*node_);
  const int64_t grows = std::max<int64_t>(0, size - used);
  const int64_t left = fs_.capacity_ < 0 ? grows : std::max<int64_t>(0, fs_.capacity_ - fs_.UsedBytesLocked());
  node_->allocated = used + std::min(grows, left);
  if (grows <= left) return absl::OkStatus();
  ++fs_.counts_.full;
  return absl::ResourceExhaustedError(absl::StrCat(path_, ": fallocate: ", NoSpace(fs_.capacity_hidden_)));
}

absl::StatusOr<int64_t> SimFile::Size() {
  const std::lock_guard<std::mutex> lock(fs_.mutex_);
  if (auto status = Alive(); !status.ok()) return status;
  return static_cast<int64_t>(node_->seen.size());
}

}  // namespace sluice::simulation
