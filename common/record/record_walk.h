// One record as it stands in a batch: taken apart and bounds-checked, with its headers checked but not collected. What
// BatchView::VerifyRecords and RecordReader both stand on.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace sluice::record {

struct RawRecord {
  int64_t timestamp_delta = 0;
  int32_t offset_delta = 0;
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
  int32_t header_count = 0;
  std::string_view headers;  // encoded; known to hold header_count whole headers, none with a null key
};

/// Takes the next record off the front of `*rest`. DATA_LOSS names `index` and what is wrong, and leaves `*rest` alone.
absl::Status TakeRecord(std::string_view* rest, int32_t index, RawRecord* record);

/// Takes one header off the front of encoded headers; false when it is not whole or its key is null.
bool TakeHeader(std::string_view* rest, std::string_view* key, std::optional<std::string_view>* value);

}  // namespace sluice::record
