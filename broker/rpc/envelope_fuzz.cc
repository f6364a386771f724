// Any bytes, in any slices, as a ProduceRequest: read by hand they are refused exactly when the generated code refuses
// them, but for the bounds that only the hand has, and otherwise hold the same.
#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "broker/rpc/envelope.h"

namespace {

using namespace sluice;               // NOLINT(google-build-using-namespace)
using namespace sluice::broker::rpc;  // NOLINT(google-build-using-namespace)

void Check(bool holds) {
  if (!holds) std::abort();
}

bool BeyondBounds(const v1::ProduceRequest& request) {
  size_t records = 0;
  for (const v1::ProduceItem& item : request.items()) records += static_cast<size_t>(item.records_size());
  return static_cast<size_t>(request.items_size()) > broker::kItemsMax || records > broker::kStructuredRecordsMax;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = size_t{data[0]} + 1;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<std::string_view> slices;
  for (size_t at = 0; at < bytes.size(); at += step) slices.push_back(bytes.substr(at, step));

  google::protobuf::LogSilencer silence;
  v1::ProduceRequest generated;
  const bool sound = generated.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  const auto envelope = ParseProduceRequest(slices);
  if (!envelope.ok()) {
    Check(!sound || BeyondBounds(generated));
    return 0;
  }
  Check(sound);
  Check(envelope->correlation_id == generated.correlation_id());
  Check(envelope->items.size() == static_cast<size_t>(generated.items_size()));
  for (int i = 0; i < generated.items_size(); ++i) {
    const ProduceEnvelopeItem& read = envelope->items[static_cast<size_t>(i)];
    const v1::ProduceItem& expected = generated.items(i);
    Check(read.topic == expected.topic() && read.partition == expected.partition());
    Check((read.batch ? read.batch->view() : std::string_view()) == expected.batch());
    Check(read.records.size() == static_cast<size_t>(expected.records_size()));
    Check(read.expected_base_offset.has_value() == expected.has_expected_base_offset());
    if (read.expected_base_offset) Check(*read.expected_base_offset == expected.expected_base_offset());
    Check(read.leader_epoch == expected.leader_epoch() && read.reset == expected.reset());
  }
  return 0;
}
