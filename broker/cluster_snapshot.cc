#include "broker/cluster_snapshot.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "broker/limits.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr size_t kVersionAt = 4;
constexpr size_t kAppliedAt = 8;
constexpr size_t kCountAt = 16;
constexpr size_t kCrcAt = 20;
constexpr size_t kEntryHeaderBytes = 8;
constexpr size_t kNameBytes = 24;

absl::Status Bad(std::string_view why) {
  return absl::DataLossError(Cat("a snapshot of the controller's state: ", why));
}

/// With the checksum's own place left out.
uint32_t ChecksumOf(std::string_view bytes) {
  return Crc32c(bytes.substr(kClusterSnapshotHeaderBytes), Crc32c(bytes.substr(0, kCrcAt)));
}

template <class T>
void Append(std::string* to, T value) {
  char bytes[sizeof(T)];
  StoreLittle(bytes, value);
  to->append(bytes, sizeof(T));
}

absl::StatusOr<std::vector<storage::MetadataEntry>> ReadEntries(std::string_view rest, uint32_t count) {
  std::vector<storage::MetadataEntry> entries;
  for (uint32_t i = 0; i < count; ++i) {
    if (rest.size() < kEntryHeaderBytes) return Bad("an entry is cut short");
    const size_t key = LoadLittle<uint32_t>(rest.data());
    const size_t value = LoadLittle<uint32_t>(rest.data() + 4);
    rest.remove_prefix(kEntryHeaderBytes);
    if (key > rest.size() || value > rest.size() - key) return Bad("an entry is cut short");
    entries.push_back({std::string(rest.substr(0, key)), std::string(rest.substr(key, value))});
    rest.remove_prefix(key + value);
    if (i > 0 && entries[i].key <= entries[i - 1].key) return Bad("its keys do not ascend");
  }
  if (!rest.empty()) return Bad(Cat(rest.size(), " bytes are left over"));
  return entries;
}

}  // namespace

std::string EncodeClusterSnapshot(const ClusterState& state, Offset applied) {
  storage::MetadataChanges all;
  AddStoreChanges(state, Difference({}, state), &all);
  std::vector<const storage::MetadataChanges::Change*> entries;
  for (const auto& change : all.changes()) entries.push_back(&change);
  std::sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
  std::string bytes;
  Append(&bytes, kClusterSnapshotMagic);
  Append(&bytes, kClusterSnapshotVersion);
  Append(&bytes, applied.value());
  Append(&bytes, static_cast<uint32_t>(entries.size()));
  Append(&bytes, uint32_t{0});
  for (const auto* entry : entries) {
    Append(&bytes, static_cast<uint32_t>(entry->key.size()));
    Append(&bytes, static_cast<uint32_t>(entry->value->size()));
    bytes += entry->key;
    bytes += *entry->value;
  }
  StoreLittle(bytes.data() + kCrcAt, ChecksumOf(bytes));
  return bytes;
}

absl::StatusOr<ClusterSnapshot> DecodeClusterSnapshot(std::string_view bytes) {
  if (bytes.size() < kClusterSnapshotHeaderBytes || LoadLittle<uint32_t>(bytes.data()) != kClusterSnapshotMagic) {
    return Bad("these bytes are none");
  }
  if (const auto version = LoadLittle<uint32_t>(bytes.data() + kVersionAt); version != kClusterSnapshotVersion) {
    return Bad(Cat("it is of version ", version, ", this program reads version ", kClusterSnapshotVersion));
  }
  if (LoadLittle<uint32_t>(bytes.data() + kCrcAt) != ChecksumOf(bytes)) return Bad("its checksum is wrong");
  ClusterSnapshot snapshot;
  snapshot.applied = Offset(LoadLittle<int64_t>(bytes.data() + kAppliedAt));
  if (snapshot.applied < Offset(0)) return Bad(Cat("it has applied the log up to ", snapshot.applied));
  SLUICE_ASSIGN_OR_RETURN(const auto entries, ReadEntries(bytes.substr(kClusterSnapshotHeaderBytes),
                                                          LoadLittle<uint32_t>(bytes.data() + kCountAt)));
  DroppingMarks dropping;
  SLUICE_RETURN_IF_ERROR(ReadStateEntries(entries, true, &snapshot.state, &dropping));
  if (!dropping.empty()) return Bad("it has what is a node's own matter");
  return snapshot;
}

SnapshotName NameOfSnapshot(Offset applied, std::string_view bytes) {
  return {.applied = applied, .size_bytes = bytes.size(), .crc32c = Crc32c(bytes)};
}

std::string EncodeSnapshotName(const SnapshotName& name) {
  std::string bytes;
  Append(&bytes, kClusterSnapshotVersion);
  Append(&bytes, name.applied.value());
  Append(&bytes, name.size_bytes);
  Append(&bytes, name.crc32c);
  return bytes;
}

absl::StatusOr<SnapshotName> DecodeSnapshotName(std::string_view bytes) {
  if (bytes.size() != kNameBytes || LoadLittle<uint32_t>(bytes.data()) != kClusterSnapshotVersion) {
    return Bad("what was offered is not the name of one, or of another version");
  }
  const SnapshotName name{.applied = Offset(LoadLittle<int64_t>(bytes.data() + 4)),
                          .size_bytes = LoadLittle<uint64_t>(bytes.data() + 12),
                          .crc32c = LoadLittle<uint32_t>(bytes.data() + 20)};
  if (name.applied < Offset(0) || name.size_bytes < kClusterSnapshotHeaderBytes ||
      name.size_bytes > kClusterSnapshotBytesMax) {
    return Bad(Cat("one of ", name.size_bytes, " bytes at offset ", name.applied, " is offered"));
  }
  return name;
}

}  // namespace sluice::broker
