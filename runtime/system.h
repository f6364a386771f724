// The world as the seams see it in real processes: time and random numbers from the operating system, and what a
// program's main does before anything else.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "common/executor.h"

namespace sluice::runtime {

/// Thread-safe.
class SystemClock final : public Clock {
 public:
  absl::Duration Monotonic() const override;
  absl::Time Wall() const override;
};

/// Numbers from the kernel's generator, fit for UUIDs. One thread at a time.
class SystemRandom final : public Random {
 public:
  uint64_t Next() override;

 private:
  std::array<uint64_t, 32> block_{};
  size_t next_ = block_.size();
};

/// Sets glibc's allocator for a server that moves large buffers: one arena, no trimming, large blocks kept. Halves the
/// CPU of a produce stream (docs/performance.md). What the heap grows to beyond its first megabytes is asked to
/// lie in huge pages, which direct writes of large buffers are cheaper from; an idle process stays below, and small.
/// Call first in main, before any thread starts.
void TuneMalloc();

/// Raises the process's limit of open files to what it may have, and answers it. Many systems begin at 1,024.
int64_t RaiseFileLimit();

/// Blocks SIGTERM and SIGINT in this thread and all started later, so that one thread waits for them as it likes, and
/// ignores SIGPIPE. Make one in main before any thread starts.
class TerminationSignals {
 public:
  TerminationSignals();
  /// Waits for SIGTERM or SIGINT and answers which.
  int Wait();
  /// As Wait, but no longer than `most`: nullopt when none came.
  std::optional<int> WaitFor(absl::Duration most);
  /// Ends a Wait as SIGTERM would. Thread-safe.
  static void Raise();
};

}  // namespace sluice::runtime
