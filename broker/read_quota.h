// ReadQuota: the bytes of all answers to readers, node-wide, from before they are read until their client has them.
//
// A read takes what it may bring before it reads, gives back what it did not bring, and holds the rest until the last
// piece of its answer was let go. Who finds nothing free waits in line. As memory gets short, reads get smaller: each
// takes at most a share of what is free.
//
// Always holds: what is held passes the bound only by Resize, which is for a batch that turned out larger than its
// partition said; nobody overtakes the line; who waits holds nothing, so waiting reads never wait for each other. A
// hold that keeps others waiting too long is called in (CallIn), so a client that does not take its answer cannot keep
// the others from theirs.
// Threads: all of it from any. Callbacks run without a lock, on the thread that gave back or asked.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "common/executor.h"

namespace sluice::broker {

class ReadQuota;

/// Bytes taken, given back on destruction.
class ReadHold {
 public:
  ~ReadHold();
  ReadHold(const ReadHold&) = delete;
  ReadHold& operator=(const ReadHold&) = delete;

  int64_t bytes() const;
  /// Holds this much from now on, also where that passes the bound.
  void Resize(int64_t bytes);
  /// Takes `need` to `wanted` more; false, and nothing more held, when that is not free now.
  bool Grow(int64_t need, int64_t wanted);
  /// What this hold could have without passing the bound.
  int64_t Room() const;
  /// When others wait for memory, and this still holds some once `after` has passed, `let_go` runs, once.
  void CallIn(absl::Duration after, absl::AnyInvocable<void()> let_go);

 private:
  friend class ReadQuota;
  explicit ReadHold(std::shared_ptr<ReadQuota> quota) : quota_(std::move(quota)) {}

  const std::shared_ptr<ReadQuota> quota_;
  // Under the quota's lock.
  int64_t bytes_ = 0;
  std::list<ReadHold*>::iterator place_;
  absl::Duration due_ = absl::InfiniteDuration();
  absl::AnyInvocable<void()> let_go_;
  bool called_in_ = false;
};

struct ReadQuotaStats {
  int64_t bytes = 0;
  int64_t bytes_max = 0;
  int64_t waiting = 0;    ///< Reads in line.
  int64_t called_in = 0;  ///< Holds, since start.
};

class ReadQuota : public std::enable_shared_from_this<ReadQuota> {
 public:
  using HoldPtr = std::shared_ptr<ReadHold>;

  ReadQuota(int64_t bytes_max, const Clock& clock) : bytes_max_(bytes_max), clock_(clock) {}

  /// `need` (cut to the bound) to `wanted` bytes; null when that is not free, or others wait.
  HoldPtr TryTake(int64_t need, int64_t wanted);
  /// The same, once it is free; names the place in line. `ready` may run before this returns.
  uint64_t Wait(int64_t need, int64_t wanted, absl::AnyInvocable<void(HoldPtr)> ready);
  /// Leaves the line; no effect behind `ready`, which may be about to run.
  void Forget(uint64_t place);
  /// Calls in what is due, as much as the first in line needs. While somebody waits, someone calls this now and then.
  void Reclaim();
  bool contended() const;
  ReadQuotaStats stats() const;

 private:
  friend class ReadHold;
  struct Waiting {
    int64_t need;
    int64_t wanted;
    absl::AnyInvocable<void(HoldPtr)> ready;
  };
  using Granted = std::vector<std::pair<absl::AnyInvocable<void(HoldPtr)>, HoldPtr>>;

  int64_t free_bytes() const { return bytes_max_ - bytes_; }
  int64_t Share(int64_t need, int64_t wanted) const;
  HoldPtr Make(int64_t bytes);
  /// Changes what is held and serves the line. Leaves the lock to tell who got something.
  void Change(std::unique_lock<std::mutex> lock, ReadHold* hold, int64_t bytes);
  void Serve(Granted* granted);
  static void Tell(Granted granted);

  const int64_t bytes_max_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  int64_t bytes_ = 0;
  int64_t called_in_bytes_ = 0;  // of them, on their way back
  int64_t called_in_ = 0;
  std::list<ReadHold*> holds_;  // oldest first
  std::map<uint64_t, Waiting> line_;
  uint64_t places_made_ = 0;
};

}  // namespace sluice::broker
