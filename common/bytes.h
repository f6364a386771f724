// Bytes: an immutable, reference-counted run of bytes. What a batch travels in, from the socket to the disk and back,
// without being copied.
//
// Always holds: the bytes do not change while any Bytes refers to them; a slice keeps the whole block alive.
// Threads: a Bytes object belongs to one thread at a time; copies of it may be used from different threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace sluice {

class Bytes {
 public:
  Bytes() = default;

  /// Copies `view` into a block of its own.
  static Bytes Copy(std::string_view view);
  /// Takes over a string's storage.
  static Bytes Adopt(std::string text);
  /// Refers to memory that `owner` keeps alive (a gRPC slice, a mapped file, an aligned buffer).
  static Bytes Wrap(std::string_view view, std::shared_ptr<const void> owner) { return Bytes(std::move(owner), view); }

  std::string_view view() const { return view_; }
  const char* data() const { return view_.data(); }
  size_t size() const { return view_.size(); }
  bool empty() const { return view_.empty(); }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  /// Bytes [from, from + count); the caller keeps within size().
  Bytes Slice(size_t from, size_t count) const { return Bytes(owner_, view_.substr(from, count)); }

  friend bool operator==(const Bytes& a, const Bytes& b) { return a.view_ == b.view_; }

 private:
  Bytes(std::shared_ptr<const void> owner, std::string_view view) : owner_(std::move(owner)), view_(view) {}

  std::shared_ptr<const void> owner_;
  std::string_view view_;
};

/// A block that is filled once, then frozen into Bytes. Memory is not zeroed. One of kAlignedFrom bytes or more begins
/// `place` bytes (less than 4,096) behind a multiple of 4,096, so that a direct write can take it from where it lies,
/// and always in the same way.
class MutableBytes {
 public:
  static constexpr size_t kAlignedFrom = size_t{16} << 10;

  explicit MutableBytes(size_t size, size_t place = 0);
  MutableBytes(MutableBytes&& other) noexcept : block_(std::move(other.block_)), size_(std::exchange(other.size_, 0)) {}
  MutableBytes& operator=(MutableBytes&& other) noexcept {
    block_ = std::move(other.block_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  char* data() { return block_.get(); }
  size_t size() const { return size_; }
  std::string_view view() const { return {block_.get(), size_}; }
  /// Keeps the first `size` bytes; the memory stays as large as it was.
  void Truncate(size_t size) { size_ = std::min(size_, size); }
  /// The first `size` bytes as Bytes; this object is empty afterwards.
  Bytes Freeze(size_t size) &&;
  Bytes Freeze() && { return std::move(*this).Freeze(size_); }

 private:
  std::shared_ptr<char[]> block_;
  size_t size_;
};

}  // namespace sluice
