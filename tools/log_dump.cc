#include "tools/log_dump.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "common/crc32c.h"
#include "common/record/batch.h"
#include "common/record/control.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "storage/journal_codec.h"
#include "storage/journal_format.h"
#include "storage/journal_place.h"
#include "storage/journal_replay.h"
#include "storage/segment.h"
#include "tools/folder_check.h"

namespace sluice::tools {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;
constexpr int64_t kJournalFileBytesMax = int64_t{4} << 30;
constexpr size_t kLengthPrefixBytes = 12;  // what a batch's length can be told from

using Fields = std::vector<std::pair<std::string, DumpValue>>;

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

DumpValue BytesOrNull(const std::optional<std::string_view>& bytes) {
  if (!bytes.has_value()) return std::monostate();
  return std::string(*bytes);
}

std::string FileName(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

class Dumper {
 public:
  Dumper(FileSystem& fs, const DumpOptions& options, const DumpSink& sink) : fs_(fs), options_(options), sink_(sink) {}

  absl::Status DumpAny(const std::string& path);
  absl::Status Total();

 private:
  friend class SegmentWalk;

  absl::Status DumpDataFolder(const std::string& dir);
  absl::Status DumpReplica(const std::string& dir, const ReplicaId& id, const storage::ReplicaState& state,
                           const storage::ReplayedJournal& journal);
  absl::Status DumpListedSegment(const std::string& dir, const ReplicaId& id, const storage::SegmentState& segment,
                                 const storage::ReplayedJournal& journal);
  absl::Status DumpPartitionFolder(const std::string& dir, const std::vector<std::string>& names);
  absl::Status DumpSegmentFile(const std::string& path);
  absl::Status DumpJournalFolder(const std::string& dir, const std::vector<std::string>& names);
  absl::Status DumpJournalFile(const std::string& path);
  absl::StatusOr<std::optional<storage::ReplayedJournal>> Replay(const std::string& journal_dir,
                                                                 const std::optional<Uuid>& disk);
  absl::StatusOr<std::optional<Uuid>> DiskOf(const std::string& journal_dir);
  absl::StatusOr<Bytes> ReadAll(const std::string& path);
  void EmitJournalRecord(const storage::AnyJournalRecord& record);
  void EmitBatch(const record::BatchView& batch, int64_t position);
  void Emit(std::string kind, Fields fields) { sink_({std::move(kind), std::move(fields)}); }
  void Damage(const std::string& path, int64_t position, std::string_view what) {
    ++damages_;
    Emit("damage", {{"file", path}, {"position", position}, {"what", std::string(what)}});
  }

  FileSystem& fs_;
  const DumpOptions& options_;
  const DumpSink& sink_;
  int64_t damages_ = 0;
  int64_t files_ = 0;
  int64_t batches_ = 0;
  int64_t records_ = 0;
  int64_t bytes_ = 0;
};

// Takes a segment's bytes piece by piece, and checks and shows each batch as it is complete.
class SegmentWalk {
 public:
  SegmentWalk(Dumper& dumper, std::string path, storage::SegmentId id)
      : dumper_(dumper), path_(std::move(path)), id_(id), next_(id.base) {}

  /// False once something is damaged: then the rest cannot be told apart.
  bool Feed(std::string_view bytes) {
    if (damaged_) return false;
    crc_ = Crc32c(bytes, crc_);
    rest_.append(bytes);
    size_t used = 0;
    while (!damaged_ && Take(std::string_view(rest_).substr(used), &used)) {
    }
    rest_.erase(0, used);
    return !damaged_;
  }

  bool damaged() const { return damaged_; }
  Offset next() const { return next_; }
  int64_t position() const { return position_; }
  uint32_t crc() const { return crc_; }  // of all bytes fed
  std::string_view rest() const { return rest_; }
  void Damage(std::string_view what) {
    damaged_ = true;
    dumper_.Damage(path_, position_, what);
  }

 private:
  // One batch from the front of `bytes`; false when it is not complete yet.
  bool Take(std::string_view bytes, size_t* used) {
    if (bytes.size() < kLengthPrefixBytes) return false;
    // Zeros behind the last batch, up to the end of its block.
    if (std::all_of(bytes.begin(), bytes.begin() + kLengthPrefixBytes, [](char c) { return c == 0; }) && position_ > 0)
      return false;
    const absl::StatusOr<size_t> size = record::BatchView::PeekSize(bytes);
    if (!size.ok()) return Damage(Message(size.status())), false;
    if (*size > bytes.size()) return false;
    absl::StatusOr<record::BatchView> batch = record::BatchView::Parse(bytes.substr(0, *size));
    if (!batch.ok()) return Damage(Message(batch.status())), false;
    for (const absl::Status& check : {batch->VerifyCrc(), batch->VerifyRecords({})}) {
      if (!check.ok()) return Damage(Message(check)), false;
    }
    if (batch->base_offset() != next_) {
      return Damage(Cat("a batch with base offset ", batch->base_offset(), " where ", next_, " was expected")), false;
    }
    if (batch->leader_epoch() != id_.epoch) {
      return Damage(Cat("a batch of leader epoch ", batch->leader_epoch(), " in a segment of epoch ", id_.epoch)),
             false;
    }
    dumper_.EmitBatch(*batch, position_);
    next_ = batch->next_offset();
    position_ += static_cast<int64_t>(*size);
    *used += *size;
    return true;
  }

  Dumper& dumper_;
  const std::string path_;
  const storage::SegmentId id_;
  Offset next_;
  int64_t position_ = 0;
  uint32_t crc_ = 0;
  std::string rest_;
  bool damaged_ = false;
};

void Dumper::EmitBatch(const record::BatchView& batch, int64_t position) {
  ++batches_;
  records_ += batch.record_count();
  bytes_ += static_cast<int64_t>(batch.size_bytes());
  Fields fields = {{"base_offset", batch.base_offset().value()},
                   {"last_offset", batch.last_offset().value()},
                   {"position", position},
                   {"bytes", static_cast<int64_t>(batch.size_bytes())},
                   {"leader_epoch", int64_t{batch.leader_epoch().value()}},
                   {"records", int64_t{batch.record_count()}},
                   {"codec", std::string(record::CodecName(batch.codec()))},
                   {"max_timestamp_ms", batch.max_timestamp_ms()},
                   {"crc32c", "0x" + Cat(Hex{batch.crc(), 8})}};
  if (batch.is_control()) {
    absl::StatusOr<record::ControlRecord> control = record::DecodeControlBatch(batch);
    std::string what = "not known to this program";
    if (control.ok()) {
      if (const auto* leader = std::get_if<record::LeaderChange>(&*control))
        what = Cat("leader is node ", leader->leader);
      if (const auto* start = std::get_if<record::LogStartAdvance>(&*control))
        what = Cat("log starts at ", start->log_start);
      if (std::holds_alternative<record::Membership>(*control)) what = "membership";
    }
    fields.emplace_back("control", what);
  }
  Emit("batch", std::move(fields));
  if (!options_.records || batch.is_control()) return;
  absl::StatusOr<record::RecordReader> reader = record::RecordReader::Open(batch);
  record::Record record;
  while (reader.ok()) {
    absl::StatusOr<bool> more = reader->Next(&record);
    if (!more.ok() || !*more) return;
    DumpHeaders headers;
    for (const record::Header& header : record.headers) headers.emplace_back(header.key, header.value);
    Emit("record", {{"offset", record.offset.value()},
                    {"timestamp_ms", record.timestamp_ms},
                    {"key", BytesOrNull(record.key)},
                    {"value", BytesOrNull(record.value)},
                    {"headers", std::move(headers)}});
  }
}

// Reads [from, to) of a file into the walk.
absl::Status FeedFile(File& file, int64_t from, int64_t to, SegmentWalk& walk) {
  std::string piece;
  while (from < to && !walk.damaged()) {
    piece.resize(static_cast<size_t>(std::min(kPieceBytes, to - from)));
    SLUICE_ASSIGN_OR_RETURN(const size_t count, file.ReadAt(from, absl::MakeSpan(piece)));
    if (count == 0) {
      walk.Damage(Cat("the file ends at byte ", from, ", ", to, " were expected"));
      break;
    }
    walk.Feed(std::string_view(piece).substr(0, count));
    from += static_cast<int64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status Dumper::DumpSegmentFile(const std::string& path) {
  const std::optional<storage::SegmentId> id = storage::ParseSegmentFileName(FileName(path));
  if (!id.has_value())
    return absl::InvalidArgumentError(
        Cat(path, ": the name of a segment is <base offset, 20 digits>-<leader epoch>.log"));
  SLUICE_ASSIGN_OR_RETURN(auto file, fs_.Open(path, {}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, file->Size());
  ++files_;
  Emit("segment", {{"file", path}, {"bytes", size}});
  SegmentWalk walk(*this, path, *id);
  SLUICE_RETURN_IF_ERROR(FeedFile(*file, 0, size, walk));
  if (walk.damaged()) return absl::OkStatus();
  const std::string_view rest = walk.rest();
  const bool padding = rest.size() < static_cast<size_t>(kBlockBytes) &&
                       std::all_of(rest.begin(), rest.end(), [](char c) { return c == 0; });
  if (!padding) walk.Damage(Cat(rest.size(), " bytes at the end are not a whole batch; the journal may have the rest"));
  return absl::OkStatus();
}

// A segment of the registry: what no checkpoint vouches for comes from the journal, as recovery would take it.
absl::Status Dumper::DumpListedSegment(const std::string& dir, const ReplicaId& id,
                                       const storage::SegmentState& segment, const storage::ReplayedJournal& journal) {
  const std::string path = storage::SegmentPath(dir, segment.id);
  ++files_;
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs_.Exists(path));
  std::unique_ptr<File> file;
  if (there) {
    SLUICE_ASSIGN_OR_RETURN(file, fs_.Open(path, {}));
  }
  Emit("segment", {{"file", path}, {"bytes", segment.end_position}, {"next_offset", segment.next_offset.value()}});
  SegmentWalk walk(*this, path, segment.id);
  int64_t at = 0;
  int64_t from_journal = 0;
  const auto feed_file = [&](int64_t to) -> absl::Status {
    if (at >= to || walk.damaged()) return absl::OkStatus();
    if (file == nullptr) {
      walk.Damage("the file is missing");
      return absl::OkStatus();
    }
    SLUICE_RETURN_IF_ERROR(FeedFile(*file, at, to, walk));
    at = to;
    return absl::OkStatus();
  };
  const auto wanted = [&](const storage::Survivor& survivor) {
    return survivor.append.replica == id && survivor.append.segment == segment.id;
  };
  const auto take = [&](const storage::AppendRecord& append) -> absl::Status {
    SLUICE_RETURN_IF_ERROR(feed_file(append.position));
    const int64_t end = append.position + static_cast<int64_t>(append.bytes.size());
    if (end <= at || walk.damaged()) return absl::OkStatus();
    walk.Feed(append.bytes.view().substr(static_cast<size_t>(at - append.position)));
    from_journal += end - at;
    at = end;
    return absl::OkStatus();
  };
  SLUICE_RETURN_IF_ERROR(storage::ReadSurvivors(fs_, journal, wanted, take));
  SLUICE_RETURN_IF_ERROR(feed_file(segment.end_position));
  if (walk.damaged()) return absl::OkStatus();
  if (!walk.rest().empty() || walk.next() != segment.next_offset) {
    walk.Damage(Cat("batches end at offset ", walk.next(), ", the journal says ", segment.next_offset));
  } else if (walk.crc() != segment.crc32c) {
    walk.Damage(
        Cat("CRC32C of the segment is 0x", Hex{walk.crc(), 8}, ", the journal says 0x", Hex{segment.crc32c, 8}));
  } else if (from_journal > 0) {
    Emit("note", {{"file", path}, {"bytes_from_journal", from_journal}});
  }
  return absl::OkStatus();
}

absl::Status Dumper::DumpReplica(const std::string& dir, const ReplicaId& id, const storage::ReplicaState& state,
                                 const storage::ReplayedJournal& journal) {
  Emit("replica", {{"replica", id.ToString()},
                   {"log_start", state.log_start.value()},
                   {"log_end", state.next_offset.value()},
                   {"term", int64_t{state.hard_state.term.value()}},
                   {"segments", static_cast<int64_t>(state.segments.size())}});
  for (const storage::SegmentState& segment : state.segments) {
    SLUICE_RETURN_IF_ERROR(DumpListedSegment(dir, id, segment, journal));
  }
  return absl::OkStatus();
}

absl::Status Dumper::DumpDataFolder(const std::string& dir) {
  std::unique_ptr<FileLock> lock;
  SLUICE_ASSIGN_OR_RETURN(const bool has_lock, fs_.Exists(dir + "/LOCK"));
  if (has_lock) {
    absl::StatusOr<std::unique_ptr<FileLock>> held = fs_.LockFile(dir + "/LOCK");
    if (!held.ok())
      return absl::FailedPreconditionError(Cat("a broker runs on ", dir, "; stop it first: ", Message(held.status())));
    lock = *std::move(held);
  }
  const std::string journal_dir = dir + "/journal";
  SLUICE_ASSIGN_OR_RETURN(const FolderIdentity identity, ReadFolderIdentity(fs_, dir));
  std::optional<Uuid> disk = identity.disk;
  if (!disk.has_value()) {
    SLUICE_ASSIGN_OR_RETURN(disk, DiskOf(journal_dir));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::optional<storage::ReplayedJournal> journal, Replay(journal_dir, disk));
  if (!journal.has_value()) return absl::OkStatus();
  files_ += static_cast<int64_t>(journal->files.size());
  Emit("journal", {{"dir", journal_dir},
                   {"disk", disk.has_value() ? DumpValue(disk->ToString()) : DumpValue(std::monostate())},
                   {"files", static_cast<int64_t>(journal->files.size())},
                   {"records", static_cast<int64_t>(journal->records)},
                   {"last_frame", static_cast<int64_t>(journal->last_frame)},
                   {"last_synced_frame", static_cast<int64_t>(journal->last_synced)}});
  SLUICE_ASSIGN_OR_RETURN(const auto missing, FindMissing(fs_, dir, identity, *journal));
  for (const storage::JournalPlace& each : missing) Damage(each.path, each.offset, each.what);
  for (const auto& [id, state] : journal->state.replicas()) {
    SLUICE_RETURN_IF_ERROR(DumpReplica(Cat(dir, "/topics/", id), id, state, *journal));
  }
  return absl::OkStatus();
}

absl::StatusOr<Bytes> Dumper::ReadAll(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(auto file, fs_.Open(path, {}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, file->Size());
  if (size > kJournalFileBytesMax)
    return absl::InvalidArgumentError(Cat(path, ": ", size, " bytes are too many for a journal file"));
  MutableBytes bytes(static_cast<size_t>(size));
  SLUICE_ASSIGN_OR_RETURN(const size_t count, file->ReadAt(0, absl::MakeSpan(bytes.data(), bytes.size())));
  return std::move(bytes).Freeze(count);
}

// The journal as recovery would read it; nothing, and damage noted, where recovery would refuse it.
absl::StatusOr<std::optional<storage::ReplayedJournal>> Dumper::Replay(const std::string& journal_dir,
                                                                       const std::optional<Uuid>& disk) {
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs_.Exists(journal_dir));
  if (!there) return storage::ReplayedJournal();
  if (!disk.has_value()) {
    Damage(journal_dir, 0, "no journal file has an opening that can be read");
    return std::nullopt;
  }
  absl::StatusOr<storage::ReplayedJournal> journal = storage::ReplayJournal(fs_, journal_dir, *disk);
  if (journal.ok()) return *std::move(journal);
  const std::optional<storage::JournalPlace> place = storage::PlaceOf(journal.status());
  if (!place.has_value() && !absl::IsDataLoss(journal.status())) return journal.status();
  const auto at = place.value_or(storage::JournalPlace{journal_dir, 0, std::string(Message(journal.status()))});
  Damage(at.path, at.offset, at.what);
  return std::nullopt;
}

// The disk that a journal says it belongs to, from the first file whose opening can be read, if there is one.
absl::StatusOr<std::optional<Uuid>> Dumper::DiskOf(const std::string& journal_dir) {
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs_.Exists(journal_dir));
  if (!there) return std::nullopt;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(journal_dir));
  for (const std::string& name : names) {
    if (!EndsWith(name, ".journal")) continue;
    SLUICE_ASSIGN_OR_RETURN(const Bytes bytes, ReadAll(Cat(journal_dir, "/", name)));
    absl::StatusOr<storage::Frame> frame = storage::DecodeFrame(bytes.view(), bytes.owner());
    if (!frame.ok() || frame->records.empty()) continue;
    if (const auto* opening = std::get_if<storage::OpeningRecord>(&frame->records.front())) return opening->disk;
  }
  return std::nullopt;
}

void Dumper::EmitJournalRecord(const storage::AnyJournalRecord& any) {
  Fields fields;
  const auto segment = [&](const storage::SegmentId& id, int64_t position) {
    fields.emplace_back("segment", id.ToString());
    fields.emplace_back("position", position);
  };
  if (const auto* opening = std::get_if<storage::OpeningRecord>(&any)) {
    fields = {{"type", "opening"},
              {"disk", opening->disk.ToString()},
              {"replicas", static_cast<int64_t>(opening->replica_count)}};
  } else if (const auto* snapshot = std::get_if<storage::ReplicaSnapshotRecord>(&any)) {
    fields = {{"type", "snapshot"},
              {"replica", snapshot->replica.ToString()},
              {"log_start", snapshot->state.log_start.value()},
              {"log_end", snapshot->state.next_offset.value()},
              {"segments", static_cast<int64_t>(snapshot->state.segments.size())}};
  } else {
    const auto& record = std::get<storage::JournalRecord>(any);
    static constexpr const char* kTypes[] = {"append",      "truncate",   "reset",  "log_start", "hard_state",
                                             "raft_config", "checkpoint", "create", "drop"};
    fields = {{"type", kTypes[record.index()]}, {"replica", storage::ReplicaOf(record).ToString()}};
    if (const auto* append = std::get_if<storage::AppendRecord>(&record)) {
      segment(append->segment, append->position);
      fields.emplace_back("bytes", static_cast<int64_t>(append->bytes.size()));
      fields.emplace_back("next_offset", append->next_offset.value());
    } else if (const auto* truncate = std::get_if<storage::TruncateRecord>(&record)) {
      segment(truncate->keep, truncate->position);
      fields.emplace_back("next_offset", truncate->next_offset.value());
    } else if (const auto* reset = std::get_if<storage::ResetRecord>(&record)) {
      fields.emplace_back("next_offset", reset->next_offset.value());
    } else if (const auto* start = std::get_if<storage::LogStartRecord>(&record)) {
      fields.emplace_back("log_start", start->log_start.value());
    } else if (const auto* hard = std::get_if<storage::HardStateRecord>(&record)) {
      fields.emplace_back("term", int64_t{hard->hard_state.term.value()});
      fields.emplace_back("voted_for_node", int64_t{hard->hard_state.voted_for.node.value()});
    } else if (const auto* checkpoint = std::get_if<storage::CheckpointRecord>(&record)) {
      segment(checkpoint->segment, checkpoint->position);
    }
  }
  Emit("journal_record", std::move(fields));
}

// Frames up to the first that is none of this file. Whether that is the end, a torn tail or damage only the whole
// folder can tell (a later frame may vouch for it), so it is a note here.
absl::Status Dumper::DumpJournalFile(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const Bytes bytes, ReadAll(path));
  ++files_;
  std::optional<Uuid> file_id;
  uint64_t last = 0;
  size_t at = 0;
  std::string end = "the end of the file";
  while (at < bytes.size()) {
    absl::StatusOr<storage::Frame> frame = storage::DecodeFrame(bytes.view().substr(at), bytes.owner());
    if (!frame.ok()) {
      end = std::string(Message(frame.status()));
      break;
    }
    if (file_id.has_value() && (frame->header.file_id != *file_id || frame->header.frame != last + 1)) {
      end = "a frame of the file's earlier life";
      break;
    }
    file_id = frame->header.file_id;
    last = frame->header.frame;
    Emit("frame", {{"frame", static_cast<int64_t>(last)},
                   {"position", static_cast<int64_t>(at)},
                   {"bytes", int64_t{frame->header.length}},
                   {"records", int64_t{frame->header.record_count}},
                   {"last_synced", static_cast<int64_t>(frame->header.last_synced)}});
    for (const storage::AnyJournalRecord& record : frame->records) EmitJournalRecord(record);
    at += static_cast<size_t>(frame->PaddedBytes());
  }
  if (!file_id.has_value()) {
    Damage(path, 0, end);
  } else {
    Emit("note", {{"file", path}, {"ends_at", static_cast<int64_t>(std::min(at, bytes.size()))}, {"because", end}});
  }
  return absl::OkStatus();
}

absl::Status Dumper::DumpJournalFolder(const std::string& dir, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (EndsWith(name, ".journal")) SLUICE_RETURN_IF_ERROR(DumpJournalFile(Cat(dir, "/", name)));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::optional<Uuid> disk, DiskOf(dir));
  return Replay(dir, disk).status();
}

absl::Status Dumper::DumpPartitionFolder(const std::string& dir, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (EndsWith(name, ".log")) SLUICE_RETURN_IF_ERROR(DumpSegmentFile(Cat(dir, "/", name)));
  }
  return absl::OkStatus();
}

absl::Status Dumper::DumpAny(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs_.Exists(path));
  if (!there) return absl::NotFoundError(Cat(path, ": there is no such file or folder"));
  SLUICE_ASSIGN_OR_RETURN(const bool folder, fs_.IsDir(path));
  if (!folder) {
    if (EndsWith(path, ".log")) return DumpSegmentFile(path);
    if (EndsWith(path, ".journal")) return DumpJournalFile(path);
    return absl::InvalidArgumentError(Cat(path, ": neither a segment (*.log) nor a journal file (*.journal)"));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(path));
  const auto any = [&](std::string_view end) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return EndsWith(name, end); });
  };
  for (const char* const part : {"journal", "node.yaml", "topics"}) {
    if (std::find(names.begin(), names.end(), part) != names.end()) return DumpDataFolder(path);
  }
  if (any(".journal")) return DumpJournalFolder(path, names);
  if (any(".log")) return DumpPartitionFolder(path, names);
  return absl::InvalidArgumentError(Cat(
      path, ": neither a data folder (with node.yaml and journal/ in it), a journal folder nor a partition's folder"));
}

absl::Status Dumper::Total() {
  Emit("total",
       {{"files", files_}, {"batches", batches_}, {"records", records_}, {"bytes", bytes_}, {"damages", damages_}});
  if (damages_ == 0) return absl::OkStatus();
  return absl::DataLossError(
      Cat(damages_, damages_ == 1 ? " place is" : " places are", " damaged; the lines \"damage\" name file and byte"));
}

}  // namespace

absl::Status DumpLog(FileSystem& fs, const std::string& path, const DumpOptions& options, const DumpSink& sink) {
  Dumper dumper(fs, options, sink);
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  SLUICE_RETURN_IF_ERROR(dumper.DumpAny(trimmed));
  return dumper.Total();
}

}  // namespace sluice::tools
