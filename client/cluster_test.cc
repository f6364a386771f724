// Producers, consumers, appenders and admins against a cluster whose leaders change, die, hang and mislead.
#include <catch2/catch.hpp>
#include <thread>

#include "client/error.h"
#include "client/testing/client_fixture.h"
#include "common/record/record.h"

namespace sluice::client {
namespace {

constexpr char kA[] = "fake:7400";  // FakeBroker::kAddress
constexpr char kB[] = "b:7400";
constexpr char kC[] = "c:7400";

struct ClusterFixture {
  ClusterFixture() : ClusterFixture({kA, kB}) {}
  explicit ClusterFixture(std::vector<std::string> bootstrap) {
    ClientOptions options;
    options.brokers = std::move(bootstrap);
    options.timeout = absl::Seconds(10);
    client = Create(options, {&executor, &executor, &broker}).value();
    On([&] {
      broker.AddNode(kB);
      broker.AddNode(kC);
      broker.CreateTopic("t", 3);
    });
  }
  ~ClusterFixture() {
    producer = nullptr;
    consumer = nullptr;
    client = nullptr;
  }

  template <class F>
  void On(F run) {
    RunOn(executor, std::move(run));
  }
  static TopicPartition Part(int partition) { return {"t", PartitionId(partition)}; }
  void Lead(int partition, const std::string& address) {
    On([&] { broker.Lead(Part(partition), address); });
  }
  void Kill(const std::string& address) {
    On([&] { broker.Kill(address); });
  }
  std::vector<std::string> Values(int partition) {
    std::vector<std::string> values;
    On([&] { values = broker.Values(Part(partition)); });
    return values;
  }

  void MakeProducer(ProducerOptions options = {}) { producer = client->NewProducer(options); }
  void Send(int partition, const std::string& value) {
    RecordToSend record;
    record.topic = "t";
    record.partition = PartitionId(partition);
    record.value = value;
    REQUIRE(producer
                ->Send(record,
                       [this, value](const absl::StatusOr<RecordResult>& result) {
                         std::lock_guard lock(mutex);
                         CHECK(results.emplace(value, result.status()).second);
                       })
                .ok());
  }
  // Many batches, several of them under way at once.
  std::vector<std::string> SendMany(int partition, int count, const std::string& prefix = "r") {
    std::vector<std::string> values;
    for (int i = 0; i < count; ++i) {
      values.push_back(prefix + std::to_string(partition) + "-" + std::to_string(i) + std::string(80, '.'));
      Send(partition, values.back());
    }
    return values;
  }
  static ProducerOptions SmallBatches() {
    ProducerOptions options;
    options.batch_bytes = 100;
    return options;
  }
  void Flush() { REQUIRE(producer->Flush(absl::Seconds(20)) == absl::OkStatus()); }
  std::optional<absl::Status> ResultOf(const std::string& value) {
    std::lock_guard lock(mutex);
    const auto found = results.find(value);
    if (found == results.end()) return std::nullopt;
    return found->second;
  }
  template <class F>
  bool Eventually(F holds) {
    for (int i = 0; i < 1000; ++i) {
      bool now = false;
      On([&] { now = holds(); });
      if (now) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  bool Acknowledged(const std::string& value) {
    return Eventually([&] { return ResultOf(value).has_value() && ResultOf(value)->ok(); });
  }

  std::vector<std::string> Read(size_t count) {
    std::vector<std::string> out;
    for (int empty = 0; out.size() < count && empty < 3;) {
      auto polled = consumer->Poll(absl::Seconds(5));
      REQUIRE(polled.status() == absl::OkStatus());
      if (polled->empty()) ++empty;
      for (const ConsumedRecord& each : *polled) out.emplace_back(*each.record.value);
    }
    return out;
  }
  static Bytes BatchOf(const std::string& value) {
    record::BatchBuilder builder;
    REQUIRE(builder.Append(1, std::nullopt, value).ok());
    return builder.Build().value().Freeze();
  }

  std::mutex mutex;
  std::map<std::string, absl::Status> results;
  ThreadExecutor executor;
  FakeBroker broker{executor};
  std::unique_ptr<Client> client;
  std::unique_ptr<Producer> producer;
  std::unique_ptr<Consumer> consumer;
};

struct Moment {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  bool Within(int ms) const { return std::chrono::steady_clock::now() - start < std::chrono::milliseconds(ms); }
};

}  // namespace

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
  CHECK(sent.Within(1000));
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
  CHECK(elected.Within(900));
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
    CHECK(start.Within(500));
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
    CHECK(start.Within(1000));
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
