// Makes a journal file: prewritten with zeros, so that later writes into it change no metadata, under a name of its own
// until it is whole, synced and named durably. In small steps, so that neither the thread nor the disk is taken from
// others for long.
//
// Blocks; one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"

namespace sluice::storage {

/// Names that end so are of files that were being made.
inline constexpr char kUnfinishedEnding[] = ".tmp";

class JournalFileMaker {
 public:
  JournalFileMaker(FileSystem& fs, std::string dir, std::string path, int64_t bytes)
      : fs_(fs), dir_(std::move(dir)), path_(std::move(path)), bytes_(bytes) {}

  const std::string& path() const { return path_; }
  /// Writes or syncs a little; false once the file is there for good. After an error nothing is left of it.
  absl::StatusOr<bool> Step();
  /// Gives up a file that is not finished.
  void Abandon();

 private:
  absl::StatusOr<bool> TryStep();
  std::string UnfinishedPath() const { return path_ + kUnfinishedEnding; }

  FileSystem& fs_;
  const std::string dir_;
  const std::string path_;
  const int64_t bytes_;
  std::unique_ptr<File> file_;
  int64_t written_ = 0;
  int64_t synced_ = 0;
};

}  // namespace sluice::storage
