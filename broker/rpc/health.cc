// grpc.health.v1.Health.
#include <algorithm>
#include <utility>

#include "broker/rpc/handlers.h"
#include "grpc/health/v1/health.pb.h"

namespace sluice::broker::rpc {
namespace {

namespace health = ::grpc::health::v1;

class HealthHandler final : public Handler {
 public:
  HealthHandler(Services& services, std::shared_ptr<Call> call, bool watch)
      : services_(services), call_(std::move(call)), watch_(watch) {}

  void OnStart() override { call_->ReadNext(); }
  void OnReadsDone() override { call_->Fail(MakeError(Reason::kInvalidArgument, "the request has no message")); }
  void OnMessage(grpc::ByteBuffer message) override {
    health::HealthCheckRequest request;
    if (!ParseSmall(&message, &request)) {
      return call_->Fail(MakeError(Reason::kInvalidArgument, "the request is not a HealthCheckRequest"));
    }
    const std::vector<std::string> names = ServiceNames();
    const bool known =
        request.service().empty() || std::find(names.begin(), names.end(), request.service()) != names.end();
    health::HealthCheckResponse response;
    response.set_status(!known                         ? health::HealthCheckResponse::SERVICE_UNKNOWN
                        : services_.broker.IsServing() ? health::HealthCheckResponse::SERVING
                                                       : health::HealthCheckResponse::NOT_SERVING);
    if (watch_) return call_->Write(Serialize(response));
    if (known) return call_->Reply(Serialize(response));
    call_->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service: " + request.service()));
  }
  // A node serves from before its port is open until it drains: the only change a watcher can see.
  void OnDrain() override {
    if (!watch_) return;
    health::HealthCheckResponse response;
    response.set_status(health::HealthCheckResponse::NOT_SERVING);
    call_->Write(Serialize(response));
    call_->Fail(MakeError(Reason::kNotAvailable, "the node is shutting down", true));
  }
  void OnGone() override {}

 private:
  Services& services_;
  const std::shared_ptr<Call> call_;
  const bool watch_;
};

}  // namespace

std::shared_ptr<Handler> MakeHealthHandler(Services& services, const std::string& method, std::shared_ptr<Call> call) {
  const bool watch = method == "/grpc.health.v1.Health/Watch";
  if (!watch && method != "/grpc.health.v1.Health/Check") return nullptr;
  return std::make_shared<HealthHandler>(services, std::move(call), watch);
}

}  // namespace sluice::broker::rpc
