#include "client/consumer.h"

#include <catch2/catch.hpp>
#include <thread>

#include "client/consumer_core.h"
#include "client/error.h"
#include "client/testing/client_fixture.h"

namespace sluice::client {
namespace {

struct ConsumerFixture : ClientFixture {
  ConsumerFixture() { Topic("t", 2); }
  ~ConsumerFixture() { consumer = nullptr; }
  const TopicPartition p0{"t", PartitionId(0)};
  const TopicPartition p1{"t", PartitionId(1)};

  void Make(ConsumerOptions options = {}) { consumer = client->NewConsumer(options); }
  void Append(const TopicPartition& partition, std::vector<std::string> values) {
    On([&] { broker.AppendValues(partition, values); });
  }
  // "offset=value" of what the polls hand out, until `count` or nothing comes.
  std::vector<std::string> Read(size_t count, size_t a_poll = 1000) {
    std::vector<std::string> out;
    while (out.size() < count) {
      auto polled = consumer->Poll(absl::Seconds(5), a_poll);
      REQUIRE(polled.ok());
      if (polled->empty()) break;
      for (const ConsumedRecord& each : *polled) {
        out.push_back(std::to_string(each.record.offset.value()) + "=" + std::string(*each.record.value));
      }
    }
    return out;
  }
  std::unique_ptr<Consumer> consumer;
};

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE_METHOD(ConsumerFixture, "Records come in order from the offset asked, without control batches") {
  Append(p0, {"a", "b", "c"});
  On([&] { broker.AppendControl(p0); });
  Append(p0, {"d"});
  Make();
  consumer->Assign(p0, Offset(2));
  CHECK(Read(3) == Strings{"2=b", "3=c", "5=d"});
  CHECK(consumer->Position(p0) == Offset(6));
  CHECK(consumer->HighWatermark(p0) == Offset(6));
}

TEST_CASE_METHOD(ConsumerFixture, "The position moves past control batches at the end") {
  Append(p0, {"a"});
  On([&] { broker.AppendControl(p0); });
  Make();
  consumer->Assign(p0, Offset(0));
  CHECK(Read(1) == Strings{"1=a"});
  CHECK(consumer->Position(p0) == Offset(3));
}

TEST_CASE_METHOD(ConsumerFixture, "A poll may end inside a batch and the next goes on there") {
  Append(p0, {"a", "b", "c", "d", "e"});
  Make();
  consumer->Assign(p0, Offset(0));
  CHECK(Read(2, 2) == Strings{"1=a", "2=b"});
  CHECK(consumer->Position(p0) == Offset(3));
  CHECK(Read(3, 2) == Strings{"3=c", "4=d", "5=e"});
  CHECK(consumer->Position(p0) == Offset(6));
}

TEST_CASE_METHOD(ConsumerFixture, "A consumer at the end is woken by what is appended") {
  Make();
  consumer->Assign(p0, Offset(1));
  auto nothing = consumer->Poll(absl::Milliseconds(20));
  REQUIRE(nothing.ok());
  CHECK(nothing->empty());
  Append(p0, {"a"});
  CHECK(Read(1) == Strings{"1=a"});
}

TEST_CASE_METHOD(ConsumerFixture, "Seek drops what was fetched, back and forth") {
  Append(p0, {"a", "b", "c"});
  Make();
  consumer->Assign(p0, Offset(0));
  CHECK(Read(3) == Strings{"1=a", "2=b", "3=c"});
  REQUIRE(consumer->Seek(p0, Offset(2)).ok());
  CHECK(Read(2) == Strings{"2=b", "3=c"});
  CHECK(absl::IsFailedPrecondition(consumer->Seek(p1, Offset(0))));
}

TEST_CASE_METHOD(ConsumerFixture, "A paused partition hands out nothing while the other goes on") {
  Append(p0, {"a"});
  Append(p1, {"x"});
  Make();
  consumer->Assign(p0, Offset(0));
  REQUIRE(consumer->Pause(p0).ok());
  consumer->Assign(p1, Offset(0));
  CHECK(Read(1) == Strings{"1=x"});
  CHECK(consumer->Poll(absl::Milliseconds(30))->empty());
  REQUIRE(consumer->Resume(p0).ok());
  CHECK(Read(1) == Strings{"1=a"});
}

TEST_CASE_METHOD(ConsumerFixture, "Whole batches come with the first offset that was asked for") {
  Append(p0, {"a", "b", "c"});
  Append(p0, {"d"});
  Make();
  consumer->Assign(p0, Offset(2));
  auto batches = consumer->PollBatches(absl::Seconds(5));
  REQUIRE(batches.ok());
  REQUIRE(batches->size() == 2);
  CHECK((*batches)[0].batch.base_offset() == Offset(1));
  CHECK((*batches)[0].first_offset == Offset(2));
  CHECK((*batches)[0].next_offset == Offset(4));
  CHECK((*batches)[1].first_offset == Offset(4));
  CHECK(consumer->Position(p0) == Offset(5));
}

TEST_CASE_METHOD(ConsumerFixture, "Reading ahead is bounded by the memory given") {
  for (int i = 0; i < 100; ++i) Append(p0, {std::string(10000, 'x')});
  ConsumerOptions options;
  options.fetch_bytes_max = 20000;
  options.memory_bytes = 40000;
  Make(options);
  consumer->Assign(p0, Offset(0));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  int fetches = 0;
  On([&] { fetches = broker.calls["/sluice.v1.Log/Fetch"]; });
  CHECK(fetches <= 3);
  CHECK(Read(100).size() == 100);
}

TEST_CASE_METHOD(ConsumerFixture, "An offset out of range is an error that a seek gets over") {
  Append(p0, {"a"});
  On([&] { broker.logs[p0].start = Offset(1); });
  Make();
  consumer->Assign(p0, Offset(0));
  auto polled = consumer->Poll(absl::Seconds(5));
  CHECK(absl::IsOutOfRange(polled.status()));
  REQUIRE(GetErrorDetail(polled.status()).has_value());
  CHECK(GetErrorDetail(polled.status())->log_start_offset == 1);
  CHECK_THAT(std::string(polled.status().message()), Catch::Contains("t/0"));
  REQUIRE(consumer->Seek(p0, Offset(1)).ok());
  CHECK(Read(1) == Strings{"1=a"});
}

TEST_CASE_METHOD(ConsumerFixture, "One partition's error takes no record away from the others") {
  Topic("three", 3);
  const TopicPartition first{"three", PartitionId(0)}, middle{"three", PartitionId(1)}, last{"three", PartitionId(2)};
  Append(first, {"a"});
  Append(last, {"b"});
  Make();
  consumer->Assign(first, Offset(0));
  consumer->Assign(middle, Offset(99));
  consumer->Assign(last, Offset(0));
  // One answer has all three.
  for (int i = 0; i < 500 && !consumer->HighWatermark(last).has_value(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  Strings values;
  int errors = 0;
  for (int i = 0; i < 10 && (values.size() < 2 || errors == 0); ++i) {
    auto polled = consumer->Poll(absl::Seconds(1));
    if (!polled.ok()) {
      CHECK(absl::IsOutOfRange(polled.status()));
      ++errors;
      continue;
    }
    for (const ConsumedRecord& each : *polled) values.emplace_back(*each.record.value);
  }
  std::sort(values.begin(), values.end());
  CHECK(values == Strings{"a", "b"});
  CHECK(errors > 0);
}

TEST_CASE_METHOD(ConsumerFixture, "A batch with a flipped byte is DATA_LOSS, never a record") {
  Append(p0, {"abc"});
  On([&] { broker.tamper = [](std::string* batches) { batches->back() ^= 1; }; });
  Make();
  consumer->Assign(p0, Offset(1));
  CHECK(absl::IsDataLoss(consumer->Poll(absl::Seconds(5)).status()));
}

TEST_CASE_METHOD(ConsumerFixture, "A gap in what the broker sends is DATA_LOSS") {
  Append(p0, {"a"});
  Append(p0, {"b"});
  On([&] {
    const size_t first = broker.logs[p0].batches[1].size_bytes();
    broker.tamper = [first](std::string* batches) { batches->erase(0, first); };
  });
  Make();
  consumer->Assign(p0, Offset(1));
  auto polled = consumer->Poll(absl::Seconds(5));
  CHECK(absl::IsDataLoss(polled.status()));
  CHECK_THAT(std::string(polled.status().message()), Catch::Contains("missing"));
}

TEST_CASE_METHOD(ConsumerFixture, "An answer that skips offsets without a batch is DATA_LOSS") {
  Append(p0, {"a"});
  On([&] { broker.tamper = [](std::string* batches) { batches->clear(); }; });
  Make();
  consumer->Assign(p0, Offset(1));
  CHECK(absl::IsDataLoss(consumer->Poll(absl::Seconds(5)).status()));
}

TEST_CASE_METHOD(ConsumerFixture, "A dead broker ends in an error within the time given, and its return heals") {
  Append(p0, {"a"});
  ConsumerOptions options;
  options.broker_timeout = absl::Milliseconds(200);
  options.retry_backoff = absl::Milliseconds(10);
  Make(options);
  On([&] { broker.reachable = false; });
  consumer->Assign(p0, Offset(0));
  CHECK(absl::IsUnavailable(consumer->Poll(absl::Seconds(5)).status()));
  On([&] { broker.reachable = true; });
  auto polled = consumer->Poll(absl::Seconds(5));
  for (int i = 0; i < 20 && !polled.ok(); ++i) polled = consumer->Poll(absl::Seconds(5));
  REQUIRE(polled.ok());
  CHECK(polled->size() == 1);
}

TEST_CASE_METHOD(ConsumerFixture, "A silent broker ends in an error within the time given") {
  ConsumerOptions options;
  options.fetch_wait_max = absl::Milliseconds(50);
  options.broker_timeout = absl::Milliseconds(200);
  Make(options);
  On([&] { broker.silent = true; });
  consumer->Assign(p0, Offset(0));
  CHECK(absl::IsDeadlineExceeded(consumer->Poll(absl::Seconds(5)).status()));
}

TEST_CASE_METHOD(ConsumerFixture, "Wake ends a waiting poll") {
  Make();
  consumer->Assign(p0, Offset(1));
  std::thread waker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    consumer->Wake();
  });
  auto polled = consumer->Poll(absl::Seconds(30));
  waker.join();
  REQUIRE(polled.ok());
  CHECK(polled->empty());
}

}  // namespace sluice::client
