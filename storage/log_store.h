// LogStore: all logs of one data folder, that is, of one disk: the lock, the journal they share, recovery, creation and
// removal of replicas, checkpoints, and the watch over free space.
//
// Always holds:
//  - the journal is the only registry: a replica exists once its creation is durable there, is gone once its drop is;
//  - no file of a replica is removed before its drop is durable; a folder that the registry does not know and that no
//    drop explains is an error to explain, never deleted;
//  - after Open every segment file has exactly the bytes that the registry lists.
// Threads: Open blocks. The other methods may be called from any thread; their callbacks run on the home executor given
// to Open. A Log belongs to the executor that it was attached to.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/journal.h"
#include "storage/log.h"
#include "storage/scrubber.h"

namespace sluice::storage {

class Checkpointer;
class DiskReserve;

struct LogStoreOptions {
  std::string data_dir;                      ///< Absolute or relative, without a slash at its end. Made when missing.
  JournalOptions journal;                    ///< `dir` is set here to "<data_dir>/journal", prepare_io to segment_io.
  int64_t cache_bytes = int64_t{256} << 20;  ///< Batches in memory, of all logs.
  int64_t disk_low_watermark_bytes = int64_t{1} << 30;   ///< Below this much free space appends are refused …
  int64_t disk_high_watermark_bytes = int64_t{2} << 30;  ///< … until there is this much again.
  int64_t reserve_bytes = 0;  ///< Kept aside in a file of its own for starting on a full disk; 0: none.
  ScrubOptions scrub;
  /// Told of every file that recovery has removed, and why; by Open, on its thread.
  std::function<void(const std::string& path, std::string_view why)> on_removed;
  absl::Duration tick = absl::Seconds(1);                  ///< How often space and memory are looked at.
  absl::Duration checkpoint_interval = absl::Seconds(60);  ///< How often a log with much to sync is.
  /// How long a stop may checkpoint, so that the next start has nothing to write from the journal.
  absl::Duration stop_checkpoints_max = absl::Seconds(5);
};

/// What a store runs on; all of it outlives the store.
struct LogStoreExecutors {
  Executor* home = nullptr;                ///< Callbacks and timers of the store.
  BlockingExecutor* journal_io = nullptr;  ///< One thread, for the journal alone.
  BlockingExecutor* segment_io = nullptr;  ///< Segment writes and syncs; the journal's next file.
  BlockingExecutor* cold_reads = nullptr;
};

/// What Open found and did.
struct RecoveryReport {
  JournalTail journal;
  int64_t replicas = 0;
  int64_t bytes_rewritten = 0;  ///< Written to segment files from the journal.
  int64_t files_removed = 0;    ///< Left over from segments and replicas that the registry no longer lists.
};

class LogStore : public std::enable_shared_from_this<LogStore> {
 public:
  template <class T>
  using Callback = absl::AnyInvocable<void(T)>;
  using Done = Callback<absl::Status>;

  /// Errors: FailedPrecondition (another process has the folder; a folder of an unknown replica), DataLoss (a file of
  /// the journal is missing, short or damaged; names file, byte and what was expected; or there are folders of replicas
  /// and the journal knows none), otherwise as FileSystem and Journal. A replica whose segments are missing or short is
  /// met at Attach; the others have no part in it.
  static absl::StatusOr<std::shared_ptr<LogStore>> Open(FileSystem& fs, Clock& clock, LogStoreExecutors executors,
                                                        LogStoreOptions options);
  ~LogStore();
  LogStore(const LogStore&) = delete;
  LogStore& operator=(const LogStore&) = delete;

  const RecoveryReport& recovery() const { return recovery_; }
  /// In order; of all, so ask Has for one.
  std::vector<ReplicaId> Replicas() const;
  bool Has(ReplicaId replica) const;

  /// Makes an empty replica; OK as well when it exists with the same incarnation.
  void Create(ReplicaId replica, Uuid incarnation, Done done);
  /// The replica's log, to be used on `home` from now on; once for each replica. NotFound, FailedPrecondition;
  /// DataLoss, which says what is missing, where recovery found less in its files than there must be.
  absl::StatusOr<std::shared_ptr<Log>> Attach(ReplicaId replica, Executor& home, LogOptions options);
  /// The attached log, or null.
  std::shared_ptr<Log> Find(ReplicaId replica) const;
  /// Stops its log, forgets the replica, then removes its files. OK when there is none. After an error the replica is
  /// no longer served, and Drop may be called again; where the disk had no room, its records are gone already.
  void Drop(ReplicaId replica, Done done);

  /// Checkpoints every attached log, one after the other.
  void CheckpointAll(Done done);
  /// Checkpoints what it can in stop_checkpoints_max, then stops logs, checkpointer and journal, each finishing what is
  /// under way; `done` then. Nothing runs afterwards.
  void Stop(Done done);

  /// As Journal::Abandon, of all that is under way.
  void Abandon();

  Journal& journal() { return *journal_; }
  const LogShared& shared() const { return *shared_; }
  ScrubStats scrub_stats() const { return scrubber_->stats(); }

 private:
  friend class Checkpointer;
  struct Entry {
    ReplicaState state;  // until it is attached
    Uuid incarnation;    // from then on
    std::shared_ptr<Log> log;
    bool dropping = false;      // is no longer served
    bool drop_running = false;  // Drop is under way
    absl::Status damaged = {};  // why it cannot be attached
    bool recovered = false;     // segments of it were written from the journal
  };

  LogStore(FileSystem& fs, Clock& clock, LogStoreExecutors executors, LogStoreOptions options);
  std::string DirOf(const ReplicaId& replica) const;
  void Answer(Done done, absl::Status status);
  void Submit(JournalRecord record, Done durable);
  void DropStopped(ReplicaId replica, Offset log_end, Done done);
  void EmptyThenMark(ReplicaId replica, Offset log_end, absl::Status first_error, Done done);
  void DropMarked(ReplicaId replica, Done done);
  void StopLogs(Done done);
  void EndDrop(ReplicaId replica, Done done, absl::Status status);
  absl::Status MarkDropping(const std::string& dir);
  /// Whether the tail of a replica that cannot be opened may be journaled again to free the journal's files: not while
  /// such tails are so large together that this would be most of what the journal writes.
  bool MayCarryDamaged(const ReplicaId& replica) const;
  /// Journals again what the oldest file that holds bytes of that replica has of it.
  void CarryDamaged(const ReplicaId& replica, Done done);
  /// Of attached logs that are not being dropped, in order.
  std::vector<std::shared_ptr<Log>> Logs() const;

  FileSystem& fs_;
  Clock& clock_;
  const LogStoreExecutors executors_;
  const LogStoreOptions options_;
  std::unique_ptr<FileLock> lock_;
  std::shared_ptr<Journal> journal_;
  std::shared_ptr<LogShared> shared_;
  std::shared_ptr<DiskReserve> reserve_;
  RecoveryReport recovery_;

  mutable std::mutex mutex_;  // guards the map and what it holds
  std::map<ReplicaId, Entry> replicas_;
  bool stopping_ = false;
  std::shared_ptr<Checkpointer> checkpointer_;
  std::shared_ptr<Scrubber> scrubber_;
};

}  // namespace sluice::storage
