#include "broker/rpc/peer_link.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <utility>

#include "broker/rpc/call.h"
#include "broker/rpc/peer_stream.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

std::shared_ptr<grpc::Channel> OpenChannel(const PeerHost& host, const std::string& address, NodeId peer) {
  const PeerTransportOptions& options = host.options;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kPeerHelloBytesMax));
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of this attempt alone
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, PeerMs(options.handshake_timeout));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, PeerMs(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, PeerMs(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(address, host.credentials->ToNode(host.Identity().cluster, peer), arguments);
}

}  // namespace

// One stream, from the call to its end. It lives until its last step at gRPC is complete.
class PeerAttempt : public std::enable_shared_from_this<PeerAttempt> {
 public:
  explicit PeerAttempt(std::shared_ptr<PeerLink> link) : link_(std::move(link)) { ++link_->host_.open; }
  ~PeerAttempt() { --link_->host_.open; }
  PeerAttempt(const PeerAttempt&) = delete;
  PeerAttempt& operator=(const PeerAttempt&) = delete;

  void Start(const std::string& address) {
    PeerHost& host = link_->host_;
    const PeerIdentity identity = host.Identity();
    mine_ = {.version_min = host.options.version_min,
             .version_max = host.options.version_max,
             .cluster = identity.cluster,
             .node = identity.node,
             .to = link_->peer_,
             .disk = identity.disk,
             .session = host.options.session,
             .connection = ++host.connections,
             .lane = link_->lane_};
    stub_ = std::make_unique<grpc::GenericStub>(OpenChannel(host, address, link_->peer_));
    call_ = stub_->PrepareCall(&context_, kPeerStreamMethod, host.queue);
    handshake_.Set(host.queue, After(host.options.handshake_timeout), handshake_step_.Start());
    call_->StartCall(started_step_.Start());
  }
  void Cancel() { context_.TryCancel(); }

  /// With `writing` taken by the caller.
  void Write(grpc::ByteBuffer message) {
    outgoing_.Swap(&message);
    call_->Write(outgoing_, write_step_.Start());
  }

  bool writing = false;  // under the link's lock

 private:
  void OnStarted(bool ok) {
    if (!ok) return End();
    {
      std::lock_guard lock(link_->mutex_);
      writing = true;
    }
    Write(ToByteBuffer(EncodePeerHello(mine_)));
    call_->Read(&incoming_, read_step_.Start());
  }

  void OnRead(bool ok) {
    if (!ok) return End();
    if (const absl::Status status = Judge(); !status.ok()) {
      failure_ = status;
      refused_ = true;
      Cancel();
      return End();
    }
    stands_ = true;
    handshake_.Cancel();
    call_->Read(&incoming_, read_step_.Start());  // completes when the stream ends
    link_->OnStands(*this);
  }

  // What the peer said: one Hello, as it should be.
  absl::Status Judge() {
    if (stands_) return absl::InvalidArgumentError("the peer sent where it only listens");
    const Slices slices(incoming_);
    const auto theirs = DecodePeerHello(slices.views());
    if (!theirs.ok()) return theirs.status();
    if (theirs->node != link_->peer_) {
      return absl::FailedPreconditionError(
          Cat("node ", link_->peer_, " is called, and node ", theirs->node, " answers"));
    }
    return CheckPeerHello(mine_, *theirs);
  }

  void OnWritten(bool ok) {
    outgoing_.Clear();
    std::unique_lock lock(link_->mutex_);
    writing = false;
    if (ok && link_->attempt_.get() == this) link_->Advance(std::move(lock));
  }

  void OnHandshakeTimeout(bool ok) {
    if (!ok || stands_ || ending_) return;
    failure_ = absl::DeadlineExceededError("no connection and no answer to the Hello in time");
    Cancel();
  }

  // Once nothing more can be read.
  void End() {
    ending_ = true;
    handshake_.Cancel();
    link_->OnBroken();
    call_->Finish(&status_, finish_step_.Start());
  }

  void OnFinished(bool) {
    if (failure_.ok()) {
      failure_ = status_.ok() ? absl::UnavailableError("the peer ended the stream") : FromGrpc(status_);
      refused_ = status_.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
                 status_.error_code() == grpc::StatusCode::PERMISSION_DENIED;
    }
    link_->OnEnded(failure_, refused_);
  }

  const std::shared_ptr<PeerLink> link_;
  PeerHello mine_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericStub> stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::Alarm handshake_;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;
  grpc::Status status_;
  absl::Status failure_;
  bool refused_ = false;
  bool stands_ = false;
  bool ending_ = false;
  StepOf<PeerAttempt> started_step_{this, &PeerAttempt::OnStarted};
  StepOf<PeerAttempt> read_step_{this, &PeerAttempt::OnRead};
  StepOf<PeerAttempt> write_step_{this, &PeerAttempt::OnWritten};
  StepOf<PeerAttempt> finish_step_{this, &PeerAttempt::OnFinished};
  StepOf<PeerAttempt> handshake_step_{this, &PeerAttempt::OnHandshakeTimeout};
};

PeerLink::PeerLink(PeerHost& host, NodeId peer, PeerLane lane, std::string address)
    : host_(host),
      peer_(peer),
      lane_(lane),
      queue_(static_cast<size_t>(host.options.queue_bytes_max)),
      address_(std::move(address)),
      random_(static_cast<uint32_t>(std::hash<std::string_view>()(host.options.session.AsBytes())) +
              2 * static_cast<uint32_t>(peer.value()) + static_cast<uint32_t>(lane)) {}

void PeerLink::Begin() {
  std::shared_ptr<PeerAttempt> attempt;
  std::string address;
  {
    std::lock_guard lock(mutex_);
    if (stopped_ || attempt_ != nullptr || waiting_) return;
    attempt = attempt_ = std::make_shared<PeerAttempt>(shared_from_this());
    address = address_;
    at_once_ = false;
  }
  attempt->Start(address);
}

bool PeerLink::Send(const ReplicaId& group, PeerPart part) {
  std::unique_lock lock(mutex_);
  if (!stands_ || !queue_.Push(group, std::move(part))) {
    ++refused_;
    return false;
  }
  ++sent_;
  Advance(std::move(lock));
  return true;
}

void PeerLink::Advance(std::unique_lock<std::mutex> lock) {
  if (!stands_ || attempt_->writing || queue_.empty()) return;
  const std::vector<PeerPart> parts = queue_.Take();
  attempt_->writing = true;
  const std::shared_ptr<PeerAttempt> attempt = attempt_;
  lock.unlock();
  for (const PeerPart& part : parts) bytes_sent_ += static_cast<int64_t>(part.size_bytes());
  attempt->Write(ToByteBuffer(JoinPeerParts(parts)));
}

void PeerLink::OnStands(PeerAttempt& attempt) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_ || attempt_.get() != &attempt) return;
    stands_ = stands_flag_ = true;
    failures_ = 0;
    refused_by_peer_ = false;
  }
  ++connects_;
  last_failure_.clear();
  if (lane_ == PeerLane::kGroups) host_.options.log.Info("connected to a peer", {{"peer", peer_}});
  host_.OnLinkState(peer_, lane_, true);
}

void PeerLink::OnBroken() {
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(stands_, false)) return;
    stands_flag_ = false;
    queue_.Clear();
  }
  host_.OnLinkState(peer_, lane_, false);
}

void PeerLink::OnEnded(const absl::Status& why, bool refused) {
  std::unique_lock lock(mutex_);
  attempt_ = nullptr;
  if (stopped_) return;
  refused_by_peer_ = refused;
  absl::Duration delay = absl::ZeroDuration();
  if (!at_once_) {
    const absl::Duration grown = host_.options.backoff_min * std::min(1 << std::min(failures_++, 20), 1 << 20);
    delay = refused ? host_.options.backoff_max : std::min(grown, host_.options.backoff_max);
    delay -= delay / 2 * (static_cast<double>(random_() % 1000) / 1000);
  }
  waiting_ = true;
  ++host_.open;
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(host_.queue, After(delay), alarm_step_.Start());
  lock.unlock();
  LogFailure(why);
}

// The first of a kind, and then one a minute: while a peer is down every attempt fails alike.
void PeerLink::LogFailure(const absl::Status& why) {
  std::string text(why.message());
  const bool due = failures_logged_.Due(host_.clock.Monotonic()) > 0;
  if (text == last_failure_ && !due) return;
  host_.options.log.Warn(
      "the stream to a peer is broken",
      {{"peer", peer_}, {"lane", lane_ == PeerLane::kGroups ? "groups" : "liveness"}, {"error", why}});
  last_failure_ = std::move(text);
}

void PeerLink::OnAlarm(bool) {
  {
    std::lock_guard lock(mutex_);
    waiting_ = false;
  }
  Begin();
  --host_.open;
}

void PeerLink::SetAddress(const std::string& address) {
  std::lock_guard lock(mutex_);
  if (address_ == address) return;
  address_ = address;
  at_once_ = true;
  failures_ = 0;
  if (attempt_ != nullptr) attempt_->Cancel();
  if (waiting_) alarm_->Cancel();
}

void PeerLink::Kick() {
  std::lock_guard lock(mutex_);
  if (waiting_ && !refused_by_peer_) alarm_->Cancel();
}

void PeerLink::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  if (attempt_ != nullptr) attempt_->Cancel();
  if (waiting_) alarm_->Cancel();
}

void PeerLink::AddTo(PeerStats* stats) const {
  std::lock_guard lock(mutex_);
  stats->connects += connects_;
  stats->messages_sent += sent_;
  stats->bytes_sent += bytes_sent_;
  stats->messages_refused += refused_;
  stats->queue_bytes += static_cast<int64_t>(queue_.bytes());
}

}  // namespace sluice::broker::rpc
