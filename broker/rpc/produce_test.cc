// Log.Produce and Log.Append over real gRPC against a real broker.
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "broker/rpc/test_node.h"

namespace sluice::broker::rpc {
namespace {

TEST_CASE("Structured records are appended and come back structured, and as a batch") {
  TestNode node;
  node.CreateTopic("t");
  v1::ProduceItem item;
  item.set_topic("t");
  v1::Record& first = *item.add_records();
  first.set_key("k");
  first.set_value("v1");
  first.set_timestamp_ms(1234);
  first.add_headers()->set_key("h");
  item.add_records();  // null key, null value, the broker's clock
  const v1::ProduceResult result = node.Append(item);
  REQUIRE(!result.has_error());
  CHECK(result.next_offset() == result.base_offset() + 2);

  const v1::FetchResponse structured = node.Fetch("t", result.base_offset(), true);
  REQUIRE(structured.results(0).records_size() == 2);
  const v1::Record& back = structured.results(0).records(0);
  CHECK(back.key() == "k");
  CHECK(back.value() == "v1");
  CHECK(back.timestamp_ms() == 1234);
  CHECK(back.offset() == result.base_offset());
  CHECK(back.headers(0).key() == "h");
  CHECK(!back.headers(0).has_value());
  CHECK(!structured.results(0).records(1).has_key());
  CHECK(!structured.results(0).records(1).has_value());
  CHECK(structured.results(0).records(1).timestamp_ms() > 1'600'000'000'000);
  // From the middle of the batch only what was asked for.
  CHECK(node.Fetch("t", result.base_offset() + 1, true).results(0).records_size() == 1);

  const v1::FetchResponse raw = node.Fetch("t", result.base_offset(), false);
  const auto batch = record::BatchView::Parse(raw.results(0).batches());
  REQUIRE(batch.ok());
  CHECK(batch->record_count() == 2);
  CHECK(batch->VerifyCrc().ok());
  CHECK(raw.results(0).next_offset() == result.next_offset());
  CHECK(raw.results(0).high_watermark() == result.next_offset());
}

TEST_CASE("A stream of many batches is answered once each, in order, with offsets that tile") {
  TestNode node;
  node.CreateTopic("t");
  grpc::ClientContext context;
  auto stream = node.log->Produce(&context);
  const std::string batch = BatchOf(3, 50'000);  // larger than gRPC's windows and frames
  constexpr int kRequests = 200;
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) {
      v1::ProduceRequest request;
      request.set_correlation_id(static_cast<uint64_t>(i));
      *request.add_items() = ItemOf("t", batch);
      CHECK(stream->Write(request));
    }
    stream->WritesDone();
  });
  int64_t next = -1;
  v1::ProduceResponse response;
  for (int i = 0; i < kRequests; ++i) {
    REQUIRE(stream->Read(&response));
    CHECK(response.correlation_id() == static_cast<uint64_t>(i));
    REQUIRE(!response.results(0).has_error());
    if (next >= 0) CHECK(response.results(0).base_offset() == next);
    next = response.results(0).next_offset();
  }
  CHECK(!stream->Read(&response));
  writer.join();
  CHECK(stream->Finish().ok());
  CHECK(Soon([&] { return node.server().stats().inflight_bytes == 0; }));
}

TEST_CASE("After a refused item the stream refuses its partition until a reset, and no other partition") {
  TestNode node;
  node.CreateTopic("t");
  node.CreateTopic("other");
  grpc::ClientContext context;
  auto stream = node.log->Produce(&context);
  std::string damaged = BatchOf(1, 10);
  damaged.back() = static_cast<char>(damaged.back() + 1);
  const auto ask = [&](const std::string& topic, const std::string& batch, bool reset) {
    v1::ProduceRequest request;
    *request.add_items() = ItemOf(topic, batch);
    request.mutable_items(0)->set_reset(reset);
    REQUIRE(stream->Write(request));
    v1::ProduceResponse response;
    REQUIRE(stream->Read(&response));
    return response.results(0);
  };
  const std::string good = BatchOf(1, 10);
  CHECK(!ask("t", good, false).has_error());
  CHECK(ask("t", damaged, false).error().reason() == v1::ErrorDetail::CORRUPT_BATCH);
  CHECK(ask("t", good, false).error().reason() == v1::ErrorDetail::SEQUENCE_BROKEN);
  CHECK(!ask("other", good, false).has_error());
  CHECK(!ask("t", good, true).has_error());
  CHECK(!ask("t", good, false).has_error());
  // The same where it is the broker that refuses.
  CHECK(ask("nope", good, false).error().reason() == v1::ErrorDetail::UNKNOWN_TOPIC);
  stream->WritesDone();
  CHECK(stream->Finish().ok());
}

TEST_CASE("Items that hold nothing, both kinds, or a partition that is none are refused by name") {
  TestNode node;
  node.CreateTopic("t");
  v1::ProduceItem item;
  item.set_topic("t");
  CHECK(node.Append(item).error().reason() == v1::ErrorDetail::INVALID_ARGUMENT);
  item = ItemOf("t", BatchOf(1, 1));
  item.add_records();
  CHECK(node.Append(item).error().reason() == v1::ErrorDetail::INVALID_ARGUMENT);
  item = ItemOf("t", BatchOf(1, 1));
  item.set_partition(-1);
  CHECK(node.Append(item).error().reason() == v1::ErrorDetail::INVALID_ARGUMENT);
  item.set_partition(7);
  CHECK(node.Append(item).error().reason() == v1::ErrorDetail::UNKNOWN_TOPIC);
}

TEST_CASE("Compare and append refuses another offset and tells where the log ends") {
  TestNode node;
  node.CreateTopic("t");
  const v1::ProduceResult first = node.Append(ItemOf("t", BatchOf(1, 1)));
  v1::ProduceItem item = ItemOf("t", BatchOf(1, 1));
  item.set_expected_base_offset(first.base_offset());
  const v1::ProduceResult refused = node.Append(item);
  CHECK(refused.error().reason() == v1::ErrorDetail::EXPECTED_OFFSET_MISMATCH);
  CHECK(refused.error().log_end_offset() == first.next_offset());
  item.set_expected_base_offset(first.next_offset());
  CHECK(!node.Append(item).has_error());
}

TEST_CASE(
    "A 10 MB record is refused by the topic's bound, taken where the topic allows it, and a larger message ends the "
    "call") {
  TestNode node;
  node.CreateTopic("small");
  node.CreateTopic("large", {{"max.message.bytes", "12582912"}});
  const std::string batch = BatchOf(1, 10 << 20);
  CHECK(node.Append(ItemOf("small", batch)).error().reason() == v1::ErrorDetail::MESSAGE_TOO_LARGE);
  const v1::ProduceResult result = node.Append(ItemOf("large", batch));
  REQUIRE(!result.has_error());
  // Whole, though the request's bound is far smaller: at least one batch always comes.
  const v1::FetchResponse back = node.Fetch("large", result.base_offset(), false);
  CHECK(back.results(0).batches().size() == batch.size());
  CHECK(back.results(0).batches().substr(record::kCrcAt) == batch.substr(record::kCrcAt));

  grpc::ClientContext context;
  v1::ProduceRequest request;
  v1::ProduceResponse response;
  *request.add_items() = ItemOf("large", std::string(17 << 20, 'x'));
  CHECK(node.log->Append(&context, request, &response).error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_CASE("A malformed message in a produce stream ends it after what came before was answered") {
  TestNode node;
  node.CreateTopic("t");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  grpc::GenericStub stub(node.channel());
  grpc::CompletionQueue queue;
  auto stream = stub.PrepareCall(&context, "/sluice.v1.Log/Produce", &queue);
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  stream->StartCall(nullptr);
  REQUIRE(wait());
  v1::ProduceRequest request;
  *request.add_items() = ItemOf("t", BatchOf(1, 1));
  const grpc::Slice good(request.SerializeAsString());
  const grpc::Slice bad("\xff\xff\xff");
  stream->Write(grpc::ByteBuffer(&good, 1), nullptr);
  REQUIRE(wait());
  stream->Write(grpc::ByteBuffer(&bad, 1), nullptr);
  REQUIRE(wait());
  grpc::ByteBuffer answer;
  stream->Read(&answer, nullptr);
  CHECK(wait());
  grpc::Status status;
  stream->Finish(&status, nullptr);
  wait();
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE(
    "With a small memory quota a flood of large requests is slowed down, not refused, and all of it is answered") {
  ServerOptions options;
  options.inflight_bytes_max = 1 << 20;
  TestNode node(options);
  node.CreateTopic("t");
  const std::string batch = BatchOf(1, 500'000);
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      grpc::ClientContext context;
      auto stream = node.log->Produce(&context);
      std::thread writer([&] {
        for (int i = 0; i < 25; ++i) {
          v1::ProduceRequest request;
          *request.add_items() = ItemOf("t", batch);
          stream->Write(request);
        }
        stream->WritesDone();
      });
      v1::ProduceResponse response;
      while (stream->Read(&response)) answered += response.results(0).has_error() ? 0 : 1;
      writer.join();
      (void)stream->Finish();
    });
  }
  int64_t most = 0;
  while (answered < 100 && most < (1 << 30)) {
    most = std::max(most, node.server().stats().inflight_bytes);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (auto& client : clients) client.join();
  CHECK(answered == 100);
  CHECK(most <= (1 << 20) + 4 * 600'000);  // the quota, and one request of each stream that was on its way
}

}  // namespace
}  // namespace sluice::broker::rpc
