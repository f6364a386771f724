// Positions come back from topics and the state store: whatever stands there is read or refused, and what was read is
// written the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "connector/source/position.h"

using namespace sluice::connector;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto position = DecodePosition(text); position.ok()) {
    const auto again = DecodePosition(EncodePosition(*position));
    SLUICE_CHECK(again.ok() && *again == *position) << "a position is not what it was";
  }
  if (const auto checkpoint = DecodeCheckpoint(text); checkpoint.ok()) {
    const auto again = DecodeCheckpoint(EncodeCheckpoint(*checkpoint));
    SLUICE_CHECK(again.ok() && again->position == checkpoint->position && again->data_end == checkpoint->data_end &&
                 again->topic_id == checkpoint->topic_id)
        << "a checkpoint is not what it was";
  }
  return 0;
}
