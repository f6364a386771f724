// What group 0's log, the metadata store and other nodes say of topics and nodes, whatever bytes stand there: refused,
// or read as something that is written and read again as the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "broker/cluster_calls.h"
#include "broker/controller_record.h"
#include "common/check.h"

using namespace sluice;          // NOLINT(google-build-using-namespace)
using namespace sluice::broker;  // NOLINT(google-build-using-namespace)

namespace {

template <class Decode, class Encode>
void Try(std::string_view bytes, Decode decode, Encode encode) {
  const auto read = decode(bytes);
  if (!read.ok()) return;
  const auto again = decode(encode(*read));
  SLUICE_CHECK(again.ok() && *again == *read) << "what was written is not what was read";
}

void TrySnapshot(std::string_view bytes) {
  const auto read = DecodeClusterSnapshot(bytes);
  if (!read.ok()) return;
  const auto again = DecodeClusterSnapshot(EncodeClusterSnapshot(read->state, read->applied));
  SLUICE_CHECK(again.ok() && again->state == read->state) << "what was written is not what was read";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      Try(bytes, DecodeControllerChange, EncodeControllerChange);
      break;
    case 1:
      Try(bytes, DecodeTopicRecord, EncodeTopicRecord);
      break;
    case 2:
      Try(bytes, DecodeRegisteredNode, EncodeRegisteredNode);
      break;
    case 3:
      Try(bytes, DecodeHeartbeat, EncodeHeartbeat);
      break;
    case 4:
      (void)DecodeRegisterRequest(bytes).ok();
      break;
    case 5:
      (void)DecodeRegisterAnswer(bytes).ok();
      break;
    case 6:
      TrySnapshot(bytes);
      break;
    default:
      (void)DecodeSnapshotPieceRequest(bytes).ok();
      break;
  }
  return 0;
}
