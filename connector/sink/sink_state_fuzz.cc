// A sink's memory comes back from the state store: read or refused, and what was read is written the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "connector/sink/sink_state.h"

using namespace sluice::connector;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto state = DecodeSinkState({reinterpret_cast<const char*>(data), size});
  if (!state.ok()) return 0;
  const std::string bytes = EncodeSinkState(*state);
  const auto again = DecodeSinkState(bytes);
  SLUICE_CHECK(again.ok() && EncodeSinkState(*again) == bytes) << "a sink's state is not what it was";
  return 0;
}
