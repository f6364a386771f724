#include "broker/data_folder.h"

#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "common/config.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr int64_t kFileBytesMax = 64 << 10;

/// The metadata store's folder: RocksDB makes it, but not so that its name survives a power loss.
absl::Status MakeMetaDir(FileSystem& fs, const std::string& data_dir) {
  const std::string path = data_dir + "/meta";
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(path));
  if (there) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(fs.CreateDirs(path));
  return fs.SyncDir(data_dir);
}

absl::StatusOr<DataFolder> ReadIdentity(FileSystem& fs, const std::string& path, NodeId node) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(fs, path, kFileBytesMax));
  const auto damaged = [](const absl::Status& status) {
    return absl::DataLossError(Cat("a damaged node.yaml: ", Message(status)));
  };
  auto file = ConfigFile::Parse(path, text);
  if (!file.ok()) return damaged(file.status());
  const ConfigNode root = file->root();
  for (const char* key : {"cluster_id", "node_id", "disk_id", "format_version"}) root.Require(key);
  const int64_t version = root.Int("format_version", 0);
  if (version > kDataFormatVersion) {
    return absl::FailedPreconditionError(Cat(path, ": the folder has format version ", version, ", this program reads ",
                                             kDataFormatVersion, " and before: use a newer one"));
  }
  DataFolder folder;
  folder.node_id = NodeId(static_cast<int32_t>(root.Int("node_id", 0, {1, std::numeric_limits<int32_t>::max()})));
  folder.joins = root.Bool("joins", false);
  folder.had_group0 = root.Bool("group0", false);
  for (const auto& [key, id] : {std::pair{"cluster_id", &folder.cluster_id}, std::pair{"disk_id", &folder.disk_id}}) {
    const auto parsed = Uuid::Parse(root.String(key, ""));
    if (parsed.has_value() && (!parsed->IsNil() || (folder.joins && id == &folder.cluster_id))) {
      *id = *parsed;
    } else if (root.Has(key)) {
      root.AddError(key, "is no UUID");
    }
  }
  if (absl::Status sound = file->Finish(); !sound.ok()) return damaged(sound);
  // One that was never let in is nobody's yet, so its number is what the configuration says.
  if (folder.joins && folder.cluster_id.IsNil() && !folder.had_group0) folder.node_id = node;
  if (folder.node_id != node) {
    return absl::FailedPreconditionError(
        Cat(path, ": the folder is node ", folder.node_id, "'s, the configuration says node.id: ", node));
  }
  return folder;
}

absl::Status WriteIdentity(FileSystem& fs, const std::string& path, const DataFolder& folder) {
  std::string text = Cat("# Written by sluiced; never edited.\n", "cluster_id: ", folder.cluster_id,
                         "\nnode_id: ", folder.node_id, "\ndisk_id: ", folder.disk_id, "\n");
  if (folder.joins) text += "joins: true\n";
  if (folder.had_group0) text += "group0: true\n";
  return WriteWholeFile(fs, path, Cat(text, "format_version: ", kDataFormatVersion, "\n"));
}

absl::Status MakeDataDir(FileSystem& fs, const std::string& data_dir) {
  const auto named = [](const absl::Status& status) {
    return absl::Status(status.code(), Cat("node.data_dir: ", Message(status)));
  };
  const absl::StatusOr<bool> there = fs.Exists(data_dir);
  if (!there.ok()) return named(there.status());
  if (*there) {
    const absl::StatusOr<bool> folder = fs.IsDir(data_dir);
    if (!folder.ok()) return named(folder.status());
    if (!*folder) {
      return absl::FailedPreconditionError(
          Cat("node.data_dir: ", data_dir, " is a file and not a folder: name another, or move it away"));
    }
  }
  const absl::Status made = fs.CreateDirs(data_dir);
  return made.ok() ? made : named(made);
}

// What an operator can do about a folder that has lost what it stands on.
std::string WaysOut(const std::string& data_dir) {
  return Cat(
      "Bring journal/ and meta/ back, together with topics/, from one copy of the whole folder. If there is none ",
      "and other nodes of the cluster live, start a node with an empty node.data_dir, a new node.id and ",
      "cluster.seeds. A node that is alone and has no copy has lost its topics: move the folder away, begin a ",
      "new one and produce again from the source, or from what `sluice log dump ", data_dir,
      "/topics/ID/PARTITION --records` finds");
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<DataFolder> OpenDataFolder(FileSystem& fs, const std::string& data_dir, NodeId node, Random& random,
                                          FolderFor made_for) {
  SLUICE_RETURN_IF_ERROR(MakeDataDir(fs, data_dir));
  auto lock = fs.LockFile(data_dir + "/LOCK");
  if (!lock.ok()) {
    if (!absl::IsFailedPrecondition(lock.status())) return lock.status();
    return absl::FailedPreconditionError(
        Cat("the data folder ", data_dir, " is in use by another process: ", Message(lock.status())));
  }
  const std::string path = data_dir + "/node.yaml";
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(path));
  if (there) {
    SLUICE_ASSIGN_OR_RETURN(DataFolder folder, ReadIdentity(fs, path, node));
    SLUICE_RETURN_IF_ERROR(MakeMetaDir(fs, data_dir));
    return folder;
  }

  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(data_dir));
  const std::set<std::string> harmless = {"LOCK", "node.yaml.tmp", "lost+found"};
  const std::set<std::string> ours = {"journal", "topics", "meta"};
  for (const auto& name : names) {
    if (harmless.contains(name)) continue;
    return absl::FailedPreconditionError(
        ours.contains(name) ? Cat(data_dir, " has ", name, "/ but no node.yaml: a part of the folder is missing")
                            : Cat(data_dir, " has ", name, " in it and no node.yaml: it is not a folder of sluiced; ",
                                  "name an empty one in node.data_dir"));
  }
  DataFolder folder;
  folder.node_id = node;
  folder.created = true;
  folder.joins = made_for == FolderFor::kClusterThatIs;
  for (Uuid* id : {&folder.cluster_id, &folder.disk_id}) {
    if (folder.joins && id == &folder.cluster_id) continue;
    const uint64_t high = random.Next();
    *id = Uuid::FromRandom(high, random.Next());
  }
  SLUICE_RETURN_IF_ERROR(fs.SyncDir(ParentOf(data_dir)));
  SLUICE_RETURN_IF_ERROR(WriteIdentity(fs, path, folder));
  SLUICE_RETURN_IF_ERROR(MakeMetaDir(fs, data_dir));
  return folder;
}

absl::Status WriteCluster(FileSystem& fs, const std::string& data_dir, DataFolder* folder, const Uuid& cluster_id) {
  DataFolder joined = *folder;
  joined.cluster_id = cluster_id;
  SLUICE_RETURN_IF_ERROR(WriteIdentity(fs, data_dir + "/node.yaml", joined));
  folder->cluster_id = cluster_id;
  return absl::OkStatus();
}

absl::Status NoteGroup0(FileSystem& fs, const std::string& data_dir, DataFolder* folder) {
  DataFolder noted = *folder;
  noted.had_group0 = true;
  SLUICE_RETURN_IF_ERROR(WriteIdentity(fs, data_dir + "/node.yaml", noted));
  folder->had_group0 = true;
  return absl::OkStatus();
}

absl::Status CheckJournalIsThere(FileSystem& fs, const std::string& data_dir, const DataFolder& folder) {
  if (!folder.had_group0) return absl::OkStatus();
  const std::string journal = data_dir + "/journal";
  SLUICE_ASSIGN_OR_RETURN(const bool there, fs.Exists(journal));
  if (there) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(journal));
    for (const std::string& name : names) {
      if (name.ends_with(".journal")) return absl::OkStatus();
    }
  }
  return absl::FailedPreconditionError(Cat("the data folder ", data_dir, " of node ", folder.node_id,
                                           " has no file in ", "journal/, and it had a replica of the log of cluster ",
                                           folder.cluster_id, ": the journal was deleted or not copied. ",
                                           WaysOut(data_dir)));
}

absl::Status WithWaysOut(const std::string& data_dir, absl::Status status) {
  if (!absl::IsDataLoss(status)) return status;
  return absl::DataLossError(Cat(Message(status), ". ", WaysOut(data_dir)));
}

absl::Status CheckGroup0(const std::string& data_dir, const DataFolder& folder, bool has_group0) {
  if (has_group0 || !folder.had_group0) return absl::OkStatus();
  return absl::FailedPreconditionError(Cat(
      "the data folder ", data_dir, " of node ", folder.node_id, " had a replica of the log of cluster ",
      folder.cluster_id, ", and it is not there any more: journal/ and meta/ were deleted, or are those of another ",
      "folder. ", WaysOut(data_dir)));
}

}  // namespace sluice::broker
