// The node-wide bounds that admission asks: bytes of appends in flight, room on this node's disk and on others', and
// calls under way.
//
// Threads: all of it from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/types.h"

namespace sluice::broker {

/// A bound on bytes held at one time.
class MemoryQuota : public std::enable_shared_from_this<MemoryQuota> {
 public:
  explicit MemoryQuota(int64_t bytes_max) : bytes_max_(bytes_max) {}

  /// Bytes taken, given back on destruction.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : quota_(std::move(other.quota_)), bytes_(other.bytes_) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(quota_, other.quota_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Hold() {
      if (quota_ != nullptr) quota_->used_.fetch_sub(bytes_, std::memory_order_relaxed);
    }
    explicit operator bool() const { return quota_ != nullptr; }

   private:
    friend class MemoryQuota;
    Hold(std::shared_ptr<MemoryQuota> quota, int64_t bytes) : quota_(std::move(quota)), bytes_(bytes) {}
    std::shared_ptr<MemoryQuota> quota_;
    int64_t bytes_ = 0;
  };

  /// An empty Hold when it would pass the bound.
  Hold Take(int64_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes > bytes_max_) {
      used_.fetch_sub(bytes, std::memory_order_relaxed);
      return {};
    }
    return Hold(shared_from_this(), bytes);
  }
  int64_t used() const { return used_.load(std::memory_order_relaxed); }
  int64_t bytes_max() const { return bytes_max_; }

 private:
  const int64_t bytes_max_;
  std::atomic<int64_t> used_{0};
};

/// Whether the disk has room for more records: below the low mark of free bytes appends are refused until the high mark
/// is reached, so that it does not flap.
class DiskWatermarks {
 public:
  DiskWatermarks(int64_t free_low, int64_t free_high) : free_low_(free_low), free_high_(free_high) {}

  void Update(int64_t free_bytes) {
    free_bytes_.store(free_bytes, std::memory_order_relaxed);
    if (free_bytes < free_low_) refusing_.store(true, std::memory_order_relaxed);
    if (free_bytes >= free_high_) refusing_.store(false, std::memory_order_relaxed);
  }
  bool refusing() const { return refusing_.load(std::memory_order_relaxed); }
  int64_t free_bytes() const { return free_bytes_.load(std::memory_order_relaxed); }
  int64_t free_low() const { return free_low_; }
  int64_t free_high() const { return free_high_; }

 private:
  const int64_t free_low_;
  const int64_t free_high_;
  std::atomic<bool> refusing_{false};
  std::atomic<int64_t> free_bytes_{0};
};

/// The nodes whose disks are full, as far as this one has been told. Where there are none, asking takes no lock.
class FullNodes {
 public:
  void Set(std::vector<NodeId> nodes);
  bool any() const { return any_.load(std::memory_order_relaxed); }
  /// Those of `nodes`, in their order.
  std::vector<NodeId> Among(const std::vector<NodeId>& nodes) const;

 private:
  std::atomic<bool> any_{false};
  mutable std::mutex mutex_;
  std::vector<NodeId> nodes_;  // under the mutex
};

/// That these nodes' disks are full, and what to do, in words.
std::string DescribeFull(const std::vector<NodeId>& nodes);

/// Counts calls under way, so that Stop can wait for their answers. Entering and leaving take no lock.
class CallGate : public std::enable_shared_from_this<CallGate> {
 public:
  /// One call under way; dropped when it has answered.
  class Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept = default;
    Pass& operator=(Pass&& other) noexcept {
      gate_.swap(other.gate_);
      return *this;
    }
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    friend class CallGate;
    explicit Pass(std::shared_ptr<CallGate> gate) : gate_(std::move(gate)) {}
    std::shared_ptr<CallGate> gate_;
  };

  /// Empty when the gate is closed (before Open, after Close).
  Pass Enter();
  void Open() { state_.fetch_or(kOpen, std::memory_order_acq_rel); }
  /// Lets nobody in any more; runs `drained` once, when the last Pass is gone: here, or where it was dropped.
  void Close(absl::AnyInvocable<void()> drained);
  bool is_open() const { return (state_.load(std::memory_order_acquire) & kOpen) != 0; }

 private:
  static constexpr int64_t kOpen = int64_t{1} << 62;

  void Leave();

  std::atomic<int64_t> state_{0};  // kOpen, and how many are inside or just being turned away
  std::mutex mutex_;
  absl::AnyInvocable<void()> drained_;  // under the mutex
};

}  // namespace sluice::broker
