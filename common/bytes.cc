#include "common/bytes.h"

#include <cstring>

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

Bytes MutableBytes::Freeze(size_t size) && {
  const std::string_view view(block_.get(), size);
  size_ = 0;
  return Bytes::Wrap(view, std::shared_ptr<const void>(std::move(block_)));
}

}  // namespace sluice
