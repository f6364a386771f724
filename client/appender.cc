#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "client/await.h"
#include "client/client_impl.h"
#include "client/error.h"
#include "client/leader_calls.h"
#include "client/producer_wire.h"
#include "client/wire.h"
#include "common/text.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {
namespace {

using AppendDone = absl::AnyInvocable<void(absl::StatusOr<AppendResult>)>;

// Before the leader is asked for again.
constexpr absl::Duration kPauseMin = absl::Milliseconds(10);

// A failure after the request may have left this process. A broker that refused says so with a detail, or with a code
// that gRPC uses only before a handler runs; anything else may hide a write.
absl::Status AfterSend(const absl::Status& status, const AppendRequest& request) {
  if (GetErrorDetail(status).has_value()) return status;
  if (const auto oversize = GetOversizeRefusal(status)) {
    return TooLargeToSend(*oversize, request.topic, request.partition.value());
  }
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

// One batch on its way: from leader to leader, as long as it is certain that nobody wrote it.
class Append : public std::enable_shared_from_this<Append> {
 public:
  // `request` lives as long as the caller waits.
  Append(std::shared_ptr<Core> core, const AppendRequest& request, absl::Duration timeout, AppendDone done)
      : core_(std::move(core)),
        request_(request),
        deadline_(core_->clock().Monotonic() + timeout),
        done_(std::move(done)) {}

  void Start() {
    auto on_routes = [self = shared_from_this()](const absl::StatusOr<Metadata::Routes>& routes) {
      self->OnRoutes(routes);
    };
    Metadata& metadata = core_->metadata();
    if (lost_at_.has_value()) return metadata.Refresh(request_.topic, *lost_at_, Left(), std::move(on_routes));
    metadata.Find(request_.topic, Left(), std::move(on_routes));
  }

 private:
  absl::Duration Left() const { return deadline_ - core_->clock().Monotonic(); }
  int32_t partition() const { return request_.partition.value(); }
  void Finish(absl::StatusOr<AppendResult> result) { std::exchange(done_, nullptr)(std::move(result)); }

  void OnRoutes(const absl::StatusOr<Metadata::Routes>& routes) {
    if (absl::IsUnavailable(routes.status())) return Again(routes.status());
    // The time is over: what kept the batch from being written says more.
    if (absl::IsDeadlineExceeded(routes.status()) && !why_.ok()) return Finish(why_);
    if (!routes.ok()) return Finish(routes.status());
    absl::StatusOr<std::string> leader = LeaderOf(**routes, request_.topic, partition());
    if (leader.ok()) return Connect(*leader);
    // A partition that was added since is not in what was known before this began.
    if (absl::IsNotFound(leader.status()) && lost_at_.has_value()) return Finish(leader.status());
    Again(leader.status());
  }

  // Connected first: so that a failure to connect is known not to have written anything.
  void Connect(const std::string& leader) {
    core_->ChannelTo(leader).Connect(std::min(Left(), core_->options().connect_timeout),
                                     [self = shared_from_this(), leader](const absl::Status& status) {
                                       if (status.ok()) return self->Send(leader);
                                       self->core_->metadata().Failed(self->request_.topic, self->partition(), leader);
                                       self->Again(status);
                                     });
  }

  void Send(const std::string& leader) {
    if (Left() <= absl::ZeroDuration()) {
      return Finish(absl::DeadlineExceededError("the batch was not sent: the time ran out before that"));
    }
    ProduceItemToSend item{request_.topic, partition(), request_.batch, request_.expected_base_offset,
                           /*reset=*/false};
    core_->CallAt(leader, "/sluice.v1.Log/Append", Join(EncodeProduceRequest(1, {&item, 1})), Left(),
                  [self = shared_from_this(), leader](absl::StatusOr<Bytes> answer) {
                    self->OnAnswer(leader, Read(self->request_, std::move(answer)));
                  });
  }

  void OnAnswer(const std::string& leader, absl::StatusOr<AppendResult> result) {
    if (result.ok()) return Finish(std::move(result));
    const std::optional<ErrorDetail> detail = GetErrorDetail(result.status());
    const bool elsewhere = detail.has_value() && IsLeaderTrouble(result.status());
    if (!elsewhere) {
      if (IsOutcomeUnknown(result.status())) core_->metadata().Failed(request_.topic, partition(), leader);
      return Finish(std::move(result));
    }
    if (core_->metadata().Follow(request_.topic, partition(), leader, detail->leader)) {
      lost_at_.reset();
      return Start();
    }
    Again(result.status());
  }

  // Nothing was written, and another leader may be there soon. Metadata keeps the pace.
  void Again(const absl::Status& why) {
    if (core_->closed() || Left() <= kPauseMin) return Finish(why);
    why_ = why;
    lost_at_ = core_->metadata().last_question();
    core_->executor().PostAfter(kPauseMin, [self = shared_from_this()] { self->Start(); });
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
  const AppendRequest& request_;
  const absl::Duration deadline_;
  AppendDone done_;
  absl::Status why_;                 // nobody took it so far; OK: nobody was asked
  std::optional<uint64_t> lost_at_;  // the last question when what was known of the leader proved wrong
};

class AppenderImpl : public Appender {
 public:
  explicit AppenderImpl(std::shared_ptr<Core> core) : core_(std::move(core)) {}

  absl::StatusOr<AppendResult> AppendBatch(const AppendRequest& request, absl::Duration timeout) override {
    return Await<absl::StatusOr<AppendResult>>(core_->executor(), [this, &request, timeout](AppendDone done) {
      std::make_shared<Append>(core_, request, std::min(timeout, core_->options().timeout), std::move(done))->Start();
    });
  }

 private:
  const std::shared_ptr<Core> core_;
};

}  // namespace

std::unique_ptr<Appender> MakeAppender(std::shared_ptr<Core> core) {
  return std::make_unique<AppenderImpl>(std::move(core));
}

}  // namespace sluice::client
