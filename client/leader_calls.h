// One question about many partitions, each asked of its leader: split by leader, repeated for those whose leader
// changed, until all have an answer, a final error, or the time is over. Internal to the client; on its executor.
//
// Only for what may be asked twice: a call whose answer was lost is made again.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/admin.h"
#include "client/core.h"

namespace sluice::client {

struct LeaderCall {
  std::string method;
  std::vector<TopicPartition> items;
  /// The request for these of the items, by index.
  std::function<Bytes(absl::Span<const size_t> indexes)> encode;
  /// Takes what was answered to such a request: one status an index. An error of its own when it cannot be read.
  std::function<absl::StatusOr<std::vector<absl::Status>>(const Bytes& answer, absl::Span<const size_t> indexes)>
      decode;
};

/// `done` gets one status an item. An item that could not be answered in time has the last error that it met.
void CallLeaders(std::shared_ptr<Core> core, LeaderCall call, absl::Duration timeout,
                 absl::AnyInvocable<void(std::vector<absl::Status>)> done);

/// Whether an error of one partition may be gone once its leader is found, and that nothing was done.
bool IsLeaderTrouble(const absl::Status& status);

}  // namespace sluice::client
