// The messages of the hot path, taken apart and put together by hand: a produced batch is copied exactly once, from
// gRPC's slices into memory of its own, and a fetched batch leaves without being copied. For every message both give
// what the generated code gives; a test compares them.
//
// Pure functions; no part of it knows gRPC.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "broker/api.h"
#include "broker/limits.h"
#include "common/bytes.h"
#include "common/types.h"
#include "sluice/v1/log.pb.h"

namespace sluice::broker::rpc {

struct ProduceEnvelopeItem {
  std::string topic;
  int32_t partition = 0;
  std::optional<MutableBytes> batch;  ///< Absent when the field is absent or empty.
  std::vector<v1::Record> records;
  std::optional<int64_t> expected_base_offset;
  int32_t leader_epoch = 0;
  bool reset = false;
};

struct ProduceEnvelope {
  uint64_t correlation_id = 0;
  std::vector<ProduceEnvelopeItem> items;
};

/// Where within a block the memory of a batch of so many bytes begins (MutableBytes).
using PlaceOfBatch = absl::FunctionRef<size_t(const std::string& topic, int32_t partition, size_t bytes)>;

/// INVALID_ARGUMENT when the bytes are no ProduceRequest or pass a bound.
absl::StatusOr<ProduceEnvelope> ParseProduceRequest(std::span<const std::string_view> slices, PlaceOfBatch place_of);
inline absl::StatusOr<ProduceEnvelope> ParseProduceRequest(std::span<const std::string_view> slices) {
  return ParseProduceRequest(slices, [](const std::string&, int32_t, size_t) { return size_t{0}; });
}

struct ProduceAnswerItem {
  std::string_view topic;
  int32_t partition = 0;
  const ProduceOutcome* outcome = nullptr;
};

/// A serialized ProduceResponse.
std::string EncodeProduceResponse(uint64_t correlation_id, std::span<const ProduceAnswerItem> items);

/// A part of a message to send: text of its own, or a batch's bytes, shared.
using Piece = Bytes;

/// A serialized FetchResponse as pieces that follow each other. Batches below a few KB are copied, which is cheaper
/// than carrying a reference to them; larger ones are not.
std::vector<Piece> EncodeFetchResponse(uint64_t correlation_id, std::span<const FetchOutcome> outcomes);

}  // namespace sluice::broker::rpc
