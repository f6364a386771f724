// Frames and payloads of the file-seam metadata store (log_store_format.h) as plain functions. Never reads outside its
// input, whatever the bytes are.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "storage/meta/metadata_store.h"

namespace sluice::storage::meta_log {

struct MachineState {
  int64_t applied = 0;
  std::map<std::string, std::string, std::less<>> entries;
};
using State = std::map<std::string, MachineState, std::less<>>;

/// The payload of one change, and of a whole state.
std::string EncodeChange(std::string_view machine, int64_t applied, const MetadataChanges& changes);
std::string EncodeState(const State& state);
/// Applies a payload; DataLoss says what is wrong in it, and then `state` may hold a part of it.
absl::Status ApplyPayload(std::string_view payload, State* state);

/// One frame, padded to whole blocks.
std::string EncodeFrame(uint64_t sequence, std::string_view payload);

struct FrameView {
  uint64_t sequence = 0;
  std::string_view payload;
  size_t size_bytes = 0;  ///< With the padding, cut at the end of the input.
};
/// The frame at the start of `bytes`; nullopt when what stands there is not a sound one.
std::optional<FrameView> ParseFrame(std::string_view bytes);

}  // namespace sluice::storage::meta_log
