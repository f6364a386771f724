#include "common/bytes.h"

#include <cstdlib>
#include <cstring>

#include "common/check.h"

namespace sluice {

Bytes Bytes::Copy(std::string_view view) {
  if (view.empty()) return Bytes();
  MutableBytes block(view.size());
  std::memcpy(block.data(), view.data(), view.size());
  return std::move(block).Freeze();
}

Bytes Bytes::Adopt(std::string text) {
  auto owner = std::make_shared<const std::string>(std::move(text));
  const std::string_view view = *owner;
  return Bytes(std::move(owner), view);
}

MutableBytes::MutableBytes(size_t size, size_t place) : size_(size) {
  constexpr size_t kAlignment = 4096;
  if (size < kAlignedFrom) {
    block_.reset(new char[size]);
    return;
  }
  SLUICE_CHECK(place < kAlignment) << "place " << place;
  const size_t rounded = (place + size + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded);
  SLUICE_CHECK(memory != nullptr) << "no memory for a block of " << rounded << " bytes";
  block_.reset(static_cast<char*>(memory) + place, [memory](char*) { std::free(memory); });
}

Bytes MutableBytes::Freeze(size_t size) && {
  const std::string_view view(block_.get(), size);
  size_ = 0;
  return Bytes::Wrap(view, std::shared_ptr<const void>(std::move(block_)));
}

}  // namespace sluice
