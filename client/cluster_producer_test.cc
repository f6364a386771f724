// Producers against a cluster whose leaders change, die, hang and mislead.
#include <catch2/catch.hpp>

#include "client/testing/cluster_fixture.h"

namespace sluice::client {

// ---- Producer

TEST_CASE_METHOD(ClusterFixture, "Each partition's records go to its own leader, by one connection a broker") {
  Lead(1, kB);
  Lead(2, kC);
  MakeProducer();
  std::vector<std::string> expected;
  for (int p = 0; p < 3; ++p) SendMany(p, 20);
  Flush();
  for (int p = 0; p < 3; ++p) CHECK(Values(p).size() == 20);
  On([&] {
    CHECK(broker.node(kB).items > 0);
    CHECK(broker.node(kC).items > 0);
    CHECK(broker.channels_opened == 3);
    CHECK(broker.streams_opened == 3);
  });
}

TEST_CASE_METHOD(ClusterFixture, "Batches follow a leader that moves while many are under way, in order and once") {
  MakeProducer(SmallBatches());
  std::vector<std::string> expected;
  for (int round = 0; round < 6; ++round) {
    const auto sent = SendMany(0, 30, "round" + std::to_string(round) + "-");
    expected.insert(expected.end(), sent.begin(), sent.end());
    Lead(0, round % 2 == 0 ? kB : kA);
  }
  Flush();
  CHECK(Values(0) == expected);
  for (const std::string& value : expected) CHECK(ResultOf(value)->ok());
}

TEST_CASE_METHOD(ClusterFixture, "A hint is followed at once, without asking the cluster") {
  MakeProducer();
  Send(0, "first");
  Flush();
  Lead(0, kC);
  int before = 0;
  On([&] { before = broker.calls["/sluice.v1.Topics/Describe"]; });
  const Moment sent;
  Send(0, "second");
  Flush();
  CHECK(ResultOf("second")->ok());
  CHECK(sent.Within(4000));
  On([&] { CHECK(broker.calls["/sluice.v1.Topics/Describe"] == before); });
}

TEST_CASE_METHOD(ClusterFixture,
                 "What a killed leader had not answered is unknown, and what follows goes to the next") {
  MakeProducer();
  Send(0, "warm");
  Flush();
  On([&] { broker.hold_answers = true; });
  Send(0, "asked");
  REQUIRE(Eventually([&] { return broker.requests == 2; }));
  On([&] {
    broker.hold_answers = false;
    broker.Kill(kA);
    broker.Lead(Part(0), "");
  });
  REQUIRE(Eventually([&] { return ResultOf("asked").has_value(); }));
  CHECK(IsOutcomeUnknown(*ResultOf("asked")));
  Send(0, "later");
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  CHECK_FALSE(ResultOf("later").has_value());
  const Moment elected;
  Lead(0, kB);
  REQUIRE(Acknowledged("later"));
  CHECK(elected.Within(1500));
  CHECK(Values(0) == std::vector<std::string>{"warm", "asked", "later"});
}

TEST_CASE_METHOD(ClusterFixture,
                 "A partition without a leader never holds up the others, and is asked for at a bounded rate") {
  Lead(1, "");
  MakeProducer(SmallBatches());
  const auto waiting = SendMany(1, 5);
  const Moment start;
  for (int i = 0; i < 20; ++i) {
    Send(0, "a" + std::to_string(i));
    REQUIRE(Acknowledged("a" + std::to_string(i)));
  }
  CHECK(start.Within(2000));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  On([&] { CHECK(broker.calls["/sluice.v1.Topics/Describe"] < 30); });
  CHECK_FALSE(ResultOf(waiting[0]).has_value());
  Lead(1, kB);
  Flush();
  CHECK(Values(1) == waiting);
}

TEST_CASE_METHOD(ClusterFixture, "Hints in a circle end in what the cluster says, and cost few requests") {
  MakeProducer();
  Send(0, "warm");
  Flush();
  int before = 0;
  On([&] {
    before = broker.items;
    broker.hint = [](const std::string& node, const TopicPartition&) { return node == kA ? kB : kA; };
    broker.told = [this](const std::string&, const TopicPartition& p) {
      return broker.calls["/sluice.v1.Topics/Describe"] < 6 ? std::string(kA) : broker.logs.at(p).leader;
    };
    broker.Lead(Part(0), kC);
  });
  Send(0, "x");
  Flush();
  CHECK(ResultOf("x")->ok());
  On([&] { CHECK(broker.items - before < 40); });
  CHECK(Values(0) == std::vector<std::string>{"warm", "x"});
}

TEST_CASE_METHOD(ClusterFixture, "A hint to a dead broker, or to one that is not there, is got over") {
  for (const char* wrong : {kC, "nowhere:1"}) {
    MakeProducer();
    Send(0, std::string("warm ") + wrong);
    Flush();
    On([&] {
      broker.Kill(kC);
      broker.node("nowhere:1").black_hole = true;
      broker.hint = [wrong](const std::string&, const TopicPartition&) { return wrong; };
      broker.Lead(Part(0), broker.logs.at(Part(0)).leader == kA ? kB : kA);
    });
    const Moment moved;
    Send(0, std::string("x ") + wrong);
    Flush();
    CHECK(ResultOf(std::string("x ") + wrong)->ok());
    CHECK(moved.Within(4000));  // sooner than an attempt to connect is given up
  }
}

TEST_CASE_METHOD(ClusterFixture, "A leader that hangs ends in unknown outcomes, and the next takes what follows") {
  ProducerOptions options;
  options.request_timeout = absl::Milliseconds(300);
  MakeProducer(options);
  Send(0, "warm");
  Flush();
  On([&] { broker.node(kA).silent = true; });
  const Moment sent;
  Send(0, "hung");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Lead(0, kB);
  REQUIRE(Eventually([&] { return ResultOf("hung").has_value(); }));
  CHECK(IsOutcomeUnknown(*ResultOf("hung")));
  CHECK(sent.Within(2000));
  Send(0, "behind");
  Flush();
  CHECK(ResultOf("behind")->ok());
  CHECK(Values(0) == std::vector<std::string>{"warm", "behind"});
}

TEST_CASE_METHOD(ClusterFixture,
                 "A leader that cannot be reached any more is left for the one that the cluster names") {
  MakeProducer();
  Send(1, "warm");
  Flush();
  On([&] {
    broker.Kill(kA);
    for (int p = 0; p < 3; ++p) broker.Lead(Part(p), kC);
  });
  for (int p = 0; p < 3; ++p) Send(p, "after" + std::to_string(p));
  Flush();
  for (int p = 0; p < 3; ++p) CHECK(ResultOf("after" + std::to_string(p))->ok());
}

TEST_CASE_METHOD(ClusterFixture, "A topic that is deleted under a producer is NOT_FOUND, for what is queued too") {
  Lead(1, "");
  MakeProducer();
  Send(0, "warm");
  Flush();
  Send(1, "queued");
  On([&] {
    for (int p = 0; p < 3; ++p) broker.logs.erase(Part(p));
  });
  Send(0, "late");
  Flush();
  CHECK(HasReason(*ResultOf("late"), Reason::kUnknownTopic));
  CHECK(HasReason(*ResultOf("queued"), Reason::kUnknownTopic));
  On([&] { broker.CreateTopic("t", 1); });
  Send(0, "anew");
  Flush();
  CHECK(ResultOf("anew")->ok());
}

TEST_CASE_METHOD(ClusterFixture, "A partition that was added is found by who names it") {
  MakeProducer();
  Send(0, "warm");
  Flush();
  On([&] {
    broker.logs[Part(3)];
    broker.AppendControl(Part(3));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  Send(3, "x");
  Flush();
  CHECK(ResultOf("x")->ok());
}

TEST_CASE_METHOD(ClusterFixture, "Memory stays bounded, and every record gets its result in time, while nobody leads") {
  ProducerOptions options = SmallBatches();
  options.memory_bytes = 5000;
  options.block_max = absl::ZeroDuration();
  options.delivery_timeout = absl::Milliseconds(300);
  MakeProducer(options);
  for (int p = 0; p < 3; ++p) Lead(p, "");
  int taken = 0;
  RecordToSend record;
  record.topic = "t";
  record.partition = PartitionId(0);
  record.value = "some value";
  std::atomic<int> failed = 0;
  while (
      producer->Send(record, [&](const absl::StatusOr<RecordResult>& r) { failed += absl::IsUnavailable(r.status()); })
          .ok()) {
    ++taken;
    REQUIRE(producer->memory_used() <= options.memory_bytes);
  }
  Flush();
  CHECK(failed == taken);
}

TEST_CASE_METHOD(ClusterFixture, "Where nobody leads for damage, the result says what is damaged") {
  ProducerOptions options = SmallBatches();
  options.delivery_timeout = absl::Seconds(3);
  MakeProducer(options);
  Send(0, "warm");
  Flush();
  On([&] { broker.logs.at(Part(0)).trouble = "00.log at byte 7: wrong CRC32C"; });
  Lead(0, "");
  Send(0, "x");
  Flush();
  REQUIRE(ResultOf("x").has_value());
  const absl::Status refused = *ResultOf("x");
  INFO(refused.ToString());
  CHECK(absl::IsUnavailable(refused));
  CHECK(refused.message().find("00.log at byte 7") != std::string_view::npos);
}

TEST_CASE_METHOD(ClusterFixture, "A result says why its own partition has no leader, not why another one has none") {
  ProducerOptions options = SmallBatches();
  options.delivery_timeout = absl::Seconds(3);
  MakeProducer(options);
  Send(0, "warm 0");
  Send(1, "warm 1");
  Flush();
  On([&] { broker.logs.at(Part(0)).trouble = "damage in the first"; });
  On([&] { broker.logs.at(Part(1)).trouble = "damage in the second"; });
  Lead(0, "");
  Lead(1, "");
  Send(0, "x");
  Send(1, "y");
  Flush();
  const auto says = [&](const std::string& value, const char* part) {
    REQUIRE(ResultOf(value).has_value());
    INFO(ResultOf(value)->ToString());
    return ResultOf(value)->message().find(part) != absl::string_view::npos;
  };
  CHECK(says("x", "damage in the first"));
  CHECK_FALSE(says("x", "damage in the second"));
  CHECK(says("y", "damage in the second"));
  CHECK_FALSE(says("y", "damage in the first"));
}

}  // namespace sluice::client
