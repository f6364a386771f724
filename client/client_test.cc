#include "client/client.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <thread>

#include "client/error.h"
#include "client/producer_wire.h"
#include "client/testing/client_fixture.h"
#include "sluice/v1/log.pb.h"

namespace sluice::client {

TEST_CASE("A list of brokers is split, checked, and gets the default port") {
  CHECK(ParseBrokers("a:1, b,[::1]:7").value() == std::vector<std::string>{"a:1", "b:7400", "[::1]:7"});
  for (const char* bad : {"", "a:", "a:0", "a:65536", ":7400", "a:x", "a,,b", "http://a:1", "::1"}) {
    INFO(bad);
    CHECK(absl::IsInvalidArgument(ParseBrokers(bad).status()));
  }
}

TEST_CASE("A produce request written by hand is what the generated class reads, whatever its pieces are") {
  const size_t sizes[] = {0, 3, 8191, 8192, 100000};
  for (const size_t first : sizes) {
    for (const size_t second : sizes) {
      for (const bool fields_behind : {false, true}) {
        INFO(first << ", " << second << (fields_behind ? ", fields behind them" : ""));
        const auto expected = fields_behind ? std::optional(Offset(int64_t{1} << 40)) : std::nullopt;
        const std::vector<ProduceItemToSend> items = {
            {"t", 0, Bytes::Adopt(std::string(first, 'a')), expected, fields_behind},
            {"topic-2", 300, Bytes::Adopt(std::string(second, 'b')), expected, fields_behind}};
        const std::vector<Bytes> pieces = EncodeProduceRequest(uint64_t{1} << 63, items);
        for (const ProduceItemToSend& item : items) {
          const auto same = [&](const Bytes& piece) { return piece.data() == item.batch.data(); };
          CHECK(std::any_of(pieces.begin(), pieces.end(), same) == (item.batch.size() >= 8192));
        }
        const Bytes bytes = Join(pieces);
        v1::ProduceRequest request;
        REQUIRE(request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
        CHECK(request.correlation_id() == uint64_t{1} << 63);
        REQUIRE(request.items_size() == 2);
        for (int i = 0; i < 2; ++i) {
          const ProduceItemToSend& item = items[static_cast<size_t>(i)];
          CHECK(request.items(i).topic() == item.topic);
          CHECK(request.items(i).partition() == item.partition);
          CHECK(request.items(i).batch() == item.batch.view());
          CHECK(request.items(i).has_expected_base_offset() == fields_behind);
          if (fields_behind) CHECK(request.items(i).expected_base_offset() == int64_t{1} << 40);
          CHECK(request.items(i).reset() == fields_behind);
        }
      }
    }
  }
}

TEST_CASE("An error's detail survives inside a status, and its reason gives the code") {
  ErrorDetail detail;
  detail.reason = Reason::kExpectedOffsetMismatch;
  detail.message = "the log ends at 7";
  detail.log_end_offset = 7;
  const absl::Status status = MakeError(detail);
  CHECK(absl::IsAborted(status));
  CHECK(GetErrorDetail(status)->log_end_offset == 7);
  CHECK_FALSE(GetErrorDetail(absl::InternalError("x")).has_value());
  CHECK(IsOutcomeUnknown(OutcomeUnknown("time over", "t", 1)));
  CHECK(absl::IsInternal(MakeErrorFromWire("\xff\xff", absl::InternalError("kept"))));
}

TEST_CASE("The thread executor keeps the order of tasks and of timers, and forgets what is cancelled") {
  ThreadExecutor executor;
  std::vector<int> seen;
  std::promise<void> last;
  RunOn(executor, [&] {
    executor.PostAfter(absl::Milliseconds(20), [&] {
      seen.push_back(3);
      last.set_value();
    });
    executor.PostAfter(absl::Milliseconds(5), [&] { seen.push_back(2); });
    const Executor::TimerId never = executor.PostAfter(absl::Milliseconds(10), [&] { seen.push_back(99); });
    executor.Post([&] { seen.push_back(1); });
    executor.Cancel(never);
  });
  REQUIRE(last.get_future().wait_for(std::chrono::seconds(20)) == std::future_status::ready);
  RunOn(executor, [&] { CHECK(seen == std::vector<int>{1, 2, 3}); });
}

TEST_CASE_METHOD(ClientFixture, "Admin creates, describes and asks offsets, and says what it cannot find") {
  auto admin = client->NewAdmin();
  REQUIRE(admin->CreateTopic({"made", 3, 0, {}}).ok());
  auto described = admin->DescribeTopic("made");
  REQUIRE(described.ok());
  CHECK(described->partitions.size() == 3);
  auto offset = admin->ListOffset({"made", PartitionId(1), OffsetQuery::Kind::kLatest});
  REQUIRE(offset.ok());
  CHECK(offset->offset == Offset(1));
  CHECK(offset->log_end == Offset(1));
  CHECK(absl::IsNotFound(admin->DescribeTopic("other").status()));
  CHECK(absl::IsNotFound(admin->ListOffset({"made", PartitionId(9)}).status()));
}

TEST_CASE_METHOD(ClientFixture, "A call to a cluster that cannot be reached names the brokers tried") {
  On([&] { broker.reachable = false; });
  const absl::Status status = client->NewAdmin()->ListTopics().status();
  CHECK(absl::IsUnavailable(status));
  CHECK_THAT(std::string(status.message()), Catch::Contains(FakeBroker::kAddress));
}

TEST_CASE("A change without an answer says that nobody knows whether it was made; a question does not") {
  ThreadExecutor executor;
  FakeBroker broker{executor};
  ClientOptions options;
  options.timeout = absl::Milliseconds(100);
  auto client = Create(options, {&executor, &executor, &broker}).value();
  auto admin = client->NewAdmin();
  const auto unknown = Catch::Contains("unknown whether");
  RunOn(executor, [&] { broker.silent = true; });
  const absl::Status created = admin->CreateTopic({"made", 1, 0, {}}).status();
  CHECK(absl::IsDeadlineExceeded(created));
  CHECK_THAT(std::string(created.message()), unknown);
  CHECK_THAT(std::string(admin->DeleteTopic("made").message()), unknown);
  CHECK_THAT(std::string(admin->ListTopics().status().message()), !unknown);
  RunOn(executor, [&] { broker.reachable = false; });
  CHECK_THAT(std::string(admin->DeleteTopic("made").message()), !unknown);
}

TEST_CASE("A client that is gone opens no channel, whatever was still looking for a broker") {
  ThreadExecutor executor;
  FakeBroker broker{executor};
  ClientOptions options;
  options.brokers = {"first:1", "second:1"};
  auto client = Create(options, {&executor, &executor, &broker}).value();
  auto producer = client->NewProducer();
  absl::Status result;
  RunOn(executor, [&] {
    broker.reachable = false;
    RecordToSend record;
    record.topic = "t";
    record.value = "v";
    REQUIRE(producer->Send(record, [&](const absl::StatusOr<RecordResult>& given) { result = given.status(); }).ok());
    // Between the first attempt to connect and its failure, which is two tasks away.
    executor.Post([&] {
      executor.Post([&] {
        producer = nullptr;
        client = nullptr;
      });
    });
  });
  for (int i = 0; i < 5; ++i) RunOn(executor, [] {});
  CHECK(absl::IsCancelled(result));
  CHECK(broker.channels_opened == 1);
}

TEST_CASE("Over gRPC a port where nobody listens is UNAVAILABLE, quickly and with the address") {
  ClientOptions options;
  options.brokers = {"127.0.0.1:1"};
  auto client = Connect(options).value();
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = client->NewAdmin()->ListTopics().status();
  CHECK(absl::IsUnavailable(status));
  CHECK_THAT(std::string(status.message()), Catch::Contains("127.0.0.1:1"));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(4));
}

TEST_CASE("A file of authorities that cannot be read, or has none, is INVALID_ARGUMENT and named") {
  for (const std::string path : {"/nowhere/ca.pem", "/dev/null"}) {
    ClientOptions options;
    options.tls_ca_file = path;
    const auto client = Connect(options);
    REQUIRE(absl::IsInvalidArgument(client.status()));
    CHECK_THAT(std::string(client.status().message()), Catch::Contains(path));
  }
}

}  // namespace sluice::client
