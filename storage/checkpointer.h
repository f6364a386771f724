// The checkpointer: keeps the journal short and memory bounded. On a timer it looks at free space and memory. When the
// journal presses, the replicas that hold its oldest file let go of it: by journaling a little that they have anew, or
// by a checkpoint. One that cannot be opened has no checkpoints: its tail is carried along. Over each long interval
// every log has its turn; those with little are left alone, so that many quiet partitions cost no sync each.
// Checkpoints run one at a time, so that syncs do not stall the journal's own. What a start had to write from the
// journal is checkpointed soon after, so that the next start has not, and before a stop everything is, for a bounded
// time: a few logs then share a sync of the journal.
//
// Threads: all of it on the store's home executor, except that Press may be called from any.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "common/types.h"
#include "storage/log.h"
#include "storage/log_store.h"

namespace sluice::storage {

class Checkpointer : public std::enable_shared_from_this<Checkpointer> {
 public:
  /// `store` stops this before it goes.
  explicit Checkpointer(LogStore& store);

  void Start();
  /// Free the journal's oldest file soon.
  void Press();
  /// All logs, one after the other; with the first error there was.
  void CheckpointAll(Log::Done done);
  /// A log whose segments a start has written from the journal; any thread.
  void OnRecovered(const ReplicaId& replica);
  /// Starts nothing more but a last checkpoint of every log that has something, for at most stop_checkpoints_max;
  /// `done` then.
  void Stop(absl::AnyInvocable<void()> done);
  /// As LogStore::Abandon.
  void Abandon() {
    work_.clear();
    stop_done_ = nullptr;
  }

 private:
  enum class Kind {
    kCheckpoint,
    kCheckpointIfMuch,  // unless it has little
    kFreeJournal,       // whichever way costs less
    kCarryDamaged,      // of a replica without a log
    kRecovered,         // as kCheckpoint, a few at a time
    kLast,              // the same, unless it is so little that the journal had better have it once more
  };
  struct Work {
    std::shared_ptr<Log> log;  // null: only answers `done`, or kCarryDamaged
    Log::Done done;            // may be null
    Kind kind = Kind::kCheckpoint;
    ReplicaId replica = {};  // of kCarryDamaged
  };
  void Arm();
  void Tick();
  void CheckpointRecovered();
  void GoRound();
  void WatchSpace();
  void WatchMemory();
  void RunNext();
  void Run(Work work);
  void OnFinished(const absl::Status& status);
  void EndStop();
  bool JournalPresses() const;
  void FreeOldestFile();

  LogStore& store_;
  Executor& home_;
  Executor::TimerId timer_ = 0;
  absl::Duration last_round_;
  std::deque<ReplicaId> round_;  ///< Whose turn in this interval is still to come.
  size_t round_share_ = 0;       ///< How many have it at each tick.
  bool pressed_ = false;
  std::vector<ReplicaId> pins_tried_;  ///< By the last round; the same again would only spin.
  bool space_asked_ = false;
  size_t running_ = 0;
  bool stopped_ = false;
  std::vector<ReplicaId> recovered_;  ///< To be checkpointed once there are no more of them.
  size_t recovered_before_ = 0;       ///< At the tick before.
  std::deque<Work> work_;
  absl::Status first_error_;
  absl::AnyInvocable<void()> stop_done_;
};

}  // namespace sluice::storage
