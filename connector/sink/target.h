// Where a sink's files go: a local folder or an S3 prefix. A file is seen whole or not at all.
//
// Threads: one at a time. Calls block.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "connector/sink/sink_config.h"

namespace sluice::connector {

/// A file being written. Destroyed before Commit it leaves nothing that a reader of the folder would take for data.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  virtual absl::Status Write(std::string_view data) = 0;
  /// Makes the file durable and visible under its name, in place of one of that name. Nothing may follow.
  virtual absl::Status Commit() = 0;
  int64_t bytes_written() const { return bytes_written_; }

 protected:
  int64_t bytes_written_ = 0;
};

class Target {
 public:
  virtual ~Target() = default;
  /// `path` is relative, with '/' between folders, which are made as needed.
  virtual absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path) = 0;
};

/// Writes ".<name>.tmp" beside the final name, syncs it, renames it and syncs the folder.
std::unique_ptr<Target> MakeLocalTarget(FileSystem* files, std::string folder);
/// One PUT, or from 10 MiB on a multipart upload that Commit completes; Commit then asks (HEAD) whether an object of
/// that size is there, and is UNAVAILABLE if not. `bucket_and_prefix` is "bucket/prefix". The bucket must exist:
/// checked here, so that wrong credentials, endpoints and buckets are found before any data is read.
absl::StatusOr<std::unique_ptr<Target>> MakeS3Target(const std::string& bucket_and_prefix, const S3Config& config);
/// INVALID_ARGUMENT unless `config.to` is file:// or s3:// and something.
absl::Status CheckTarget(const SinkConfig& config);
/// By the scheme of `config.to`; INVALID_ARGUMENT as CheckTarget.
absl::StatusOr<std::unique_ptr<Target>> MakeTarget(const SinkConfig& config, FileSystem* files);

}  // namespace sluice::connector
