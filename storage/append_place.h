// AppendPlace: guesses at which place within a block of its segment file the next batch of a log will begin.
//
// Memory that begins at that same place can be written to the file from where it lies. It has to be chosen before the
// batch is checked, and so before the log knows of it. A wrong guess costs a copy, nothing else.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/file_system.h"

namespace sluice::storage {

class AppendPlace {
 public:
  /// Of the next batch, which has `bytes`. Any thread; in the order in which the batches reach the log, as far as that
  /// is known.
  size_t Next(size_t bytes) {
    return next_.fetch_add(static_cast<uint32_t>(bytes), std::memory_order_relaxed) % kBlockBytes;
  }

  /// A batch whose memory begins at `place` went to `position`. On the log's home.
  void Seen(size_t place, int64_t position) {
    const auto off = static_cast<uint32_t>(static_cast<uint64_t>(position) - place) % kBlockBytes;
    if (off == 0) {
      ignored_ = 0;
    } else if (ignored_ > 0) {
      --ignored_;  // its place was chosen before the last correction
    } else {
      next_.fetch_add(off, std::memory_order_relaxed);
      ignored_ = kUnderWayMax;
    }
  }

 private:
  static constexpr int kUnderWayMax = 64;

  std::atomic<uint32_t> next_{0};
  int ignored_ = 0;  // batches, the home's
};

}  // namespace sluice::storage
