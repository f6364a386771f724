// Log.Fetch and Log.Consume over real gRPC against a real broker.
#include <catch2/catch.hpp>

#include "broker/rpc/test_node.h"

namespace sluice::broker::rpc {
namespace {

TEST_CASE("An offset out of range is an error of its item that tells the range") {
  TestNode node;
  node.CreateTopic("t");
  const v1::ProduceResult result = node.Append(ItemOf("t", BatchOf(1, 1)));
  const v1::FetchResponse response = node.Fetch("t", 1'000'000, false, 5000);
  CHECK(response.results(0).error().reason() == v1::ErrorDetail::OFFSET_OUT_OF_RANGE);
  CHECK(response.results(0).error().high_watermark() == result.next_offset());
  CHECK(node.Fetch("nope", 0, false).results(0).error().reason() == v1::ErrorDetail::UNKNOWN_TOPIC);
}

TEST_CASE("A fetch at the end is woken by an append, and answers nothing when its time is up") {
  TestNode node;
  node.CreateTopic("t");
  const int64_t end = node.Append(ItemOf("t", BatchOf(1, 1))).next_offset();
  auto waiting = std::async(std::launch::async, [&] { return node.Fetch("t", end, false, 10'000); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto before = std::chrono::steady_clock::now();
  node.Append(ItemOf("t", BatchOf(1, 1)));
  CHECK(!waiting.get().results(0).batches().empty());
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(2));
  CHECK(node.Fetch("t", end + 1, false, 30).results(0).batches().empty());
}

TEST_CASE("A client's deadline and cancellation end a long poll, and leave nothing behind") {
  TestNode node;
  node.CreateTopic("t");
  const int64_t end = node.Append(ItemOf("t", BatchOf(1, 1))).next_offset();
  v1::FetchRequest request;
  request.set_max_wait_ms(60'000);
  request.add_items()->set_topic("t");
  request.mutable_items(0)->set_offset(end);
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    v1::FetchResponse response;
    const auto before = std::chrono::steady_clock::now();
    // Answered before the deadline, with nothing.
    CHECK(node.log->Fetch(&context, request, &response).ok());
    CHECK(std::chrono::steady_clock::now() - before > std::chrono::seconds(1));
  }
  {
    grpc::ClientContext context;
    std::thread cancel([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      context.TryCancel();
    });
    v1::FetchResponse response;
    CHECK(node.log->Fetch(&context, request, &response).error_code() == grpc::StatusCode::CANCELLED);
    cancel.join();
  }
  CHECK(Soon([&] { return node.server().stats().calls_active == 0; }));
}

TEST_CASE("A consume stream gives no more than its credit, then goes on from where it stood") {
  TestNode node;
  node.CreateTopic("t");
  const std::string batch = BatchOf(1, 1000);
  int64_t begin = -1;
  for (int i = 0; i < 20; ++i) {
    const v1::ProduceResult result = node.Append(ItemOf("t", batch));
    if (begin < 0) begin = result.base_offset();
  }
  grpc::ClientContext context;
  auto stream = node.log->Consume(&context);
  v1::ConsumeRequest request;
  request.add_assign()->set_topic("t");
  request.mutable_assign(0)->set_offset(begin);
  request.set_credit_bytes(static_cast<int64_t>(batch.size()) * 5);
  REQUIRE(stream->Write(request));
  std::string got;
  int64_t next = begin;
  v1::FetchResponse response;
  while (got.size() < batch.size() * 5) {
    REQUIRE(stream->Read(&response));
    got += response.results(0).batches();
    next = response.results(0).next_offset();
  }
  CHECK(got.size() == batch.size() * 5);
  CHECK(next == begin + 5);
  v1::ConsumeRequest more;
  more.set_credit_bytes(1 << 20);
  REQUIRE(stream->Write(more));
  while (next < begin + 20) {
    REQUIRE(stream->Read(&response));
    got += response.results(0).batches();
    next = response.results(0).next_offset();
  }
  CHECK(got.size() == batch.size() * 20);
  // At the end it waits, and is woken.
  node.Append(ItemOf("t", batch));
  REQUIRE(stream->Read(&response));
  CHECK(response.results(0).next_offset() == begin + 21);
  stream->WritesDone();
  while (stream->Read(&response)) {
  }
  CHECK(stream->Finish().ok());
}

TEST_CASE("A consume stream tells where a seek landed, and an error of one partition leaves the others") {
  TestNode node;
  node.CreateTopic("t");
  const int64_t end = node.Append(ItemOf("t", BatchOf(1, 10))).next_offset();
  grpc::ClientContext context;
  auto stream = node.log->Consume(&context);
  v1::ConsumeRequest request;
  request.set_credit_bytes(1 << 20);
  request.add_assign()->set_topic("t");
  request.mutable_assign(0)->set_offset(end);
  request.add_assign()->set_topic("nope");
  REQUIRE(stream->Write(request));
  v1::FetchResponse response;
  bool error = false;
  bool told = false;
  while (!error || !told) {
    REQUIRE(stream->Read(&response));
    for (const v1::FetchResult& result : response.results()) {
      error = error || result.error().reason() == v1::ErrorDetail::UNKNOWN_TOPIC;
      told = told || (result.topic() == "t" && result.high_watermark() == end);
    }
  }
  v1::ConsumeRequest seek;
  seek.add_assign()->set_topic("t");
  seek.mutable_assign(0)->set_offset(end - 1);
  REQUIRE(stream->Write(seek));
  // An answer that only says where the seek landed may come before the data.
  do {
    REQUIRE(stream->Read(&response));
  } while (response.results(0).batches().empty());
  CHECK(response.results(0).next_offset() == end);
  context.TryCancel();
  (void)stream->Finish();
}

}  // namespace
}  // namespace sluice::broker::rpc
