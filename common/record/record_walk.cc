#include "common/record/record_walk.h"

#include "common/record/varint.h"
#include "common/text.h"

namespace sluice::record {

namespace {

absl::Status Damaged(int32_t index, std::string_view what) {
  return absl::DataLossError(Cat("record ", index, " of the batch: ", what));
}

// A length of -1 and no bytes is null.
bool TakeNullable(const char** at, const char* end, std::optional<std::string_view>* field) {
  int32_t length;
  if (!GetVarint32(at, end, &length) || length < -1 || length > end - *at) return false;
  if (length < 0) {
    field->reset();
    return true;
  }
  *field = std::string_view(*at, static_cast<size_t>(length));
  *at += length;
  return true;
}

bool TakeHeaderAt(const char** at, const char* end, std::string_view* key, std::optional<std::string_view>* value) {
  std::optional<std::string_view> name;
  if (!TakeNullable(at, end, &name) || !name.has_value()) return false;
  *key = *name;
  return TakeNullable(at, end, value);
}

}  // namespace

bool TakeHeader(std::string_view* rest, std::string_view* key, std::optional<std::string_view>* value) {
  const char* at = rest->data();
  if (!TakeHeaderAt(&at, rest->data() + rest->size(), key, value)) return false;
  rest->remove_prefix(static_cast<size_t>(at - rest->data()));
  return true;
}

absl::Status TakeRecord(std::string_view* rest, int32_t index, RawRecord* record) {
  const char* at = rest->data();
  const char* const batch_end = at + rest->size();
  int32_t length;
  if (!GetVarint32(&at, batch_end, &length)) return Damaged(index, "its length is cut short or too large");
  if (length < 0 || length > batch_end - at) {
    return Damaged(index, Cat("length ", length, " where ", batch_end - at, " bytes are left"));
  }
  const char* const end = at + length;
  if (at == end) return Damaged(index, "it is empty");
  ++at;  // the record's attributes: no bit of them means anything yet
  if (!GetVarint64(&at, end, &record->timestamp_delta)) return Damaged(index, "bad timestamp delta");
  if (!GetVarint32(&at, end, &record->offset_delta)) return Damaged(index, "bad offset delta");
  if (!TakeNullable(&at, end, &record->key)) return Damaged(index, "the key does not fit");
  if (!TakeNullable(&at, end, &record->value)) return Damaged(index, "the value does not fit");
  if (!GetVarint32(&at, end, &record->header_count) || record->header_count < 0) {
    return Damaged(index, "bad header count");
  }
  const char* const headers = at;
  for (int32_t i = 0; i < record->header_count; ++i) {
    std::string_view key;
    std::optional<std::string_view> value;
    if (!TakeHeaderAt(&at, end, &key, &value)) {
      return Damaged(index, Cat("header ", i, " does not fit or its key is null"));
    }
  }
  record->headers = std::string_view(headers, static_cast<size_t>(at - headers));
  if (at != end) return Damaged(index, Cat(end - at, " bytes are left over behind its headers"));
  rest->remove_prefix(static_cast<size_t>(end - rest->data()));
  return absl::OkStatus();
}

}  // namespace sluice::record
