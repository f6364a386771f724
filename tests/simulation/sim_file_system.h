// The file seam in memory, with the ways a disk can fail.
//
// A crash keeps what was synced. Of what was not: each write is kept, lost, or torn into units of 512 or 4096 bytes
// that are kept or lost one by one, in an order drawn anew; creations, renames and removals in a folder survive only up
// to a drawn point unless SyncDir came after them, each folder for itself. A failed Sync loses a part of the unsynced
// writes for good, although they can still be read until the next crash, and a later Sync reports success: as kernels
// do. Direct files check alignment as O_DIRECT does.
//
// Every call that changes something is an operation with a number, from 1; CrashAt(n) stops the world in the middle of
// operation n: it may or may not have happened, and it and every later call fail until Crash() or Kill().
// Threads: any.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "common/file_system.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::simulation {

/// How often each fault has struck, so that a test can tell that it tested something.
struct SimFaultCounts {
  uint64_t crashes = 0;
  uint64_t writes_lost = 0;
  uint64_t writes_torn = 0;
  uint64_t writes_reordered = 0;  // crashes at which surviving writes of a file were put down in another order
  uint64_t writes_kept = 0;       // unsynced, yet survived
  uint64_t names_lost = 0;        // creations, renames, removals
  uint64_t read_errors = 0;
  uint64_t write_errors = 0;
  uint64_t sync_errors = 0;
  uint64_t full = 0;
  uint64_t bits_flipped = 0;
};

class SimFileSystem final : public FileSystem {
 public:
  enum class Call { kRead, kWrite, kSync };  // kSync: of files and folders

  explicit SimFileSystem(uint64_t seed) : random_(seed) {}

  // The seam.
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenOptions options) override;
  absl::Status CreateDirs(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;  // of files
  absl::Status Remove(const std::string& path) override;
  absl::Status RemoveDir(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  absl::StatusOr<bool> Exists(const std::string& path) override;
  absl::StatusOr<bool> IsDir(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(const std::string& path) override;
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) override;

  // Faults.
  /// The `nth` call of that kind from now on, counted from 1, fails with EIO.
  void FailCall(Call call, uint64_t nth);
  /// None of those that were asked for and have not come yet.
  void FailNoCall(Call call);
  /// The next `count` syncs of files whose path ends with `ending` fail with EIO. With `drops`, what such a sync loses
  /// is gone at once also for readers, as with kernels that drop the pages.
  void FailSyncsOf(const std::string& ending, uint64_t count, bool drops = false);
  /// The next `count` files to be made whose path ends with `ending` find no room.
  void FailCreatesOf(const std::string& ending, uint64_t count);
  /// One bit of what the `nth` read from now on returns is wrong; the file itself is not changed.
  void FlipBitOfRead(uint64_t nth);
  /// Writes beyond this many bytes in all files fail; negative: no bound.
  void SetCapacity(int64_t bytes);
  /// With `hidden`, FreeBytes does not know of the capacity: a quota.
  void HideCapacity(bool hidden);
  /// Without, Allocate does nothing, as on file systems that cannot put blocks aside.
  void SetAllocates(bool allocates);
  /// Nothing that was asked for above will fail any more; what has failed has failed.
  void ClearFailures();
  /// Stops the world in operation `n` (compare operations()); 0: never.
  void CrashAt(uint64_t n);
  bool crashed() const;
  uint64_t operations() const;
  SimFaultCounts counts() const;
  /// Power loss and restart: settles what survives. Files opened before are dead, locks are free.
  void Crash();
  /// The process was killed and its machine was not: all that was written can be read, synced or not. Files opened
  /// before are dead, locks are free.
  void Kill();

  // Looking and tampering, without being counted.
  /// All that there are now, by path.
  std::vector<std::string> Files() const;
  /// What a reader sees now; empty when there is no such file.
  std::string Contents(const std::string& path) const;
  /// Replaces a file's contents, durably; makes the file where there is none.
  void SetContents(const std::string& path, std::string contents);
  /// Successful syncs of files whose path ends with `ending`.
  uint64_t SyncsOf(const std::string& ending) const;
  /// What all files take, with what is put aside beyond their ends.
  int64_t UsedBytes() const;

 private:
  friend class SimFile;

  struct Change {  // of a file, since its last sync
    int64_t offset = 0;
    std::string data;
    bool is_truncate = false;  // then `offset` is the new size
  };
  struct Node {
    bool is_dir = false;
    int64_t allocated = 0;        // put aside from the file's begin on; of interest where that is beyond its end
    std::string seen;             // what calls see
    std::string durable;          // what a crash leaves for sure
    std::vector<Change> changes;  // from durable to seen, in order
  };
  using NodePtr = std::shared_ptr<Node>;
  using Names = std::map<std::string, NodePtr>;
  struct NameChange {
    std::string remove;  // empty: none
    std::string add;     // empty: none
    NodePtr node;        // for add
  };

  static void ApplyChange(std::string& contents, const Change& change);
  static void ApplyNameChange(Names& names, const NameChange& change);
  void SettleFile(Node& node);
  void ChangeNames(const std::string& dir, NameChange change);
  // Counts an operation; false when the world stops in the middle of it. `*happens`: whether it takes effect.
  bool Operate(bool* happens);
  void EndProcess();
  absl::Status CheckAlive() const;
  static int64_t UsedBytesOf(const Node& node);
  int64_t UsedBytesLocked() const;

  mutable std::mutex mutex_;  // guards everything below
  SimRandom random_;
  Names names_;
  Names durable_names_;
  std::map<std::string, std::vector<NameChange>> name_changes_;  // by folder, since its SyncDir
  std::map<std::string, std::weak_ptr<int>> locks_;
  uint64_t life_ = 0;  // crashes so far; a file of an earlier life is dead
  uint64_t operations_ = 0;
  uint64_t crash_at_ = 0;
  bool crashed_ = false;
  int64_t capacity_ = -1;
  bool capacity_hidden_ = false;
  bool allocates_ = true;
  std::map<Call, uint64_t> calls_;
  std::map<Call, std::set<uint64_t>> failures_;  // by number of the call
  std::string failing_syncs_of_;
  uint64_t failing_syncs_ = 0;
  bool failing_syncs_drop_ = false;
  std::map<std::string, uint64_t> syncs_;  // by path
  std::string failing_creates_of_;
  uint64_t failing_creates_ = 0;
  std::set<uint64_t> flips_;
  SimFaultCounts counts_;
};

}  // namespace sluice::simulation
