// A sink's memory of one partition as a plain struct, and its encoding (proto/sluice/state/v1/sink.proto).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/types.h"
#include "connector/sink/row.h"

namespace sluice::connector {

struct SinkPlan {
  Offset first;
  Offset next;  ///< one past the last
  Offset dead_letters_from;
};

struct SinkState {
  Offset committed_next;
  std::optional<SinkPlan> plan{};
  std::optional<Schema> schema{};  ///< none: not decided yet
  std::string topic_id{};          ///< empty: whichever it is
};

std::string EncodeSinkState(const SinkState& state);
/// DATA_LOSS when the bytes are no state that this version understands.
absl::StatusOr<SinkState> DecodeSinkState(std::string_view bytes);

}  // namespace sluice::connector
