#include "replication/replica_blob.h"

#include "absl/strings/str_cat.h"
#include "common/endian.h"

namespace sluice::replication {
namespace {

// docs/formats.md, "State of a replica"
constexpr uint16_t kVersion = 0;
constexpr size_t kHeaderBytes = 8;
constexpr size_t kAdvanceBytes = 20;

absl::Status Broken(const std::string& why) {
  return absl::DataLossError(absl::StrCat("state of a replica: ", why));
}

}  // namespace

absl::StatusOr<ReplicaBlob> ReplicaBlob::Decode(const Bytes& bytes) {
  ReplicaBlob blob;
  if (bytes.empty()) return blob;
  if (bytes.size() < kHeaderBytes) return Broken(absl::StrCat(bytes.size(), " bytes are too few"));
  const char* at = bytes.data();
  if (const auto version = LoadLittle<uint16_t>(at); version != kVersion) {
    return Broken(absl::StrCat("version ", version, " is not known"));
  }
  const size_t count = LoadLittle<uint16_t>(at + 2);
  const size_t core_size = LoadLittle<uint32_t>(at + 4);
  if (bytes.size() != kHeaderBytes + count * kAdvanceBytes + core_size) {
    return Broken(absl::StrCat(bytes.size(), " bytes do not fit ", count, " log starts and ", core_size, " bytes"));
  }
  at += kHeaderBytes;
  for (size_t i = 0; i < count; ++i, at += kAdvanceBytes) {
    const PendingAdvance advance{.end = Offset(LoadLittle<int64_t>(at)),
                                 .epoch = LeaderEpoch(LoadLittle<int32_t>(at + 8)),
                                 .log_start = Offset(LoadLittle<int64_t>(at + 12))};
    if (advance.log_start < Offset(0) || advance.end < advance.log_start || advance.epoch < LeaderEpoch(0)) {
      return Broken(absl::StrCat("log start ", advance.log_start.value(), " by an entry before ", advance.end.value()));
    }
    blob.advances.push_back(advance);
  }
  blob.core = Bytes::Copy(bytes.view().substr(kHeaderBytes + count * kAdvanceBytes));
  return blob;
}

std::string ReplicaBlob::Encode() const {
  std::string bytes(kHeaderBytes + advances.size() * kAdvanceBytes, '\0');
  char* at = bytes.data();
  StoreLittle<uint16_t>(at, kVersion);
  StoreLittle(at + 2, static_cast<uint16_t>(advances.size()));
  StoreLittle(at + 4, static_cast<uint32_t>(core.size()));
  at += kHeaderBytes;
  for (const PendingAdvance& advance : advances) {
    StoreLittle(at, advance.end.value());
    StoreLittle(at + 8, advance.epoch.value());
    StoreLittle(at + 12, advance.log_start.value());
    at += kAdvanceBytes;
  }
  bytes.append(core.view());
  return bytes;
}

}  // namespace sluice::replication
