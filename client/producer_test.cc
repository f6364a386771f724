#include "client/producer.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <future>

#include "client/error.h"
#include "client/testing/client_fixture.h"
#include "common/record/record.h"

namespace sluice::client {
namespace {

struct ProducerFixture : ClientFixture {
  ProducerFixture() { Topic("t", 1); }
  ~ProducerFixture() { producer = nullptr; }

  void Make(ProducerOptions options = {}) { producer = client->NewProducer(options); }

  // Sends, and remembers the result under the value.
  absl::Status Send(const std::string& value, std::optional<std::string> key = std::nullopt,
                    std::optional<int> partition = std::nullopt, const std::string& topic = "t") {
    RecordToSend record;
    record.topic = topic;
    if (partition.has_value()) record.partition = PartitionId(*partition);
    if (key.has_value()) record.key = *key;
    record.value = value;
    return producer->Send(record, [this, value](absl::StatusOr<RecordResult> result) {
      std::lock_guard lock(mutex);
      results.emplace_back(value, std::move(result));
    });
  }
  void Flush() { REQUIRE(producer->Flush(absl::Seconds(20)) == absl::OkStatus()); }
  absl::StatusOr<RecordResult> ResultOf(const std::string& value) {
    std::lock_guard lock(mutex);
    int found = 0;
    absl::StatusOr<RecordResult> result = absl::NotFoundError("no result for " + value);
    for (auto& [name, each] : results) {
      if (name == value) result = each, ++found;
    }
    if (found > 1) return absl::AlreadyExistsError("two results for " + value);
    return result;
  }
  template <class F>
  bool Eventually(F holds) {
    for (int i = 0; i < 500; ++i) {
      bool now = false;
      On([&] { now = holds(); });
      if (now) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  std::mutex mutex;
  std::vector<std::pair<std::string, absl::StatusOr<RecordResult>>> results;
  std::unique_ptr<Producer> producer;
};

ErrorDetail Detail(Reason reason, bool retriable) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.retriable = retriable;
  detail.message = "as the test wants";
  return detail;
}

}  // namespace

TEST_CASE("Murmur2 gives the values of Kafka's own test") {
  CHECK(static_cast<int32_t>(Murmur2("21")) == -973932308);
  CHECK(static_cast<int32_t>(Murmur2("foobar")) == -790332482);
  CHECK(static_cast<int32_t>(Murmur2("a-little-bit-long-string")) == -985981536);
  CHECK(static_cast<int32_t>(Murmur2("a-little-bit-longer-string")) == -1486304829);
  CHECK(static_cast<int32_t>(Murmur2("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8")) == -58897971);
  CHECK(static_cast<int32_t>(Murmur2("abc")) == 479470107);
}

TEST_CASE("A key's partition is the positive murmur2 modulo the number of partitions") {
  CHECK(PartitionForKey("foobar", 10) == PartitionId((-790332482 & 0x7fffffff) % 10));
  CHECK(PartitionForKey("abc", 1) == PartitionId(0));
}

TEST_CASE_METHOD(ProducerFixture, "Every record gets its offset, in the order sent") {
  Make();
  for (int i = 0; i < 1000; ++i) REQUIRE(Send(std::to_string(i)).ok());
  Flush();
  std::vector<std::string> expected;
  for (int i = 0; i < 1000; ++i) {
    expected.push_back(std::to_string(i));
    REQUIRE(ResultOf(std::to_string(i)).value().offset == Offset(i + 1));  // offset 0 is the leader's control batch
  }
  CHECK(Values("t") == expected);
  CHECK(producer->memory_used() == 0);
}

TEST_CASE_METHOD(ProducerFixture, "Records that arrive while a batch is under way share the next one") {
  Make();
  On([&] { broker.hold_answers = true; });
  REQUIRE(Send("first").ok());
  REQUIRE(Eventually([&] { return broker.requests == 1; }));
  for (int i = 0; i < 100; ++i) REQUIRE(Send(std::to_string(i)).ok());
  On([&] {
    broker.hold_answers = false;
    broker.Release();
  });
  Flush();
  int requests = 0;
  On([&] { requests = broker.requests; });
  CHECK(requests <= 3);
}

TEST_CASE_METHOD(ProducerFixture, "Batches close at their size, and many are under way at once") {
  ProducerOptions options;
  options.batch_bytes = 1000;
  options.codec = record::Codec::kZstd;
  Make(options);
  On([&] { broker.hold_answers = true; });
  for (int i = 0; i < 50; ++i) REQUIRE(Send(std::string(400, 'x')).ok());
  CHECK(Eventually([&] { return broker.requests == options.requests_in_flight_max; }));
  On([&] {
    broker.hold_answers = false;
    broker.Release();
  });
  Flush();
  CHECK(Values("t").size() == 50);
}

TEST_CASE_METHOD(ProducerFixture, "Keys decide the partition as Kafka's partitioner does") {
  Topic("keyed", 7);
  Make();
  for (int i = 0; i < 50; ++i)
    REQUIRE(Send("v" + std::to_string(i), "k" + std::to_string(i), std::nullopt, "keyed").ok());
  Flush();
  for (int i = 0; i < 50; ++i) {
    REQUIRE(ResultOf("v" + std::to_string(i)).value().partition == PartitionForKey("k" + std::to_string(i), 7));
  }
}

TEST_CASE_METHOD(ProducerFixture, "A refused batch and those behind it are sent again in order, after a reset") {
  ProducerOptions options;
  options.batch_bytes = 100;
  options.retry_backoff = absl::Milliseconds(5);
  Make(options);
  On([&] {
    broker.refuse = [n = 0](const TopicPartition&) mutable -> std::optional<ErrorDetail> {
      ++n;
      if (n == 3 || n == 7) return Detail(Reason::kQuota, true);
      return std::nullopt;
    };
  });
  std::vector<std::string> expected;
  for (int i = 0; i < 40; ++i) {
    expected.push_back("record-" + std::to_string(i) + std::string(60, '.'));
    REQUIRE(Send(expected.back()).ok());
  }
  Flush();
  CHECK(Values("t") == expected);
  for (const std::string& value : expected) CHECK(ResultOf(value).ok());
  int resets = 0;
  On([&] { resets = broker.resets; });
  CHECK(resets >= 2);
}

TEST_CASE_METHOD(ProducerFixture, "A batch that can never be written fails alone") {
  ProducerOptions options;
  options.batch_bytes = 100;
  options.retry_backoff = absl::Milliseconds(5);
  Make(options);
  On([&] {
    broker.refuse = [n = 0](const TopicPartition&) mutable -> std::optional<ErrorDetail> {
      if (++n == 2) return Detail(Reason::kMessageTooLarge, false);
      return std::nullopt;
    };
  });
  for (int i = 0; i < 5; ++i) REQUIRE(Send("r" + std::to_string(i) + std::string(80, '.')).ok());
  Flush();
  CHECK(Values("t").size() == 4);
  int failed = 0;
  for (auto& [value, result] : results) {
    if (result.ok()) continue;
    ++failed;
    CHECK(HasReason(result.status(), Reason::kMessageTooLarge));
    CHECK(value.substr(0, 2) == "r1");
  }
  CHECK(failed == 1);
}

TEST_CASE_METHOD(ProducerFixture,
                 "A broken stream makes what was sent unknown, never sent twice, and the rest goes on") {
  Make();
  On([&] { broker.hold_answers = true; });
  REQUIRE(Send("a").ok());
  REQUIRE(Eventually([&] { return broker.requests == 1; }));
  On([&] {
    broker.hold_answers = false;
    broker.BreakStreams(absl::UnavailableError("connection reset"));
  });
  REQUIRE(Eventually([&] { return !ResultOf("a").ok() && !absl::IsNotFound(ResultOf("a").status()); }));
  CHECK(IsOutcomeUnknown(ResultOf("a").status()));
  REQUIRE(Send("b").ok());
  Flush();
  CHECK(ResultOf("b").ok());
  CHECK(Values("t") == std::vector<std::string>{"a", "b"});
}

TEST_CASE_METHOD(ProducerFixture,
                 "A broker that ends a stream as it stops has not written what it did not answer: it is sent again") {
  Make();
  REQUIRE(Send("answered").ok());
  Flush();
  On([&] { broker.node(FakeBroker::kAddress).silent = true; });
  REQUIRE(Send("a").ok());
  REQUIRE(Send("b").ok());
  producer->Flush(absl::ZeroDuration()).IgnoreError();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(absl::IsNotFound(ResultOf("a").status()));
  ErrorDetail detail;
  detail.reason = Reason::kNotAvailable;
  detail.message = "the node is shutting down";
  detail.retriable = true;
  On([&] {
    broker.node(FakeBroker::kAddress).silent = false;
    broker.BreakStreams(MakeError(detail));
  });
  Flush();
  for (const char* value : {"answered", "a", "b"}) CHECK(ResultOf(value).ok());
  CHECK(Values("t") == std::vector<std::string>{"answered", "a", "b"});
}

TEST_CASE_METHOD(ProducerFixture,
                 "An answer that overtakes an earlier request's waits for it: results keep their order") {
  Make();
  On([&] { broker.hold_answers = true; });
  for (int i = 0; i < 3; ++i) {
    REQUIRE(Send(std::to_string(i)).ok());
    producer->Flush(absl::ZeroDuration()).IgnoreError();  // a request of its own
    REQUIRE(Eventually([&] { return broker.requests == i + 1; }));
  }
  On([&] { broker.ReleaseNewest(); });
  CHECK(absl::IsNotFound(ResultOf("2").status()));
  On([&] { broker.ReleaseNewest(); });
  On([&] {
    broker.hold_answers = false;
    broker.Release();
  });
  Flush();
  std::lock_guard lock(mutex);
  REQUIRE(results.size() == 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(results[static_cast<size_t>(i)].first == std::to_string(i));
    CHECK(results[static_cast<size_t>(i)].second.ok());
  }
}

TEST_CASE_METHOD(ProducerFixture, "What was answered out of turn keeps its answer when the stream breaks") {
  Make();
  On([&] { broker.hold_answers = true; });
  for (int i = 0; i < 4; ++i) {
    REQUIRE(Send(std::to_string(i)).ok());
    producer->Flush(absl::ZeroDuration()).IgnoreError();
    REQUIRE(Eventually([&] { return broker.requests == i + 1; }));
    if (i == 2) On([&] { broker.ReleaseNewest(); });
  }
  On([&] {
    broker.hold_answers = false;
    broker.BreakStreams(absl::UnavailableError("connection reset"));
  });
  REQUIRE(Eventually([&] { return !absl::IsNotFound(ResultOf("3").status()); }));
  for (const char* unknown : {"0", "1", "3"}) CHECK(IsOutcomeUnknown(ResultOf(unknown).status()));
  CHECK(ResultOf("2").ok());
}

TEST_CASE_METHOD(ProducerFixture, "Batches that are too large for the broker only together are sent one by one") {
  Topic("two", 2);
  Make();
  On([&] { broker.message_bytes_max = 100'000; });
  const std::string one(60'000, 'x');
  const std::string other(60'000, 'y');
  REQUIRE(Send(one, std::nullopt, 0, "two").ok());
  REQUIRE(Send(other, std::nullopt, 1, "two").ok());
  Flush();
  CHECK(ResultOf(one).ok());
  CHECK(ResultOf(other).ok());
}

TEST_CASE_METHOD(ProducerFixture, "A message that is too large for the broker is refused for certain, and alone") {
  Topic("two", 2);
  ProducerOptions options;
  options.linger = absl::Seconds(10);  // what is not full goes when it is flushed, after the refusal
  Make(options);
  REQUIRE(Send("warm", std::nullopt, 0, "two").ok());
  Flush();
  int warm = 0;
  On([&] {
    warm = broker.requests;
    broker.message_bytes_max = 100'000;
    broker.hold_answers = true;
  });
  REQUIRE(Send("before", std::nullopt, 0).ok());
  producer->Flush(absl::ZeroDuration()).IgnoreError();
  REQUIRE(Eventually([&] { return broker.requests == warm + 1; }));
  const std::string large(200'000, 'x');
  REQUIRE(Send(large, std::nullopt, 0, "two").ok());
  REQUIRE(Send("beside", std::nullopt, 1, "two").ok());
  REQUIRE(Send("behind", std::nullopt, 0).ok());
  REQUIRE(Eventually([&] { return !absl::IsNotFound(ResultOf(large).status()); }));
  On([&] {
    broker.hold_answers = false;
    broker.Release();
  });
  Flush();
  CHECK(HasReason(ResultOf(large).status(), Reason::kMessageTooLarge));
  CHECK(ResultOf(large).status().message().find("limits.message_bytes") != std::string::npos);
  // It was sent before, and had no answer yet.
  CHECK(IsOutcomeUnknown(ResultOf("before").status()));
  CHECK(ResultOf("beside").ok());
  CHECK(ResultOf("behind").ok());
}

TEST_CASE_METHOD(ProducerFixture,
                 "A broker that never answers ends in an unknown outcome within the delivery timeout") {
  ProducerOptions options;
  options.delivery_timeout = absl::Milliseconds(200);
  Make(options);
  On([&] { broker.hold_answers = true; });
  REQUIRE(Send("a").ok());
  REQUIRE(producer->Flush(absl::Seconds(5)).ok());
  CHECK(IsOutcomeUnknown(ResultOf("a").status()));
}

TEST_CASE_METHOD(ProducerFixture, "A broker that cannot be reached ends in UNAVAILABLE within the delivery timeout") {
  ProducerOptions options;
  options.delivery_timeout = absl::Milliseconds(200);
  Make(options);
  On([&] { broker.reachable = false; });
  REQUIRE(Send("a").ok());
  REQUIRE(producer->Flush(absl::Seconds(5)).ok());
  CHECK(absl::IsUnavailable(ResultOf("a").status()));
  CHECK_THAT(std::string(ResultOf("a").status().message()), Catch::Contains("was not written"));
}

TEST_CASE_METHOD(ProducerFixture, "A broker that comes back in time gets the records") {
  Make();
  On([&] { broker.reachable = false; });
  REQUIRE(Send("a").ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  On([&] { broker.reachable = true; });
  Flush();
  CHECK(ResultOf("a").ok());
}

TEST_CASE_METHOD(ProducerFixture, "An unknown topic is NOT_FOUND at once") {
  Make();
  REQUIRE(Send("a", std::nullopt, std::nullopt, "nowhere").ok());
  Flush();
  CHECK(HasReason(ResultOf("a").status(), Reason::kUnknownTopic));
}

TEST_CASE_METHOD(ProducerFixture, "Flush returns once the last result was given, not while it is being given") {
  Make();
  std::promise<void> giving;
  std::atomic<bool> given = false;
  RecordToSend record;
  record.topic = "nowhere";
  record.value = "v";
  REQUIRE(producer
              ->Send(record,
                     [&](const absl::StatusOr<RecordResult>&) {
                       giving.set_value();
                       std::this_thread::sleep_for(std::chrono::milliseconds(100));
                       given = true;
                     })
              .ok());
  giving.get_future().wait();
  Flush();
  CHECK(given);
}

TEST_CASE_METHOD(ProducerFixture, "What a broker refused until the time was over says why, with the refusal's code") {
  ProducerOptions options;
  options.delivery_timeout = absl::Milliseconds(200);
  Make(options);
  On([&] { broker.refuse = [](const TopicPartition&) { return Detail(Reason::kDiskFull, true); }; });
  REQUIRE(Send("a").ok());
  Flush();
  const absl::Status status = ResultOf("a").status();
  CHECK(absl::IsResourceExhausted(status));
  CHECK(HasReason(status, Reason::kDiskFull));
  for (const char* words : {"t/0", "was not written", "as the test wants"}) {
    CHECK_THAT(std::string(status.message()), Catch::Contains(words));
  }
  // An old refusal is not the reason of a later failure.
  On([&] { broker.refuse = nullptr; });
  REQUIRE(Send("b").ok());
  Flush();
  REQUIRE(ResultOf("b").ok());
  On([&] {
    broker.reachable = false;
    broker.BreakStreams(absl::UnavailableError("connection reset"));
  });
  REQUIRE(Send("c").ok());
  Flush();
  CHECK(absl::IsUnavailable(ResultOf("c").status()));
  CHECK_THAT(std::string(ResultOf("c").status().message()), !Catch::Contains("as the test wants"));
}

TEST_CASE_METHOD(ProducerFixture, "A partition that the topic does not have is refused") {
  Make();
  REQUIRE(Send("a", std::nullopt, 3).ok());
  Flush();
  CHECK(absl::IsNotFound(ResultOf("a").status()));
  CHECK(absl::IsNotFound(Send("b", std::nullopt, 3)));
  CHECK(producer->memory_used() == 0);
}

TEST_CASE_METHOD(ProducerFixture, "Full memory refuses at once or after the wait that was asked for") {
  ProducerOptions options;
  options.memory_bytes = 1000;
  options.block_max = absl::ZeroDuration();
  Make(options);
  On([&] { broker.hold_answers = true; });
  int taken = 0;
  absl::Status status;
  while ((status = Send("r" + std::to_string(taken) + std::string(100, '.'))).ok()) ++taken;
  CHECK(absl::IsResourceExhausted(status));
  CHECK(taken < 10);
  CHECK(absl::IsInvalidArgument(Send(std::string(2000, 'x'))));
  On([&] {
    broker.hold_answers = false;
    broker.Release();
  });
  Flush();
  CHECK(Send("later").ok());
  Flush();
}

TEST_CASE_METHOD(ProducerFixture, "A sender blocked on memory goes on when results come") {
  ProducerOptions options;
  options.memory_bytes = 2000;
  options.batch_bytes = 500;
  Make(options);
  for (int i = 0; i < 200; ++i) REQUIRE(Send("r" + std::to_string(i) + std::string(100, '.')).ok());
  Flush();
  CHECK(Values("t").size() == 200);
}

TEST_CASE_METHOD(ProducerFixture, "Destroying a producer gives every record its one result") {
  Make();
  On([&] { broker.hold_answers = true; });
  for (int i = 0; i < 10; ++i) REQUIRE(Send(std::to_string(i)).ok());
  producer = nullptr;
  CHECK(results.size() == 10);
  for (int i = 0; i < 10; ++i) CHECK_FALSE(ResultOf(std::to_string(i)).ok());
}

TEST_CASE_METHOD(ClientFixture, "Compare-and-append takes the expected offset and tells the real one otherwise") {
  Topic("t");
  auto appender = client->NewAppender();
  record::BatchBuilder builder;
  REQUIRE(builder.Append(1, std::nullopt, "x").ok());
  const Bytes batch = builder.Build().value().Freeze();
  auto first = appender->AppendBatch({"t", PartitionId(0), batch, Offset(1)}, absl::Seconds(5));
  REQUIRE(first.ok());
  CHECK(first->base_offset == Offset(1));
  CHECK(first->next_offset == Offset(2));
  auto second = appender->AppendBatch({"t", PartitionId(0), batch, Offset(1)}, absl::Seconds(5));
  REQUIRE(HasReason(second.status(), Reason::kExpectedOffsetMismatch));
  CHECK(GetErrorDetail(second.status())->log_end_offset == 2);
}

TEST_CASE_METHOD(ClientFixture, "An append without an answer is unknown, one without a connection is not written") {
  Topic("t");
  auto appender = client->NewAppender();
  record::BatchBuilder builder;
  REQUIRE(builder.Append(1, std::nullopt, "x").ok());
  const Bytes batch = builder.Build().value().Freeze();
  REQUIRE(appender->AppendBatch({"t", PartitionId(0), batch, std::nullopt}, absl::Seconds(5)).ok());
  On([&] { broker.silent = true; });
  CHECK(IsOutcomeUnknown(
      appender->AppendBatch({"t", PartitionId(0), batch, std::nullopt}, absl::Milliseconds(50)).status()));
  On([&] {
    broker.silent = false;
    broker.reachable = false;
  });
  const absl::Status status =
      appender->AppendBatch({"t", PartitionId(0), batch, std::nullopt}, absl::Seconds(1)).status();
  CHECK(absl::IsUnavailable(status));
  CHECK_FALSE(IsOutcomeUnknown(status));
}

}  // namespace sluice::client
