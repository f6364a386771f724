// The public API over real gRPC on loopback, against a real broker with its data in a temporary folder.
#include "broker/rpc/server.h"

#include <catch2/catch.hpp>
#include <random>

#include "broker/rpc/test_node.h"
#include "common/crc32c.h"
#include "common/endian.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

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

TEST_CASE("A batch with a right checksum and wrong deltas is refused") {
  TestNode node;
  node.CreateTopic("t");
  std::string batch = BatchOf(2, 10);
  // The second record's offset delta: behind its length, attributes and timestamp delta.
  const size_t second = record::kBatchHeaderBytes + (batch.size() - record::kBatchHeaderBytes) / 2;
  batch[second + 3] = static_cast<char>(batch[second + 3] + 2);
  const uint32_t crc = Crc32c(std::string_view(batch).substr(record::kCrcCoversFrom));
  for (int i = 0; i < 4; ++i) batch[record::kCrcAt + static_cast<size_t>(i)] = static_cast<char>(crc >> (24 - 8 * i));
  REQUIRE(record::BatchView::Parse(batch)->VerifyCrc().ok());
  const v1::ProduceResult result = node.Append(ItemOf("t", batch));
  CHECK(result.error().reason() == v1::ErrorDetail::CORRUPT_BATCH);
  CHECK(result.base_offset() == -1);
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

TEST_CASE("Truncated and hostile messages end in INVALID_ARGUMENT, and the server lives on") {
  TestNode node;
  node.CreateTopic("t");
  v1::ProduceRequest request;
  *request.add_items() = ItemOf("t", BatchOf(2, 100));
  const std::string sound = request.SerializeAsString();
  CHECK(node.Raw("/sluice.v1.Log/Append", sound.substr(0, sound.size() - 3)).error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  std::mt19937 random(3);
  const char* const methods[] = {"/sluice.v1.Log/Append",       "/sluice.v1.Log/Fetch",
                                 "/sluice.v1.Log/ListOffsets",  "/sluice.v1.Log/DeleteRecords",
                                 "/sluice.v1.Topics/Create",    "/sluice.v1.Topics/Describe",
                                 "/sluice.v1.Cluster/Describe", "/grpc.health.v1.Health/Check"};
  for (int round = 0; round < 200; ++round) {
    std::string bytes(random() % 60, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    const grpc::Status status = node.Raw(methods[static_cast<size_t>(round) % std::size(methods)], bytes);
    CHECK(status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED);
    CHECK(status.error_code() != grpc::StatusCode::UNAVAILABLE);
  }
  for (const char* method : methods) {
    if (std::string_view(method) == "/sluice.v1.Log/Append") continue;  // bounded by batches, not by this
    CHECK(node.Raw(method, std::string(2 << 20, '\x08')).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  }
  CHECK(node.Raw("/sluice.v1.Log/Nope", "").error_code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(!node.Append(ItemOf("t", BatchOf(1, 1))).has_error());
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
