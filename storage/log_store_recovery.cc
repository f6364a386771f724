#include "storage/log_store_recovery.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "storage/segment.h"
#include "storage/segment_rewrite.h"

namespace sluice::storage {
namespace {

constexpr int64_t kPendingBytesMax = 32 << 20;
constexpr size_t kWriteBytes = 1 << 20;

absl::Status RemoveIfThere(FileSystem& fs, const std::string& path) {
  const absl::Status status = fs.Remove(path);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

std::optional<PartitionId> ParsePartition(const std::string& name) {
  int32_t number = 0;
  if (!absl::SimpleAtoi(name, &number) || number < 0 || std::to_string(number) != name) return std::nullopt;
  return PartitionId(number);
}

}  // namespace

absl::Status RemoveReplicaFiles(FileSystem& fs, const std::string& dir) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(dir));
  for (const std::string& name : names) {
    if (name != kDroppingMarker) SLUICE_RETURN_IF_ERROR(RemoveIfThere(fs, absl::StrCat(dir, "/", name)));
  }
  return fs.SyncDir(dir);
}

absl::Status RemoveReplicaFolder(FileSystem& fs, const std::string& dir) {
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(dir));
  if (!there) return absl::OkStatus();
  // The marker goes only once the rest surely has.
  SLUICE_RETURN_IF_ERROR(RemoveReplicaFiles(fs, dir));
  SLUICE_RETURN_IF_ERROR(RemoveIfThere(fs, absl::StrCat(dir, "/", kDroppingMarker)));
  SLUICE_RETURN_IF_ERROR(fs.RemoveDir(dir));
  // The topic's folder goes with its last replica; it is refused while it has another.
  (void)fs.RemoveDir(dir.substr(0, dir.rfind('/')));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ReplicaFolder>> ListReplicaFolders(FileSystem& fs, const std::string& topics_dir) {
  std::vector<ReplicaFolder> found;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> topics, fs.List(topics_dir));
  for (const std::string& topic : topics) {
    const std::optional<Uuid> id = Uuid::Parse(topic);
    if (!id || id->ToString() != topic) continue;
    const std::string topic_dir = absl::StrCat(topics_dir, "/", topic);
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> partitions, fs.List(topic_dir));
    for (const std::string& name : partitions) {
      const std::optional<PartitionId> partition = ParsePartition(name);
      if (partition) found.push_back({{*id, *partition}, absl::StrCat(topic_dir, "/", name)});
    }
  }
  return found;
}

absl::Status Recovery::OnState(const JournalState& state) {
  state_ = state;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<ReplicaFolder> folders, ListReplicaFolders(fs_, topics_dir_));
  for (const ReplicaFolder& folder : folders) SLUICE_RETURN_IF_ERROR(CheckFolder(folder.replica, folder.path));
  for (const auto& [replica, known] : state_.replicas()) {
    absl::Status checked = CheckReplica(replica, known);
    if (absl::IsDataLoss(checked)) {
      // The others have no part in it.
      for (const SegmentState& segment : known.segments) segments_.erase(Key{replica, segment.id});
      damaged_.emplace(replica, std::move(checked));
      continue;
    }
    SLUICE_RETURN_IF_ERROR(checked);
  }
  return absl::OkStatus();
}

void Recovery::NoteRemoved(const std::string& path, std::string_view why) {
  ++files_removed_;
  if (on_removed_) on_removed_(path, why);
}

absl::Status Recovery::CheckFolder(const ReplicaId& replica, const std::string& dir) {
  SLUICE_ASSIGN_OR_RETURN(const auto names, fs_.List(dir));
  const bool dropping = std::find(names.begin(), names.end(), kDroppingMarker) != names.end();
  const ReplicaState* known = state_.Find(replica);
  if (known == nullptr) {
    if (dropping || names.empty()) {
      SLUICE_RETURN_IF_ERROR(RemoveReplicaFolder(fs_, dir));
      for (const std::string& name : names) {
        if (name != kDroppingMarker) NoteRemoved(absl::StrCat(dir, "/", name), "its replica was dropped");
      }
      return absl::OkStatus();
    }
    const std::string held = absl::StrCat(dir, ": holds ", names.size(), " files of a replica that ");
    if (state_.replicas().empty()) {
      return absl::DataLossError(absl::StrCat(
          held, "nothing dropped, and the journal knows no replica at all: its files were lost, or replaced"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat(held,
                     "the journal does not know and that nothing dropped; was the journal replaced, or the folder "
                     "copied here? Move it away to start without it"));
  }
  // The drop was not journaled: then it never happened.
  if (dropping) SLUICE_RETURN_IF_ERROR(RemoveIfThere(fs_, absl::StrCat(dir, "/", kDroppingMarker)));
  for (const std::string& name : names) {
    const std::optional<SegmentId> id = ParseSegmentFileName(name);
    const bool listed = id.has_value() && known->Find(*id) != nullptr;
    // A segment that was being written anew is not in place yet: the old one counts.
    if (listed || (!id && !absl::EndsWith(name, kRewriteEnding))) continue;
    const std::string path = absl::StrCat(dir, "/", name);
    SLUICE_RETURN_IF_ERROR(RemoveIfThere(fs_, path));
    NoteRemoved(path,
                id ? "the journal lists no such segment: its records were deleted or truncated, or it was put here"
                   : "a segment was being written anew when the process ended, and the old file counts");
  }
  return absl::OkStatus();
}

absl::Status Recovery::CheckReplica(const ReplicaId& replica, const ReplicaState& known) {
  const std::string dir = absl::StrCat(topics_dir_, "/", replica.ToString());
  for (const SegmentState& segment : known.segments) {
    Rewrite entry{.path = SegmentPath(dir, segment.id),
                  .end_position = segment.end_position,
                  .done = known.SyncedBytes(segment),
                  .pending = {}};
    auto file = fs_.Open(entry.path, {});
    if (file.ok()) {
      SLUICE_ASSIGN_OR_RETURN(entry.file_bytes, (*file)->Size());
    } else if (!absl::IsNotFound(file.status())) {
      return std::move(file).status();
    }
    if (std::max<int64_t>(entry.file_bytes, 0) < entry.done) {
      return absl::DataLossError(entry.file_bytes < 0
                                     ? absl::StrCat(entry.path, ": the file is missing; expected ", entry.done,
                                                    " synced bytes from offset ", segment.id.base.value(), " on")
                                     : absl::StrCat(entry.path, ": at byte ", entry.file_bytes,
                                                    ": the file ends; expected ", entry.done, " synced bytes"));
    }
    segments_.emplace(Key{replica, segment.id}, std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status Recovery::OnAppend(const AppendRecord& append) {
  auto at = segments_.find({append.replica, append.segment});
  if (at == segments_.end()) return absl::OkStatus();
  Rewrite& segment = at->second;
  const int64_t end = append.position + static_cast<int64_t>(append.bytes.size());
  if (end <= segment.done) return absl::OkStatus();
  if (append.position > segment.done) {
    return absl::DataLossError(absl::StrCat(segment.path, ": at byte ", segment.done, ": the journal goes on at byte ",
                                            append.position, "; what lies between is in neither"));
  }
  const std::string_view bytes = append.bytes.view().substr(static_cast<size_t>(segment.done - append.position));
  segment.pending.append(bytes);
  segment.done = end;
  pending_bytes_ += static_cast<int64_t>(bytes.size());
  if (segment.pending.size() >= kWriteBytes) return Write(append.replica, segment);
  if (pending_bytes_ < kPendingBytesMax) return absl::OkStatus();
  for (auto& [key, each] : segments_) SLUICE_RETURN_IF_ERROR(Write(key.first, each));
  return absl::OkStatus();
}

absl::Status Recovery::Write(const ReplicaId& replica, Rewrite& segment) {
  if (segment.pending.empty()) return absl::OkStatus();
  const auto mode = segment.file_bytes < 0 ? OpenOptions::Mode::kCreateNew : OpenOptions::Mode::kReadWrite;
  auto opened = fs_.Open(segment.path, {.mode = mode});
  if (segment.file_bytes < 0 && absl::IsNotFound(opened.status())) {
    SLUICE_RETURN_IF_ERROR(fs_.CreateDirs(absl::StrCat(topics_dir_, "/", replica.ToString())));
    opened = fs_.Open(segment.path, {.mode = mode});
  }
  SLUICE_ASSIGN_OR_RETURN(const auto file, std::move(opened));
  const int64_t size = static_cast<int64_t>(segment.pending.size());
  SLUICE_RETURN_IF_ERROR(file->WriteAt(segment.done - size, segment.pending));
  segment.file_bytes = std::max(segment.file_bytes, segment.done);
  segment.pending = {};
  pending_bytes_ -= size;
  bytes_rewritten_ += size;
  return absl::OkStatus();
}

absl::Status Recovery::Finish() {
  for (auto& [key, segment] : segments_) {
    SLUICE_RETURN_IF_ERROR(Write(key.first, segment));
    if (segment.done < segment.end_position) {
      return absl::DataLossError(absl::StrCat(segment.path, ": at byte ", segment.done, ": expected bytes up to ",
                                              segment.end_position, ", which are not in the journal any more"));
    }
    // What follows is the padding of a last block, or was written and never acknowledged.
    if (segment.file_bytes > segment.end_position) {
      SLUICE_ASSIGN_OR_RETURN(const auto file, fs_.Open(segment.path, {.mode = OpenOptions::Mode::kReadWrite}));
      SLUICE_RETURN_IF_ERROR(file->Truncate(segment.end_position));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::storage
