#include "broker/rpc/peer_incoming.h"

#include <utility>

#include "broker/rpc/peer_stream.h"
#include "common/text.h"

namespace sluice::broker::rpc {

class IncomingStream final : public Handler, public std::enable_shared_from_this<IncomingStream> {
 public:
  IncomingStream(PeerIncoming& host, std::shared_ptr<Call> call) : host_(host), call_(std::move(call)) {}

  void OnStart() override {
    patience_.Set(host_.host_.queue, After(host_.host_.options.handshake_timeout), patience_step_.Start());
    call_->ReadNext();
  }

  void OnMessage(grpc::ByteBuffer message) override {
    if (ended_) return;
    const Slices slices(message);
    if (!greeted_) return Greet(message.Length(), slices);
    host_.bytes_ += static_cast<int64_t>(message.Length());
    auto received = DecodePeerMessage(slices.views(), theirs_.node, mine_.node);
    if (!received.ok()) return Refuse(received.status());
    const bool right = theirs_.lane == PeerLane::kGroups ? received->liveness.empty() : received->messages.empty();
    if (!right) return Refuse(absl::InvalidArgumentError("a message for the other lane"));
    call_->ReadNext();  // while the receiver has this one
    host_.Deliver(*this, *std::move(received));
  }

  void OnReadsDone() override { End(grpc::Status::OK); }
  void OnDrain() override { End({grpc::StatusCode::UNAVAILABLE, "the node is shutting down"}); }
  void OnGone() override {
    ended_ = true;
    patience_.Cancel();
    host_.Leave(*this);
  }

  /// Another stream has taken its place: nothing of this one is delivered any more.
  void Retire() {
    ended_ = true;
    call_->Cancel();
  }
  std::string address() const { return call_->peer(); }
  const PeerHello& theirs() const { return theirs_; }

 private:
  void Greet(size_t bytes, const Slices& slices) {
    if (bytes > kPeerHelloBytesMax) return Refuse(absl::InvalidArgumentError("a first message that is no Hello"));
    auto theirs = DecodePeerHello(slices.views());
    if (!theirs.ok()) return Refuse(theirs.status());
    theirs_ = *theirs;
    if (host_.receiver_.load() == nullptr) return Refuse(absl::UnavailableError("the node is starting"));
    const PeerTransportOptions& options = host_.host_.options;
    const PeerIdentity identity = host_.host_.Identity();
    mine_ = {.version_min = options.version_min,
             .version_max = options.version_max,
             .cluster = identity.cluster,
             .node = identity.node,
             .to = theirs_.node,
             .disk = identity.disk,
             .session = options.session,
             .connection = theirs_.connection,
             .lane = theirs_.lane};
    if (const absl::Status status = CheckPeerHello(mine_, theirs_); !status.ok()) return Refuse(status);
    if (const absl::Status status = CheckCertificate(); !status.ok()) return Refuse(status);
    if (const absl::Status status = host_.Enter(*this); !status.ok()) return Refuse(status);
    greeted_ = true;
    patience_.Cancel();
    call_->Write(ToByteBuffer(EncodePeerHello(mine_)));
    call_->ReadNext();
    host_.host_.OnGreeted(theirs_.node);
  }

  absl::Status CheckCertificate() {
    if (!host_.host_.credentials->enabled()) return absl::OkStatus();
    return CheckNodeCertificate(*call_->auth(), mine_.cluster, theirs_.node);
  }

  void Refuse(const absl::Status& why) {
    ++host_.refused_;
    host_.LogRefused(call_->peer(), theirs_.node, why);
    End(ToGrpc(why));
  }

  void End(const grpc::Status& status) {
    ended_ = true;
    call_->Finish(status);
  }

  void OnPatienceEnd(bool ok) {
    if (ok && !greeted_ && !ended_) Refuse(absl::DeadlineExceededError("no Hello in time"));
  }

  PeerIncoming& host_;
  const std::shared_ptr<Call> call_;
  PeerHello mine_;
  PeerHello theirs_;
  bool greeted_ = false;
  bool ended_ = false;
  grpc::Alarm patience_;
  StepOf<IncomingStream> patience_step_{this, &IncomingStream::OnPatienceEnd};
};

std::shared_ptr<Handler> PeerIncoming::MakeHandler(std::shared_ptr<Call> call) {
  return std::make_shared<IncomingStream>(*this, std::move(call));
}

// A stream waits for the answer to its Hello before it sends anything, so of one process what is accepted later was
// begun later, and only its own numbers tell a Hello that was overtaken. A process that ended has its streams ended by
// the kernel, or, where the machine or the network died, by keepalive: until then who comes after it has to wait.
absl::Status PeerIncoming::Enter(IncomingStream& stream) {
  const PeerHello& theirs = stream.theirs();
  for (const PeerLane lane : {PeerLane::kGroups, PeerLane::kLiveness}) {
    const auto other = streams_.find({theirs.node, lane});
    if (other == streams_.end() || other->second->theirs().session == theirs.session) continue;
    return absl::FailedPreconditionError(Cat("another process, at ", other->second->address(),
                                             ", is connected as node ", theirs.node,
                                             ": two nodes have one id, or it has just been restarted"));
  }
  IncomingStream*& there = streams_[{theirs.node, theirs.lane}];
  if (there != nullptr) {
    if (there->theirs().connection >= theirs.connection) {
      return absl::FailedPreconditionError("a later stream of the same node is there");
    }
    there->Retire();
  }
  there = &stream;
  const auto [disk, first] = disks_.emplace(theirs.node, theirs.disk);
  if (!first && disk->second != theirs.disk) {
    host_.options.log.Warn("a node came back with another disk, or two nodes have one id",
                           {{"peer", theirs.node}, {"disk", theirs.disk}, {"disk_before", disk->second}});
    disk->second = theirs.disk;
  }
  return absl::OkStatus();
}

void PeerIncoming::Leave(IncomingStream& stream) {
  const auto found = streams_.find({stream.theirs().node, stream.theirs().lane});
  if (found != streams_.end() && found->second == &stream) streams_.erase(found);
}

void PeerIncoming::Deliver(IncomingStream& stream, ReceivedPeerMessage received) {
  if (received.damaged > 0) {
    damaged_ += received.damaged;
    if (const int64_t count = damage_logged_.Due(host_.clock.Monotonic()); count > 0) {
      host_.options.log.Warn("batches of a peer did not pass their checksum; their messages are lost",
                             {{"peer", stream.theirs().node}, {"times", count}, {"error", received.damage}});
    }
  }
  if (stopped_) return;
  messages_ += static_cast<int64_t>(received.messages.size() + received.liveness.size());
  replication::PeerReceiver& receiver = *receiver_.load();
  for (auto& liveness : received.liveness) receiver.OnLiveness(stream.theirs().node, std::move(liveness));
  for (PeerGroupMessage& message : received.messages) receiver.OnMessage(message.group, std::move(message.message));
}

void PeerIncoming::LogRefused(const std::string& address, NodeId node, const absl::Status& why) {
  if (const int64_t count = refused_logged_.Due(host_.clock.Monotonic()); count > 0) {
    host_.options.log.Warn("refused a stream at the peers' port",
                           {{"address", address}, {"peer", node}, {"times", count}, {"error", why}});
  }
}

void PeerIncoming::AddTo(PeerTransportStats* stats) const {
  stats->messages_received = messages_;
  stats->bytes_received = bytes_;
  stats->messages_damaged = damaged_;
  stats->streams_refused = refused_;
}

}  // namespace sluice::broker::rpc
