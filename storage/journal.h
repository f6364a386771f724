// The journal: one a node, shared by all its replicas, so that one sync makes every replica's new batches durable.
//
// Entries are queued by any thread, drained in bulk on the journal's own thread, encoded into one aligned frame,
// written and synced; then each entry's `done` runs. Files are prewritten and recycled (docs/formats.md has the
// format). A file can be recycled once nothing that is only in it is still needed, that is, once every append in it is
// covered by a checkpoint, was dropped, or was carried forward into a newer file.
//
// Always holds:
//  - `done` gets OK only after a successful sync of the file that holds the entry, and entries finish in order;
//  - what replay brings back is a prefix of what was submitted that includes everything answered OK;
//  - after a failed write or sync nothing is ever answered OK again by this object, and that file is never synced
//  again:
//    all entries, queued and to come, get the error, and Options::on_fatal is called once so that the process stops.
// Threads: Submit, Admit, AdmitBeyondBound, FailOnFullDisk, OldestFilePins, FilesHolding, PinsOf and stats from any;
// everything else happens on the io executor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/journal_pins.h"
#include "storage/journal_state.h"

namespace sluice::storage {

struct JournalOptions {
  static constexpr absl::Duration kThrottleMax = absl::Milliseconds(200);
  std::string dir;                         // made when missing
  int64_t file_bytes = int64_t{32} << 20;  // a multiple of 4096; a larger opening or entry extends its file
  /// Beyond it Admit refuses, while files before the current one are pinned; pressure begins at half of it.
  int64_t total_bytes_max = int64_t{512} << 20;
  int64_t queued_bytes_max = int64_t{64} << 20;       // waiting for the disk; beyond it Admit refuses
  int64_t gather_bytes = int64_t{1} << 20;            // a group is not held back to grow beyond this
  int64_t group_bytes_max = int64_t{4} << 20;         // what is waiting goes into one group up to this
  absl::Duration gather_max = absl::Milliseconds(1);  // longest a group waits under load; never waits when idle
  Uuid disk;                                          // a journal that opens with another one is refused
  Random* random = nullptr;                           // for file ids; used during Open and on the io executor only
  Executor* timers = nullptr;              // for the wait under load and for retries on a full disk; null: no wait
  BlockingExecutor* prepare_io = nullptr;  // where the next file is made ahead; null: when it is needed, on `io`
  /// Asked before a group: whether what is behind the journal lags, and the group had better wait, which it does for at
  /// most kThrottleMax. Null: never.
  std::function<bool()> lags;
  std::function<void(absl::Status)> on_fatal;  // must not return to normal work: main stops the process
};

/// Where a journal ended when it was opened.
struct JournalTail {
  std::string file;       // path of the last file
  int64_t offset = 0;     // where its valid frames end
  int64_t bytes_cut = 0;  // of frames after that point, which were damaged; 0 is a clean end
  /// Nothing was cut. False: a torn write and a damaged acknowledged one look the same here, so a replica must not vote
  /// before a leader has confirmed its log; a sole voter goes on and reports bytes_cut.
  bool vouched = true;
};

/// Gets, during Open, what the log store must rebuild. Called after all that is passed is durable in the new journal
/// file, so files may be written, cut and removed at once. A status that is not OK ends Open with it.
class ReplayVisitor {
 public:
  virtual ~ReplayVisitor() = default;
  /// Once, first: the registry after replay. Segment files that it does not list are left over from a drop.
  virtual absl::Status OnState(const JournalState& state) = 0;
  /// Each append that reaches beyond its replica's checkpoint and is still part of the log, ordered by replica, segment
  /// and position, never beyond the segment's end. Together they cover everything from the checkpoint to the end; the
  /// first may begin below the checkpoint, and two may overlap with the same bytes.
  virtual absl::Status OnAppend(const AppendRecord& append) = 0;
};

struct JournalFileInfo {
  uint64_t sequence = 0;
  std::string path;
  int64_t bytes = 0;        // on the disk
  int64_t written = 0;      // of these, by the present process; what is behind is of an earlier use. 0: not known
  bool superseded = false;  // nothing in it counts; may be recycled out of turn
};

struct JournalStats {
  uint64_t entries = 0;
  uint64_t records = 0;
  uint64_t bytes = 0;  // written to files, padding included
  uint64_t syncs = 0;
  uint64_t files_created = 0;
  uint64_t files_recycled = 0;
  int64_t queued_entries = 0;
  int64_t queued_bytes = 0;
  int64_t used_bytes = 0;  // of files that cannot be recycled yet: what is written of them, or made ahead
  absl::Duration sync_last;
  absl::Duration sync_total;
  absl::Duration sync_max;
};

class Journal {
 public:
  using Options = JournalOptions;
  using Done = absl::AnyInvocable<void(absl::Status)>;

  struct Entry {
    absl::InlinedVector<JournalRecord, 1> records;  // journaled in this order
    /// Runs on the io executor once the entry is durable or has failed. Keep it cheap: post to a shard. A record that
    /// does not fit the state gives FailedPrecondition; the records of the entry before it are journaled all the same.
    Done done;
  };

  struct Opened {
    std::shared_ptr<Journal> journal;
    JournalState state;
    JournalTail tail;
  };

  /// Replays `options.dir`, copies what only the last file holds into a new, synced file, calls `visitor`, and is then
  /// ready. Blocks; call it from a thread that may. `io` runs tasks in order on one thread and is the journal's alone.
  /// All references outlive the journal. Errors: DataLoss, naming file and offset and what was expected there, for
  /// damage at or before what is known to have been synced; FailedPrecondition for a journal of another disk.
  static absl::StatusOr<Opened> Open(FileSystem& fs, Options options, BlockingExecutor& io, Clock& clock,
                                     ReplayVisitor& visitor);

  virtual ~Journal() = default;

  /// Queues an entry. Never blocks, never refuses for want of room: ask Admit before positions are assigned.
  virtual void Submit(Entry entry) = 0;
  /// OK, or ResourceExhausted with the reason: too much queued, too many files pinned, or no space on the disk.
  virtual absl::Status Admit() const = 0;
  /// As Admit, but for what is small and rare: files that are pinned do not refuse that.
  virtual absl::Status AdmitBeyondBound() const = 0;
  /// Replicas that have bytes in the oldest file which are in no segment file yet; in order. Empty when nothing holds
  /// it. They let go by a CheckpointRecord, or by re-submitting those appends unchanged (position and bytes).
  virtual std::vector<ReplicaId> OldestFilePins() const = 0;
  /// The files that hold bytes of the replica which are in no segment file yet, in order. They stay while it holds
  /// them.
  virtual std::vector<JournalFileInfo> FilesHolding(const ReplicaId& replica) const = 0;
  /// Which bytes those are, by segment and position.
  virtual std::vector<JournalPin> PinsOf(const ReplicaId& replica) const = 0;
  /// Called on the io executor, after a rotation, while more than half of total_bytes_max is pinned. Set it once,
  /// before the first Submit.
  virtual void OnPressure(std::function<void()> callback) = 0;
  /// From now on a full disk is not waited for: what still finds no room when it is tried the next time, within half a
  /// second, fails, and everything after it. That is no reason for on_fatal: nothing of it was begun. For a stop, which
  /// those who wait for answers would hold up. Any thread.
  virtual void FailOnFullDisk() = 0;
  /// Finishes what is queued, a full disk as with FailOnFullDisk, then runs `done` on the io executor; entries
  /// submitted later get Cancelled. After `done` nothing of the journal runs any more.
  virtual void Stop(absl::AnyInvocable<void()> done) = 0;
  /// Forgets what is queued and under way, unanswered, as when the process is killed: what waits for an answer may own
  /// the journal. For simulators; only once nothing runs on the executors any more.
  virtual void Abandon() = 0;
  virtual JournalStats stats() const = 0;
};

}  // namespace sluice::storage
