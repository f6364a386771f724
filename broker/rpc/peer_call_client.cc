#include "broker/rpc/peer_call_client.h"

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "broker/rpc/call.h"
#include "broker/rpc/completion.h"
#include "broker/rpc/peer_call_message.h"
#include "broker/rpc/peer_stream.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

// Nodes that are called, and seeds; those used longest ago go first.
constexpr size_t kChannelsMax = 64;
constexpr absl::Duration kDeadlineMax = absl::Hours(1);

std::shared_ptr<grpc::Channel> OpenCallChannel(const PeerHost& host, const std::string& address, NodeId to) {
  const PeerTransportOptions& options = host.options;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kPeerCallBytesMax + kPeerCallFramingBytesMax));
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kPeerMetadataBytesMax);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, PeerMs(options.handshake_timeout));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, PeerMs(options.backoff_min));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, PeerMs(options.backoff_max));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, PeerMs(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, PeerMs(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(address, host.credentials->ToNode(host.Identity().cluster, to), arguments);
}

// `done` on the queue's thread, and nothing else.
class Failing final : public std::enable_shared_from_this<Failing> {
 public:
  Failing(PeerHost& host, absl::Status status, PeerAnswered done)
      : host_(host), status_(std::move(status)), done_(std::move(done)) {
    ++host_.open;
  }
  ~Failing() { --host_.open; }
  Failing(const Failing&) = delete;
  Failing& operator=(const Failing&) = delete;
  void Start() { alarm_.Set(host_.queue, gpr_now(GPR_CLOCK_MONOTONIC), step_.Start()); }

 private:
  void OnAlarm(bool) { std::exchange(done_, nullptr)(std::move(status_)); }

  PeerHost& host_;
  absl::Status status_;
  PeerAnswered done_;
  grpc::Alarm alarm_;
  StepOf<Failing> step_{this, &Failing::OnAlarm};
};

}  // namespace

class OutgoingCall final : public std::enable_shared_from_this<OutgoingCall> {
 public:
  OutgoingCall(PeerCallClient& client, PeerAnswered done) : client_(client), done_(std::move(done)) {
    ++client_.host_.open;
  }
  ~OutgoingCall() { --client_.host_.open; }
  OutgoingCall(const OutgoingCall&) = delete;
  OutgoingCall& operator=(const OutgoingCall&) = delete;

  void Start(std::shared_ptr<grpc::Channel> channel, const grpc::ByteBuffer& question, absl::Duration deadline) {
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(deadline));
    stub_ = std::make_unique<grpc::GenericStub>(std::move(channel));
    reader_ = stub_->PrepareUnaryCall(&context_, kPeerCallMethod, question, client_.host_.queue);
    reader_->StartCall();
    reader_->Finish(&answer_, &status_, finish_step_.Start());
  }
  void Cancel() {
    stopped_ = true;
    context_.TryCancel();
  }

 private:
  void OnFinished(bool) {
    bool stopped = false;
    {
      std::lock_guard lock(client_.mutex_);
      client_.under_way_.erase(this);
      stopped = stopped_;
    }
    std::exchange(done_, nullptr)(Outcome(stopped));
  }

  absl::StatusOr<std::string> Outcome(bool stopped) {
    if (stopped && status_.error_code() == grpc::StatusCode::CANCELLED) {
      return absl::CancelledError("this node is stopping");
    }
    if (!status_.ok()) return FromGrpc(status_);
    std::string text;
    const Slices slices(answer_);
    for (const std::string_view slice : slices.views()) text += slice;
    return DecodePeerAnswer(text);
  }

  PeerCallClient& client_;
  PeerAnswered done_;
  bool stopped_ = false;  // under the client's lock
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericStub> stub_;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  StepOf<OutgoingCall> finish_step_{this, &OutgoingCall::OnFinished};
};

// Under the lock.
std::shared_ptr<grpc::Channel> PeerCallClient::ChannelTo(const std::string& address, NodeId to) {
  const std::pair key(address, to);
  if (channels_.size() >= kChannelsMax && !channels_.contains(key)) {
    channels_.erase(std::min_element(channels_.begin(), channels_.end(),
                                     [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
  }
  Channel& channel = channels_[key];
  if (channel.channel == nullptr) channel.channel = OpenCallChannel(host_, address, to);
  channel.used = ++uses_;
  return channel.channel;
}

void PeerCallClient::Call(const std::string& address, NodeId to, uint32_t kind, const std::string& request,
                          absl::Duration deadline, PeerAnswered done) {
  if (request.size() > kPeerCallBytesMax) {
    return Fail(absl::ResourceExhaustedError(Cat("a request of ", request.size(), " bytes")), std::move(done));
  }
  const PeerIdentity identity = host_.Identity();
  const PeerCallHello hello{.version_min = host_.options.version_min,
                            .version_max = host_.options.version_max,
                            .cluster = identity.cluster,
                            .node = identity.node,
                            .to = to,
                            .disk = identity.disk,
                            .session = host_.options.session};
  const grpc::ByteBuffer question = ToByteBuffer(EncodePeerQuestion(hello, kind, request));
  std::shared_ptr<OutgoingCall> call;
  std::shared_ptr<grpc::Channel> channel;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    call = std::make_shared<OutgoingCall>(*this, std::move(done));
    under_way_.emplace(call.get(), call);
    channel = ChannelTo(address, to);
  }
  ++made_;
  call->Start(std::move(channel), question, std::clamp(deadline, absl::ZeroDuration(), kDeadlineMax));
}

void PeerCallClient::Fail(absl::Status status, PeerAnswered done) {
  std::shared_ptr<Failing> failing;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    failing = std::make_shared<Failing>(host_, std::move(status), std::move(done));
  }
  failing->Start();
}

void PeerCallClient::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  for (const auto& [address, weak] : under_way_) {
    if (const auto call = weak.lock()) call->Cancel();
  }
  channels_.clear();
}

}  // namespace sluice::broker::rpc
