// Frames of the journal, to bytes and back. docs/formats.md has the layout.
//
// A frame's checksum covers its header and every record's header and fields; a record's payload has a checksum of its
// own in the record's header. So the bytes of a batch are checksummed once, by whoever made them, and copied at most
// once, into the frame; reading verifies both.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bytes.h"
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
  uint64_t file_bytes = 0;       // the file's size when it was begun, which it never falls below; 0: version 1
  bool operator==(const OpeningRecord&) const = default;
};

struct ReplicaSnapshotRecord {
  ReplicaId replica;
  ReplicaState state;
};

using AnyJournalRecord = std::variant<JournalRecord, OpeningRecord, ReplicaSnapshotRecord>;

struct FrameHeader {
  uint32_t magic = journal_format::kMagic;
  uint16_t version = journal_format::kVersion;  // of a frame that is read; what is written has always this one
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

/// Bytes that a record takes in a frame, at most.
size_t EncodedBytes(const JournalRecord& record);

/// Builds one frame at a time in an aligned buffer that is kept from frame to frame. The whole blocks of a large append
/// are not copied into it: they are written from where they lie, and a Pad record before the append puts them at the
/// same place within a block in the file as in memory, which is what direct writes ask.
class FrameBuilder {
 public:
  /// Appends from this size on are written from their own memory.
  static constexpr size_t kInPlaceBytesMin = MutableBytes::kAlignedFrom;

  void Begin();
  void Add(const JournalRecord& record);
  void Add(const OpeningRecord& record);
  void Add(const ReplicaSnapshotRecord& record);
  bool empty() const { return record_count_ == 0; }
  size_t size() const { return staged_ + in_place_bytes_; }  // header included, padding at the end not
  /// Closes the frame; `header`'s length and record_count are filled in here. The parts, whole aligned blocks that
  /// follow each other in the file, are good until Release or the next Begin.
  absl::Span<const std::string_view> Finish(FrameHeader header);
  /// Lets go of the appends' memory; size and empty still tell of the frame.
  void Release();

 private:
  void AddParts(journal_format::RecordType type, std::string_view fields, std::string_view payload,
                uint32_t payload_crc32c);
  void AddInPlace(std::string_view fields, const Bytes& payload, uint32_t payload_crc32c);
  void AddHeader(journal_format::RecordType type, std::string_view fields, size_t payload_bytes,
                 uint32_t payload_crc32c);
  void Stage(std::string_view bytes);
  char* StageRoom(size_t bytes);

  /// Blocks outside the buffer, which stand in the frame behind the buffer's first `staged_before` bytes.
  struct InPlace {
    size_t staged_before = 0;
    std::string_view blocks;
    Bytes keep_alive;
  };

  AlignedBuffer buffer_;
  size_t staged_ = 0;  // bytes of the frame that are in buffer_
  std::vector<InPlace> in_place_;
  size_t in_place_bytes_ = 0;
  std::vector<std::string_view> parts_;
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
