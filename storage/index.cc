#include "storage/index.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/endian.h"

namespace sluice::storage {
namespace {

// Header: magic u32, version u32, segment base i64, segment epoch i32, entry count u32, covered i64, reserved 12,
// CRC32C u32 of the file without this field. All little-endian.
constexpr size_t kMagicAt = 0;
constexpr size_t kVersionAt = 4;
constexpr size_t kBaseAt = 8;
constexpr size_t kEpochAt = 16;
constexpr size_t kCountAt = 20;
constexpr size_t kCoveredAt = 24;
constexpr size_t kCrcAt = 44;
static_assert(kCrcAt + 4 == kIndexHeaderBytes);

uint32_t FileCrc(std::string_view file) {
  return Crc32c(file.substr(kIndexHeaderBytes), Crc32c(file.substr(0, kCrcAt)));
}

}  // namespace

void SparseIndex::Add(Offset base_offset, int64_t position, int64_t size_bytes, int64_t max_timestamp_ms) {
  if (position != covered_) return;
  if (entries_.empty() || position - entries_.back().position >= interval_bytes_) {
    const int64_t so_far = entries_.empty() ? max_timestamp_ms : entries_.back().max_timestamp_ms;
    entries_.push_back({base_offset, position, so_far});
  }
  IndexEntry& last = entries_.back();
  last.max_timestamp_ms = std::max(last.max_timestamp_ms, max_timestamp_ms);
  covered_ = position + size_bytes;
}

IndexEntry SparseIndex::Lookup(Offset offset, Offset segment_base) const {
  auto after = std::upper_bound(entries_.begin(), entries_.end(), offset,
                                [](Offset wanted, const IndexEntry& entry) { return wanted < entry.offset; });
  if (after == entries_.begin()) return {segment_base, 0, 0};
  return *(after - 1);
}

IndexEntry SparseIndex::LookupTimestamp(int64_t timestamp_ms, Offset segment_base) const {
  auto at = std::lower_bound(entries_.begin(), entries_.end(), timestamp_ms,
                             [](const IndexEntry& entry, int64_t wanted) { return entry.max_timestamp_ms < wanted; });
  if (at != entries_.end()) return *at;
  // What lies behind the covered part may still hold one: start at the last known batch.
  return entries_.empty() ? IndexEntry{segment_base, 0, 0} : entries_.back();
}

void SparseIndex::TrimTo(int64_t end) {
  if (covered_ <= end) return;
  covered_ = end;
  while (!entries_.empty() && entries_.back().position >= end) entries_.pop_back();
}

std::string SparseIndex::Encode(SegmentId segment) const {
  std::string file(kIndexHeaderBytes + entries_.size() * kIndexEntryBytes, '\0');
  char* out = file.data();
  StoreLittle<uint32_t>(out + kMagicAt, kIndexMagic);
  StoreLittle<uint32_t>(out + kVersionAt, kIndexVersion);
  StoreLittle<int64_t>(out + kBaseAt, segment.base.value());
  StoreLittle<int32_t>(out + kEpochAt, segment.epoch.value());
  StoreLittle<uint32_t>(out + kCountAt, static_cast<uint32_t>(entries_.size()));
  StoreLittle<int64_t>(out + kCoveredAt, covered_);
  char* at = out + kIndexHeaderBytes;
  for (const IndexEntry& entry : entries_) {
    StoreLittle<int64_t>(at, entry.offset.value());
    StoreLittle<int64_t>(at + 8, entry.position);
    StoreLittle<int64_t>(at + 16, entry.max_timestamp_ms);
    at += kIndexEntryBytes;
  }
  StoreLittle<uint32_t>(out + kCrcAt, FileCrc(file));
  return file;
}

absl::StatusOr<SparseIndex> SparseIndex::Decode(std::string_view file, SegmentId segment, int64_t interval_bytes) {
  const char* in = file.data();
  if (file.size() < kIndexHeaderBytes) return absl::DataLossError("index is shorter than its header");
  if (LoadLittle<uint32_t>(in + kMagicAt) != kIndexMagic || LoadLittle<uint32_t>(in + kVersionAt) != kIndexVersion) {
    return absl::DataLossError("not an index of a version that is known here");
  }
  const size_t count = LoadLittle<uint32_t>(in + kCountAt);
  if ((file.size() - kIndexHeaderBytes) / kIndexEntryBytes != count ||
      (file.size() - kIndexHeaderBytes) % kIndexEntryBytes != 0) {
    return absl::DataLossError(absl::StrCat("index of ", count, " entries has ", file.size(), " bytes"));
  }
  if (LoadLittle<uint32_t>(in + kCrcAt) != FileCrc(file)) return absl::DataLossError("index checksum does not match");
  if (LoadLittle<int64_t>(in + kBaseAt) != segment.base.value() ||
      LoadLittle<int32_t>(in + kEpochAt) != segment.epoch.value()) {
    return absl::DataLossError("index of another segment");
  }
  SparseIndex index(interval_bytes);
  index.covered_ = LoadLittle<int64_t>(in + kCoveredAt);
  index.entries_.reserve(count);
  const char* at = in + kIndexHeaderBytes;
  for (size_t i = 0; i < count; ++i, at += kIndexEntryBytes) {
    IndexEntry entry{Offset(LoadLittle<int64_t>(at)), LoadLittle<int64_t>(at + 8), LoadLittle<int64_t>(at + 16)};
    const bool ordered = index.entries_.empty() ? entry.position == 0
                                                : entry.offset > index.entries_.back().offset &&
                                                      entry.position > index.entries_.back().position &&
                                                      entry.max_timestamp_ms >= index.entries_.back().max_timestamp_ms;
    if (!ordered || entry.position >= index.covered_) return absl::DataLossError("index entries are out of order");
    index.entries_.push_back(entry);
  }
  return index;
}

}  // namespace sluice::storage
