// A ProduceRequest written by hand in protobuf's wire format, so that a large batch is not copied on its way out.
// Internal to the client; a test holds it against the generated class.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/bytes.h"
#include "common/types.h"

namespace sluice::client {

struct ProduceItemToSend {
  std::string_view topic;
  int32_t partition = 0;
  Bytes batch;
  std::optional<Offset> expected_base_offset;
  bool reset = false;
};

/// The message in pieces, one behind the other; a large batch is a piece of its own.
std::vector<Bytes> EncodeProduceRequest(uint64_t correlation_id, absl::Span<const ProduceItemToSend> items);
/// In one piece, where it has to be.
Bytes Join(absl::Span<const Bytes> pieces);

}  // namespace sluice::client
