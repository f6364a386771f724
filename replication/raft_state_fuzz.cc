// What a replica keeps of replication, and a group's configuration as peers send it, whatever bytes stand there:
// refused, or read as something that is written and read again as the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "replication/core/configuration.h"
#include "replication/replica_blob.h"

using namespace sluice;  // NOLINT(google-build-using-namespace)

namespace {

template <class T>
void Try(std::string_view bytes) {
  const auto read = T::Decode(bytes);
  if (!read.ok()) return;
  const auto again = T::Decode(read->Encode());
  SLUICE_CHECK(again.ok() && *again == *read) << "what was written is not what was read";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  Try<raft::Configuration>(bytes);
  Try<raft::ReplicaRaftState>(bytes);
  const auto blob = replication::ReplicaBlob::Decode(Bytes::Copy(bytes));
  if (!blob.ok()) return 0;
  const auto again = replication::ReplicaBlob::Decode(Bytes::Copy(blob->Encode()));
  SLUICE_CHECK(again.ok() && *again == *blob) << "what was written is not what was read";
  Try<raft::ReplicaRaftState>(blob->core.view());
  return 0;
}
