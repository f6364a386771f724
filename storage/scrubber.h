// The scrubber: reads every closed segment of a store over and over, slowly, and compares it with its checksum in the
// journal's registry, so that damage is known before somebody needs what it hit. It reports and never changes or
// deletes anything: each read checks its batches, so what is damaged is refused when it is asked for.
//
// One small read at a time, spread evenly over the period, so that it takes little from others. Where a round begins
// follows from the time of day, so that a node that restarts often does not read the same part again and again.
// Threads: all of it on the store's home executor, except that stats may be called from any.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/types.h"
#include "storage/log.h"

namespace sluice::storage {

struct ScrubOptions {
  absl::Duration period = absl::Hours(7 * 24);       ///< In which all is read once; zero: never.
  int64_t bytes_per_second_max = int64_t{16} << 20;  ///< Though it then takes longer.
  /// DataLoss, naming file, byte and what was expected; on the store's home executor.
  std::function<void(const ReplicaId&, const absl::Status&)> on_damage;
};

struct ScrubStats {
  int64_t rounds = 0;  ///< Over all segments, finished.
  int64_t segments = 0;
  int64_t bytes = 0;
  int64_t damaged = 0;      ///< Segments found so, each time that they are.
  int64_t unreadable = 0;   ///< Reads that failed otherwise; they are tried again in the next round.
  int64_t damaged_now = 0;  ///< Segments that were damaged when they were last read, and are still listed.
};

class Scrubber : public std::enable_shared_from_this<Scrubber> {
 public:
  /// What a scrubber stands on; all of it outlives it. `logs`: those to be read, in order.
  struct Seams {
    FileSystem* fs;
    Clock* clock;
    Executor* home;
    BlockingExecutor* reads;
    std::function<std::vector<std::shared_ptr<Log>>()> logs;
  };
  Scrubber(Seams seams, ScrubOptions options) : seams_(std::move(seams)), options_(std::move(options)) {}

  void Start();
  /// Starts nothing more; `done` once no read is under way.
  void Stop(absl::AnyInvocable<void()> done);
  /// As LogStore::Abandon.
  void Abandon() { stop_done_ = nullptr; }
  ScrubStats stats() const;

 private:
  struct Work {
    std::weak_ptr<Log> log;  ///< One that is dropped meanwhile must not be kept.
    ReplicaId replica;
    ClosedSegment segment;
    int64_t at = 0;
    uint32_t crc32c = 0;
  };
  void BeginRound();
  void Collect(std::deque<std::shared_ptr<Log>> logs);
  void Pause();
  void ReadNext();
  void OnRead(absl::StatusOr<std::string> chunk);
  /// On the home executor of the log: whether the segment is still what it was when it was collected.
  void Judge(absl::Status found);
  void EndSegment();
  void NoteDamage(bool damaged);
  void CountDamage();
  /// Runs `then` on the home executor after a while, unless stopped by then.
  void After(absl::Duration wait, void (Scrubber::*then)());
  bool EndsHere();

  const Seams seams_;
  const ScrubOptions options_;
  std::deque<Work> work_;
  int64_t round_bytes_ = 0;
  /// Found damaged when last read; a round begins by forgetting those that are not listed any more.
  std::set<std::pair<ReplicaId, SegmentId>> damaged_;
  std::set<std::pair<ReplicaId, SegmentId>> damaged_listed_;  ///< Of damaged_, by the round that begins.
  bool busy_ = false;                                         ///< A read or a look at a log is under way.
  bool stopped_ = false;
  absl::AnyInvocable<void()> stop_done_;

  mutable std::mutex mutex_;
  ScrubStats stats_;  ///< Guarded by mutex_.
};

}  // namespace sluice::storage
