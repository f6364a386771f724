// A ProduceRequest written by hand in protobuf's wire format, so that a batch is copied once, into the message that
// goes out, rather than three times. Internal to the client; a test holds it against the generated class.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/types/span.h"
#include "common/bytes.h"
#include "common/types.h"

namespace sluice::client {

struct ProduceItemToSend {
  std::string_view topic;
  int32_t partition = 0;
  std::string_view batch;
  std::optional<Offset> expected_base_offset;
  bool reset = false;
};

Bytes EncodeProduceRequest(uint64_t correlation_id, absl::Span<const ProduceItemToSend> items);

}  // namespace sluice::client
