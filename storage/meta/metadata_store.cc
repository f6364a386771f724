#include "storage/meta/metadata_store.h"

#include <algorithm>

#include "common/text.h"

namespace sluice::storage {

absl::Status CheckMetadataChanges(std::string_view machine, int64_t applied, const MetadataChanges& changes) {
  const bool name_ok = !machine.empty() && machine.size() <= 32 &&
                       std::all_of(machine.begin(), machine.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  if (!name_ok) return absl::InvalidArgumentError(Cat("machine name \"", machine, "\" is not [a-z]{1,32}"));
  if (applied < 0) return absl::InvalidArgumentError(Cat("applied index ", applied, " is negative"));
  for (const auto& change : changes.changes()) {
    if (change.key.size() > kMetadataKeyBytesMax) {
      return absl::InvalidArgumentError(
          Cat("a key of ", change.key.size(), " bytes; ", kMetadataKeyBytesMax, " are allowed"));
    }
    if (change.value.has_value() && change.value->size() > kMetadataValueBytesMax) {
      return absl::InvalidArgumentError(
          Cat("a value of ", change.value->size(), " bytes; ", kMetadataValueBytesMax, " are allowed"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::storage
