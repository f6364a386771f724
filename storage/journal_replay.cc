#include "storage/journal_replay.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/status_macros.h"
#include "storage/journal_codec.h"

namespace sluice::storage {

namespace {

constexpr char kEnding[] = ".journal";
constexpr int64_t kFileBytesMax = int64_t{1} << 32;

std::optional<uint64_t> SequenceOf(const std::string& name) {
  if (name.size() != 20 + sizeof kEnding - 1 || name.substr(20) != kEnding) return std::nullopt;
  uint64_t sequence = 0;
  for (size_t i = 0; i < 20; ++i) {
    if (name[i] < '0' || name[i] > '9') return std::nullopt;
    sequence = sequence * 10 + static_cast<uint64_t>(name[i] - '0');
  }
  return sequence;
}

absl::Status DamagedAt(const std::string& path, int64_t offset, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, " at byte ", offset, ": ", what));
}

absl::StatusOr<Bytes> LoadFile(FileSystem& fs, const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs.Open(path, {}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, file->Size());
  if (size > kFileBytesMax) return DamagedAt(path, 0, absl::StrCat("a journal file of ", size, " bytes"));
  MutableBytes block(static_cast<size_t>(size));
  SLUICE_ASSIGN_OR_RETURN(const size_t count, file->ReadAt(0, absl::MakeSpan(block.data(), block.size())));
  return std::move(block).Freeze(count);
}

// What one file holds, frame by frame, up to the first that is invalid, and whether anything valid stands after that.
struct FileScan {
  JournalFileInfo info;
  std::optional<Uuid> file_id;
  OpeningRecord opening;
  bool marked = false;          // of a version that has the mark before it has a file
  bool says_data_ends = false;  // of a version whose snapshots do
  bool opening_complete = false;
  uint64_t first_frame = 0;  // 0: no valid frame at the start
  uint64_t last_frame = 0;
  int64_t end = 0;           // where the valid run ends
  std::string why;           // the frame there is invalid
  uint64_t last_synced = 0;  // highest that a valid frame of this file names, also after `end`
  uint64_t stray_frame = 0;  // highest valid frame after `end`; 0: none
  int64_t cut_end = 0;       // where recognizable frames end, at least `end`
};

// Whether a header is, or was before a flipped bit, one of this life of the file: an earlier life of a recycled file
// shares only the magic number.
bool Recognize(const FrameHeader& header, const FileScan& scan) {
  const int alike = int{header.magic == journal_format::kMagic} + int{header.file_sequence == scan.info.sequence} +
                    int{scan.file_id.has_value() && header.file_id == *scan.file_id};
  return alike >= 2;
}

void LookBeyondTheEnd(std::string_view data, FileScan& scan) {
  const auto size = static_cast<int64_t>(data.size());
  scan.cut_end = scan.end;
  for (int64_t at = scan.end; at < size; at += kBlockBytes) {
    const std::string_view rest = data.substr(static_cast<size_t>(at));
    const auto header = PeekFrameHeader(rest);
    if (!header || !Recognize(*header, scan)) continue;
    scan.cut_end = std::max(scan.cut_end, std::min(size, at + std::max(kBlockBytes, RoundUpToBlock(header->length))));
    if (DecodeFrame(rest, nullptr).ok()) {
      scan.stray_frame = std::max(scan.stray_frame, header->frame);
      scan.last_synced = std::max(scan.last_synced, header->last_synced);
    }
  }
}

// Calls `visit(frame, offset)` for each frame of the valid run.
template <class Visit>
absl::StatusOr<int64_t> WalkFrames(const Bytes& data, const FileScan& scan, std::string* why, Visit visit) {
  int64_t at = 0;
  uint64_t expected = 0;
  std::optional<Uuid> id = scan.file_id;
  while (true) {
    const std::string_view rest = data.view().substr(std::min(static_cast<size_t>(at), data.size()));
    auto frame = DecodeFrame(rest, data.owner());
    if (!frame.ok()) {
      *why = std::string(frame.status().message());
      return at;
    }
    const FrameHeader& header = frame->header;
    if (header.file_sequence != scan.info.sequence || (id && header.file_id != *id) ||
        (expected != 0 && header.frame != expected)) {
      *why = "a frame of another file, or of an earlier life of this one";
      return at;
    }
    id = header.file_id;
    expected = header.frame + 1;
    SLUICE_RETURN_IF_ERROR(visit(*frame, at));
    at += frame->PaddedBytes();
  }
}

absl::StatusOr<FileScan> ScanOnce(FileSystem& fs, const JournalFileInfo& info, const Uuid& disk) {
  FileScan scan;
  scan.info = info;
  SLUICE_ASSIGN_OR_RETURN(const Bytes data, LoadFile(fs, scan.info.path));
  scan.info.bytes = static_cast<int64_t>(data.size());
  const auto visit = [&](const Frame& frame, int64_t at) -> absl::Status {
    if (scan.first_frame == 0) {
      const auto* opening = frame.records.empty() ? nullptr : std::get_if<OpeningRecord>(&frame.records.front());
      if (opening == nullptr) return DamagedAt(scan.info.path, at, "the first frame does not open a journal file");
      if (opening->disk != disk) {
        return absl::FailedPreconditionError(absl::StrCat(
            scan.info.path, ": journal of disk ", opening->disk.ToString(), ", this is disk ", disk.ToString()));
      }
      scan.opening = *opening;
      scan.marked = frame.header.version >= journal_format::kVersionMarked;
      scan.says_data_ends = frame.header.version >= journal_format::kVersionDataEnd;
      scan.first_frame = frame.header.frame;
      scan.file_id = frame.header.file_id;
    }
    if ((frame.header.flags & journal_format::kFlagOpeningEnd) != 0) scan.opening_complete = true;
    scan.last_frame = frame.header.frame;
    scan.last_synced = std::max(scan.last_synced, frame.header.last_synced);
    return absl::OkStatus();
  };
  SLUICE_ASSIGN_OR_RETURN(scan.end, WalkFrames(data, scan, &scan.why, visit));
  LookBeyondTheEnd(data.view(), scan);
  return scan;
}

// A file that ends in a damaged frame is read a second time: a read that went wrong must not cost what is on the disk.
absl::StatusOr<FileScan> ScanFile(FileSystem& fs, const JournalFileInfo& info, const Uuid& disk) {
  SLUICE_ASSIGN_OR_RETURN(FileScan first, ScanOnce(fs, info, disk));
  if (first.cut_end == first.end && first.opening_complete) return first;
  SLUICE_ASSIGN_OR_RETURN(FileScan second, ScanOnce(fs, info, disk));
  return second.end > first.end ? std::move(second) : std::move(first);
}

class Replayer {
 public:
  Replayer(FileSystem& fs, const std::string& dir, const Uuid& disk) : fs_(fs), dir_(dir), disk_(disk) {}

  absl::StatusOr<ReplayedJournal> Run() {
    SLUICE_RETURN_IF_ERROR(ScanAll());
    SLUICE_RETURN_IF_ERROR(TakeMark());
    SLUICE_RETURN_IF_ERROR(ChooseFiles());
    SLUICE_RETURN_IF_ERROR(JudgeSizes());
    SLUICE_RETURN_IF_ERROR(JudgeNewest());
    SLUICE_RETURN_IF_ERROR(JudgeEnds());
    for (const FileScan* scan : chain_) SLUICE_RETURN_IF_ERROR(ApplyFile(*scan));
    SLUICE_RETURN_IF_ERROR(out_.pins.CheckCovers(out_.state));
    KeepSurvivors();
    for (FileScan& scan : scans_) out_.files.push_back(std::move(scan.info));
    return std::move(out_);
  }

 private:
  absl::Status ScanAll() {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(dir_));
    for (const std::string& name : names) {
      const auto sequence = SequenceOf(name);
      if (!sequence) continue;
      SLUICE_ASSIGN_OR_RETURN(FileScan scan,
                              ScanFile(fs_, {.sequence = *sequence, .path = JournalFilePath(dir_, *sequence)}, disk_));
      out_.last_file = std::max(out_.last_file, *sequence);
      out_.last_frame = std::max({out_.last_frame, scan.last_frame, scan.stray_frame});
      out_.last_synced = std::max(out_.last_synced, scan.last_synced);
      scans_.push_back(std::move(scan));
    }
    return absl::OkStatus();
  }

  absl::Status TakeMark() {
    SLUICE_ASSIGN_OR_RETURN(out_.mark, ReadJournalMark(fs_, dir_, disk_));
    if (out_.mark) {
      out_.last_synced = std::max(out_.last_synced, out_.mark->frame);
      out_.last_file = std::max(out_.last_file, out_.mark->file);
      return absl::OkStatus();
    }
    for (const FileScan& scan : scans_) {
      if (!scan.marked) continue;
      return DamagedAt(JournalMarkPath(dir_), 0,
                       absl::StrCat("the file is missing; expected it to name the newest journal file, as it was made "
                                    "before ",
                                    scan.info.path));
    }
    return absl::OkStatus();
  }

  // A file is whole before it is one of the journal's, and only grows after that.
  absl::Status JudgeSizes() {
    for (const FileScan* scan : chain_) {
      if (scan->info.bytes >= static_cast<int64_t>(scan->opening.file_bytes)) continue;
      return DamagedAt(scan->info.path, scan->info.bytes,
                       absl::StrCat("the file ends; expected ", scan->opening.file_bytes, " bytes, as it was made"));
    }
    return absl::OkStatus();
  }

  // The file that the mark names had its opening synced.
  absl::Status JudgeNewest() {
    if (!out_.mark || (chain_.empty() ? 0 : chain_.back()->info.sequence) >= out_.mark->file) return absl::OkStatus();
    const std::string expected = absl::StrCat(
        "; expected the opening of the newest journal file, which was synced: ", JournalMarkPath(dir_), " names it");
    for (const FileScan& scan : scans_) {
      if (scan.info.sequence != out_.mark->file) continue;
      return DamagedAt(scan.info.path, scan.end,
                       absl::StrCat(scan.why, ", and the file has ", scan.info.bytes, " bytes", expected));
    }
    return DamagedAt(JournalFilePath(dir_, out_.mark->file), 0, absl::StrCat("the file is missing", expected));
  }

  // Leaves out what was being made when the process died, and what a later file supersedes.
  absl::Status ChooseFiles() {
    size_t finished = scans_.size();
    while (finished > 0 && !scans_[finished - 1].opening_complete) --finished;
    const uint64_t frames_before = finished > 0 ? scans_[finished - 1].last_frame : 0;
    for (size_t i = finished; i < scans_.size(); ++i) {
      FileScan& scan = scans_[i];
      const uint64_t expected = scan.first_frame != 0 ? scan.last_frame + 1 : frames_before + 1;
      if (scan.last_synced >= expected) {
        return DamagedAt(scan.info.path, scan.end,
                         absl::StrCat(scan.why, "; expected frame ", expected,
                                      " of the file's opening, which was "
                                      "synced: a later frame says that all up to ",
                                      scan.last_synced, " were"));
      }
      scan.info.superseded = true;
    }
    uint64_t superseded_from = UINT64_MAX;
    for (size_t i = finished; i-- > 0;) {
      FileScan& scan = scans_[i];
      if (scan.info.sequence >= superseded_from) {
        scan.info.superseded = true;
        continue;
      }
      if (!scan.opening_complete) {
        return DamagedAt(scan.info.path, scan.end,
                         absl::StrCat(scan.why,
                                      "; expected the rest of the file's opening, which was synced: a later "
                                      "file exists"));
      }
      if (scan.opening.supersedes_from != 0) superseded_from = scan.opening.supersedes_from;
      chain_.insert(chain_.begin(), &scan);
    }
    return absl::OkStatus();
  }

  absl::Status JudgeEnds() {
    for (size_t i = 0; i + 1 < chain_.size(); ++i) {
      const FileScan& scan = *chain_[i];
      const uint64_t next = chain_[i + 1]->opening.continues_after;
      if (scan.last_frame != next) {
        return DamagedAt(scan.info.path, scan.end,
                         absl::StrCat(scan.why, "; expected frame ", scan.last_frame + 1, ": the file after it (",
                                      chain_[i + 1]->info.path, ") continues after frame ", next));
      }
    }
    if (chain_.empty()) return absl::OkStatus();
    const FileScan& last = *chain_.back();
    if (out_.last_synced > last.last_frame) {
      return DamagedAt(
          last.info.path, last.end,
          absl::StrCat(last.why, "; expected frame ", last.last_frame + 1, ", which was synced: ",
                       out_.mark && out_.mark->frame == out_.last_synced ? JournalMarkPath(dir_) : "a later frame",
                       " says that all up to ", out_.last_synced, " were"));
    }
    out_.last_counting_file = last.info.sequence;
    out_.supersede_from = last.opening.supersedes_from != 0 ? last.opening.supersedes_from : last.info.sequence;
    out_.continues_after = last.opening.continues_after;
    out_.tail = {.file = last.info.path, .offset = last.end, .bytes_cut = last.cut_end - last.end};
    out_.tail.vouched = out_.tail.bytes_cut == 0;
    return absl::OkStatus();
  }

  absl::Status ApplyFile(const FileScan& scan) {
    SLUICE_ASSIGN_OR_RETURN(const Bytes data, LoadFile(fs_, scan.info.path));
    JournalState snapshot;
    const bool replaces = scan.info.sequence == chain_.front()->info.sequence || scan.opening.supersedes_from != 0;
    uint64_t snapshots_due = scan.opening.replica_count;
    std::string why;
    int64_t applied_to = 0;
    const auto visit = [&](const Frame& frame, int64_t at) -> absl::Status {
      for (const AnyJournalRecord& any : frame.records) {
        if (const auto* replica = std::get_if<ReplicaSnapshotRecord>(&any)) {
          snapshot.Restore(replica->replica, replica->state);
          --snapshots_due;
        }
        if (snapshots_due == 0 && !std::holds_alternative<JournalRecord>(any)) {
          SLUICE_RETURN_IF_ERROR(TakeSnapshot(scan, replaces, std::move(snapshot)));
          snapshot = {};
        }
        const auto* record = std::get_if<JournalRecord>(&any);
        if (record == nullptr) continue;
        if (absl::Status status = ApplyRecord(*record, scan, data); !status.ok()) {
          return DamagedAt(scan.info.path, at,
                           absl::StrCat("frame ", frame.header.frame,
                                        " does not follow from what "
                                        "is before it: ",
                                        std::string(status.message())));
        }
      }
      applied_to = at + frame.PaddedBytes();
      return absl::OkStatus();
    };
    SLUICE_ASSIGN_OR_RETURN(const int64_t end, WalkFrames(data, scan, &why, visit));
    if (end != scan.end || applied_to != end) {
      return DamagedAt(scan.info.path, end, absl::StrCat("read otherwise than the first time: ", why));
    }
    return absl::OkStatus();
  }

  absl::Status TakeSnapshot(const FileScan& scan, bool replaces, JournalState snapshot) {
    if (!replaces) {
      if (!scan.says_data_ends) snapshot.TakeDataEnds(out_.state);
      if (snapshot == out_.state) return absl::OkStatus();
      return DamagedAt(scan.info.path, 0, "the opening snapshot differs from what the files before it add up to");
    }
    out_.state = std::move(snapshot);
    out_.pins.TrimAll(out_.state);
    return absl::OkStatus();
  }

  absl::Status ApplyRecord(const JournalRecord& record, const FileScan& scan, const Bytes& data) {
    SLUICE_RETURN_IF_ERROR(out_.state.Apply(record));
    const uint64_t ordinal = ++out_.records;
    const ReplicaId& replica = ReplicaOf(record);
    const ReplicaState* state = out_.state.Find(replica);
    const auto* append = std::get_if<AppendRecord>(&record);
    if (append == nullptr) {
      out_.pins.Trim(replica, state);
      return absl::OkStatus();
    }
    out_.pins.OnAppend(*append, *state, scan.info.sequence, ordinal);
    Survivor survivor{*append, scan.info.sequence, append->bytes.data() - data.data(),
                      static_cast<int64_t>(append->bytes.size())};
    survivor.append.bytes = Bytes();
    candidates_.push_back({std::move(survivor), ordinal});
    return absl::OkStatus();
  }

  // Of all appends those that a pin still names.
  void KeepSurvivors() {
    for (Candidate& candidate : candidates_) {
      const Survivor& survivor = candidate.survivor;
      const auto names_it = [&](const JournalPin& pin) {
        return pin.file == survivor.file && pin.segment == survivor.append.segment &&
               pin.first_record <= candidate.ordinal && pin.begin < survivor.append.position + survivor.length &&
               survivor.append.position < pin.end;
      };
      const std::vector<JournalPin>& pins = out_.pins.Of(survivor.append.replica);
      if (std::any_of(pins.begin(), pins.end(), names_it)) out_.survivors.push_back(std::move(candidate.survivor));
    }
    candidates_.clear();
    const auto place = [](const Survivor& s) {
      return std::make_tuple(s.append.replica, s.append.segment, s.append.position, s.length);
    };
    std::stable_sort(out_.survivors.begin(), out_.survivors.end(),
                     [&](const Survivor& a, const Survivor& b) { return place(a) < place(b); });
    // Bytes carried forward within one file stand there twice; one copy is enough.
    std::vector<Survivor> kept;
    for (Survivor& survivor : out_.survivors) {
      if (!kept.empty() && kept.back().append.replica == survivor.append.replica &&
          kept.back().append.segment == survivor.append.segment &&
          kept.back().append.position + kept.back().length >= survivor.append.position + survivor.length) {
        continue;
      }
      kept.push_back(std::move(survivor));
    }
    out_.survivors = std::move(kept);
  }

  struct Candidate {
    Survivor survivor;
    uint64_t ordinal;
  };

  FileSystem& fs_;
  const std::string dir_;
  const Uuid disk_;
  std::vector<FileScan> scans_;         // by sequence
  std::vector<const FileScan*> chain_;  // those that count
  std::vector<Candidate> candidates_;
  ReplayedJournal out_;
};

}  // namespace

std::string JournalFilePath(const std::string& dir, uint64_t sequence) {
  char name[48];
  std::snprintf(name, sizeof name, "%020llu%s", static_cast<unsigned long long>(sequence), kEnding);
  return absl::StrCat(dir, "/", name);
}

absl::StatusOr<ReplayedJournal> ReplayJournal(FileSystem& fs, const std::string& dir, const Uuid& disk) {
  return Replayer(fs, dir, disk).Run();
}

absl::Status ReadSurvivors(FileSystem& fs, const ReplayedJournal& journal,
                           const std::function<bool(const Survivor&)>& wanted,
                           const std::function<absl::Status(const AppendRecord&)>& visit) {
  std::map<uint64_t, std::unique_ptr<File>> open;
  for (const Survivor& survivor : journal.survivors) {
    if (!wanted(survivor)) continue;
    auto& file = open[survivor.file];
    if (file == nullptr) {
      const auto info = std::find_if(journal.files.begin(), journal.files.end(),
                                     [&](const JournalFileInfo& i) { return i.sequence == survivor.file; });
      SLUICE_ASSIGN_OR_RETURN(file, fs.Open(info->path, {}));
    }
    MutableBytes block(static_cast<size_t>(survivor.length));
    SLUICE_ASSIGN_OR_RETURN(const size_t count,
                            file->ReadAt(survivor.offset, absl::MakeSpan(block.data(), block.size())));
    if (count != block.size() || Crc32c(block.view()) != survivor.append.crc32c) {
      return DamagedAt(file->path(), survivor.offset, "an append's bytes read otherwise than the first time");
    }
    AppendRecord append = survivor.append;
    append.bytes = std::move(block).Freeze();
    // A truncation may have cut within the append: what lies beyond the segment's end is no longer part of the log.
    const SegmentState& segment = *journal.state.Find(append.replica)->Find(append.segment);
    const int64_t kept = segment.end_position - append.position;
    if (kept < static_cast<int64_t>(append.bytes.size())) {
      append.bytes = append.bytes.Slice(0, static_cast<size_t>(kept));
      append.crc32c = Crc32c(append.bytes.view());
      append.next_offset = segment.next_offset;
      append.max_timestamp_ms = std::min(append.max_timestamp_ms, segment.max_timestamp_ms);
    }
    SLUICE_RETURN_IF_ERROR(visit(append));
  }
  return absl::OkStatus();
}

absl::Status ReadAppends(FileSystem& fs, const JournalFileInfo& file, const ReplicaId& replica, SegmentId segment,
                         const std::function<absl::Status(const AppendRecord&)>& visit) {
  SLUICE_ASSIGN_OR_RETURN(const Bytes data, LoadFile(fs, file.path));
  FileScan scan;
  scan.info = file;
  std::string why;
  const auto each = [&](const Frame& frame, int64_t) -> absl::Status {
    for (const AnyJournalRecord& any : frame.records) {
      const auto* record = std::get_if<JournalRecord>(&any);
      const auto* append = record == nullptr ? nullptr : std::get_if<AppendRecord>(record);
      if (append == nullptr || append->replica != replica || append->segment != segment) continue;
      SLUICE_RETURN_IF_ERROR(visit(*append));
    }
    return absl::OkStatus();
  };
  return WalkFrames(data, scan, &why, each).status();
}

}  // namespace sluice::storage
