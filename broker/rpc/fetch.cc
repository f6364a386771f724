// Log.Fetch: one long poll.
#include <algorithm>
#include <mutex>
#include <utility>

#include "broker/rpc/handlers.h"

namespace sluice::broker::rpc {
namespace {

constexpr absl::Duration kMemoryWaitMin = absl::Seconds(2);

class FetchHandler final : public Handler, public std::enable_shared_from_this<FetchHandler> {
 public:
  FetchHandler(Services& services, std::shared_ptr<Call> call) : services_(services), call_(std::move(call)) {}

  void OnStart() override { call_->ReadNext(); }
  void OnReadsDone() override { call_->Fail(MakeError(Reason::kInvalidArgument, "the request has no message")); }
  void OnMessage(grpc::ByteBuffer message) override;
  // What there is so far is still answered.
  void OnDrain() override { Stop(); }
  void OnGone() override { Stop(); }

 private:
  void Stop() {
    draining_ = true;
    if (fetch_ != nullptr) fetch_->Cancel();
  }
  void Begin(v1::FetchRequest request);

  Services& services_;
  const std::shared_ptr<Call> call_;
  FetchHandle fetch_;  // this and `draining_` on the call's thread
  bool draining_ = false;
};

void FetchHandler::OnMessage(grpc::ByteBuffer message) {
  v1::FetchRequest request;
  if (!ParseSmall(&message, &request)) {
    return call_->Fail(MakeError(Reason::kInvalidArgument, "the request is not a FetchRequest of at most 1 MiB"));
  }
  if (static_cast<size_t>(request.items_size()) > kItemsMax) {
    return call_->Fail(MakeError(Reason::kInvalidArgument, "items: more than 10000"));
  }
  Begin(std::move(request));
}

void FetchHandler::Begin(v1::FetchRequest request) {
  FetchSpec spec;
  std::vector<Offset> asked;
  for (const v1::FetchItem& item : request.items()) {
    spec.items.push_back(FromProto(item));
    asked.push_back(spec.items.back().offset);
  }
  spec.wait_max = std::clamp(absl::Milliseconds(request.max_wait_ms()), absl::ZeroDuration(), kFetchWaitMax);
  if (draining_) spec.wait_max = absl::ZeroDuration();
  // An answer behind the deadline is of no use: stop before, by a share that leaves a busy machine time to deliver it.
  const absl::Duration left = call_->deadline() - services_.clock.Wall();
  const absl::Duration margin = std::clamp(left / 4, absl::Milliseconds(50), absl::Milliseconds(500));
  spec.wait_max = std::min(spec.wait_max, std::max(left - margin, absl::ZeroDuration()));
  spec.bytes_min = std::max(request.min_bytes(), 1);
  spec.bytes_max =
      request.max_bytes() > 0 ? std::min<int64_t>(request.max_bytes(), kFetchBytesMax) : kFetchBytesDefault;
  // A client that would not wait for records still waits a moment for memory, rather than ask again and again.
  spec.memory_wait_max = std::min(std::max(spec.wait_max, kMemoryWaitMin), std::max(left - margin, kMemoryWaitMin));
  const int64_t bytes_max = spec.bytes_max;
  fetch_ = services_.broker.Fetch(
      std::move(spec),
      [&services = services_, call = call_, correlation_id = request.correlation_id(),
       structured = request.structured(), asked = std::move(asked), bytes_max](std::vector<FetchOutcome> outcomes) {
        call->Reply(structured ? StructuredAnswer(services, call, correlation_id, asked, std::move(outcomes), bytes_max)
                               : FetchAnswer(services, call, correlation_id, std::move(outcomes)));
      });
}

}  // namespace

std::shared_ptr<Handler> MakeFetchHandler(Services& services, std::shared_ptr<Call> call) {
  return std::make_shared<FetchHandler>(services, std::move(call));
}

}  // namespace sluice::broker::rpc
