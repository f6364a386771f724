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
#include "storage/journal_scan.h"

namespace sluice::storage {

namespace {

constexpr char kEnding[] = ".journal";

std::optional<uint64_t> SequenceOf(const std::string& name) {
  if (name.size() != 20 + sizeof kEnding - 1 || name.substr(20) != kEnding) return std::nullopt;
  uint64_t sequence = 0;
  for (size_t i = 0; i < 20; ++i) {
    if (name[i] < '0' || name[i] > '9') return std::nullopt;
    sequence = sequence * 10 + static_cast<uint64_t>(name[i] - '0');
  }
  return sequence;
}

// Every file that counts is read once, in order, and applied as it is read; the newest once more before that, to see
// that it counts.
class Replayer {
 public:
  Replayer(FileSystem& fs, const std::string& dir, const Uuid& disk)
      : fs_(fs), dir_(dir), disk_(disk), reader_(fs, disk) {}

  absl::StatusOr<ReplayedJournal> Run() {
    SLUICE_RETURN_IF_ERROR(ListFiles());
    SLUICE_ASSIGN_OR_RETURN(out_.mark, ReadJournalMark(fs_, dir_, disk_));
    SLUICE_RETURN_IF_ERROR(FindNewest());
    SLUICE_RETURN_IF_ERROR(ChooseFiles());
    SLUICE_RETURN_IF_ERROR(TakeMark());
    SLUICE_RETURN_IF_ERROR(JudgeNewest());
    for (size_t i = 0; i < chain_.size(); ++i) {
      SLUICE_RETURN_IF_ERROR(ReplayFile(*chain_[i]));
      SLUICE_RETURN_IF_ERROR(i + 1 < chain_.size() ? JudgeEnd(*chain_[i], *chain_[i + 1]) : JudgeLastEnd(*chain_[i]));
    }
    SLUICE_RETURN_IF_ERROR(JudgeStart());
    KeepSurvivors();
    for (FileScan& scan : scans_) out_.files.push_back(std::move(scan.info));
    return std::move(out_);
  }

 private:
  absl::Status ListFiles() {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(dir_));
    for (const std::string& name : names) {
      const auto sequence = SequenceOf(name);
      if (!sequence) continue;
      FileScan scan;
      scan.info = {.sequence = *sequence, .path = JournalFilePath(dir_, *sequence)};
      scans_.push_back(std::move(scan));
      out_.last_file = std::max(out_.last_file, *sequence);
    }
    return absl::OkStatus();
  }

  // The newest file with a whole opening, and those after it, which were being made when the process died.
  absl::Status FindNewest() {
    for (finished_ = scans_.size(); finished_ > 0; --finished_) {
      FileScan& scan = scans_[finished_ - 1];
      SLUICE_RETURN_IF_ERROR(reader_.Scan(scan, [](const Frame&, int64_t) { return absl::OkStatus(); }));
      Count(scan);
      if (scan.opening_complete) break;
    }
    return absl::OkStatus();
  }

  void Count(const FileScan& scan) {
    out_.last_frame = std::max({out_.last_frame, scan.last_frame, scan.stray_frame});
    out_.last_synced = std::max(out_.last_synced, scan.last_synced);
  }

  // Leaves out what was being made when the process died, what a later file supersedes, and what nothing needs. Nothing
  // in a file that is left out for the last two reasons says anything of those that are not: its frames are older than
  // all of theirs.
  absl::Status ChooseFiles() {
    SLUICE_RETURN_IF_ERROR(JudgeUnfinished());
    uint64_t superseded_from = UINT64_MAX;
    for (size_t i = finished_; i-- > 0;) {
      FileScan& scan = scans_[i];
      const bool newest = i + 1 == finished_;
      const bool needed = newest || !out_.mark || scan.info.sequence >= out_.mark->needed_from;
      if (scan.info.sequence >= superseded_from || !needed) {
        scan.info.superseded = true;
        SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs_.Open(scan.info.path, {}));
        SLUICE_ASSIGN_OR_RETURN(scan.info.bytes, file->Size());
        continue;
      }
      if (!newest) SLUICE_RETURN_IF_ERROR(reader_.Peek(scan));
      if (scan.first_frame == 0) return LostOpening(scan);
      if (scan.opening.supersedes_from != 0) superseded_from = scan.opening.supersedes_from;
      chain_.insert(chain_.begin(), &scan);
    }
    return absl::OkStatus();
  }

  static absl::Status LostOpening(const FileScan& scan) {
    return DamagedAt(
        scan.info.path, scan.end,
        absl::StrCat(scan.why, "; expected the rest of the file's opening, which was synced: a later file exists"));
  }

  absl::Status JudgeUnfinished() {
    const uint64_t frames_before = finished_ > 0 ? scans_[finished_ - 1].last_frame : 0;
    for (size_t i = finished_; i < scans_.size(); ++i) {
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
    return absl::OkStatus();
  }

  absl::Status TakeMark() {
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

  // A file is whole before it is one of the journal's, and only grows after that.
  static absl::Status JudgeSize(const FileScan& scan) {
    if (scan.info.bytes >= static_cast<int64_t>(scan.opening.file_bytes)) return absl::OkStatus();
    return DamagedAt(scan.info.path, scan.info.bytes,
                     absl::StrCat("the file ends; expected ", scan.opening.file_bytes, " bytes, as it was made"));
  }

  static absl::Status JudgeEnd(const FileScan& scan, const FileScan& after) {
    const uint64_t next = after.opening.continues_after;
    if (scan.last_frame == next) return absl::OkStatus();
    return DamagedAt(scan.info.path, scan.end,
                     absl::StrCat(scan.why, "; expected frame ", scan.last_frame + 1, ": the file after it (",
                                  after.info.path, ") continues after frame ", next));
  }

  absl::Status JudgeLastEnd(const FileScan& last) {
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

  // All that is needed is in the files that there are, so none before them is missing.
  absl::Status JudgeStart() const {
    const absl::Status covers = out_.pins.CheckCovers(out_.state);
    if (covers.ok()) return covers;
    return DamagedAt(chain_.front()->info.path, 0, std::string(covers.message()));
  }

  absl::Status ReplayFile(FileScan& scan) {
    const bool newest = &scan == chain_.back();
    const int64_t end_before = scan.end;
    const bool replaces = &scan == chain_.front() || scan.opening.supersedes_from != 0;
    JournalState snapshot;
    uint64_t snapshots_due = scan.opening.replica_count;
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
        if (absl::Status status = ApplyRecord(*record, scan); !status.ok()) {
          return DamagedAt(scan.info.path, at,
                           absl::StrCat("frame ", frame.header.frame,
                                        " does not follow from what "
                                        "is before it: ",
                                        std::string(status.message())));
        }
      }
      return absl::OkStatus();
    };
    SLUICE_RETURN_IF_ERROR(reader_.Scan(scan, visit));
    Count(scan);
    if (newest && scan.end != end_before) {
      return DamagedAt(scan.info.path, scan.end, absl::StrCat("read otherwise than the first time: ", scan.why));
    }
    if (!scan.opening_complete) return LostOpening(scan);
    return JudgeSize(scan);
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

  absl::Status ApplyRecord(const JournalRecord& record, const FileScan& scan) {
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
    Survivor survivor{*append, scan.info.sequence, reader_.PlaceOf(append->bytes),
                      static_cast<int64_t>(append->bytes.size())};
    survivor.append.bytes = Bytes();
    candidates_.push_back({std::move(survivor), ordinal});
    if (candidates_.size() >= candidates_due_) {
      DropCandidates();
      candidates_due_ = std::max(candidates_due_, 2 * candidates_.size());
    }
    return absl::OkStatus();
  }

  // Those that no pin names any more: what a file's later records let go of stays so.
  void DropCandidates() {
    std::erase_if(candidates_, [this](const Candidate& candidate) {
      const Survivor& survivor = candidate.survivor;
      const std::vector<JournalPin>& pins = out_.pins.Of(survivor.append.replica);
      return std::none_of(pins.begin(), pins.end(), [&](const JournalPin& pin) {
        return pin.file == survivor.file && pin.segment == survivor.append.segment &&
               pin.first_record <= candidate.ordinal && pin.begin < survivor.append.position + survivor.length &&
               survivor.append.position < pin.end;
      });
    });
  }

  // Of all appends those that a pin still names.
  void KeepSurvivors() {
    DropCandidates();
    for (Candidate& candidate : candidates_) out_.survivors.push_back(std::move(candidate.survivor));
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
  JournalFileReader reader_;
  std::vector<FileScan> scans_;   // by sequence
  size_t finished_ = 0;           // of scans_, from its front: up to the newest with a whole opening
  std::vector<FileScan*> chain_;  // those that count
  std::vector<Candidate> candidates_;
  size_t candidates_due_ = size_t{64} << 10;  // so many are looked through for what is not needed
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
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<File> open, fs.Open(file.path, {}));
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, JournalFileSize(*open));
  MutableBytes block(static_cast<size_t>(size));
  SLUICE_ASSIGN_OR_RETURN(const size_t count, open->ReadAt(0, absl::MakeSpan(block.data(), block.size())));
  const Bytes data = std::move(block).Freeze(count);
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
  return WalkFrames(data.view(), data.owner(), file, std::nullopt, &why, each).status();
}

}  // namespace sluice::storage
