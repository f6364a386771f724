#include "storage/segment.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/check.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "common/record/batch_format.h"
#include "common/status_macros.h"
#include "storage/aligned_buffer.h"

namespace sluice::storage {
namespace {

constexpr int64_t kStagingBytesMax = 1 << 20;
constexpr int64_t kWindowBytes = 256 << 10;
constexpr int64_t kIndexFileBytesMax = 64 << 20;

int64_t AlignDown(int64_t n) {
  return n / kBlockBytes * kBlockBytes;
}
int64_t AlignUp(int64_t n) {
  return AlignDown(n + kBlockBytes - 1);
}

absl::Status Damaged(const SegmentView& segment, int64_t position, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(segment.path, ": at byte ", position, ": ", what));
}

/// Reads exactly `size` bytes, or says that the file ends too early.
absl::Status ReadExactly(File& file, const SegmentView& segment, int64_t position, absl::Span<char> out) {
  SLUICE_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(position, out));
  if (got == out.size()) return absl::OkStatus();
  return Damaged(segment, position + static_cast<int64_t>(got),
                 absl::StrCat("the file ends, but the segment has ", segment.end_position, " bytes"));
}

/// Whether the part's whole blocks can be written from where they lie.
bool LiesInPlace(const Bytes& part, int64_t position) {
  return part.size() >= MutableBytes::kAlignedFrom &&
         reinterpret_cast<uintptr_t>(part.data()) % kBlockBytes == static_cast<uintptr_t>(position % kBlockBytes);
}

/// How much of a part is not written from where it lies.
int64_t CopiedBytes(const Bytes& part, int64_t position) {
  const int64_t end = position + static_cast<int64_t>(part.size());
  if (!LiesInPlace(part, position)) return end - position;
  return end - position - (AlignDown(end) - AlignUp(position));
}

/// Writes bytes that follow each other in a file, some from where they lie and the others from a staging buffer, with
/// as few calls as that buffer's size allows. Only whole blocks are referred to, and only at a block's start.
class GatheredWrite {
 public:
  /// From `at` on, a block's start. `copied`: bytes that Copy will be given in all.
  GatheredWrite(File& file, int64_t at, int64_t copied)
      : file_(file), at_(at), staging_(static_cast<size_t>(std::min(kStagingBytesMax, AlignUp(copied + 1)))) {}

  absl::Status Copy(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t n = std::min(staging_.capacity() - staged_, bytes.size());
      std::memcpy(staging_.data() + staged_, bytes.data(), n);
      staged_ += n;
      bytes.remove_prefix(n);
      if (staged_ == staging_.capacity()) SLUICE_RETURN_IF_ERROR(Write());
    }
    return absl::OkStatus();
  }
  void Refer(std::string_view blocks) {
    if (blocks.empty()) return;
    ListStaged(staged_);
    pieces_.push_back(blocks);
  }
  /// Writes what is whole; returns the bytes of the block that is not, which are good as long as this object.
  absl::StatusOr<std::string_view> Finish() {
    const size_t whole = staged_ / kBlockBytes * kBlockBytes;
    const std::string_view rest(staging_.data() + whole, staged_ - whole);
    ListStaged(whole);
    SLUICE_RETURN_IF_ERROR(Write());
    return rest;
  }

 private:
  void ListStaged(size_t end) {
    if (end > listed_) pieces_.emplace_back(staging_.data() + listed_, end - listed_);
    listed_ = end;
  }
  /// All that is referred to and staged so far, whole blocks.
  absl::Status Write() {
    ListStaged(std::max(listed_, staged_ / kBlockBytes * kBlockBytes));
    if (!pieces_.empty()) SLUICE_RETURN_IF_ERROR(file_.WritePartsAt(at_, pieces_));
    for (const std::string_view piece : pieces_) at_ += static_cast<int64_t>(piece.size());
    pieces_.clear();
    staged_ = listed_ = 0;
    return absl::OkStatus();
  }

  File& file_;
  int64_t at_;  // where the pieces go
  AlignedBuffer staging_;
  size_t staged_ = 0;
  size_t listed_ = 0;  // of staged_, in pieces_
  std::vector<std::string_view> pieces_;
};

}  // namespace

std::string SegmentPath(const std::string& dir, SegmentId id) {
  return absl::StrCat(dir, "/", id.ToString(), ".log");
}
std::string IndexPath(const std::string& dir, SegmentId id) {
  return absl::StrCat(dir, "/", id.ToString(), ".index");
}

std::optional<SegmentId> ParseSegmentFileName(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == name.npos || (name.substr(dot) != ".log" && name.substr(dot) != ".index")) return std::nullopt;
  name = name.substr(0, dot);
  int64_t base = 0;
  int32_t epoch = 0;
  if (name.size() < 22 || name[20] != '-' || !absl::SimpleAtoi(std::string(name.substr(0, 20)), &base) ||
      !absl::SimpleAtoi(std::string(name.substr(21)), &epoch)) {
    return std::nullopt;
  }
  const SegmentId id{Offset(base), LeaderEpoch(epoch)};
  if (id.ToString() != name) return std::nullopt;  // a sign, a space, leading zeros
  return id;
}

// ---- SegmentFile

SegmentFile::Buffer SegmentFile::NewBuffer(int64_t size) {
  void* memory = std::aligned_alloc(kBlockBytes, static_cast<size_t>(size));
  SLUICE_CHECK(memory != nullptr) << "out of memory for " << size << " bytes";
  return Buffer(static_cast<char*>(memory));
}

SegmentFile::SegmentFile(std::unique_ptr<File> file) : file_(std::move(file)), partial_(NewBuffer(kBlockBytes)) {}

absl::StatusOr<std::unique_ptr<SegmentFile>> SegmentFile::Create(FileSystem& fs, const std::string& path) {
  const OpenOptions options{.mode = OpenOptions::Mode::kCreateNew, .direct = true};
  auto file = fs.Open(path, options);
  if (absl::IsAlreadyExists(file.status())) {
    SLUICE_RETURN_IF_ERROR(fs.Remove(path));
    file = fs.Open(path, options);
  }
  if (!file.ok()) return std::move(file).status();
  return std::unique_ptr<SegmentFile>(new SegmentFile(*std::move(file)));
}

absl::Status SegmentFile::Append(absl::Span<const Bytes> parts) {
  int64_t position = end_;
  int64_t copied = end_ % kBlockBytes;
  for (const Bytes& part : parts) {
    copied += CopiedBytes(part, position);
    position += static_cast<int64_t>(part.size());
  }
  GatheredWrite write(*file_, AlignDown(end_), copied);
  SLUICE_RETURN_IF_ERROR(write.Copy({partial_.get(), static_cast<size_t>(end_ % kBlockBytes)}));
  position = end_;
  for (const Bytes& part : parts) {
    const std::string_view bytes = part.view();
    const size_t first = LiesInPlace(part, position) ? static_cast<size_t>(AlignUp(position) - position) : bytes.size();
    const size_t whole = (bytes.size() - first) / kBlockBytes * kBlockBytes;
    SLUICE_RETURN_IF_ERROR(write.Copy(bytes.substr(0, first)));
    write.Refer(bytes.substr(first, whole));
    SLUICE_RETURN_IF_ERROR(write.Copy(bytes.substr(first + whole)));
    position += static_cast<int64_t>(bytes.size());
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string_view rest, write.Finish());
  std::memcpy(partial_.get(), rest.data(), rest.size());
  end_ = position;
  flushed_ = std::max(flushed_, AlignDown(end_));
  return absl::OkStatus();
}

absl::Status SegmentFile::FlushTail() {
  if (flushed_ == end_) return absl::OkStatus();
  const int64_t block = AlignDown(end_);
  const size_t used = static_cast<size_t>(end_ - block);
  std::memset(partial_.get() + used, 0, static_cast<size_t>(kBlockBytes) - used);
  SLUICE_RETURN_IF_ERROR(file_->WriteAt(block, {partial_.get(), static_cast<size_t>(kBlockBytes)}));
  flushed_ = end_;
  return absl::OkStatus();
}

absl::Status SegmentFile::Finish(int64_t size) {
  SLUICE_CHECK(size <= end_) << "cut to " << size << " of " << end_;
  SLUICE_RETURN_IF_ERROR(FlushTail());
  return file_->Truncate(size);
}

// ---- SegmentScanner

SegmentScanner::SegmentScanner(File& file, const SegmentView& segment, int64_t from, Offset expected)
    : file_(file), segment_(segment), position_(from), expected_(expected) {}

absl::StatusOr<std::optional<BatchHeader>> SegmentScanner::Next() {
  using namespace record;  // NOLINT(google-build-using-namespace): the format's constants
  if (position_ >= segment_.end_position) {
    if (expected_ == segment_.next_offset) return std::nullopt;
    return Damaged(
        segment_, position_,
        absl::StrCat("the segment ends at offset ", expected_.value(), ", expected ", segment_.next_offset.value()));
  }
  const int64_t header_bytes = static_cast<int64_t>(kBatchHeaderBytes);
  if (segment_.end_position - position_ < header_bytes) return Damaged(segment_, position_, "expected a batch header");
  const int64_t window_end = window_at_ + static_cast<int64_t>(window_.size());
  if (position_ < window_at_ || position_ + header_bytes > window_end) {
    window_.resize(static_cast<size_t>(std::min(kWindowBytes, segment_.end_position - position_)));
    window_at_ = position_;
    SLUICE_RETURN_IF_ERROR(ReadExactly(file_, segment_, position_, absl::MakeSpan(window_)));
  }
  const char* at = window_.data() + (position_ - window_at_);
  BatchHeader header;
  header.position = position_;
  header.size_bytes = static_cast<int64_t>(LoadBig<int32_t>(at + kBatchLengthAt)) + int64_t{kLengthCountsFrom};
  header.base_offset = Offset(LoadBig<int64_t>(at + kBaseOffsetAt));
  const int32_t delta = LoadBig<int32_t>(at + kLastOffsetDeltaAt);
  // A damaged base could overflow; it is compared below.
  header.last_offset = expected_ + delta;
  header.epoch = LeaderEpoch(LoadBig<int32_t>(at + kLeaderEpochAt));
  header.is_control = (LoadBig<uint16_t>(at + kAttributesAt) & kControlBit) != 0;
  header.max_timestamp_ms = header.is_control ? kNoTimestamp : LoadBig<int64_t>(at + kMaxTimestampAt);
  if (at[kMagicAt] != kMagic || header.size_bytes < header_bytes ||
      header.size_bytes > segment_.end_position - position_) {
    return Damaged(
        segment_, position_,
        absl::StrCat("expected the batch of offset ", expected_.value(), ", found bytes that are not a batch header"));
  }
  if (header.base_offset != expected_ || header.epoch != segment_.id.epoch || delta < 0 ||
      header.last_offset >= segment_.next_offset) {
    return Damaged(segment_, position_,
                   absl::StrCat("expected a batch at offset ", expected_.value(), " of epoch ",
                                segment_.id.epoch.value(), " below offset ", segment_.next_offset.value(),
                                ", found one at offset ", header.base_offset.value(), " of epoch ",
                                header.epoch.value(), " with a last offset delta of ", delta));
  }
  expected_ = header.last_offset + 1;
  position_ += header.size_bytes;
  return header;
}

// ---- Readers

absl::Status ExtendIndex(File& file, const SegmentView& segment, SparseIndex& index) {
  if (index.covered() >= segment.end_position) return absl::OkStatus();
  // The covered part ends at a batch's start, whose offset the entries do not tell: walk from the last entry.
  const IndexEntry from = index.Lookup(Offset(INT64_MAX), segment.id.base);
  SegmentScanner scanner(file, segment, from.position, from.offset);
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const auto header, scanner.Next());
    if (!header) return absl::OkStatus();
    index.Add(header->base_offset, header->position, header->size_bytes, header->max_timestamp_ms);
  }
}

absl::StatusOr<SparseIndex> LoadIndex(FileSystem& fs, File& file, const SegmentView& segment, const std::string& dir,
                                      int64_t interval_bytes) {
  absl::StatusOr<std::string> stored = ReadWholeFile(fs, IndexPath(dir, segment.id), kIndexFileBytesMax);
  if (stored.ok()) {
    auto decoded = SparseIndex::Decode(*stored, segment.id, interval_bytes);
    // An index that leads astray is damage of the index, not of the data: then it is built anew.
    if (decoded.ok()) {
      decoded->TrimTo(segment.end_position);
      if (ExtendIndex(file, segment, *decoded).ok()) return *std::move(decoded);
    }
  }
  SparseIndex index(interval_bytes);
  SLUICE_RETURN_IF_ERROR(ExtendIndex(file, segment, index));
  return index;
}

namespace {

/// Reads one whole batch that is checked in full.
absl::StatusOr<record::Batch> CheckedBatch(const SegmentView& segment, int64_t position, Bytes bytes, Offset expected) {
  auto batch = record::Batch::FromStored(std::move(bytes));
  if (!batch.ok()) {
    return Damaged(segment, position,
                   absl::StrCat("batch of offset ", expected.value(), ": ", batch.status().message()));
  }
  if (batch->base_offset() != expected || batch->epoch() != segment.id.epoch) {
    return Damaged(segment, position,
                   absl::StrCat("expected a batch at offset ", expected.value(), " of epoch ", segment.id.epoch.value(),
                                ", found offset ", batch->base_offset().value(), " of epoch ", batch->epoch().value()));
  }
  return batch;
}

/// The first batch that holds an offset at or after `offset`.
absl::StatusOr<std::optional<BatchHeader>> Locate(File& file, const SegmentView& segment, IndexEntry from,
                                                  Offset offset) {
  if (from.position >= segment.end_position) from = {segment.id.base, 0, 0};
  for (int attempt = 0;; ++attempt) {
    SegmentScanner scanner(file, segment, from.position, from.offset);
    while (true) {
      auto header = scanner.Next();
      if (!header.ok()) {
        // The index may have led astray: the data alone decides.
        if (attempt == 0 && from.position != 0) break;
        return header.status();
      }
      if (!header->has_value() || (*header)->last_offset >= offset) return *header;
    }
    from = {segment.id.base, 0, 0};
  }
}

}  // namespace

absl::StatusOr<std::vector<record::Batch>> ReadBatches(File& file, const SegmentView& segment, IndexEntry start,
                                                       Offset offset, Offset limit, int64_t bytes_max) {
  std::vector<record::Batch> batches;
  SLUICE_ASSIGN_OR_RETURN(const auto first, Locate(file, segment, start, offset));
  if (!first || first->base_offset >= limit) return batches;
  const int64_t from = first->position;
  const int64_t wanted = std::max(first->size_bytes, std::min(bytes_max, segment.end_position - from));
  MutableBytes memory(static_cast<size_t>(wanted));
  SLUICE_RETURN_IF_ERROR(ReadExactly(file, segment, from, absl::MakeSpan(memory.data(), memory.size())));
  const Bytes block = std::move(memory).Freeze();

  Offset expected = first->base_offset;
  size_t at = 0;
  while (block.size() - at >= record::kBatchHeaderBytes && expected < limit) {
    const int64_t position = from + static_cast<int64_t>(at);
    auto size = record::BatchView::PeekSize(block.view().substr(at));
    if (!size.ok()) return Damaged(segment, position, size.status().message());
    if (*size > block.size() - at) {
      if (static_cast<int64_t>(*size) > segment.end_position - position) {
        return Damaged(segment, position, absl::StrCat("a batch of ", *size, " bytes reaches beyond the segment"));
      }
      break;
    }
    SLUICE_ASSIGN_OR_RETURN(record::Batch batch, CheckedBatch(segment, position, block.Slice(at, *size), expected));
    at += *size;
    expected = batch.next_offset();
    batches.push_back(std::move(batch));
  }
  return batches;
}

absl::StatusOr<SegmentSummary> SummarizeSegment(File& file, const SegmentView& segment, int64_t length) {
  SegmentSummary summary;
  summary.next_offset = segment.id.base;
  SegmentScanner scanner(file, segment, 0, segment.id.base);
  for (int64_t position = 0; position < length;) {
    SLUICE_ASSIGN_OR_RETURN(const auto header, scanner.Next());
    if (!header) break;
    if (header->position + header->size_bytes > length) {
      return Damaged(segment, header->position, absl::StrCat("no batch ends at byte ", length));
    }
    MutableBytes memory(static_cast<size_t>(header->size_bytes));
    SLUICE_RETURN_IF_ERROR(ReadExactly(file, segment, header->position, absl::MakeSpan(memory.data(), memory.size())));
    SLUICE_ASSIGN_OR_RETURN(const record::Batch batch,
                            CheckedBatch(segment, header->position, std::move(memory).Freeze(), summary.next_offset));
    summary.crc32c = Crc32c(batch.bytes().view(), summary.crc32c);
    summary.max_timestamp_ms = std::max(summary.max_timestamp_ms, header->max_timestamp_ms);
    summary.next_offset = batch.next_offset();
    ++summary.batches;
    position = header->position + header->size_bytes;
  }
  return summary;
}

absl::StatusOr<int64_t> FindBatchStart(File& file, const SegmentView& segment, IndexEntry from, Offset offset) {
  if (offset == segment.next_offset) return segment.end_position;
  SLUICE_ASSIGN_OR_RETURN(const auto header, Locate(file, segment, from, offset));
  if (header && header->base_offset == offset) return header->position;
  return absl::InvalidArgumentError(absl::StrCat("offset ", offset.value(), " is not the first of a batch"));
}

absl::StatusOr<std::optional<Offset>> FindLastData(File& file, const SegmentView& segment, const SparseIndex& index) {
  std::vector<IndexEntry> starts = index.entries();
  if (starts.empty()) starts.push_back({segment.id.base, 0, 0});
  int64_t stop = segment.end_position;
  for (auto from = starts.rbegin(); from != starts.rend(); stop = from->position, ++from) {
    std::optional<Offset> found;
    SegmentScanner scanner(file, segment, from->position, from->offset);
    while (true) {
      SLUICE_ASSIGN_OR_RETURN(const auto header, scanner.Next());
      if (!header || header->position >= stop) break;
      if (!header->is_control) found = header->last_offset + 1;
    }
    if (found) return found;
  }
  return std::nullopt;
}

}  // namespace sluice::storage
