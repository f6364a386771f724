// Frames of the journal, to bytes and back. docs/formats.md has the layout.
//
// A frame's checksum covers its header and every record's header and fields; a record's payload has a checksum of its
// own in the record's header. So the bytes of a batch are checksummed once, by whoever made them, and copied once, into
// the frame; reading verifies both.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"
#include "storage/aligned_buffer.h"
#include "storage/journal_format.h"
#include "storage/journal_state.h"

namespace sluice::storage {

/// First record of a journal file.
struct OpeningRecord {
  Uuid disk;
  /// Files numbered from here up to this one are replaced by this one and not read any more; 0: none.
  uint64_t supersedes_from = 0;
  uint64_t continues_after = 0;  // last frame of the file before (of those not superseded); 0: there is none
  uint64_t replica_count = 0;    // snapshots that follow
  bool operator==(const OpeningRecord&) const = default;
};

struct ReplicaSnapshotRecord {
  ReplicaId replica;
  ReplicaState state;
};

using AnyJournalRecord = std::variant<JournalRecord, OpeningRecord, ReplicaSnapshotRecord>;

struct FrameHeader {
  uint32_t magic = journal_format::kMagic;
  uint16_t flags = 0;
  uint64_t file_sequence = 0;
  Uuid file_id;
  uint64_t frame = 0;
  uint64_t last_synced = 0;
  uint32_t length = 0;
  uint32_t record_count = 0;
};

struct Frame {
  FrameHeader header;
  std::vector<AnyJournalRecord> records;
  int64_t PaddedBytes() const { return RoundUpToBlock(header.length); }
};

/// Bytes that a record takes in a frame.
size_t EncodedBytes(const JournalRecord& record);

/// Builds one frame at a time in an aligned buffer that is kept from frame to frame.
class FrameBuilder {
 public:
  /// Begins a frame, with room for `bytes` of records so that none has to be moved.
  void Begin(size_t bytes);
  void Add(const JournalRecord& record);
  void Add(const OpeningRecord& record);
  void Add(const ReplicaSnapshotRecord& record);
  bool empty() const { return record_count_ == 0; }
  size_t size() const { return used_; }  // header included, padding not
  /// Closes the frame; `header`'s length and record_count are filled in here. The view is aligned, padded to whole
  /// blocks, and good until the next Begin.
  std::string_view Finish(FrameHeader header);

 private:
  void AddParts(journal_format::RecordType type, std::string_view fields, std::string_view payload,
                uint32_t payload_crc32c);

  AlignedBuffer buffer_;
  size_t used_ = 0;
  uint32_t record_count_ = 0;
  uint32_t covered_crc32c_ = 0;  // of record headers and fields so far
  uint64_t covered_bytes_ = 0;
};

/// Reads the header alone, without its checksum: what a damaged frame claims to be. Nullopt when `data` is too short.
std::optional<FrameHeader> PeekFrameHeader(std::string_view data);

/// Decodes and verifies the frame at the start of `data`, which reaches to the end of the file. Payloads refer to
/// `data`, which `owner` keeps alive. Errors: DataLoss with what is wrong, without file and offset; those are the
/// caller's to add.
absl::StatusOr<Frame> DecodeFrame(std::string_view data, const std::shared_ptr<const void>& owner);

}  // namespace sluice::storage
