#include "connector/http/gzip.h"

#include "common/record/codec.h"
#include "common/text.h"

namespace sluice::connector::http {

absl::StatusOr<std::string> Gunzip(std::string_view input, int64_t bytes_max) {
  absl::StatusOr<std::string> text =
      record::Decompress(record::Codec::kGzip, input, {.bytes_max = static_cast<size_t>(bytes_max)});
  if (text.ok()) return text;
  if (absl::IsResourceExhausted(text.status())) {
    return absl::ResourceExhaustedError(Cat("the answer is larger than ", bytes_max, " bytes when decompressed"));
  }
  return absl::DataLossError(Cat("the answer's gzip is damaged: ", Message(text.status())));
}

}  // namespace sluice::connector::http
