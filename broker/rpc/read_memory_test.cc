// What readers can make the node hold, and that those who take their answers get them all the same.
#include <catch2/catch.hpp>

#include "broker/rpc/test_node.h"

namespace sluice::broker::rpc {
namespace {

constexpr int64_t kMiB = 1 << 20;

using ConsumeStream = grpc::ClientReaderWriter<v1::ConsumeRequest, v1::FetchResponse>;

// Consumers with a connection of their own that promise to take everything, and take nothing.
class SlowConsumers {
 public:
  SlowConsumers(TestNode& node, int count) {
    for (int i = 0; i < count; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetMaxReceiveMessageSize(-1);
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
      stubs_.push_back(v1::Log::NewStub(
          grpc::CreateCustomChannel(node.server().address(), grpc::InsecureChannelCredentials(), arguments)));
      contexts_.push_back(std::make_unique<grpc::ClientContext>());
      streams_.push_back(stubs_.back()->Consume(contexts_.back().get()));
      v1::ConsumeRequest request;
      request.set_credit_bytes(1 << 30);
      request.set_max_bytes(32 * kMiB);
      request.add_assign()->set_topic("t");
      REQUIRE(streams_.back()->Write(request));
    }
  }
  ~SlowConsumers() {
    for (auto& context : contexts_) context->TryCancel();
    for (auto& stream : streams_) (void)stream->Finish();
  }

 private:
  std::vector<std::unique_ptr<v1::Log::Stub>> stubs_;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  std::vector<std::unique_ptr<ConsumeStream>> streams_;
};

void Fill(TestNode& node, int batches, size_t batch_bytes) {
  node.CreateTopic("t", {{"max.message.bytes", "1048576"}});
  const std::string batch = BatchOf(1, batch_bytes);
  for (int i = 0; i < batches; ++i) REQUIRE(!node.Append(ItemOf("t", batch)).has_error());
}

TEST_CASE("Consumers that take nothing hold no more than the bound, and those that do are served") {
  ServerOptions options;
  options.read_stall_max = absl::Milliseconds(300);
  BrokerOptions broker;
  broker.read_bytes_max = 8 * kMiB;
  TestNode node(options, broker);
  Fill(node, 60, 900'000);
  {
    SlowConsumers slow(node, 12);
    CHECK(Soon([&] { return node.stats().reads_waiting > 0; }));
    // Everything there is, over and over: only what the slow ones hold too long is taken from them.
    for (int64_t offset = 0;;) {
      const v1::FetchResponse response = node.Fetch("t", offset, false, 20'000);
      REQUIRE(!response.results(0).has_error());
      CHECK(node.stats().read_bytes <= broker.read_bytes_max);
      offset = response.results(0).next_offset();
      if (offset == response.results(0).high_watermark()) break;
    }
    CHECK(node.stats().reads_called_in > 0);
    // Writers never wait for readers.
    CHECK(!node.Append(ItemOf("t", BatchOf(1, 900'000))).has_error());
  }
  CHECK(Soon([&] { return node.stats().read_bytes == 0; }));
  CHECK(node.stats().reads_waiting == 0);
}

TEST_CASE("A fetch that finds no memory in time is told so, and nobody is cut off before its time") {
  ServerOptions options;
  options.read_stall_max = absl::Hours(1);
  BrokerOptions broker;
  broker.read_bytes_max = 4 * kMiB;
  TestNode node(options, broker);
  Fill(node, 30, 900'000);
  {
    SlowConsumers slow(node, 8);
    CHECK(Soon([&] { return node.stats().reads_waiting > 0; }));
    const v1::FetchResponse response = node.Fetch("t", 0, false);
    CHECK(response.results(0).error().reason() == v1::ErrorDetail::QUOTA);
    CHECK(response.results(0).error().retriable());
    CHECK(node.stats().reads_called_in == 0);
  }
  CHECK(Soon([&] { return node.stats().read_bytes == 0; }));
  CHECK(!node.Fetch("t", 0, false).results(0).batches().empty());
}

TEST_CASE("A part of what was asked for is answered rather than held while others want the memory") {
  BrokerOptions broker;
  broker.read_bytes_max = 2 * kMiB;
  TestNode node({}, broker);
  Fill(node, 2, 900'000);
  // Ends behind the first batch that is there, and waits for more than there will be.
  auto patient = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    v1::FetchRequest request;
    v1::FetchResponse response;
    request.set_max_wait_ms(60'000);
    request.set_min_bytes(3 << 20);
    request.set_max_bytes(4 << 20);
    request.add_items()->set_topic("t");
    REQUIRE(node.log->Fetch(&context, request, &response).ok());
    return response;
  });
  CHECK(Soon([&] { return node.stats().read_bytes > kMiB; }));
  const v1::FetchResponse other = node.Fetch("t", 0, false, 5000);
  CHECK(!other.results(0).batches().empty());
  REQUIRE(patient.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  CHECK(patient.get().results(0).batches().size() > 900'000);
}

TEST_CASE("A structured answer inflates to no more than it may carry, and goes on inside the batch") {
  TestNode node;
  node.CreateTopic("t");
  record::BatchBuilder builder;
  constexpr int kRecords = 2000;
  for (int i = 0; i < kRecords; ++i) REQUIRE(builder.Append(1000, std::nullopt, std::string(20'000, 'z')).ok());
  const auto batch = builder.Build(record::Codec::kZstd);
  REQUIRE(batch.ok());
  REQUIRE(batch->bytes().size() < 200'000);  // of 40 MB
  const v1::ProduceResult result = node.Append(ItemOf("t", std::string(batch->bytes())));
  REQUIRE(!result.has_error());
  int64_t offset = 0;
  int records = 0;
  for (int answers = 0; records < kRecords; ++answers) {
    REQUIRE(answers < 100);
    const v1::FetchResponse response = node.Fetch("t", offset, true);
    REQUIRE(!response.results(0).has_error());
    CHECK(response.ByteSizeLong() < kMiB + 100'000);
    for (const v1::Record& record : response.results(0).records()) {
      CHECK(record.offset() == result.base_offset() + records++);
    }
    REQUIRE(response.results(0).next_offset() > offset);
    offset = response.results(0).next_offset();
  }
  CHECK(offset == result.next_offset());
}

}  // namespace
}  // namespace sluice::broker::rpc
