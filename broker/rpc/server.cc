#include "broker/rpc/server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "broker/rpc/call.h"
#include "broker/rpc/handlers.h"
#include "broker/rpc/tls.h"
#include "common/log_limit.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "runtime/tcp_acceptor.h"

namespace sluice::broker::rpc {
namespace {

// Requests of each queue that gRPC may hand over without being asked again.
constexpr int kAcceptsPerQueue = 4;
// What a request may hold beside its batches.
constexpr int64_t kEnvelopeBytesMax = 64 << 10;
// gRPC's own buffers, beside the messages under way.
constexpr size_t kTransportBytes = 64 << 20;
// Between two lines of the log about what clients can do as often as they like.
constexpr absl::Duration kLogEvery = absl::Seconds(10);

int Ms(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

void SetChannelArguments(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.message_bytes_max + kEnvelopeBytesMax));
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.streams_max);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Ms(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Ms(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A client may look for a dead server every 10 s.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 9'000);
  // Batches carry their own compression, with a bound; a compressed message is inflated by gRPC without one.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
}

class ServerImpl final : public Server, public CallHost {
 public:
  ServerImpl(const ServerOptions& options, Broker& broker, const Clock& clock)
      : options_(options), budget_(options.inflight_bytes_max), services_{broker,
                                                                          clock,
                                                                          budget_,
                                                                          produce_latency_,
                                                                          options_.log,
                                                                          slow_readers_logged_,
                                                                          options.read_stall_max} {}
  ~ServerImpl() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Start() {
    SLUICE_ASSIGN_OR_RETURN(tls_, TlsCredentials::Load(options_.tls, options_.tls_reload_every));
    // One too many is closed without a word: a GOAWAY behind settings would be a connection made, which clients try
    // again and again until their deadline; closed before that, it is UNAVAILABLE at once, and nothing was sent.
    SLUICE_ASSIGN_OR_RETURN(acceptor_, runtime::TcpAcceptor::Listen(
                                           {.address = options_.address, .connections_max = options_.connections_max}));
    // It would write a line to standard error for each string that is not UTF-8; the caller is told by the status.
    google::protobuf::SetLogHandler(nullptr);
    grpc::ServerBuilder builder;
    SetChannelArguments(options_, &builder);
    grpc::ResourceQuota quota("sluice");
    quota.Resize(static_cast<size_t>(options_.inflight_bytes_max) + kTransportBytes);
    builder.SetResourceQuota(quota);
    connections_ = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, tls_->Server());
    builder.RegisterAsyncGenericService(&service_);
    for (int i = 0; i < options_.threads; ++i) {
      queues_.push_back(std::make_unique<CallQueue>(*this, service_, builder.AddCompletionQueue()));
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      queues_.clear();
      return absl::UnavailableError("gRPC: the server cannot be made; the log of this process says why");
    }
    address_ = Cat(options_.address.substr(0, options_.address.rfind(':')), ":", acceptor_->port());
    for (auto& queue : queues_) {
      for (int i = 0; i < kAcceptsPerQueue; ++i) std::make_shared<Call>(*queue)->Accept();
      threads_.emplace_back([&queue = *queue] { queue.Run(); });
      pthread_setname_np(threads_.back().native_handle(), "sluice-rpc");
    }
    acceptor_->Start([this](int connection) { Take(connection); }, [this] { LogRefused(); });
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

  void Shutdown(absl::Duration grace) override {
    if (server_ == nullptr) return;
    acceptor_->Stop();
    draining_ = true;
    for (auto& queue : queues_) queue->Drain();
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
    for (auto& queue : queues_) queue->AwaitEnd();  // the broker may still be answering what was cancelled
    for (auto& queue : queues_) queue->queue->Shutdown();
    for (std::thread& thread : threads_) thread.join();
    server_ = nullptr;
  }

  ServerStats stats() const override {
    const runtime::TcpAcceptorStats connections = acceptor_->stats();
    return {.connections = connections.open,
            .connections_refused = connections.refused,
            .calls_started = started_,
            .calls_refused = refused_,
            .calls_active = active_,
            .inflight_bytes = budget_.bytes(),
            .produce_latency = produce_latency_.Snapshot()};
  }

  std::shared_ptr<Handler> MakeHandler(const std::string& method, std::shared_ptr<Call> call) override {
    if (method == "/sluice.v1.Log/Produce") return MakeProduceHandler(services_, std::move(call), true);
    if (method == "/sluice.v1.Log/Fetch") return MakeFetchHandler(services_, std::move(call));
    if (method == "/sluice.v1.Log/Consume") return MakeConsumeHandler(services_, std::move(call));
    if (method == "/sluice.v1.Log/Append") return MakeProduceHandler(services_, std::move(call), false);
    if (auto handler = MakeUnaryHandler(services_, method, call)) return handler;
    if (auto handler = MakeHealthHandler(services_, method, call)) return handler;
    return MakeReflectionHandler(method, std::move(call));
  }

  std::optional<Error> Admit() override {
    ++started_;
    if (draining_) {
      ++refused_;
      return MakeError(Reason::kNotAvailable, "the node is shutting down", true);
    }
    if (active_.fetch_add(1) < options_.streams_max) return std::nullopt;
    --active_;
    ++refused_;
    return MakeError(Reason::kQuota, Cat("more than ", options_.streams_max, " calls under way"), true);
  }
  void OnCallEnded() override { --active_; }

 private:
  // On the acceptor's thread.
  void Take(int connection) {
    // gRPC would set it on a listener of its own: what was sent and is not acknowledged for so long ends the
    // connection.
    const int user_timeout_ms = Ms(options_.keepalive_timeout);
    setsockopt(connection, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.fd = connection;
    connections_->HandleNewConnection(&parameters);
  }
  void LogRefused() {
    if (const int64_t count = connections_logged_.Due(services_.clock.Monotonic()); count > 0) {
      options_.log.Warn("refused connections: more than limits.connections, or no file descriptors left",
                        {{"refused", count}, {"connections_max", options_.connections_max}});
    }
  }

  const ServerOptions options_;
  MemoryBudget budget_;
  LatencyHistogram produce_latency_;
  Services services_;
  LogLimit slow_readers_logged_{kLogEvery};
  LogLimit connections_logged_{kLogEvery};
  grpc::AsyncGenericService service_;
  std::unique_ptr<runtime::TcpAcceptor> acceptor_;
  std::shared_ptr<TlsCredentials> tls_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
  std::vector<std::unique_ptr<CallQueue>> queues_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::thread> threads_;
  std::string address_;
  std::atomic<bool> draining_ = false;
  std::atomic<int64_t> started_ = 0;
  std::atomic<int64_t> refused_ = 0;
  std::atomic<int64_t> active_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Broker& broker,
                                                      const Clock& clock) {
  auto server = std::make_unique<ServerImpl>(options, broker, clock);
  const absl::Status status = server->Start();
  if (!status.ok()) return status;
  return server;
}

}  // namespace sluice::broker::rpc
