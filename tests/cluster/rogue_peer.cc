// A peer that cannot be believed, for tests against real nodes: it says that it is one of a cluster's nodes, shakes
// hands as that node would, listens to what the others tell it, and answers with what no correct node says: garbage in
// messages and calls, messages cut short, absurd terms, absurd offsets, lies about what is durable beyond the end of
// every log.
//
// rogue_peer SECONDS VERSION NODE CLUSTER DISK LISTEN PEER=ADDRESS... ; prints what it heard and sent as JSON, its log
// on stderr.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <future>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "broker/rpc/peer_stream.h"
#include "broker/rpc/peer_transport.h"
#include "common/record/record.h"
#include "runtime/system.h"

namespace sluice {
namespace {

constexpr int64_t kOffsetMax = std::numeric_limits<int64_t>::max();
constexpr int32_t kTermMax = std::numeric_limits<int32_t>::max();

record::Batch SomeBatch(Offset base, LeaderEpoch epoch) {
  record::BatchBuilder builder;
  if (!builder.Append(1'700'000'000'000, std::nullopt, "nobody wrote this").ok()) std::abort();
  return std::move(*builder.Build()).Assign(base, epoch);
}

/// What may be said in a term that could be. `term` is that of the message. With `ends_stream`, that which cannot even
/// be a message, so that nothing that follows it is read.
std::vector<raft::MessageBody> AbsurdBodies(LeaderEpoch term, bool ends_stream) {
  std::vector<raft::MessageBody> bodies;
  const std::vector<int64_t> readable = {kOffsetMax, kOffsetMax - 1, int64_t{1} << 40};
  const std::vector<int64_t> unreadable = {-1, std::numeric_limits<int64_t>::min()};
  for (const int64_t at : ends_stream ? unreadable : readable) {
    const Offset offset(at);
    const raft::LogPlace place{term, offset};
    bodies.emplace_back(raft::VoteRequest{.pre_vote = true, .transfer = false, .last = place});
    bodies.emplace_back(raft::AppendRequest{.previous = place, .committed = offset, .batches = {}});
    bodies.emplace_back(raft::AppendRequest{.previous = {term, Offset(0)}, .committed = offset, .batches = {}});
    bodies.emplace_back(raft::AppendResponse{
        .rejected = false, .end = offset, .hint = {}, .log_end = offset, .committed = offset, .cannot_lead = true});
    bodies.emplace_back(
        raft::AppendResponse{.rejected = true, .end = offset, .hint = place, .log_end = offset, .committed = offset});
    bodies.emplace_back(
        raft::Heartbeat{.committed = offset, .answer = true, .read_seq = ~0ULL, .confirmed_end = offset, .doubt = 7});
    bodies.emplace_back(raft::HeartbeatResponse{.read_seq = ~0ULL, .log_end = offset, .committed = offset, .doubt = 7});
    bodies.emplace_back(raft::SnapshotFailed{.base_end = offset});
  }
  for (const int64_t at : {kOffsetMax - 1, int64_t{1} << 40}) {
    raft::AppendRequest append{.previous = {term, Offset(at)}, .committed = Offset(at), .batches = {}};
    append.batches.push_back(SomeBatch(Offset(at), term));
    bodies.emplace_back(std::move(append));
  }
  bodies.emplace_back(raft::VoteResponse{.pre_vote = false, .granted = true, .doubt = ~0ULL});
  bodies.emplace_back(raft::VoteResponse{.pre_vote = true, .granted = true, .doubt = 0});
  bodies.emplace_back(raft::TimeoutNow{});
  return bodies;
}

class Rogue final : public replication::PeerReceiver {
 public:
  Rogue(const broker::rpc::PeerTransportOptions& options, std::map<NodeId, std::string> peers)
      : peers_(std::move(peers)) {
    auto net = broker::rpc::GrpcPeerTransport::Make(options, clock_);
    if (!net.ok()) {
      std::cerr << net.status().ToString() << "\n";
      std::exit(2);
    }
    net_ = *std::move(net);
    net_->Serve([this](broker::PeerCall, broker::PeerReply reply) {
      std::lock_guard lock(mutex_);
      reply(Noise(100));
    });
    net_->Start(*this);
    for (const auto& [node, address] : peers_) net_->SetPeer(node, address);
  }
  ~Rogue() override {
    std::promise<void> stopped;
    net_->Stop([&] { stopped.set_value(); });
    stopped.get_future().wait();
  }

  void OnMessage(const ReplicaId& group, raft::Message heard) override {
    std::lock_guard lock(mutex_);
    ++heard_;
    // Each group a few times; not so often that nothing else gets through.
    const auto now = std::chrono::steady_clock::now();
    auto& last = answered_[{group, heard.from.node}];
    if (now - last < std::chrono::milliseconds(300)) return;
    last = now;
    const bool ends_stream = ++rounds_ % 4 == 0;
    for (raft::MessageBody& body : AbsurdBodies(heard.term, ends_stream))
      Say(group, heard, heard.term, std::move(body));
    for (const int32_t term :
         {0, ends_stream ? -1 : 1, kTermMax, kTermMax - 1, heard.term.value() + (1 << 20) + 1000}) {
      for (raft::MessageBody& body : AbsurdBodies(LeaderEpoch(5), ends_stream)) {
        Say(group, heard, LeaderEpoch(term), std::move(body));
      }
      Say(group, heard, LeaderEpoch(term),
          raft::VoteRequest{.pre_vote = false, .transfer = true, .last = {LeaderEpoch(term), Offset(1)}});
      raft::InstallSnapshot install;
      install.base = {LeaderEpoch(5), Offset(kOffsetMax)};
      install.configuration = {Offset(kOffsetMax - 1), LeaderEpoch(5), *raft::Configuration::Make({heard.to}, {})};
      install.log_start = Offset(kOffsetMax);
      Say(group, heard, LeaderEpoch(term), std::move(install));
    }
  }
  void OnLiveness(NodeId from, replication::LivenessMessage heard) override {
    std::lock_guard lock(mutex_);
    const auto* beat = std::get_if<replication::LivenessHeartbeat>(&heard);
    if (beat == nullptr) return;
    replication::LivenessAnswer answer{.session = beat->session, .version = ~0ULL, .not_following = {}};
    replication::LivenessHeartbeat lie{.session = 1, .base_version = 0, .version = ~0ULL, .changes = {}};
    for (const auto& change : beat->changes) {
      answer.not_following.push_back({change.group, LeaderEpoch(kTermMax)});
      lie.changes.push_back({change.group, LeaderEpoch(kTermMax)});
    }
    sent_ += net_->SendLiveness(from, std::move(answer)) + net_->SendLiveness(from, std::move(lie));
  }
  void OnPeerState(NodeId, replication::PeerState) override {}

  /// Calls of every kind, with what no caller means.
  void Call() {
    for (const auto& [node, address] : peers_) {
      for (uint32_t kind = 0; kind < 20; ++kind) {
        for (const size_t size : {size_t{0}, size_t{1}, size_t{60}, size_t{5000}, size_t{1} << 20}) {
          std::string request;
          {
            std::lock_guard lock(mutex_);
            request = Noise(size);
          }
          net_->Call(node, kind, std::move(request), absl::Seconds(5), [this](absl::StatusOr<std::string> answer) {
            std::lock_guard lock(mutex_);
            ++(answer.ok() ? calls_answered_ : calls_refused_);
          });
        }
      }
    }
  }

  /// Streams and calls that are right as gRPC, and hold what is no message of a peer.
  void Garble(const std::string& hello) {
    for (const auto& [node, address] : peers_) {
      std::vector<std::vector<std::string>> all = {
          {""}, {"garbage"}, {std::string(5 << 20, 'x')}, {hello.substr(0, hello.size() / 2)}};
      for (int i = 0; i < 30; ++i) {
        std::lock_guard lock(mutex_);
        all.push_back({hello, Noise(random_() % 300)});
      }
      all.push_back({hello, hello});
      for (const std::vector<std::string>& messages : all) {
        for (const char* method : {broker::rpc::kPeerStreamMethod, broker::rpc::kPeerCallMethod}) {
          const grpc::Status status = Stream(address, method, messages);
          std::lock_guard lock(mutex_);
          ++(status.ok() ? streams_taken_ : streams_refused_);
        }
      }
    }
  }

  void Print() {
    std::lock_guard lock(mutex_);
    std::cout << "{\"heard\": " << heard_ << ", \"sent\": " << sent_ << ", \"calls_answered\": " << calls_answered_
              << ", \"calls_refused\": " << calls_refused_ << ", \"streams_taken\": " << streams_taken_
              << ", \"streams_refused\": " << streams_refused_ << "}\n";
  }

 private:
  void Say(const ReplicaId& group, const raft::Message& heard, LeaderEpoch term, raft::MessageBody body) {
    sent_ += net_->Send(group, {.from = heard.to, .to = heard.from, .term = term, .body = std::move(body)});
  }
  std::string Noise(size_t size) {
    std::string noise(size, ' ');
    for (char& byte : noise) byte = static_cast<char>(random_());
    return noise;
  }
  static grpc::Status Stream(const std::string& address, const char* method, const std::vector<std::string>& messages) {
    grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    grpc::CompletionQueue queue;
    void* tag = nullptr;
    bool ok = false;
    const auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    for (const std::string& message : messages) {
      if (!ok) break;
      const grpc::Slice slice(message);
      call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
      queue.Next(&tag, &ok);
    }
    if (ok) {
      call->WritesDone(nullptr);
      queue.Next(&tag, &ok);
    }
    grpc::ByteBuffer answer;
    do {
      call->Read(&answer, nullptr);
      queue.Next(&tag, &ok);
    } while (ok);
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
    return status;
  }

  runtime::SystemClock clock_;
  std::map<NodeId, std::string> peers_;
  std::mutex mutex_;
  std::mt19937 random_{7};
  std::map<std::pair<ReplicaId, NodeId>, std::chrono::steady_clock::time_point> answered_;
  int64_t rounds_ = 0, heard_ = 0, sent_ = 0, calls_answered_ = 0, calls_refused_ = 0, streams_taken_ = 0,
          streams_refused_ = 0;
  std::unique_ptr<broker::rpc::GrpcPeerTransport> net_;
};

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() < 8) return 2;
  broker::rpc::PeerTransportOptions options;
  const uint32_t version = static_cast<uint32_t>(std::stoul(arguments[2]));
  options.version_min = options.version_max = version;
  options.identity = {NodeId(std::stoi(arguments[3])), *Uuid::Parse(arguments[4]), *Uuid::Parse(arguments[5])};
  options.session = Uuid::FromRandom(static_cast<uint64_t>(std::random_device{}()), 1);
  options.address = arguments[6];
  options.log = Logger({.write = [](std::string_view line) { std::cerr << line << std::endl; }, .now = {}});
  std::map<NodeId, std::string> peers;
  for (size_t i = 7; i < arguments.size(); ++i) {
    const size_t equals = arguments[i].find('=');
    peers[NodeId(std::stoi(arguments[i].substr(0, equals)))] = arguments[i].substr(equals + 1);
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(std::stoi(arguments[1]));
  Rogue rogue(options, peers);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  rogue.Call();
  for (const auto& [node, address] : peers) {
    rogue.Garble(broker::rpc::EncodePeerHello({.version_min = version,
                                               .version_max = version,
                                               .cluster = options.identity.cluster,
                                               .node = NodeId(77),
                                               .to = node,
                                               .disk = options.identity.disk,
                                               .session = options.session,
                                               .connection = 1}));
  }
  std::this_thread::sleep_until(until);
  rogue.Print();
  return 0;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  return sluice::Main({argv, argv + argc});
}
