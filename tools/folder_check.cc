#include "tools/folder_check.h"

#include <algorithm>

#include "common/config.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "storage/log_store_recovery.h"

namespace sluice::tools {
namespace {

constexpr int64_t kIdentityBytesMax = 64 << 10;
constexpr ReplicaId kGroup0{TopicId{}, PartitionId(0)};

// Folders with files of replicas that the journal does not know and that nothing dropped.
absl::StatusOr<std::vector<storage::JournalPlace>> FindStrangers(FileSystem& fs, const std::string& topics_dir,
                                                                 const storage::JournalState& state) {
  std::vector<storage::JournalPlace> found;
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(topics_dir));
  if (!there) return found;
  SLUICE_ASSIGN_OR_RETURN(const auto folders, storage::ListReplicaFolders(fs, topics_dir));
  for (const storage::ReplicaFolder& folder : folders) {
    if (state.Find(folder.replica) != nullptr) continue;
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(folder.path));
    const bool dropping = std::find(names.begin(), names.end(), storage::kDroppingMarker) != names.end();
    if (names.empty() || dropping) continue;
    found.push_back({folder.path, 0,
                     Cat(names.size(), " files of a replica that the journal does not know and that nothing dropped")});
  }
  return found;
}

}  // namespace

absl::StatusOr<FolderIdentity> ReadFolderIdentity(FileSystem& fs, const std::string& data_dir) {
  FolderIdentity identity;
  const std::string path = data_dir + "/node.yaml";
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(path));
  if (!there) return identity;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(fs, path, kIdentityBytesMax));
  const absl::StatusOr<ConfigFile> file = ConfigFile::Parse(path, text);
  if (!file.ok()) return identity;
  identity.disk = Uuid::Parse(file->root().String("disk_id", ""));
  identity.had_group0 = file->root().Bool("group0", false);
  return identity;
}

absl::StatusOr<std::vector<storage::JournalPlace>> FindMissing(FileSystem& fs, const std::string& data_dir,
                                                               const FolderIdentity& identity,
                                                               const storage::ReplayedJournal& journal) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<storage::JournalPlace> missing,
                          FindStrangers(fs, data_dir + "/topics", journal.state));
  const bool lost_group0 = identity.had_group0 && journal.state.Find(kGroup0) == nullptr;
  if (!lost_group0 && (missing.empty() || !journal.state.replicas().empty())) return missing;
  const char* const lost = lost_group0 ? "the replica of the cluster's own log that node.yaml says was here"
                                       : "the replicas that have files in topics/";
  const bool no_file = journal.files.empty();
  missing.insert(missing.begin(), {no_file ? data_dir + "/journal" : journal.files.back().path, 0,
                                   Cat(no_file ? "there is no journal file; expected one that knows "
                                               : "the journal ends in this file and does not know ",
                                       lost)});
  return missing;
}

}  // namespace sluice::tools
