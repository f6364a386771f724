// Room kept aside on the disk, in one file, so that a node can start although the disk is completely full: recovery,
// the journal's next file and the metadata store need some. It is given up when the store is opened with less free
// space than it takes, and made again once there is plenty.
//
// Threads: one at a time. Blocks.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/file_system.h"

namespace sluice::storage {

class DiskReserve {
 public:
  /// `bytes` 0: keeps nothing.
  DiskReserve(FileSystem& fs, const std::string& data_dir, int64_t bytes);

  /// Gives it up when less than its size is free.
  absl::Status GiveUpIfFull();
  /// Makes it unless it is there; only when `spare_bytes` are free beyond what else should be. What fails is tried
  /// again at the next call: nothing depends on it but a start on a full disk.
  void Keep(int64_t spare_bytes);
  bool kept() const { return kept_; }

 private:
  FileSystem& fs_;
  const std::string data_dir_;
  const std::string path_;
  const int64_t bytes_;
  bool kept_ = false;
};

}  // namespace sluice::storage
