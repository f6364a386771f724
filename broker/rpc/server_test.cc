// The public API over real gRPC on loopback, against a real broker: calls, connections, topics, shutdown.
#include <catch2/catch.hpp>

#include "broker/rpc/test_node.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "tests/tcp_relay.h"

namespace sluice::broker::rpc {
namespace {

TEST_CASE("Errors of whole calls carry their detail in the trailing metadata") {
  TestNode node;
  grpc::ClientContext context;
  v1::DescribeTopicRequest request;
  v1::DescribeTopicResponse response;
  request.set_name("nope");
  CHECK(node.topics->Describe(&context, request, &response).error_code() == grpc::StatusCode::NOT_FOUND);
  const v1::ErrorDetail detail = DetailOf(context);
  CHECK(detail.reason() == v1::ErrorDetail::UNKNOWN_TOPIC);
  CHECK(detail.message().find("nope") != std::string::npos);
}

TEST_CASE("Of the reserved names, clients can make only those of Sluice's own programs") {
  TestNode node;
  const auto create = [&](const std::string& name, bool internal, v1::ErrorDetail* detail = nullptr) {
    grpc::ClientContext context;
    v1::CreateTopicRequest request;
    v1::CreateTopicResponse response;
    request.set_name(name);
    request.set_internal(internal);
    const grpc::Status status = node.topics->Create(&context, request, &response);
    if (!status.ok() && detail != nullptr) *detail = DetailOf(context);
    return status.error_code();
  };
  for (const char* name : {"__mine", "__groups", "__audit", "__", "__connect_state2", "__connect"}) {
    v1::ErrorDetail detail;
    CHECK(create(name, true, &detail) == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(detail.reason() == v1::ErrorDetail::INVALID_ARGUMENT);
    CHECK(detail.topic() == name);
    CHECK(create(name, false) == grpc::StatusCode::INVALID_ARGUMENT);
  }
  CHECK(create("__connect_state", false) == grpc::StatusCode::INVALID_ARGUMENT);  // has to be meant
  CHECK(create("__connect_state", true) == grpc::StatusCode::OK);
  CHECK(create("__connect_runs", true) == grpc::StatusCode::OK);
  CHECK(create("orders", true) == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(create("orders.dlq", false) == grpc::StatusCode::OK);
  CHECK(!node.Append(ItemOf("__connect_state", BatchOf(1, 1))).has_error());
}

TEST_CASE("More calls than the bound are refused with QUOTA, and taken again once others end") {
  ServerOptions options;
  options.streams_max = 20;
  TestNode node(options);
  node.CreateTopic("t");
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReaderWriter<v1::ConsumeRequest, v1::FetchResponse>>> streams;
  for (int i = 0; i < 20; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(node.log->Consume(contexts.back().get()));
    v1::ConsumeRequest request;
    REQUIRE(streams.back()->Write(request));
  }
  REQUIRE(Soon([&] { return node.server().stats().calls_active == 20; }));
  // Another connection: this one's streams are all taken.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(node.server().address(), grpc::InsecureChannelCredentials(), arguments);
  auto other = v1::Cluster::NewStub(channel);
  v1::DescribeClusterResponse response;
  {
    grpc::ClientContext context;
    CHECK(other->Describe(&context, {}, &response).error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(DetailOf(context).reason() == v1::ErrorDetail::QUOTA);
  }
  for (auto& context : contexts) context->TryCancel();
  for (auto& stream : streams) (void)stream->Finish();
  CHECK(Soon([&] { return node.server().stats().calls_active == 0; }));
  grpc::ClientContext context;
  CHECK(other->Describe(&context, {}, &response).ok());
}

TEST_CASE("More connections than the bound are refused at once, and taken again once others are closed") {
  ServerOptions options;
  options.connections_max = 3;
  TestNode node(options);  // has one connection once it asked
  node.CreateTopic("t");
  const auto connect = [&] {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    return grpc::CreateCustomChannel(node.server().address(), grpc::InsecureChannelCredentials(), arguments);
  };
  const auto ask = [](const std::shared_ptr<grpc::Channel>& channel, bool wait) {
    grpc::ClientContext context;
    context.set_wait_for_ready(wait);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    v1::DescribeClusterResponse response;
    return v1::Cluster::NewStub(channel)->Describe(&context, {}, &response);
  };
  auto second = connect();
  const auto third = connect();
  REQUIRE(ask(second, true).ok());
  REQUIRE(ask(third, true).ok());
  CHECK(node.server().stats().connections == 3);
  const auto fourth = connect();
  const grpc::Status refused = ask(fourth, false);
  CHECK(refused.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(node.server().stats().connections_refused > 0);
  CHECK(node.server().stats().connections == 3);
  CHECK(ask(third, false).ok());  // the others go on
  second = nullptr;
  CHECK(ask(fourth, true).ok());
  CHECK(Soon([&] { return node.server().stats().connections == 3; }));
}

TEST_CASE("A client behind a network that fell silent loses its connection and its stream") {
  ServerOptions options;
  options.keepalive_time = absl::Seconds(1);
  options.keepalive_timeout = absl::Seconds(1);
  TestNode node(options);
  node.CreateTopic("t");
  TcpRelay network(node.server().address());
  const auto channel = grpc::CreateChannel(network.address(), grpc::InsecureChannelCredentials());
  grpc::ClientContext context;
  const auto stream = v1::Log::NewStub(channel)->Consume(&context);
  REQUIRE(Soon([&] { return node.server().stats().calls_active == 1; }));
  CHECK(node.server().stats().connections == 2);  // with the one that made the topic, which answers
  std::this_thread::sleep_for(std::chrono::seconds(4));
  CHECK(node.server().stats().calls_active == 1);  // silent, but alive
  network.FallSilent();
  CHECK(Soon([&] { return node.server().stats().calls_active == 0; }));
  CHECK(Soon([&] { return node.server().stats().connections == 1; }));
  context.TryCancel();
  (void)stream->Finish();
}

TEST_CASE("Topics, offsets, deletion of records and the cluster answer as the schema says") {
  TestNode node;
  node.CreateTopic("t");
  const v1::ProduceResult result = node.Append(ItemOf("t", BatchOf(5, 10)));
  {
    grpc::ClientContext context;
    v1::ListOffsetsRequest request;
    v1::ListOffsetsResponse response;
    for (const auto kind : {v1::ListOffsetsItem::LATEST, v1::ListOffsetsItem::TIMESTAMP}) {
      v1::ListOffsetsItem& item = *request.add_items();
      item.set_topic("t");
      item.set_kind(kind);
      item.set_timestamp_ms(1003);
    }
    REQUIRE(node.log->ListOffsets(&context, request, &response).ok());
    CHECK(response.results(0).offset() == result.next_offset());
    CHECK(response.results(0).log_end_offset() == result.next_offset());
    CHECK(response.results(1).offset() == result.base_offset() + 3);
    CHECK(response.results(1).timestamp_ms() == 1003);
  }
  {
    grpc::ClientContext context;
    v1::DeleteRecordsRequest request;
    v1::DeleteRecordsResponse response;
    request.add_items()->set_topic("t");
    request.mutable_items(0)->set_before_offset(result.base_offset() + 2);
    REQUIRE(node.log->DeleteRecords(&context, request, &response).ok());
    CHECK(response.results(0).log_start_offset() == result.base_offset() + 2);
  }
  {
    grpc::ClientContext context;
    v1::ListTopicsResponse response;
    REQUIRE(node.topics->List(&context, {}, &response).ok());
    REQUIRE(response.topics_size() == 1);
    CHECK(response.topics(0).id().size() == 16);
  }
  grpc::ClientContext context;
  v1::DescribeClusterResponse response;
  REQUIRE(node.cluster->Describe(&context, {}, &response).ok());
  REQUIRE(response.nodes_size() == 1);
  CHECK(response.nodes(0).alive());
  CHECK(response.nodes(0).version() == "test");
}

TEST_CASE("Health and reflection answer programs that know nothing of Sluice") {
  TestNode node;
  ::grpc::health::v1::HealthCheckRequest request;
  ::grpc::health::v1::HealthCheckResponse response;
  std::string answer;
  request.set_service("sluice.v1.Log");
  REQUIRE(node.Raw("/grpc.health.v1.Health/Check", request.SerializeAsString(), &answer).ok());
  REQUIRE(response.ParseFromString(answer));
  CHECK(response.status() == ::grpc::health::v1::HealthCheckResponse::SERVING);
  request.set_service("nope");
  CHECK(node.Raw("/grpc.health.v1.Health/Check", request.SerializeAsString()).error_code() ==
        grpc::StatusCode::NOT_FOUND);

  ::grpc::reflection::v1alpha::ServerReflectionRequest ask;
  ::grpc::reflection::v1alpha::ServerReflectionResponse told;
  ask.set_file_containing_symbol("sluice.v1.Log");
  answer.clear();
  REQUIRE(node.Raw("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ask.SerializeAsString(), &answer).ok());
  REQUIRE(told.ParseFromString(answer));
  CHECK(told.file_descriptor_response().file_descriptor_proto_size() == 2);  // log.proto, common.proto
  ask.set_list_services("");
  answer.clear();
  REQUIRE(node.Raw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ask.SerializeAsString(), &answer)
              .ok());
  REQUIRE(told.ParseFromString(answer));
  CHECK(told.list_services_response().service_size() == 5);
}

TEST_CASE("Shutting down answers what is in flight, ends streams with UNAVAILABLE and wakes long polls") {
  auto node = std::make_unique<TestNode>();
  node->CreateTopic("t");
  const int64_t end = node->Append(ItemOf("t", BatchOf(1, 1))).next_offset();
  auto poll = std::async(std::launch::async, [&] { return node->Fetch("t", end, false, 60'000); });
  grpc::ClientContext produce_context;
  auto produce = node->log->Produce(&produce_context);
  v1::ProduceRequest request;
  *request.add_items() = ItemOf("t", BatchOf(1, 1));
  REQUIRE(produce->Write(request));
  v1::ProduceResponse response;
  REQUIRE(produce->Read(&response));
  REQUIRE(!response.results(0).has_error());
  (void)poll.get();
  REQUIRE(Soon([&] { return node->server().stats().calls_active == 1; }));  // the stream
  auto second = std::async(std::launch::async, [&] { return node->Fetch("t", end + 1, false, 60'000); });
  REQUIRE(Soon([&] { return node->server().stats().calls_active == 2; }));  // the stream and the poll
  const auto before = std::chrono::steady_clock::now();
  node->server().Shutdown(absl::Seconds(10));
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(3));
  CHECK(second.get().results(0).batches().empty());
  CHECK(!produce->Read(&response));
  CHECK(produce->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace sluice::broker::rpc
