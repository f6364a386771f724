// Consumers, appenders and admins against a cluster whose leaders change, die, hang and mislead.
#include <catch2/catch.hpp>

#include "client/testing/cluster_fixture.h"

namespace sluice::client {

// ---- Consumer

TEST_CASE_METHOD(ClusterFixture,
                 "A consumer keeps its position across leader changes: nothing twice, nothing left out") {
  consumer = client->NewConsumer();
  consumer->Assign(Part(0), Offset(0));
  std::vector<std::string> expected;
  std::vector<std::string> read;
  for (int round = 0; round < 8; ++round) {
    On([&] {
      for (int i = 0; i < 5; ++i) {
        expected.push_back(std::to_string(round) + "/" + std::to_string(i));
        broker.AppendValues(Part(0), {expected.back()});
      }
    });
    if (round % 2 == 1) {
      const auto some = Read(3);
      read.insert(read.end(), some.begin(), some.end());
    }
    Lead(0, round % 3 == 0 ? kB : round % 3 == 1 ? kC : kA);
  }
  const auto rest = Read(expected.size() - read.size());
  read.insert(read.end(), rest.begin(), rest.end());
  CHECK(read == expected);
}

TEST_CASE_METHOD(ClusterFixture,
                 "A consumer's partition without a leader holds up no other, and goes on with a new leader") {
  ConsumerOptions options;
  consumer = client->NewConsumer(options);
  On([&] {
    broker.AppendValues(Part(0), {"before"});
    broker.AppendValues(Part(1), {"other"});
    broker.Lead(Part(0), "");
  });
  consumer->Assign(Part(0), Offset(0));
  consumer->Assign(Part(1), Offset(0));
  CHECK(Read(1) == std::vector<std::string>{"other"});
  Lead(0, kB);
  CHECK(Read(1) == std::vector<std::string>{"before"});
}

TEST_CASE_METHOD(ClusterFixture, "A consumer leaves a leader that hangs once another is known") {
  ConsumerOptions options;
  options.fetch_wait_max = absl::Milliseconds(20);
  consumer = client->NewConsumer(options);
  On([&] { broker.AppendValues(Part(0), {"a"}); });
  consumer->Assign(Part(0), Offset(0));
  CHECK(Read(1) == std::vector<std::string>{"a"});
  On([&] { broker.node(kA).silent = true; });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until a fetch hangs
  On([&] {
    broker.Lead(Part(0), kB);
    broker.AppendValues(Part(0), {"b"});
  });
  const Moment hung;
  CHECK(Read(1) == std::vector<std::string>{"b"});
  CHECK(hung.Within(9000));
}

TEST_CASE_METHOD(ClusterFixture, "A killed leader is no error for a consumer while another comes in time") {
  consumer = client->NewConsumer();
  On([&] { broker.AppendValues(Part(0), {"a"}); });
  consumer->Assign(Part(0), Offset(0));
  CHECK(Read(1) == std::vector<std::string>{"a"});
  On([&] {
    broker.Kill(kA);
    broker.Lead(Part(0), "");
  });
  CHECK(consumer->Poll(absl::Milliseconds(300))->empty());
  On([&] {
    broker.Lead(Part(0), kB);
    broker.AppendValues(Part(0), {"b"});
  });
  CHECK(Read(1) == std::vector<std::string>{"b"});
}

TEST_CASE_METHOD(ClusterFixture, "A new leader that has yet to learn what is committed is waited for, not an error") {
  consumer = client->NewConsumer();
  On([&] { broker.AppendValues(Part(0), {"a", "b"}); });
  consumer->Assign(Part(0), Offset(0));
  CHECK(Read(2) == std::vector<std::string>{"a", "b"});
  std::vector<record::Batch> whole;
  On([&] {
    whole = broker.logs[Part(0)].batches;
    broker.logs[Part(0)].batches.pop_back();
  });
  CHECK(consumer->Poll(absl::Milliseconds(300)).ok());
  On([&] {
    broker.logs[Part(0)].batches = whole;
    broker.AppendValues(Part(0), {"c"});
  });
  CHECK(Read(1) == std::vector<std::string>{"c"});
}

// ---- Appender

TEST_CASE_METHOD(ClusterFixture, "Compare-and-append waits for a leader and follows it, and then still compares") {
  auto appender = client->NewAppender();
  REQUIRE(appender->AppendBatch({"t", PartitionId(0), BatchOf("x"), Offset(1)}, absl::Seconds(5)).ok());
  Lead(0, "");
  std::thread elect([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    Lead(0, kB);
  });
  // The new leader's own entry moved the log's end: so it tells, and nothing is written.
  const auto moved = appender->AppendBatch({"t", PartitionId(0), BatchOf("y"), Offset(2)}, absl::Seconds(10));
  elect.join();
  REQUIRE(HasReason(moved.status(), Reason::kExpectedOffsetMismatch));
  CHECK(GetErrorDetail(moved.status())->log_end_offset == 3);
  REQUIRE(appender->AppendBatch({"t", PartitionId(0), BatchOf("y"), Offset(3)}, absl::Seconds(5)).ok());
  CHECK(Values(0) == std::vector<std::string>{"x", "y"});
}

TEST_CASE_METHOD(ClusterFixture,
                 "An append goes past dead brokers to the leader, but never on after an unknown outcome") {
  auto appender = client->NewAppender();
  Lead(0, kC);
  Kill(kA);
  REQUIRE(appender->AppendBatch({"t", PartitionId(0), BatchOf("x"), std::nullopt}, absl::Seconds(5)).ok());
  On([&] { broker.node(kC).silent = true; });
  const absl::Status status =
      appender->AppendBatch({"t", PartitionId(0), BatchOf("y"), std::nullopt}, absl::Milliseconds(200)).status();
  CHECK(IsOutcomeUnknown(status));
  CHECK(Values(0) == std::vector<std::string>{"x"});
}

TEST_CASE_METHOD(ClusterFixture, "An append that nobody takes in time was not written, and says why") {
  auto appender = client->NewAppender();
  Lead(0, "");
  const absl::Status status =
      appender->AppendBatch({"t", PartitionId(0), BatchOf("x"), std::nullopt}, absl::Milliseconds(200)).status();
  CHECK(absl::IsUnavailable(status));
  CHECK_FALSE(IsOutcomeUnknown(status));
  CHECK(Values(0).empty());
}

// ---- Admin

TEST_CASE_METHOD(ClusterFixture,
                 "Offsets and deletions of many partitions are split by leader and put together again") {
  auto admin = client->NewAdmin();
  Lead(1, kB);
  Lead(2, kC);
  On([&] {
    for (int p = 0; p < 3; ++p) broker.AppendValues(Part(p), std::vector<std::string>(static_cast<size_t>(p) + 1, "v"));
  });
  std::vector<OffsetQuery> queries;
  for (int p = 2; p >= 0; --p) queries.push_back({"t", PartitionId(p), OffsetQuery::Kind::kLatest});
  for (int round = 0; round < 2; ++round) {
    auto answers = admin->ListOffsets(queries);
    REQUIRE(answers.ok());
    REQUIRE(answers->size() == 3);
    CHECK((*answers)[0].log_end == Offset(5 + round));
    CHECK((*answers)[1].log_end == Offset(4));
    CHECK((*answers)[2].log_end == Offset(2));
    if (round == 0) Lead(2, kA);  // what is known of it is wrong now
  }
  On([&] { CHECK(broker.calls["/sluice.v1.Log/ListOffsets"] <= 7); });
  const RecordsToDelete both[] = {{Part(1), Offset(3)}, {Part(2), std::nullopt}};
  auto starts = admin->DeleteRecords(both);
  REQUIRE(starts.ok());
  CHECK(*starts == std::vector<Offset>{Offset(3), Offset(6)});
  CHECK(absl::IsNotFound(admin->ListOffset({"t", PartitionId(9)}).status()));
}

TEST_CASE_METHOD(ClusterFixture, "A question about offsets waits for a leader, as long as it may") {
  auto admin = client->NewAdmin();
  Lead(0, "");
  std::thread elect([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    Lead(0, kB);
  });
  auto answer = admin->ListOffset({"t", PartitionId(0)});
  elect.join();
  REQUIRE(answer.ok());
  CHECK(answer->log_end == Offset(2));
}

TEST_CASE_METHOD(ClusterFixture, "Any broker of the list may be dead, silent or starting; the next is asked") {
  auto admin = client->NewAdmin();
  const Moment start;
  SECTION("dead") {
    Kill(kA);
    CHECK(admin->DescribeTopic("t").ok());
    CHECK(start.Within(900));
  }
  SECTION("cut off, so that not even a refusal comes back") {
    On([&] { broker.node(kA).black_hole = true; });
    CHECK(admin->DescribeTopic("t").ok());
    CHECK(start.Within(2500));
  }
  SECTION("starting") {
    On([&] { broker.node(kA).unready = true; });
    CHECK(admin->DescribeTopic("t").ok());
    CHECK(admin->CreateTopic({"made", 1, 0, {}}).ok());
    CHECK(start.Within(1900));
  }
  SECTION("silent") {
    On([&] { broker.node(kA).silent = true; });
    CHECK(admin->DescribeTopic("t").ok());
    CHECK(admin->DescribeTopic("t").ok());  // and the one that answered is asked first from then on
    CHECK(start.Within(8000));
  }
  SECTION("one that has not yet heard of the topic") {
    On([&] { broker.node(kA).ignorant = true; });
    CHECK(admin->DescribeTopic("t").ok());
    CHECK(absl::IsNotFound(admin->DescribeTopic("none").status()));
  }
}

TEST_CASE_METHOD(ClusterFixture, "Brokers that hang are asked again for all the time that a call has") {
  ClientOptions options;
  options.brokers = {kA, kB};
  options.connect_timeout = absl::Milliseconds(100);
  client = Create(options, {&executor, &executor, &broker}).value();
  On([&] {
    broker.node(kA).black_hole = true;
    broker.node(kB).black_hole = true;
    executor.PostAfter(absl::Milliseconds(600), [&] { broker.node(kB).black_hole = false; });
  });
  CHECK(client->NewAdmin()->DescribeTopic("t").ok());
}

TEST_CASE_METHOD(ClusterFixture, "A question that ends while it is asked again says why it was asked again") {
  ClientOptions options;
  options.brokers = {kA};
  options.timeout = absl::Seconds(2);
  client = Create(options, {&executor, &executor, &broker}).value();
  On([&] {
    broker.node(kA).unready = true;
    executor.PostAfter(absl::Milliseconds(500), [&] {
      broker.node(kA).unready = false;
      broker.node(kA).silent = true;
    });
  });
  const absl::Status told = client->NewAdmin()->DescribeTopic("t").status();
  INFO(told.ToString());
  const auto detail = GetErrorDetail(told);
  REQUIRE(detail.has_value());
  CHECK(detail->reason == Reason::kNotAvailable);
}

TEST_CASE_METHOD(ClusterFixture,
                 "A broker that knows of no leader, cut off from the others, keeps nobody from the leader") {
  Lead(0, kB);
  On([&] {
    broker.told = [&](const std::string& node, const TopicPartition&) { return std::string(node == kA ? "" : kB); };
  });
  SECTION("for a producer") {
    MakeProducer();
    Send(0, "x");
    CHECK(Acknowledged("x"));
    CHECK(Values(0) == std::vector<std::string>{"x"});
  }
  SECTION("for a question") {
    const Moment start;
    CHECK(client->NewAdmin()->ListOffset({"t", PartitionId(0)}).ok());
    CHECK(start.Within(8000));
  }
}

TEST_CASE_METHOD(
    ClusterFixture,
    "Another broker is asked for a leader only once none was known for a second: it may be the one that died") {
  std::map<std::string, std::chrono::steady_clock::time_point> first_asked;
  std::map<std::string, int> asked;
  On([&] {
    broker.told = [&](const std::string& node, const TopicPartition&) {
      first_asked.emplace(node, std::chrono::steady_clock::now());
      ++asked[node];
      return std::string();
    };
  });
  MakeProducer();
  Send(0, "x");
  REQUIRE(Eventually([&] { return asked[kB] > 0; }));
  On([&] {
    CHECK(asked[kA] > 3);
    CHECK(first_asked[kB] - first_asked[kA] >= std::chrono::milliseconds(990));
    broker.told = nullptr;
  });
  CHECK(Acknowledged("x"));
}

TEST_CASE_METHOD(ClusterFixture, "A change that one broker may have made is asked of no other") {
  auto admin = client->NewAdmin();
  int made = 0;
  On([&] {
    broker.node(kA).slow = absl::Milliseconds(100);
    broker.on_call = [&](const std::string& method) {
      if (method != "/sluice.v1.Topics/Create") return;
      ++made;
      executor.PostAfter(absl::Milliseconds(20), [&] { broker.node(kA).reachable = false; });
    };
  });
  const absl::Status status = admin->CreateTopic({"made", 1, 0, {}}).status();
  CHECK_THAT(std::string(status.message()), Catch::Contains("unknown whether"));
  On([&] { CHECK(made == 1); });
}

TEST_CASE("A client that was told of one broker finds the others when that one dies") {
  ClusterFixture cluster({kA});
  auto admin = cluster.client->NewAdmin();
  REQUIRE(admin->ListOffset({"t", PartitionId(0)}).ok());
  REQUIRE(cluster.Eventually([&] { return cluster.broker.calls["/sluice.v1.Cluster/Describe"] == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  cluster.Kill(kA);
  cluster.Lead(0, kC);
  CHECK(admin->ListOffset({"t", PartitionId(0)}).ok());
  CHECK(admin->DescribeTopic("t").ok());
}

}  // namespace sluice::client
