#include "broker/rpc/peer_transport.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "broker/rpc/call.h"
#include "broker/rpc/peer_call_client.h"
#include "broker/rpc/peer_call_server.h"
#include "broker/rpc/peer_incoming.h"
#include "broker/rpc/peer_link.h"
#include "broker/rpc/peer_stream.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "runtime/tcp_acceptor.h"

namespace sluice::broker::rpc {
namespace {

// A peer has two connections with a stream each, and one for its calls.
constexpr int kStreamsPerConnection = 128;
constexpr int kAccepts = 4;
constexpr std::chrono::milliseconds kGoodbye(200);
constexpr absl::Duration kIdleConnectionMax = absl::Seconds(10);
// gRPC's own buffers, beside the messages under way.
constexpr size_t kTransportBytes = 64 << 20;

class Transport final : public GrpcPeerTransport, public CallHost, public PeerHost {
 public:
  Transport(const PeerTransportOptions& of_options, const Clock& of_clock) : PeerHost(of_options, of_clock) {}
  ~Transport() override {
    if (stopper_.joinable()) stopper_.join();
    Close();
  }

  absl::Status Listen();
  const std::string& address() const override { return address_; }
  void SetIdentity(const PeerIdentity& identity) override;
  PeerTransportStats stats() const override;

  void Start(replication::PeerReceiver& receiver) override;
  void Stop(absl::AnyInvocable<void()> done) override;
  bool Send(const ReplicaId& group, raft::Message message) override;
  bool SendLiveness(NodeId to, replication::LivenessMessage message) override;

  void SetPeer(NodeId node, std::string address) override;
  void RemovePeer(NodeId node) override;
  void Call(PeerTarget to, uint32_t kind, std::string request, absl::Duration deadline, PeerAnswered done) override;
  void Serve(PeerCallHandler handler) override;

  std::shared_ptr<Handler> MakeHandler(const std::string& method, std::shared_ptr<rpc::Call> call) override {
    if (method == kPeerStreamMethod) return incoming_.MakeHandler(std::move(call));
    return method == kPeerCallMethod ? call_server_.MakeHandler(std::move(call)) : nullptr;
  }
  std::optional<Error> Admit() override {
    if (!stopping_) return std::nullopt;
    return MakeError(Reason::kNotAvailable, "the node is shutting down", true);
  }
  void OnCallEnded() override {}
  void OnLinkState(NodeId peer, PeerLane lane, bool stands) override;
  void OnGreeted(NodeId peer) override;

 private:
  struct Peer {
    std::string address;
    std::shared_ptr<PeerLink> groups;
    std::shared_ptr<PeerLink> liveness;
  };

  std::shared_ptr<PeerLink> LinkTo(NodeId peer, PeerLane lane) const;
  bool SendPart(NodeId to, PeerLane lane, const ReplicaId& group, absl::FunctionRef<PeerPart()> encode);
  /// Starts the queue's thread, unless it runs: once there is somebody to talk to. gRPC lets any thread that waits on a
  /// queue read the sockets of all, and a thread that has nothing else to do is the one: each message of a client would
  /// be read by this thread and handed to another.
  void EnsureRuns();
  /// Under the lock. Listens from now on, if it does not yet.
  void Accept();
  void Take(int connection);
  void LogRefused();
  /// Ends everything and returns once nothing runs any more.
  void Close();

  PeerIncoming incoming_{*this};
  PeerCallServer call_server_{*this};
  PeerCallClient call_client_{*this};
  grpc::AsyncGenericService service_;
  std::unique_ptr<runtime::TcpAcceptor> acceptor_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
  std::unique_ptr<CallQueue> calls_;
  std::unique_ptr<grpc::Server> server_;
  std::once_flag thread_begins_;
  std::thread thread_;
  std::thread stopper_;
  std::string address_;
  LogLimit connections_logged_{absl::Seconds(10)};

  mutable std::mutex mutex_;
  std::map<NodeId, Peer> peers_;
  bool started_ = false;
  bool accepting_ = false;
  std::atomic<bool> stopping_ = false;  // set under the lock
  replication::PeerReceiver* receiver_ = nullptr;

  // On the queue's thread: how many streams stand, of each lane.
  std::map<NodeId, std::array<int, 2>> standing_;
};

absl::Status Transport::Listen() {
  SLUICE_ASSIGN_OR_RETURN(acceptor_, runtime::TcpAcceptor::Listen(
                                         {.address = options.address, .connections_max = options.connections_max}));
  address_ = Cat(options.address.substr(0, options.address.rfind(':')), ":", acceptor_->port());
  SLUICE_ASSIGN_OR_RETURN(credentials, TlsCredentials::Load(options.tls, options.tls_reload_every));
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(options.message_bytes_max + int64_t{kPeerEnvelopeBytesMax + kPeerFramingBytesMax}));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kPeerMetadataBytesMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, PeerMs(options.handshake_timeout));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, PeerMs(kIdleConnectionMax));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, PeerMs(options.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, PeerMs(options.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Peers ask often whether this node lives, and are not to be cut off for that.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  grpc::ResourceQuota quota("sluice-peers");
  quota.Resize(4 * static_cast<size_t>(options.message_bytes_max) + kTransportBytes);
  builder.SetResourceQuota(quota);
  connections_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials->Server());
  builder.RegisterAsyncGenericService(&service_);
  calls_ = std::make_unique<CallQueue>(*this, service_, builder.AddCompletionQueue());
  queue = calls_->queue.get();
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    calls_ = nullptr;
    return absl::UnavailableError("gRPC: the peers' server cannot be made; the log of this process says why");
  }
  for (int i = 0; i < kAccepts; ++i) std::make_shared<rpc::Call>(*calls_)->Accept();
  return absl::OkStatus();
}

void Transport::EnsureRuns() {
  std::call_once(thread_begins_, [this] {
    thread_ = std::thread([this] { calls_->Run(); });
    pthread_setname_np(thread_.native_handle(), "sluice-peers");
  });
}

void Transport::SetIdentity(const PeerIdentity& identity) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(!started_) << "a node's identity is set before its transport starts";
  Identify(identity);
}

void Transport::Start(replication::PeerReceiver& receiver) {
  const PeerIdentity identity = Identity();
  SLUICE_CHECK(identity.node.value() > 0 && !identity.cluster.IsNil()) << "a transport without a node or a cluster";
  std::vector<std::shared_ptr<PeerLink>> begin;
  {
    std::lock_guard lock(mutex_);
    SLUICE_CHECK(!started_) << "a transport is started once";
    if (stopping_) return;
    started_ = true;
    receiver_ = &receiver;
    incoming_.Start(receiver);
    peers_.erase(identity.node);
    for (const auto& [node, peer] : peers_) begin.insert(begin.end(), {peer.groups, peer.liveness});
    Accept();
  }
  for (const auto& link : begin) link->Begin();
}

void Transport::Serve(PeerCallHandler handler) {
  call_server_.Serve(std::move(handler));
  std::lock_guard lock(mutex_);
  if (!stopping_) Accept();
}

void Transport::Accept() {
  if (std::exchange(accepting_, true)) return;
  acceptor_->Start([this](int connection) { Take(connection); }, [this] { LogRefused(); });
}

void Transport::LogRefused() {
  if (const int64_t count = connections_logged_.Due(clock.Monotonic()); count > 0) {
    options.log.Warn("refused connections at the peers' port: too many, or no file descriptors left",
                     {{"refused", count}, {"connections_max", options.connections_max}});
  }
}

// On the acceptor's thread.
void Transport::Take(int connection) {
  const int user_timeout_ms = PeerMs(options.keepalive_timeout);
  setsockopt(connection, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = connection;
  EnsureRuns();
  connections_->HandleNewConnection(&parameters);
}

void Transport::SetPeer(NodeId node, std::string address) {
  std::vector<std::shared_ptr<PeerLink>> begin;
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || node == Identity().node) return;
    EnsureRuns();
    Peer& peer = peers_[node];
    peer.address = address;
    if (peer.groups == nullptr) {
      peer.groups = std::make_shared<PeerLink>(*this, node, PeerLane::kGroups, address);
      peer.liveness = std::make_shared<PeerLink>(*this, node, PeerLane::kLiveness, address);
      if (started_) begin = {peer.groups, peer.liveness};
    } else {
      peer.groups->SetAddress(address);
      peer.liveness->SetAddress(address);
    }
  }
  for (const auto& link : begin) link->Begin();
}

void Transport::RemovePeer(NodeId node) {
  Peer peer;
  {
    std::lock_guard lock(mutex_);
    const auto found = peers_.find(node);
    if (found == peers_.end()) return;
    peer = std::move(found->second);
    peers_.erase(found);
  }
  peer.groups->Stop();
  peer.liveness->Stop();
}

void Transport::Call(PeerTarget to, uint32_t kind, std::string request, absl::Duration deadline, PeerAnswered done) {
  std::string address;
  NodeId node;
  if (const auto* asked = std::get_if<NodeId>(&to)) {
    node = *asked;
    std::lock_guard lock(mutex_);
    if (const auto found = peers_.find(node); found != peers_.end()) address = found->second.address;
  } else {
    address = std::get<std::string>(to);
  }
  if (address.empty()) {
    return call_client_.Fail(absl::NotFoundError(Cat("no address is known for node ", node)), std::move(done));
  }
  EnsureRuns();
  call_client_.Call(address, node, kind, request, deadline, std::move(done));
}

std::shared_ptr<PeerLink> Transport::LinkTo(NodeId peer, PeerLane lane) const {
  std::lock_guard lock(mutex_);
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return nullptr;
  return lane == PeerLane::kGroups ? found->second.groups : found->second.liveness;
}

bool Transport::SendPart(NodeId to, PeerLane lane, const ReplicaId& group, absl::FunctionRef<PeerPart()> encode) {
  const std::shared_ptr<PeerLink> link = LinkTo(to, lane);
  if (link == nullptr) return false;
  if (!link->stands()) {
    link->CountRefused();
    return false;
  }
  PeerPart part = encode();
  if (part.envelope.size() > kPeerEnvelopeBytesMax ||
      part.batch_bytes > static_cast<size_t>(options.message_bytes_max)) {
    options.log.Error("a message to a peer is too large to be sent",
                      {{"peer", to}, {"group", group}, {"bytes", part.size_bytes()}});
    link->CountRefused();
    return false;
  }
  return link->Send(group, std::move(part));
}

bool Transport::Send(const ReplicaId& group, raft::Message message) {
  if (message.from.node != Identity().node) return false;
  return SendPart(message.to.node, PeerLane::kGroups, group, [&] { return EncodePeerPart(group, message); });
}

bool Transport::SendLiveness(NodeId to, replication::LivenessMessage message) {
  return SendPart(to, PeerLane::kLiveness, ReplicaId(), [&] { return EncodePeerPart(message); });
}

void Transport::OnLinkState(NodeId peer, PeerLane lane, bool stands) {
  std::array<int, 2>& count = standing_[peer];
  const bool before = count[0] > 0 && count[1] > 0;
  count[lane == PeerLane::kGroups ? 0 : 1] += stands ? 1 : -1;
  const bool now = count[0] > 0 && count[1] > 0;
  if (now == before || stopping_) return;
  receiver_->OnPeerState(peer, now ? replication::PeerState::kConnected : replication::PeerState::kBroken);
}

void Transport::OnGreeted(NodeId peer) {
  for (const PeerLane lane : {PeerLane::kGroups, PeerLane::kLiveness}) {
    if (const auto link = LinkTo(peer, lane)) link->Kick();
  }
}

PeerTransportStats Transport::stats() const {
  PeerTransportStats stats;
  incoming_.AddTo(&stats);
  call_server_.AddTo(&stats);
  call_client_.AddTo(&stats);
  const runtime::TcpAcceptorStats accepted = acceptor_->stats();
  stats.connections = accepted.open;
  stats.connections_refused = accepted.refused;
  std::lock_guard lock(mutex_);
  for (const auto& [node, peer] : peers_) {
    PeerStats& of_peer = stats.peers[node];
    of_peer.connected = peer.groups->stands() && peer.liveness->stands();
    peer.groups->AddTo(&of_peer);
    peer.liveness->AddTo(&of_peer);
  }
  return stats;
}

void Transport::Stop(absl::AnyInvocable<void()> done) {
  SLUICE_CHECK(!stopper_.joinable()) << "a transport is stopped once";
  stopper_ = std::thread([this, done = std::move(done)]() mutable {
    Close();
    done();
  });
}

void Transport::Close() {
  if (server_ == nullptr) return;
  std::map<NodeId, Peer> peers;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    peers.swap(peers_);
  }
  incoming_.Stop();
  call_server_.Stop();
  acceptor_->Stop();
  for (const auto& [node, peer] : peers) {
    peer.groups->Stop();
    peer.liveness->Stop();
  }
  call_client_.Stop();
  EnsureRuns();     // for what ends now
  calls_->Drain();  // tells those who are connected why
  server_->Shutdown(std::chrono::system_clock::now() + kGoodbye);
  calls_->AwaitEnd();
  while (open > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  calls_->queue->Shutdown();
  thread_.join();
  server_ = nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcPeerTransport>> GrpcPeerTransport::Make(const PeerTransportOptions& options,
                                                                           const Clock& clock) {
  auto transport = std::make_unique<Transport>(options, clock);
  SLUICE_RETURN_IF_ERROR(transport->Listen());
  return transport;
}

}  // namespace sluice::broker::rpc
