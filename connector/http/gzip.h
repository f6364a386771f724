// Undoes `Content-Encoding: gzip`, never beyond a bound.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice::connector::http {

/// DATA_LOSS when damaged or cut short; RESOURCE_EXHAUSTED when it would pass `bytes_max`, before that memory is taken.
absl::StatusOr<std::string> Gunzip(std::string_view input, int64_t bytes_max);

}  // namespace sluice::connector::http
