#include "storage/journal_place.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/text.h"

namespace sluice::storage {
namespace {

constexpr std::string_view kAt = " at byte ";
constexpr std::string_view kWhat = ": ";

}  // namespace

absl::Status ErrorAt(absl::StatusCode code, const std::string& path, int64_t offset, const std::string& what) {
  return absl::Status(code, Cat(path, kAt, offset, kWhat, what));
}

absl::Status DamagedAt(const std::string& path, int64_t offset, const std::string& what) {
  return ErrorAt(absl::StatusCode::kDataLoss, path, offset, what);
}

std::optional<JournalPlace> PlaceOf(const absl::Status& error) {
  const std::string_view message = Message(error);
  const size_t path_end = message.find(kAt);
  if (path_end == message.npos) return std::nullopt;
  const size_t offset_at = path_end + kAt.size();
  const size_t offset_end = message.find(kWhat, offset_at);
  if (offset_end == message.npos) return std::nullopt;
  JournalPlace place{.path = std::string(message.substr(0, path_end)),
                     .what = std::string(message.substr(offset_end + kWhat.size()))};
  const std::string offset(message.substr(offset_at, offset_end - offset_at));
  if (!absl::SimpleAtoi(offset, &place.offset)) return std::nullopt;
  return place;
}

}  // namespace sluice::storage
