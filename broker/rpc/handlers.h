// What each rpc means: one Handler a method, translating between messages and the broker's plain structs.
//
// Threads: as Handler; the broker's callbacks come on its shards, and hand over what they bring under the handler's own
// lock or straight to the Call.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "broker/api.h"
#include "broker/rpc/budget.h"
#include "broker/rpc/call.h"
#include "broker/rpc/latency.h"
#include "common/executor.h"

namespace sluice::broker::rpc {

/// What handlers share; outlives them.
struct Services {
  Broker& broker;
  const Clock& clock;
  MemoryBudget& budget;               ///< Of requests that are not answered and answers that have not left.
  LatencyHistogram& produce_latency;  ///< From a request's arrival to its answer.
};

/// A request of anything but produce may not be larger: its repeated fields take far more memory than wire.
inline constexpr size_t kSmallRequestBytesMax = 1 << 20;
/// What one fetch or one message of a consume stream may carry, unless a single batch is larger.
inline constexpr int64_t kFetchBytesMax = 32 << 20;
inline constexpr int64_t kFetchBytesDefault = 1 << 20;

/// `stream`: Log.Produce; otherwise Log.Append, one request and its answer.
std::shared_ptr<Handler> MakeProduceHandler(Services& services, std::shared_ptr<Call> call, bool stream);
std::shared_ptr<Handler> MakeFetchHandler(Services& services, std::shared_ptr<Call> call);
std::shared_ptr<Handler> MakeConsumeHandler(Services& services, std::shared_ptr<Call> call);
/// ListOffsets and DeleteRecords of Log, and all of Topics and Cluster; null for any other method.
std::shared_ptr<Handler> MakeUnaryHandler(Services& services, const std::string& method, std::shared_ptr<Call> call);
/// grpc.health.v1.Health; null for any other method.
std::shared_ptr<Handler> MakeHealthHandler(Services& services, const std::string& method, std::shared_ptr<Call> call);
/// grpc.reflection.v1 and v1alpha; null for any other method.
std::shared_ptr<Handler> MakeReflectionHandler(const std::string& method, std::shared_ptr<Call> call);

/// The services that clients see, by full name.
std::vector<std::string> ServiceNames();

/// Whether a whole message was read; for requests below kSmallRequestBytesMax.
bool ParseSmall(grpc::ByteBuffer* buffer, google::protobuf::MessageLite* message);
grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

/// The FetchResponse of a structured fetch: records decoded, control batches and what lies before the offset asked for
/// left out. INVALID_ARGUMENT never; DATA_LOSS and RESOURCE_EXHAUSTED become the item's error.
v1::FetchResponse DecodeOutcomes(uint64_t correlation_id, const std::vector<Offset>& asked,
                                 const std::vector<FetchOutcome>& outcomes);
/// One batch of structured records; a record without a time gets `now_ms`.
Result<record::PendingBatch> BuildBatch(const std::vector<v1::Record>& records, int64_t now_ms);

FetchItem FromProto(const v1::FetchItem& item);

}  // namespace sluice::broker::rpc
