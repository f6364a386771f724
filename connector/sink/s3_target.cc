// S3 through Arrow's file system. The only file, with parquet_encoder.cc, that sees Arrow.
#include <arrow/filesystem/s3fs.h>
#include <arrow/io/interfaces.h>
#include <arrow/result.h>

#include <mutex>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/sink/sink.h"
#include "connector/sink/target.h"

namespace sluice::connector {

namespace {

absl::Status FromArrow(std::string_view where, const arrow::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = Cat(where, ": ", status.message());
  const auto says = [&](const char* text) { return message.find(text) != std::string::npos; };
  // Servers other than AWS have names of their own for an unknown key.
  if (says("ACCESS_DENIED") || says("SIGNATURE_DOES_NOT_MATCH") || says("INVALID_ACCESS_KEY_ID") ||
      says("HTTP status 403") || says("HTTP status 401") || says("access key") || says("EXPIRED_TOKEN")) {
    return absl::PermissionDeniedError(message + " (check `access_key` and `secret_key`)");
  }
  if (says("NO_SUCH_BUCKET") || says("RESOURCE_NOT_FOUND"))
    return absl::NotFoundError(message + " (make the bucket, or correct `to` and `endpoint`)");
  if (says("NETWORK_CONNECTION") || says("NOT_INITIALIZED") || says("SLOW_DOWN") || says("SERVICE_UNAVAILABLE") ||
      says("HTTP status 5")) {
    return absl::UnavailableError(message + " (check `endpoint`)");
  }
  if (says("HTTP status 301") || says("AuthorizationHeaderMalformed") || says("PermanentRedirect")) {
    return absl::FailedPreconditionError(message + " (check `region` and `endpoint`)");
  }
  return absl::InternalError(message);
}

/// Keeps it until the process ends: when it is destroyed, Arrow's stream completes an upload that could not be aborted,
/// and half a file would stand under its name.
void Abandon(std::shared_ptr<arrow::io::OutputStream> stream) {
  static std::mutex mutex;
  static auto* const abandoned = new std::vector<std::shared_ptr<arrow::io::OutputStream>>();
  const std::lock_guard lock(mutex);
  abandoned->push_back(std::move(stream));
}

class S3File : public OutputFile {
 public:
  S3File(std::shared_ptr<arrow::fs::S3FileSystem> files, std::string key,
         std::shared_ptr<arrow::io::OutputStream> stream)
      : files_(std::move(files)), key_(std::move(key)), where_("s3://" + key_), stream_(std::move(stream)) {}
  ~S3File() override {
    if (stream_ != nullptr && !stream_->Abort().ok()) Abandon(std::move(stream_));
  }
  absl::Status Write(std::string_view data) override {
    bytes_written_ += static_cast<int64_t>(data.size());
    return FromArrow(where_, stream_->Write(data.data(), static_cast<int64_t>(data.size())));
  }
  absl::Status Commit() override {
    SLUICE_RETURN_IF_ERROR(FromArrow(where_, stream_->Close()));
    stream_.reset();
    return CheckStored();
  }

 private:
  // What is committed here is asked for never again, so the server's word is not enough: one that was killed while it
  // completed an upload may say of the repeated request that this is done, and have no object.
  absl::Status CheckStored() {
    const auto found = files_->GetFileInfo(key_);
    if (!found.ok()) {
      return FromArrow(
          Cat(where_, ": written, but whether it is there cannot be asked (HEAD, which needs s3:GetObject)"),
          found.status());
    }
    if (found->type() != arrow::fs::FileType::File) {
      return absl::UnavailableError(
          Cat(where_, ": the S3 server says that it has stored it, but the object is not there"));
    }
    if (found->size() != bytes_written_) {
      return absl::UnavailableError(Cat(where_, ": the S3 server says that it has stored it, but the object has ",
                                        found->size(), " bytes, not ", bytes_written_));
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<arrow::fs::S3FileSystem> files_;
  const std::string key_;
  const std::string where_;
  std::shared_ptr<arrow::io::OutputStream> stream_;
};

class S3Target : public Target {
 public:
  S3Target(std::shared_ptr<arrow::fs::S3FileSystem> files, std::string prefix)
      : files_(std::move(files)), prefix_(std::move(prefix)) {}
  absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path) override {
    const std::string key = prefix_ + "/" + path;
    auto stream = files_->OpenOutputStream(key);
    if (!stream.ok()) return FromArrow("s3://" + key, stream.status());
    return std::make_unique<S3File>(files_, key, *std::move(stream));
  }

 private:
  const std::shared_ptr<arrow::fs::S3FileSystem> files_;
  const std::string prefix_;
};

std::mutex s3_mutex;
bool s3_initialized = false;  // guarded by s3_mutex

arrow::Status InitializeOnce() {
  const std::lock_guard lock(s3_mutex);
  if (s3_initialized) return arrow::Status::OK();
  arrow::fs::S3GlobalOptions options = arrow::fs::S3GlobalOptions::Defaults();
  options.log_level = arrow::fs::S3LogLevel::Off;
  options.num_event_loop_threads = 1;
  arrow::Status status = arrow::fs::InitializeS3(options);
  s3_initialized = status.ok();
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeS3Target(const std::string& bucket_and_prefix, const S3Config& config) {
  std::string path = bucket_and_prefix;
  while (!path.empty() && path.back() == '/') path.pop_back();
  const std::string bucket = path.substr(0, path.find('/'));
  const std::string where = "s3://" + path;
  if (arrow::Status status = InitializeOnce(); !status.ok()) return FromArrow(where, status);

  arrow::fs::S3Options options =
      config.access_key.empty()
          ? arrow::fs::S3Options::Defaults()
          : arrow::fs::S3Options::FromAccessKey(config.access_key.Reveal(), config.secret_key.Reveal());
  options.region = config.region;
  options.connect_timeout = 5;
  options.request_timeout = 30;
  options.allow_delayed_open = true;  // what fits into one request is one: a crash leaves nothing half done
  options.retry_strategy = arrow::fs::S3RetryStrategy::GetAwsStandardRetryStrategy(3);
  if (!config.endpoint.empty()) {
    const size_t scheme = config.endpoint.find("://");
    if (scheme == std::string::npos) {
      return absl::InvalidArgumentError(Cat("endpoint '", config.endpoint, "': must be http://HOST:PORT or https://…"));
    }
    options.scheme = config.endpoint.substr(0, scheme);
    options.endpoint_override = config.endpoint.substr(scheme + 3);
  }
  auto files = arrow::fs::S3FileSystem::Make(options);
  if (!files.ok()) return FromArrow(where, files.status());
  // A listing tells wrong credentials apart from a missing bucket; HEAD would only say "access denied".
  arrow::fs::FileSelector selector;
  selector.base_dir = bucket;
  selector.allow_not_found = false;
  auto listed = (*files)->GetFileInfo(selector);
  if (!listed.ok()) return FromArrow(Cat(where, ": bucket '", bucket, "'"), listed.status());
  return std::make_unique<S3Target>(*std::move(files), path);
}

void ShutDownTargets() {
  const std::lock_guard lock(s3_mutex);
  if (!s3_initialized) return;
  s3_initialized = false;
  (void)arrow::fs::FinalizeS3();
}

}  // namespace sluice::connector
