// Raw files: JSON lines, plain, gzip or zstd.
//
// Compressed input is handed over in blocks of one fixed size, so that the output does not depend on how the records
// arrived. gzip: each block is a member of its own (RFC 1952, 2.2: members simply follow one another), made by
// libdeflate. zstd: one frame.
#include <libdeflate.h>
#include <zstd.h>

#include <vector>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/sink/encoder.h"
#include "connector/source/json_text.h"

namespace sluice::connector {

namespace {

constexpr size_t kBlockInputBytes = size_t{1} << 20;

class Compressor {
 public:
  virtual ~Compressor() = default;
  virtual absl::Status Block(std::string_view data, bool last, OutputFile* file) = 0;
};

class NoCompressor : public Compressor {
 public:
  absl::Status Block(std::string_view data, bool, OutputFile* file) override { return file->Write(data); }
};

class GzipCompressor : public Compressor {
 public:
  explicit GzipCompressor(int level) : compressor_(libdeflate_alloc_compressor(level), libdeflate_free_compressor) {}
  absl::Status Block(std::string_view data, bool, OutputFile* file) override {
    if (compressor_ == nullptr) return absl::ResourceExhaustedError("gzip: no memory for a compressor");
    out_.resize(libdeflate_gzip_compress_bound(compressor_.get(), data.size()));
    const size_t size = libdeflate_gzip_compress(compressor_.get(), data.data(), data.size(), out_.data(), out_.size());
    if (size == 0) return absl::InternalError("gzip: compression failed");
    return file->Write({out_.data(), size});
  }

 private:
  std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)> compressor_;
  std::vector<char> out_;
};

class ZstdCompressor : public Compressor {
 public:
  explicit ZstdCompressor(int level) : context_(ZSTD_createCCtx(), ZSTD_freeCCtx), out_(ZSTD_CStreamOutSize()) {
    if (context_ == nullptr) return;
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }
  absl::Status Block(std::string_view data, bool last, OutputFile* file) override {
    if (context_ == nullptr) return absl::ResourceExhaustedError("zstd: no memory for a compressor");
    ZSTD_inBuffer in{data.data(), data.size(), 0};
    for (;;) {
      ZSTD_outBuffer out{out_.data(), out_.size(), 0};
      const size_t left = ZSTD_compressStream2(context_.get(), &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
      if (ZSTD_isError(left)) return absl::InternalError(Cat("zstd: ", ZSTD_getErrorName(left)));
      SLUICE_RETURN_IF_ERROR(file->Write({out_.data(), out.pos}));
      if (last ? left == 0 : in.pos == in.size) return absl::OkStatus();
    }
  }

 private:
  std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context_;
  std::vector<char> out_;
};

class RawFormat : public Format {
 public:
  RawFormat(SinkCodec codec, int level) : codec_(codec), level_(level) {}

  absl::Status Prepare(const SinkRecord& record) override {
    if (!record.value.has_value()) return absl::InvalidArgumentError("the record has no value");
    SLUICE_ASSIGN_OR_RETURN(JsonDocument document, JsonDocument::Parse(*record.value));
    line_ = std::move(document);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<FileEncoder>> Open(OutputFile* file) override;
  std::string extension() const override {
    return codec_ == SinkCodec::kGzip ? "jsonl.gz" : codec_ == SinkCodec::kZstd ? "jsonl.zst" : "jsonl";
  }
  std::string_view line() const { return line_->text(); }
  std::unique_ptr<Compressor> NewCompressor() const {
    if (codec_ == SinkCodec::kGzip) return std::make_unique<GzipCompressor>(level_);
    if (codec_ == SinkCodec::kZstd) return std::make_unique<ZstdCompressor>(level_);
    return std::make_unique<NoCompressor>();
  }

 private:
  const SinkCodec codec_;
  const int level_;
  std::optional<JsonDocument> line_;  // of the record prepared last
};

class RawEncoder : public FileEncoder {
 public:
  RawEncoder(const RawFormat* format, OutputFile* file)
      : format_(format), file_(file), compressor_(format->NewCompressor()) {}

  absl::Status AddPrepared() override {
    SLUICE_RETURN_IF_ERROR(Add(format_->line()));
    return Add("\n");
  }
  absl::Status Finish() override { return compressor_->Block(block_, true, file_); }

 private:
  // Fills blocks to exactly their size, splitting lines where need be.
  absl::Status Add(std::string_view data) {
    while (!data.empty()) {
      if (block_.size() == kBlockInputBytes) {
        SLUICE_RETURN_IF_ERROR(compressor_->Block(block_, false, file_));
        block_.clear();
      }
      const size_t count = std::min(data.size(), kBlockInputBytes - block_.size());
      block_.append(data.substr(0, count));
      data.remove_prefix(count);
    }
    return absl::OkStatus();
  }

  const RawFormat* const format_;
  OutputFile* const file_;
  const std::unique_ptr<Compressor> compressor_;
  std::string block_;
};

absl::StatusOr<std::unique_ptr<FileEncoder>> RawFormat::Open(OutputFile* file) {
  return std::make_unique<RawEncoder>(this, file);
}

}  // namespace

std::unique_ptr<Format> MakeRawFormat(SinkCodec codec, int level) {
  return std::make_unique<RawFormat>(codec, level);
}

}  // namespace sluice::connector
