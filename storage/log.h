// Log: one replica's segment log. What is appended is durable once the shared journal has it; segment files are written
// behind the journal, and until a batch stands in its file it stays in memory, so that a read never misses what only
// the journal has.
//
// Always holds:
//  - batches tile from the first segment's base to log_end(); epochs never go back;
//  - log_start() <= log_end(); durable_end() <= log_end(); everything below durable_end() survives a power loss;
//  - a batch's bytes are written to its segment once; a truncation closes the segment, the next append opens another;
//  - Truncate, Reset and SetLogStart are durable in the journal before any file is touched;
//  - calls take effect in the order made: what a later read or append sees includes every earlier call.
// Threads: every method is called on, and every callback runs on, the home executor (the partition's shard), unless it
// says otherwise; callbacks never inside the call. File work runs on the environment's blocking executors.
// Errors: ResourceExhausted (disk, journal or memory full: nothing was appended), FailedPrecondition (does not fit the
// log), Unavailable (stopped), DataLoss (a file is damaged; names file and byte). After a failed segment sync appends
// are Unavailable, with a message that tells why, until the segment has been written anew from the journal; it is tried
// again and again, at most once a minute. After a failed journal write every append is refused for good: the process
// stops.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/record/batch.h"
#include "common/types.h"
#include "storage/append_place.h"
#include "storage/index.h"
#include "storage/journal.h"
#include "storage/segment.h"

namespace sluice::storage {

/// What the logs of one store share. Thread-safe.
struct LogShared {
  explicit LogShared(int64_t bytes_max) : cache_bytes_max(bytes_max) {}
  const int64_t cache_bytes_max;        ///< Batches in memory, of all logs; appends beyond it are refused.
  std::atomic<int64_t> cache_bytes{0};  ///< Batches in memory now.
  /// Of those, what is durable and not yet in a segment file that can be written. Beyond a quarter of cache_bytes_max
  /// the journal slows down, so that producers wait a little where they would otherwise soon be refused.
  std::atomic<int64_t> behind_bytes{0};
  bool segments_lag() const { return behind_bytes > cache_bytes_max / 4; }
  /// Small writes are better than none: much waits for them, over all logs.
  bool writes_wanted() const { return behind_bytes > cache_bytes_max / 8; }
  std::atomic<bool> disk_full{false};  ///< Free space is below the low watermark.

  /// SyncDir, but for a folder of which this was done before, which is enough for names that were there already when
  /// the store was opened: so say `was_there`.
  absl::Status SyncFolder(FileSystem& fs, const std::string& path, bool was_there);

 private:
  std::mutex mutex_;
  std::set<std::string> folders_synced_;
};

/// What a log stands on; all of it outlives the log.
struct LogEnvironment {
  FileSystem* fs = nullptr;
  Clock* clock = nullptr;
  std::shared_ptr<Journal> journal;
  BlockingExecutor* segment_io = nullptr;
  BlockingExecutor* cold_reads = nullptr;
  std::shared_ptr<LogShared> shared;
};

struct LogOptions {
  int64_t segment_bytes = int64_t{1} << 30;       ///< A segment that would grow beyond it is closed (segment.bytes).
  absl::Duration segment_age = absl::Hours(168);  ///< One older than this at an append is closed (segment.ms).
  int64_t index_interval_bytes = SparseIndex::kDefaultIntervalBytes;
  int64_t write_bytes = 256 << 10;  ///< Segment writes wait until they have this much.
  int64_t sync_bytes =
      8 << 20;  ///< Written and not synced: beyond it a checkpoint begins, so that none has much to do.
  int64_t carry_bytes = 64 << 10;  ///< Up to this much is rather journaled again than written and synced.
};

/// When an epoch's first batch begins.
struct EpochStart {
  LeaderEpoch epoch;
  Offset start;
  bool operator==(const EpochStart&) const = default;
};

struct SegmentInfo {
  SegmentId id;
  Offset next_offset;
  int64_t size_bytes = 0;
  int64_t max_timestamp_ms = 0;
  bool active = false;  ///< Further appends may go here.
};

/// A segment file that changes no more, and what it must hold.
struct ClosedSegment {
  std::string path;
  SegmentState state;
  bool operator==(const ClosedSegment&) const = default;
};

class SegmentRewrite;

class Log : public std::enable_shared_from_this<Log> {
 public:
  template <class T>
  using Callback = absl::AnyInvocable<void(T)>;
  using Done = Callback<absl::Status>;

  /// Of a replica as the registry has it, files already rewritten up to its end. Made by LogStore.
  Log(LogEnvironment environment, Executor& home, ReplicaId replica, std::string dir, ReplicaState state,
      LogOptions options);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // ---- Changes; `done` once durable in the journal

  /// What the limits on disk and memory do to an append, and a segment that is being written anew. Control batches are
  /// essential: they are small, and a full disk must not keep a leader from starting, nor retention from freeing space.
  enum class Urgency { kNormal, kEssential };
  /// Batches that continue the log. A refusal appends none of them. Unknown when the journal failed.
  void Append(std::vector<record::Batch> batches, Done done, Urgency urgency = Urgency::kNormal);
  /// Whether an append of this size would be taken now; the status that it would get. Unavailable while a truncation
  /// looks for its place: appends made then wait for it, and log_end() does not count them, so that a leader must not
  /// propose at it.
  absl::Status Admit(int64_t bytes, Urgency urgency = Urgency::kNormal) const;
  /// Drops everything from `new_end` on, which is the end of a batch, at or above the log start. Appends and other
  /// changes made meanwhile wait for it.
  void Truncate(Offset new_end, Done done);
  /// Empties the log; it starts and ends at `offset`.
  void Reset(Offset offset, Done done);
  /// Moves the log start up (lower changes nothing) and deletes whole segments below it. OutOfRange beyond the end.
  void SetLogStart(Offset offset, Done done);
  void SaveHardState(HardState state, Done done);
  /// Replaces the replica's Raft state, which is opaque here.
  void SaveRaftConfig(Bytes config, Done done);
  /// The next append opens a new segment. Lets retention delete what is now the active one.
  void CloseActiveSegment() { close_active_ = true; }

  // ---- Reads

  /// Whole batches from the one that holds `offset`, none that begins at or after `limit`, up to `bytes_max` but at
  /// least one; empty at the end. May return less than there is: read on. OutOfRange below log_start or above log_end.
  void Read(Offset offset, Offset limit, int64_t bytes_max, Callback<absl::StatusOr<std::vector<record::Batch>>> done);
  /// An offset at or below which no batch is as late as `timestamp_ms`, near the first that is: read on from there.
  void SeekTimestamp(int64_t timestamp_ms, Callback<absl::StatusOr<Offset>> done);
  /// The last batch that is not a control batch: its next offset; nullopt when there is none.
  void FindDataEnd(Callback<absl::StatusOr<std::optional<Offset>>> done);
  /// Reads every closed segment whole and compares it with its checksum in the registry.
  void Scrub(Done done);

  // ---- Upkeep (LogStore)

  /// Which index files a checkpoint writes: of segments that are closed or have grown by much, or of all.
  enum class Indexes { kGrown, kAll };
  /// Writes and syncs what is durable in the journal, then lets the journal forget it.
  void Checkpoint(Done done, Indexes indexes = Indexes::kGrown);
  /// Lets the journal's older files go without a sync: submits again, unchanged, all that only the journal holds. False
  /// when that is more than carry_bytes or not in memory any more; then only a checkpoint helps. `done` may be null.
  bool CarryForward(Done done);
  /// What the journal holds of it until a checkpoint.
  int64_t uncheckpointed_bytes() const;
  /// Starts segment writes however little there is.
  void FlushSoon();
  /// Lets go of batches that stand in their files.
  void DropCache();
  /// Refuses further changes. `done` once nothing of this log is under way in the journal or on a blocking executor.
  void Stop(Done done);
  /// As LogStore::Abandon.
  void Abandon() {
    checkpoints_waiting_.clear();
    checkpoints_running_.clear();
    held_.clear();
    stop_done_.clear();
  }

  // ---- Facts

  const ReplicaId& replica() const { return replica_; }
  const std::string& dir() const { return dir_; }
  /// For who makes the memory of batches that will be appended; any thread.
  const std::shared_ptr<AppendPlace>& append_place() const { return append_place_; }
  Executor& home() const { return home_; }  // any thread
  Offset log_start() const { return state().log_start; }
  Offset log_end() const { return state().next_offset; }
  Offset durable_end() const { return durable_end_; }
  const HardState& hard_state() const { return state().hard_state; }
  /// As last saved; empty where nothing was.
  const Bytes& raft_config() const { return state().raft_config; }
  const Uuid& incarnation() const { return state().incarnation; }
  /// Epoch of the last batch; 0 when the log is empty.
  LeaderEpoch last_epoch() const;
  /// Ascending in both; of what the log still has.
  std::vector<EpochStart> epoch_history() const;
  int64_t size_bytes() const;
  std::vector<SegmentInfo> segments() const;
  std::vector<ClosedSegment> closed_segments() const;
  const LogOptions& options() const { return options_; }
  void set_options(const LogOptions& options) { options_ = options; }
  /// Why appends are refused for good; OK while they are not.
  const absl::Status& failure() const { return failure_; }

 private:
  /// One segment file. Shared with the tasks that work on it.
  struct Segment {
    SegmentId id;
    std::string path;
    std::string index_path;
    std::unique_ptr<SparseIndex> index;  ///< Null when it is to be loaded.
    int64_t accepted = 0;                ///< Bytes that `file` has taken.
    int64_t flushed = 0;                 ///< Bytes that stand in the file.
    int64_t synced = 0;                  ///< Bytes that survive a power loss.
    int64_t index_written = 0;           ///< What the index file covers.
    std::optional<int64_t> closed_at;    ///< Final size, once it is known.
    bool finished = false;               ///< Cut to closed_at.
    bool created = false;                ///< `file` is there.
    bool dir_synced = false;             ///< The file's name survives a power loss.
    absl::Duration opened_at;            ///< Monotonic.
    int rewrites = 0;                    ///< Times that the file was written anew after a failed sync.
    /// Used only by the segment task under way.
    std::unique_ptr<SegmentFile> file;
  };
  using SegmentPtr = std::shared_ptr<Segment>;

  /// A batch in memory. Ends at log_end; everything not yet flushed is here.
  struct Tail {
    record::Batch batch;
    SegmentPtr segment;
    int64_t position = 0;
    uint32_t crc_before = 0;  ///< Of the segment's bytes [0, position).
    int64_t max_timestamp_before = 0;
    int64_t end() const { return position + static_cast<int64_t>(batch.size_bytes()); }
  };

  const ReplicaState& state() const { return *registry_.Find(replica_); }
  absl::Status CheckOpen() const;
  void Answer(Done done, absl::Status status);
  AppendRecord RecordOf(const record::Batch& batch, SegmentId segment, int64_t position) const;
  /// Takes `record` into the registry's mirror, which must accept it.
  void Apply(const JournalRecord& record);
  void Submit(JournalRecord record, Done durable);
  void Submit(Journal::Entry entry, Done durable);
  void Fail(const absl::Status& status, const char* what);
  void EndOne();
  absl::Status CheckFits(const std::vector<record::Batch>& batches) const;
  /// The segment that `batch` goes to, and its position there.
  std::pair<SegmentPtr, int64_t> PlaceFor(const record::Batch& batch);

  // log_change.cc
  void FindTruncation(TruncateRecord record, const SegmentState& keep, Done done);
  void ApplyTruncate(TruncateRecord record, Done done);
  void RemoveOnceDurable(JournalRecord record, Done done);
  /// Parts with the segments that the registry no longer lists.
  std::vector<SegmentPtr> TakeUnlisted();
  void PopTail();
  void DropTailFrom(Offset from);

  // log_write.cc: one driver decides what the segment files need next; at most one task is under way
  void Pump();
  bool PumpRemoval();
  bool PumpFinish();
  bool PumpWrite();
  /// Writes the partly filled block that the active segment ends in.
  bool PumpTail();
  bool PumpCheckpoint();
  bool SyncNext();
  void OnFolderSyncFailed(const absl::Status& status);
  /// The next checkpoint writes its index file and then lets go of it.
  void IndexLater(const SegmentPtr& segment);
  bool WriteIndexNext();
  /// Runs `work` on the segment executor, then `then` here, then Pump.
  void RunTask(absl::AnyInvocable<absl::Status()> work, Done then);
  void OnWriteFailed(absl::Status status);
  /// Pumps again at that time.
  void PumpAt(absl::Duration when);
  void CountTail();
  void CountBehind();
  void AddBehind(int64_t bytes);
  void CountForLag(bool counts);
  void EvictTail(int64_t cache_bytes_max);
  void SubmitCheckpoint();
  void AnswerCheckpoints(const absl::Status& status);
  bool WriteWanted() const;

  // log_heal.cc
  void OnSyncFailed(const SegmentPtr& segment, const absl::Status& status);
  void SetHealError(const absl::Status& status);
  bool IsDoubtful(const SegmentPtr& segment) const;
  bool PumpHeal();
  void OnHealFailed(const absl::Status& status);
  void OnInstalled(const SegmentPtr& segment, const SegmentState& target, const absl::Status& status);

  // log_read.cc
  void ReadFile(Offset offset, Offset limit, int64_t bytes_max,
                Callback<absl::StatusOr<std::vector<record::Batch>>> done);
  SegmentView ViewOf(const SegmentState& segment) const;
  SegmentPtr Runtime(SegmentId id) const;
  void KeepIndex(SegmentId id, SparseIndex index);
  void BoundIndexes(const SegmentPtr& used);
  /// Runs `work` on the cold-read executor, then `done` here.
  template <class T>
  void RunCold(absl::AnyInvocable<absl::StatusOr<T>()> work, Callback<absl::StatusOr<T>> done);

  const LogEnvironment env_;
  Executor& home_;
  const ReplicaId replica_;
  const std::string dir_;
  LogOptions options_;
  const std::shared_ptr<AppendPlace> append_place_ = std::make_shared<AppendPlace>();

  JournalState registry_;  ///< Mirror of the journal's registry, of this replica only, with everything submitted.
  Offset durable_end_;
  uint64_t generation_ = 0;  ///< Of truncations: an append that one overtook does not move durable_end_.
  std::map<SegmentId, SegmentPtr> segments_;
  SegmentPtr active_;  ///< Null: the next append opens one.
  bool close_active_ = false;

  std::deque<Tail> tail_;
  size_t tail_accepted_ = 0;  ///< Of tail_, from its front: taken by segment files.
  size_t tail_flushed_ = 0;   ///< The same: stand in segment files.
  size_t tail_durable_ = 0;   ///< The same: durable in the journal, and counted in behind_bytes_ unless flushed.
  int64_t behind_bytes_ = 0;
  bool counts_for_lag_ = true;  ///< Not while writes fail: no waiting helps, and other logs must not wait for this one.
  int64_t tail_bytes_ = 0;

  std::deque<SegmentPtr> unfinished_;  ///< Closed, to be cut to size, in order.
  std::deque<SegmentPtr> removals_;
  bool task_running_ = false;
  bool flush_asked_ = false;
  int64_t written_unsynced_ = 0;  ///< Since a checkpoint last began to sync.
  absl::Status write_error_;      ///< Why the last segment write failed; writes are tried again.
  absl::Duration retry_at_;
  bool retry_timer_ = false;
  const bool folder_was_there_;  ///< When the store was opened.
  bool dirs_synced_ = false;     ///< Of the replica's folder and those above it.
  bool index_all_ = false;       ///< Also of segments that still grow.
  std::vector<Done> checkpoints_waiting_;
  std::vector<Done> checkpoints_running_;
  /// What a running checkpoint does: write what is durable up to checkpoint_target_, then sync, then index files.
  enum class CheckpointStep { kIdle, kWriting, kTail, kSyncing, kIndexing, kSubmitted };
  CheckpointStep checkpoint_step_ = CheckpointStep::kIdle;
  Offset checkpoint_target_;
  std::deque<std::pair<SegmentPtr, int64_t>> to_sync_;
  std::deque<SegmentPtr> to_index_;
  std::deque<SegmentPtr> indexes_loaded_;  ///< Of closed segments, oldest first; bounded.

  std::deque<SegmentPtr> doubtful_;  ///< Their sync failed; to be written anew, nothing else is written meanwhile.
  absl::Status heal_error_;          ///< What appends are told while there is any.
  absl::Duration heal_retry_at_;
  int heal_failures_ = 0;                 ///< In a row.
  std::shared_ptr<SegmentRewrite> heal_;  ///< Of the first of doubtful_; null: to be begun.
  bool heal_written_ = false;             ///< It is whole and synced, and may be put in place.

  bool holding_ = false;  ///< A truncation looks for its place; changes wait in held_.
  std::deque<absl::AnyInvocable<void()>> held_;

  absl::Status failure_;
  bool stopped_ = false;
  int64_t submitted_ = 0;  ///< Journal entries that are not answered yet.
  int64_t under_way_ = 0;  ///< Journal entries, segment tasks, cold reads.
  std::vector<Done> stop_done_;
};

// A template of log_read.cc that log_change.cc uses too.
template <class T>
void Log::RunCold(absl::AnyInvocable<absl::StatusOr<T>()> work, Callback<absl::StatusOr<T>> done) {
  ++under_way_;
  env_.cold_reads->Post([self = shared_from_this(), work = std::move(work), done = std::move(done)]() mutable {
    absl::StatusOr<T> result = work();
    Executor& home = self->home_;
    home.Post([self = std::move(self), result = std::move(result), done = std::move(done)]() mutable {
      done(std::move(result));
      self->EndOne();
    });
  });
}

}  // namespace sluice::storage
