#include <memory>
#include <utility>

#include "client/await.h"
#include "client/client_impl.h"
#include "client/error.h"
#include "client/producer_wire.h"
#include "client/wire.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {
namespace {

using AppendDone = absl::AnyInvocable<void(absl::StatusOr<AppendResult>)>;

// A failure after the request may have left this process. A broker that refused says so with a detail, or with a code
// that gRPC uses only before a handler runs; anything else may hide a write.
absl::Status AfterSend(const absl::Status& status, const AppendRequest& request) {
  if (GetErrorDetail(status).has_value()) return status;
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInvalidArgument:
      return status;
    default:
      return OutcomeUnknown(status.ToString(), request.topic, request.partition.value());
  }
}

class AppenderImpl : public Appender {
 public:
  explicit AppenderImpl(std::shared_ptr<Core> core) : core_(std::move(core)) {}

  absl::StatusOr<AppendResult> AppendBatch(const AppendRequest& request, absl::Duration timeout) override {
    return Await<absl::StatusOr<AppendResult>>(core_->executor(), [this, &request, timeout](AppendDone done) {
      Start(request, core_->clock().Monotonic() + timeout, std::move(done));
    });
  }

 private:
  // `request` lives as long as the caller waits.
  void Start(const AppendRequest& request, absl::Duration deadline, AppendDone done) {
    core_->FindTopic(request.topic, deadline - core_->clock().Monotonic(),
                     [this, &request, deadline,
                      done = std::move(done)](absl::StatusOr<std::shared_ptr<const TopicRoutes>> routes) mutable {
                       if (!routes.ok()) return done(routes.status());
                       absl::StatusOr<std::string> leader =
                           LeaderOf(**routes, request.topic, request.partition.value());
                       if (!leader.ok()) {
                         core_->ForgetTopic(request.topic);
                         return done(leader.status());
                       }
                       Connect(request, *leader, deadline, std::move(done));
                     });
  }

  // Connected first: so that a failure to connect is known not to have written anything.
  void Connect(const AppendRequest& request, const std::string& leader, absl::Duration deadline, AppendDone done) {
    const absl::Duration left = deadline - core_->clock().Monotonic();
    core_->ChannelTo(leader).Connect(
        std::min(left, core_->options().connect_timeout),
        [this, &request, leader, deadline, done = std::move(done)](const absl::Status& status) mutable {
          if (!status.ok()) {
            core_->ForgetTopic(request.topic);
            return done(status);
          }
          Send(request, leader, deadline - core_->clock().Monotonic(), std::move(done));
        });
  }

  void Send(const AppendRequest& request, const std::string& leader, absl::Duration left, AppendDone done) {
    if (left <= absl::ZeroDuration()) {
      return done(absl::DeadlineExceededError("the batch was not sent: the time ran out before that"));
    }
    ProduceItemToSend item{request.topic, request.partition.value(), request.batch.view(), request.expected_base_offset,
                           /*reset=*/false};
    core_->CallAt(leader, "/sluice.v1.Log/Append", EncodeProduceRequest(1, {&item, 1}), left,
                  [this, &request, done = std::move(done)](absl::StatusOr<Bytes> answer) mutable {
                    absl::StatusOr<AppendResult> result = Read(request, std::move(answer));
                    if (!result.ok()) core_->ForgetTopic(request.topic);
                    done(std::move(result));
                  });
  }

  static absl::StatusOr<AppendResult> Read(const AppendRequest& request, absl::StatusOr<Bytes> answer) {
    if (!answer.ok()) return AfterSend(answer.status(), request);
    absl::StatusOr<v1::ProduceResponse> response = ParseAs<v1::ProduceResponse>(*answer);
    if (!response.ok() || response->results_size() != 1) {
      return OutcomeUnknown("the broker's answer cannot be read", request.topic, request.partition.value());
    }
    const v1::ProduceResult& result = response->results(0);
    if (result.has_error()) return ItemError(result.error());
    return AppendResult{Offset(result.base_offset()), Offset(result.next_offset()), LeaderEpoch(result.leader_epoch()),
                        result.log_append_time_ms()};
  }

  const std::shared_ptr<Core> core_;
};

}  // namespace

std::unique_ptr<Appender> MakeAppender(std::shared_ptr<Core> core) {
  return std::make_unique<AppenderImpl>(std::move(core));
}

}  // namespace sluice::client
