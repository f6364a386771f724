// A growable buffer whose address and capacity are multiples of a block, as direct file calls ask.
//
// Memory is not zeroed. Growing keeps the first `used` bytes and moves the address.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/check.h"
#include "common/file_system.h"

namespace sluice::storage {

/// `bytes` rounded up to whole blocks.
constexpr int64_t RoundUpToBlock(int64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t capacity) { Reserve(capacity, 0); }

  char* data() { return memory_.get(); }
  const char* data() const { return memory_.get(); }
  size_t capacity() const { return capacity_; }

  void Reserve(size_t capacity, size_t used) {
    if (capacity <= capacity_) return;
    const auto rounded = static_cast<size_t>(RoundUpToBlock(static_cast<int64_t>(capacity)));
    std::unique_ptr<char, Free> grown(static_cast<char*>(std::aligned_alloc(kBlockBytes, rounded)));
    SLUICE_CHECK(grown != nullptr) << "no memory for an aligned buffer of " << rounded << " bytes";
    if (used > 0) std::memcpy(grown.get(), memory_.get(), used);
    memory_ = std::move(grown);
    capacity_ = rounded;
  }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t capacity_ = 0;
};

}  // namespace sluice::storage
