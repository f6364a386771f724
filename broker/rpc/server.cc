#include "broker/rpc/server.h"

#include <grpc/grpc.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <pthread.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "broker/rpc/call.h"
#include "broker/rpc/handlers.h"
#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

// Requests of each queue that gRPC may hand over without being asked again.
constexpr int kAcceptsPerQueue = 4;
// What a request may hold beside its batches.
constexpr int64_t kEnvelopeBytesMax = 64 << 10;
// gRPC's own buffers, beside the messages under way.
constexpr size_t kTransportBytes = 64 << 20;

void SetChannelArguments(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.message_bytes_max + kEnvelopeBytesMax));
  builder->SetMaxSendMessageSize(-1);
  // A second process must fail to bind rather than share the port.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.streams_max);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
  // A dead client is found out within 80 s, and a client may look for a dead server every 10 s.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 9'000);
  // Batches carry their own compression, with a bound; a compressed message is inflated by gRPC without one.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
}

class ServerImpl final : public Server, public CallHost {
 public:
  ServerImpl(const ServerOptions& options, Broker& broker, const Clock& clock)
      : options_(options),
        budget_(options.inflight_bytes_max),
        services_{broker, clock, budget_, produce_latency_, options.read_stall_max} {}
  ~ServerImpl() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Start() {
    grpc::ServerBuilder builder;
    SetChannelArguments(options_, &builder);
    grpc::ResourceQuota quota("sluice");
    quota.Resize(static_cast<size_t>(options_.inflight_bytes_max) + kTransportBytes);
    builder.SetResourceQuota(quota);
    builder.AddListeningPort(options_.address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterAsyncGenericService(&service_);
    for (int i = 0; i < options_.threads; ++i) {
      queues_.push_back(std::make_unique<CallQueue>(*this, service_, builder.AddCompletionQueue()));
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      queues_.clear();
      return absl::UnavailableError(
          Cat("gRPC: cannot listen on ", options_.address, "; is the port taken by another process?"));
    }
    address_ = Cat(options_.address.substr(0, options_.address.rfind(':')), ":", port_);
    for (auto& queue : queues_) {
      for (int i = 0; i < kAcceptsPerQueue; ++i) std::make_shared<Call>(*queue)->Accept();
      threads_.emplace_back([&queue = *queue] { queue.Run(); });
      pthread_setname_np(threads_.back().native_handle(), "sluice-rpc");
    }
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

  void Shutdown(absl::Duration grace) override {
    if (server_ == nullptr) return;
    draining_ = true;
    for (auto& queue : queues_) queue->Drain();
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
    for (auto& queue : queues_) queue->AwaitEnd();  // the broker may still be answering what was cancelled
    for (auto& queue : queues_) queue->queue->Shutdown();
    for (std::thread& thread : threads_) thread.join();
    server_ = nullptr;
  }

  ServerStats stats() const override {
    return {started_, refused_, active_, budget_.bytes(), produce_latency_.Snapshot()};
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
  const ServerOptions options_;
  MemoryBudget budget_;
  LatencyHistogram produce_latency_;
  Services services_;
  grpc::AsyncGenericService service_;
  std::vector<std::unique_ptr<CallQueue>> queues_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::thread> threads_;
  int port_ = 0;
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
