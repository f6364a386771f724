// A real broker with its data in a temporary folder, behind real gRPC on loopback, for this folder's tests. Included by
// tests only.
#pragma once

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <stdlib.h>

#include <catch2/catch.hpp>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "broker/node_broker.h"
#include "broker/raft_log_factory.h"
#include "broker/rpc/errors.h"
#include "broker/rpc/server.h"
#include "common/log.h"
#include "common/record/record.h"
#include "runtime/blocking_threads.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"
#include "runtime/thread_executor.h"
#include "sluice/v1/cluster.grpc.pb.h"
#include "sluice/v1/log.grpc.pb.h"
#include "sluice/v1/topics.grpc.pb.h"
#include "storage/log_store.h"
#include "storage/meta/rocks_store.h"

namespace sluice::broker::rpc {
template <class T, class Ask>
T Await(Ask ask) {
  std::promise<T> answer;
  ask([&](T value) { answer.set_value(std::move(value)); });
  return answer.get_future().get();
}

class TestNode {
 public:
  explicit TestNode(ServerOptions options = {}, BrokerOptions broker_options = {}) {
    char path[] = "/tmp/sluice-rpc-test-XXXXXX";
    dir_ = mkdtemp(path);
    storage::LogStoreOptions store_options;
    store_options.data_dir = dir_;
    store_options.disk_low_watermark_bytes = 1;
    store_options.disk_high_watermark_bytes = 1;
    store_options.journal.file_bytes = 1 << 20;
    store_options.journal.random = &random_;
    store_options.journal.timers = &shard_;
    store_options.journal.disk = Uuid::FromRandom(1, 2);
    auto store = storage::LogStore::Open(files_, clock_, {&shard_, &journal_io_, &segment_io_, &reads_}, store_options);
    REQUIRE(store.ok());
    store_ = *store;
    auto metadata = storage::OpenRocksMetadataStore(dir_ + "/meta");
    REQUIRE(metadata.ok());
    metadata_ = *std::move(metadata);
    replication::RaftNodeOptions raft;
    raft.node = NodeId(1);
    raft_ = replication::RaftNode::Make(raft, {.shards = {&shard_},
                                               .transport = &no_peers_,
                                               .clock = &clock_,
                                               .random = &random_,
                                               .store = store_,
                                               .log = &log_});
    raft_->Start();
    logs_ = std::make_unique<RaftLogFactory>(raft_, store_, std::vector<Executor*>{&shard_}, random_);
    broker_options.data_dir = dir_;
    broker_options.version = "test";
    broker_options.disk_free_low_bytes = 1;
    broker_options.disk_free_high_bytes = 1;
    broker_ =
        MakeNodeBroker(broker_options, {{&shard_}, segment_io_, clock_, random_, files_, *metadata_, *logs_, log_});
    REQUIRE(Await<absl::Status>([&](auto done) { broker_->Start(std::move(done)); }).ok());
    options.address = "127.0.0.1:0";
    auto server = Server::Start(options, *broker_, clock_);
    REQUIRE(server.ok());
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments);
    log = v1::Log::NewStub(channel_);
    topics = v1::Topics::NewStub(channel_);
    cluster = v1::Cluster::NewStub(channel_);
  }
  ~TestNode() {
    server_->Shutdown(absl::Seconds(2));
    Await<Done>([&](auto done) { broker_->Stop(std::move(done)); });
    Await<Done>([&](auto done) { raft_->Stop([done = std::move(done)]() mutable { done(Done{}); }); });
    (void)Await<absl::Status>([&](auto done) { store_->Stop(std::move(done)); });
    shard_.Stop();
    server_.reset();  // not before: the shard may have been at the end of an answer
    const std::string remove = "rm -rf " + dir_;
    CHECK(system(remove.c_str()) == 0);
  }

  void CreateTopic(const std::string& name, std::map<std::string, std::string> config = {}) {
    grpc::ClientContext context;
    v1::CreateTopicRequest request;
    v1::CreateTopicResponse response;
    request.set_name(name);
    for (const auto& [key, value] : config) (*request.mutable_config())[key] = value;
    REQUIRE(topics->Create(&context, request, &response).ok());
  }
  v1::ProduceResult Append(const v1::ProduceItem& item) {
    grpc::ClientContext context;
    v1::ProduceRequest request;
    v1::ProduceResponse response;
    request.set_correlation_id(9);
    *request.add_items() = item;
    const grpc::Status status = log->Append(&context, request, &response);
    REQUIRE(status.ok());
    REQUIRE(response.correlation_id() == 9);
    REQUIRE(response.results_size() == 1);
    return response.results(0);
  }
  v1::FetchResponse Fetch(const std::string& topic, int64_t offset, bool structured, int wait_ms = 0) {
    grpc::ClientContext context;
    v1::FetchRequest request;
    v1::FetchResponse response;
    request.set_max_wait_ms(wait_ms);
    request.set_structured(structured);
    request.add_items()->set_topic(topic);
    request.mutable_items(0)->set_offset(offset);
    REQUIRE(log->Fetch(&context, request, &response).ok());
    REQUIRE(response.results_size() == 1);
    return response;
  }
  grpc::Status Raw(const std::string& method, const std::string& bytes, std::string* answer = nullptr) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    auto reader = stub.PrepareUnaryCall(&context, method, request, &queue);
    reader->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    reader->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    if (status.ok() && answer != nullptr) {
      std::vector<grpc::Slice> slices;
      REQUIRE(response.Dump(&slices).ok());
      for (const grpc::Slice& part : slices) answer->append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
    return status;
  }
  Server& server() { return *server_; }
  BrokerStats stats() {
    return Await<BrokerStats>([&](auto done) { broker_->Stats(std::move(done)); });
  }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }

  std::unique_ptr<v1::Log::Stub> log;
  std::unique_ptr<v1::Topics::Stub> topics;
  std::unique_ptr<v1::Cluster::Stub> cluster;

 private:
  std::string dir_;
  runtime::SystemClock clock_;
  runtime::SystemRandom random_;
  runtime::PosixFileSystem files_;
  Logger log_ = Logger::Silent();
  runtime::ThreadExecutor shard_{"shard"};
  runtime::BlockingThreads journal_io_{1}, segment_io_{1}, reads_{1};
  std::shared_ptr<storage::LogStore> store_;
  std::unique_ptr<storage::MetadataStore> metadata_;
  NoPeers no_peers_;
  std::shared_ptr<replication::RaftNode> raft_;
  std::unique_ptr<RaftLogFactory> logs_;
  std::unique_ptr<Broker> broker_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

// What the server counts settles a moment after the client has its answer.
inline bool Soon(const std::function<bool()>& holds) {
  for (int i = 0; i < 500 && !holds(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return holds();
}

inline std::string BatchOf(int records, size_t value_bytes) {
  record::BatchBuilder builder;
  for (int i = 0; i < records; ++i) {
    REQUIRE(builder.Append(1000 + i, std::nullopt, std::string(value_bytes, static_cast<char>('a' + i % 26))).ok());
  }
  return std::string(builder.Build()->bytes());
}

inline v1::ProduceItem ItemOf(const std::string& topic, const std::string& batch) {
  v1::ProduceItem item;
  item.set_topic(topic);
  item.set_batch(batch);
  return item;
}

inline v1::ErrorDetail DetailOf(const grpc::ClientContext& context) {
  v1::ErrorDetail detail;
  const auto found = context.GetServerTrailingMetadata().find(kErrorMetadata);
  REQUIRE(found != context.GetServerTrailingMetadata().end());
  REQUIRE(detail.ParseFromString(std::string(found->second.data(), found->second.size())));
  return detail;
}

}  // namespace sluice::broker::rpc
