// What each rpc means: one Handler a method, translating between messages and the broker's plain structs.
//
// Threads: as Handler; the broker's callbacks come on its shards, and hand over what they bring under the handler's own
// lock or straight to the Call.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "broker/api.h"
#include "broker/limits.h"
#include "broker/rpc/budget.h"
#include "broker/rpc/call.h"
#include "broker/rpc/latency.h"
#include "common/executor.h"
#include "common/log.h"
#include "common/log_limit.h"

namespace sluice::broker::rpc {

/// What handlers share; outlives them.
struct Services {
  Broker& broker;
  const Clock& clock;
  MemoryBudget& budget;               ///< Of produce requests that are not answered.
  LatencyHistogram& produce_latency;  ///< From a request's arrival to its answer.
  const Logger& log;
  LogLimit& slow_readers_logged;
  absl::Duration read_stall_max;  ///< How long an answer may wait for its client once others want its memory.
};

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
/// left out. Ends behind the record that reaches `bytes_max`, in the middle of a batch too, but holds one record at
/// least. A batch that cannot be decoded, or inflates to more than kDecompressedBytesMax, becomes its item's error.
v1::FetchResponse DecodeOutcomes(uint64_t correlation_id, const std::vector<Offset>& asked,
                                 const std::vector<FetchOutcome>& outcomes, int64_t bytes_max);
/// Both forms of a FetchResponse as a message whose memory is counted until gRPC lets go of it. Calls the memory in
/// when the client does not take it. `asked` and `bytes_max` are the request's.
grpc::ByteBuffer FetchAnswer(const Services& services, const std::shared_ptr<Call>& call, uint64_t correlation_id,
                             std::vector<FetchOutcome> outcomes);
grpc::ByteBuffer StructuredAnswer(const Services& services, const std::shared_ptr<Call>& call, uint64_t correlation_id,
                                  const std::vector<Offset>& asked, std::vector<FetchOutcome> outcomes,
                                  int64_t bytes_max);
/// One batch of structured records; a record without a time gets `now_ms`.
Result<record::PendingBatch> BuildBatch(const std::vector<v1::Record>& records, int64_t now_ms);

FetchItem FromProto(const v1::FetchItem& item);

}  // namespace sluice::broker::rpc
