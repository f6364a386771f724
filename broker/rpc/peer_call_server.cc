#include "broker/rpc/peer_call_server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "broker/rpc/peer_call_message.h"
#include "broker/rpc/peer_stream.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

// The way to answer, from whichever thread. It lets go of the call once that is over, however long somebody keeps it.
class Answerer {
 public:
  explicit Answerer(std::shared_ptr<Call> call) : call_(std::move(call)) {}

  void Answer(const absl::StatusOr<std::string>& answer) {
    const std::shared_ptr<Call> call = Release();
    if (call == nullptr) return;
    if (!answer.ok()) return call->Finish(ToGrpc(answer.status()));
    if (answer->size() > kPeerCallBytesMax) {
      return call->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, Cat("an answer of ", answer->size(), " bytes")});
    }
    call->Reply(ToByteBuffer(EncodePeerAnswer(*answer)));
  }
  std::shared_ptr<Call> Release() {
    std::lock_guard lock(mutex_);
    return std::exchange(call_, nullptr);
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<Call> call_;
};

}  // namespace

class IncomingCall final : public Handler {
 public:
  IncomingCall(PeerCallServer& host, std::shared_ptr<Call> call)
      : host_(host), call_(call), answerer_(std::make_shared<Answerer>(std::move(call))) {}

  void OnStart() override { call_->ReadNext(); }
  void OnMessage(grpc::ByteBuffer message) override { host_.Handle(*this, message); }
  void OnReadsDone() override {
    if (!asked_) answerer_->Answer(absl::InvalidArgumentError("a call without a request"));
  }
  void OnDrain() override { answerer_->Answer(absl::UnavailableError("the node is shutting down")); }
  void OnGone() override {
    call_ = nullptr;
    answerer_->Release();
  }

  Call& call() { return *call_; }
  const std::shared_ptr<Answerer>& answerer() { return answerer_; }
  void SetAsked() { asked_ = true; }

 private:
  PeerCallServer& host_;
  std::shared_ptr<Call> call_;
  const std::shared_ptr<Answerer> answerer_;
  bool asked_ = false;
};

void PeerCallServer::Serve(PeerCallHandler handler) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(handler_ == nullptr) << "calls are served by one handler";
  handler_ = std::make_shared<PeerCallHandler>(std::move(handler));
}

std::shared_ptr<Handler> PeerCallServer::MakeHandler(std::shared_ptr<Call> call) {
  return std::make_shared<IncomingCall>(*this, std::move(call));
}

void PeerCallServer::Handle(IncomingCall& call, grpc::ByteBuffer message) {
  const std::shared_ptr<Answerer> answerer = call.answerer();
  const std::string address = call.call().peer();
  call.SetAsked();
  const absl::Status status = Ask(call, message);
  if (status.ok()) return;
  ++refused_;
  if (const int64_t count = refused_logged_.Due(host_.clock.Monotonic()); count > 0) {
    host_.options.log.Warn("refused a call at the peers' port",
                           {{"address", address}, {"times", count}, {"error", status}});
  }
  answerer->Answer(status);
}

absl::Status PeerCallServer::Ask(IncomingCall& call, const grpc::ByteBuffer& message) {
  const auto bytes = static_cast<int64_t>(message.Length());
  if (message.Length() > kPeerCallBytesMax + kPeerCallFramingBytesMax) {
    return absl::ResourceExhaustedError(Cat("a request of ", bytes, " bytes"));
  }
  std::string text;
  text.reserve(message.Length());
  const Slices slices(message);
  for (const std::string_view slice : slices.views()) text += slice;
  SLUICE_ASSIGN_OR_RETURN(PeerQuestion question, DecodePeerQuestion(text));
  const PeerIdentity identity = host_.Identity();
  SLUICE_RETURN_IF_ERROR(CheckPeerCaller({.version_min = host_.options.version_min,
                                          .version_max = host_.options.version_max,
                                          .cluster = identity.cluster,
                                          .node = identity.node,
                                          .to = {},
                                          .disk = identity.disk,
                                          .session = host_.options.session},
                                         question.caller));
  if (host_.credentials->enabled()) {
    SLUICE_RETURN_IF_ERROR(CheckNodeCertificate(*call.call().auth(), identity.cluster, question.caller.node));
  }
  std::shared_ptr<PeerCallHandler> handler;
  {
    std::lock_guard lock(mutex_);
    handler = handler_;
  }
  if (handler == nullptr || stopped_) return absl::UnavailableError("the node serves no calls now");
  // Given back when the reply is gone: until then the handler may hold the request.
  const auto release = [bytes](Load* load) {
    --load->calls;
    load->bytes -= bytes;
  };
  const bool full = load_->calls >= host_.options.calls_max || load_->bytes + bytes > host_.options.calls_bytes_max;
  if (full) return absl::ResourceExhaustedError("too many calls are under way at this node");
  ++load_->calls;
  load_->bytes += bytes;
  std::shared_ptr<void> held(load_.get(), [keep = load_, release](void*) { release(keep.get()); });
  std::shared_ptr<void> dropped(nullptr, [answerer = call.answerer(), held](void*) {
    answerer->Answer(absl::UnavailableError("the node did not answer the call"));
  });
  ++served_;
  PeerCaller caller{.node = question.caller.node,
                    .cluster = question.caller.cluster,
                    .disk = question.caller.disk,
                    .session = question.caller.session,
                    .address = call.call().peer()};
  const absl::Duration time_left = std::max(call.call().deadline() - absl::Now(), absl::ZeroDuration());
  (*handler)({.from = std::move(caller),
              .kind = question.kind,
              .request = std::move(question.request),
              .time_left = time_left},
             [answerer = call.answerer(), dropped = std::move(dropped)](absl::StatusOr<std::string> answer) {
               answerer->Answer(answer);
             });
  return absl::OkStatus();
}

void PeerCallServer::AddTo(PeerTransportStats* stats) const {
  stats->calls_served = served_;
  stats->calls_refused = refused_;
}

}  // namespace sluice::broker::rpc
