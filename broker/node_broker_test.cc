// What a client of a whole node sees, on real storage over a simulated disk.
#include "broker/node_broker.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/broker/sim_node.h"

namespace sluice::broker {
namespace {

using Strings = std::vector<std::string>;

TEST_CASE("what is produced is fetched, also after a restart, and is gone with its topic") {
  SimNode node;
  node.Start();
  const auto made = node.Create("orders", 2);
  REQUIRE(made.ok());
  CHECK(made->partitions == 2);
  const auto first = node.Produce("orders", "a");
  REQUIRE(first.ok());
  CHECK(first->next_offset == first->base_offset + 1);
  CHECK(node.Produce("orders", "b")->base_offset == first->next_offset);
  REQUIRE(node.Produce("orders", "other", 1).ok());
  CHECK(node.Values("orders") == Strings{"a", "b"});

  SECTION("in good order") {
    node.Stop();
  }
  SECTION("by a kill") {
    node.Kill();
  }
  SECTION("by power loss") {
    node.Crash();
  }
  node.Start();
  CHECK(node.Values("orders") == Strings{"a", "b"});
  CHECK(node.Values("orders", 1) == Strings{"other"});
  const auto epoch = node.Produce("orders", "c")->leader_epoch;
  CHECK(epoch > first->leader_epoch);
  CHECK(node.Values("orders") == Strings{"a", "b", "c"});

  REQUIRE(node.Delete("orders").ok());
  CHECK(node.Produce("orders", "d").error().reason == Reason::kUnknownTopic);
  CHECK_FALSE(*node.fs.Exists("data/topics/" + made->id.ToString() + "/0"));
  REQUIRE(node.Create("orders").ok());
  CHECK(node.Values("orders").empty());
  node.Stop();
}

TEST_CASE("topics are created, listed, described, altered and widened") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("b", 3, {{"retention.ms", "1000"}}).ok());
  REQUIRE(node.Create({.name = "__internal", .partitions = 0, .replicas = 0, .config = {}, .internal = true}).ok());
  REQUIRE(node.Create("a").ok());
  CHECK(node.Create("a").error().reason == Reason::kTopicExists);
  CHECK(node.Create("__mine").error().reason == Reason::kInvalidArgument);
  CHECK(node.Create("x/y").error().reason == Reason::kInvalidArgument);
  CHECK(node.Create("x", 1, {{"nope", "1"}}).error().reason == Reason::kInvalidArgument);
  CHECK(node.Create("x", -1).error().reason == Reason::kInvalidArgument);
  CHECK(node.Create(CreateTopicSpec{.name = "x", .partitions = 1, .replicas = 3}).error().reason ==
        Reason::kInvalidArgument);
  const auto names = [&](bool internal) {
    Strings found;
    auto listed = node.Wait<Result<std::vector<TopicInfo>>>(
        [&](auto done) { node.broker->ListTopics(internal, std::move(done)); });
    for (const auto& topic : *listed) found.push_back(topic.name);
    return found;
  };
  CHECK(names(false) == Strings{"a", "b"});
  CHECK(names(true) == Strings{"__internal", "a", "b"});

  const auto alter = [&](AlterTopicSpec spec) {
    return node.Wait<Result<TopicInfo>>([&](auto done) { node.broker->AlterTopic(spec, std::move(done)); });
  };
  CHECK(alter({.name = "b", .set = {{"segment.ms", "5000"}}, .unset = {"retention.ms"}})->config ==
        TopicConfig{{"segment.ms", "5000"}});
  CHECK(alter({.name = "b", .set = {{"segment.ms", "x"}}}).error().reason == Reason::kInvalidArgument);
  CHECK(alter({.name = "b", .set = {}, .unset = {"typo"}}).error().reason == Reason::kInvalidArgument);
  CHECK(alter({.name = "none"}).error().reason == Reason::kUnknownTopic);
  const auto widen = [&](int32_t partitions) {
    return node.Wait<Result<TopicInfo>>(
        [&](auto done) { node.broker->AddPartitions("b", partitions, std::move(done)); });
  };
  CHECK(widen(3).error().reason == Reason::kInvalidArgument);
  CHECK(widen(5)->partitions == 5);
  REQUIRE(node.Produce("b", "v", 4).ok());

  node.Crash();
  node.Start();
  const auto described =
      node.Wait<Result<TopicDescription>>([&](auto done) { node.broker->DescribeTopic("b", std::move(done)); });
  REQUIRE(described.ok());
  CHECK(described->topic.config == TopicConfig{{"segment.ms", "5000"}});
  REQUIRE(described->partitions.size() == 5);
  CHECK(described->partitions[4].leader_node == NodeId(1));
  CHECK(described->partitions[4].leader == "127.0.0.1:7400");
  CHECK(node.Values("b", 4) == Strings{"v"});
  CHECK(node.Produce("b", "v", 5).error().reason == Reason::kUnknownTopic);
  const auto cluster =
      node.Wait<Result<ClusterInfo>>([&](auto done) { node.broker->DescribeCluster(std::move(done)); });
  CHECK(cluster->partitions == 7);
}

TEST_CASE("compare and append takes only the base offset that it names") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  const Offset end = node.Produce("t", "a")->next_offset;
  const auto refused = node.Produce("t", "b", 0, end + 1);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().reason == Reason::kExpectedOffsetMismatch);
  CHECK(refused.error().log_end == end);
  CHECK_FALSE(refused.error().retriable);
  CHECK(node.Produce("t", "b", 0, end)->base_offset == end);
  CHECK(node.Produce("t", "again", 0, end).error().reason == Reason::kExpectedOffsetMismatch);
  CHECK(node.Values("t") == Strings{"a", "b"});
}

/// Sends without waiting; the outcomes come in `out`.
struct Pipeline {
  SimNode& node;
  std::shared_ptr<ProduceSession> session = node.broker->NewSession();
  std::shared_ptr<std::vector<std::optional<ProduceOutcome>>> out =
      std::make_shared<std::vector<std::optional<ProduceOutcome>>>();

  void Send(const std::string& topic, const std::string& value, std::optional<Offset> expected = std::nullopt,
            bool reset = false, int partition = 0) {
    const size_t index = out->size();
    out->emplace_back();
    node.broker->Produce({.topic = topic,
                          .partition = PartitionId(partition),
                          .batch = MakeBatch({value}),
                          .expected_base_offset = expected,
                          .leader_epoch = LeaderEpoch(0),
                          .reset = reset},
                         session,
                         [out = out, index](ProduceOutcome outcome) { (*out)[index].emplace(std::move(outcome)); });
  }
  /// The reasons, kUnknown for success, once all are answered.
  std::vector<Reason> Reasons() {
    node.RunUntil(
        [&] { return std::all_of(out->begin(), out->end(), [](const auto& one) { return one.has_value(); }); });
    std::vector<Reason> reasons;
    for (const auto& one : *out) reasons.push_back((*one).ok() ? Reason::kUnknown : (*one).error().reason);
    return reasons;
  }
};

TEST_CASE("after a failed item of a partition its stream refuses that partition until reset") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t", 2).ok());
  Pipeline stream{node};
  stream.Send("t", "a");
  stream.Send("t", "wrong", Offset(999));  // refused by the log, which answers later than c arrives
  stream.Send("t", "c");
  stream.Send("t", "other partition", std::nullopt, false, 1);
  stream.Send("t", "d", std::nullopt, true);
  stream.Send("t", "e");
  CHECK(stream.Reasons() == std::vector<Reason>{Reason::kUnknown, Reason::kExpectedOffsetMismatch,
                                                Reason::kSequenceBroken, Reason::kUnknown, Reason::kUnknown,
                                                Reason::kUnknown});
  CHECK(node.Values("t") == Strings{"a", "d", "e"});
}

TEST_CASE("a reset sent before the refusal was answered is not undone by that answer") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  Pipeline stream{node};
  stream.Send("t", "wrong", Offset(999));  // refused by the log, which answers later than b is taken
  stream.Send("t", "b", std::nullopt, true);
  CHECK(stream.Reasons() == std::vector<Reason>{Reason::kExpectedOffsetMismatch, Reason::kUnknown});
  stream.Send("t", "c");
  CHECK(stream.Reasons().back() == Reason::kUnknown);
  // What fails behind the reset counts as ever.
  stream.Send("t", "wrong too", Offset(999));
  stream.Send("t", "d");
  CHECK(stream.Reasons().back() == Reason::kSequenceBroken);
  CHECK(node.Values("t") == Strings{"b", "c"});
}

TEST_CASE("a stream whose item met no topic does not write the next one when the topic has come") {
  SimNode node;
  node.Start();
  Pipeline stream{node};
  stream.Send("t", "a");
  CHECK(stream.Reasons() == std::vector<Reason>{Reason::kUnknownTopic});
  REQUIRE(node.Create("t").ok());
  stream.Send("t", "b");
  stream.Send("t", "c", std::nullopt, true);
  CHECK(stream.Reasons() == std::vector<Reason>{Reason::kUnknownTopic, Reason::kSequenceBroken, Reason::kUnknown});
  CHECK(node.Values("t") == Strings{"c"});
}

TEST_CASE("appends that would pass the memory quota are refused and the rest is written in order") {
  BrokerOptions options;
  options.inflight_bytes_max = static_cast<int64_t>(2 * MakeBatch({"x"}).size_bytes());
  SimNode node(1, options);
  node.Start();
  REQUIRE(node.Create("t").ok());
  Pipeline stream{node};
  for (const char* value : {"1", "2", "3", "4"}) stream.Send("t", value);
  CHECK(stream.Reasons() ==
        std::vector<Reason>{Reason::kUnknown, Reason::kUnknown, Reason::kQuota, Reason::kSequenceBroken});
  stream.Send("t", "5", std::nullopt, true);
  CHECK(stream.Reasons().back() == Reason::kUnknown);
  CHECK(node.Values("t") == Strings{"1", "2", "5"});
  const auto stats = node.Wait<BrokerStats>([&](auto done) { node.broker->Stats(std::move(done)); });
  CHECK(stats.inflight_bytes == 0);
  CHECK(stats.errors.at("QUOTA") == 1);
  CHECK(stats.partitions[0].produced_records == 3);
}

TEST_CASE("a batch beyond max.message.bytes, an old epoch and a full disk are refused with their reasons") {
  BrokerOptions options;
  options.disk_free_low_bytes = 1 << 20;
  options.disk_free_high_bytes = 2 << 20;
  SimNode node(1, options);
  node.Start();
  REQUIRE(node.Create("t", 1, {{"max.message.bytes", "1024"}}).ok());
  CHECK(node.Produce("t", std::string(2000, 'x')).error().reason == Reason::kMessageTooLarge);
  node.Stop();
  node.Start();
  const auto with_epoch = [&](int32_t epoch) {
    return node.Wait<ProduceOutcome>([&](auto done) {
      node.broker->Produce({.topic = "t",
                            .partition = PartitionId(0),
                            .batch = MakeBatch({"v"}),
                            .expected_base_offset = std::nullopt,
                            .leader_epoch = LeaderEpoch(epoch)},
                           nullptr, std::move(done));
    });
  };
  CHECK(with_epoch(1).error().reason == Reason::kStaleLeaderEpoch);
  CHECK(with_epoch(2).ok());
  CHECK(with_epoch(3).error().reason == Reason::kNotAvailable);
  node.fs.SetCapacity(node.fs.UsedBytes() + (1 << 19));
  node.scheduler.RunFor(absl::Seconds(3));
  const auto full = node.Produce("t", "v");
  REQUIRE_FALSE(full.ok());
  CHECK(full.error().reason == Reason::kDiskFull);
  CHECK(full.error().retriable);
  node.fs.SetCapacity(-1);
  node.scheduler.RunFor(absl::Seconds(3));
  CHECK(node.Produce("t", "v").ok());
}

TEST_CASE("a change of a topic that is committed is in force, also when the metadata store could not take it yet") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("old").ok());
  REQUIRE(node.Create("wide").ok());
  node.fs.SetCapacity(node.fs.UsedBytes());  // the journal is written in place, the metadata store grows
  const auto widen = [&] {
    return node.Wait<Result<TopicInfo>>([&](auto done) { node.broker->AddPartitions("wide", 2, std::move(done)); });
  };
  SECTION("a new topic") {
    CHECK(node.Create("new").error().reason == Reason::kOutcomeUnknown);
    node.fs.SetCapacity(-1);
    CHECK(node.Create("new").error().reason == Reason::kTopicExists);
    CHECK(node.Produce("new", "v").ok());
    node.Crash();
    node.Start();
    CHECK(node.Values("new") == Strings{"v"});
  }
  SECTION("more partitions") {
    CHECK(widen().error().reason == Reason::kOutcomeUnknown);
    node.fs.SetCapacity(-1);
    CHECK(node.Produce("wide", "v", 1).ok());
  }
  SECTION("a deleted topic takes no more records, which the next start would drop") {
    CHECK(node.Delete("old").error().reason == Reason::kOutcomeUnknown);
    node.fs.SetCapacity(-1);
    CHECK(node.Produce("old", "v").error().reason == Reason::kUnknownTopic);
    node.Crash();
    node.Start();
    CHECK(node.Produce("old", "v").error().reason == Reason::kUnknownTopic);
  }
  CHECK(node.Produce("wide", "v").ok());
}

TEST_CASE("a topic of the broker's time gets it, and tells it") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t", 1, {{"message.timestamp.type", "LogAppendTime"}}).ok());
  const auto ack = node.Produce("t", "v");
  REQUIRE(ack.ok());
  CHECK(ack->log_append_time_ms >= 1'700'000'000'000);
  const auto got = node.Fetch(SimNode::FetchOne("t", ack->base_offset.value()));
  CHECK(got[0].batches[0].max_timestamp_ms() == ack->log_append_time_ms);
}

TEST_CASE("a fetch at the end of the log waits and is woken by an append") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t", 2).ok());
  const Offset end = node.Produce("t", "old")->next_offset;
  const Offset other_end = node.Produce("t", "old", 1)->next_offset;
  std::optional<std::vector<FetchOutcome>> got;
  FetchSpec spec = SimNode::FetchOne("t", end.value(), absl::Seconds(30));
  spec.items.push_back({.topic = "t", .partition = PartitionId(1), .offset = other_end});
  const auto start = node.clock.Monotonic();
  const auto call = node.broker->Fetch(spec, [&](std::vector<FetchOutcome> outcomes) { got = std::move(outcomes); });

  SECTION("of any of its partitions, at once") {
    node.scheduler.RunFor(absl::Seconds(1));
    CHECK_FALSE(got.has_value());
    CHECK(node.Wait<BrokerStats>([&](auto done) { node.broker->Stats(std::move(done)); }).waiting_fetches == 1);
    REQUIRE(node.Produce("t", "new", 1).ok());
    node.scheduler.RunFor(absl::Milliseconds(50));
    REQUIRE(got.has_value());
    CHECK(SimNode::ValuesOf((*got)[1]) == Strings{"new"});
    CHECK((*got)[0].batches.empty());
    CHECK((*got)[0].next_offset == end);
  }
  SECTION("or answers empty at its deadline") {
    node.RunUntil([&] { return got.has_value(); });
    CHECK(node.clock.Monotonic() - start >= absl::Seconds(30));
    CHECK(node.clock.Monotonic() - start < absl::Seconds(31));
    CHECK((*got)[0].batches.empty());
  }
  SECTION("or when it is cancelled") {
    node.scheduler.RunFor(absl::Seconds(1));
    call->Cancel();
    node.scheduler.RunFor(absl::Milliseconds(10));
    CHECK(got.has_value());
  }
  SECTION("or when the topic goes") {
    node.scheduler.RunFor(absl::Seconds(1));
    REQUIRE(node.Delete("t").ok());
    node.RunUntil([&] { return got.has_value(); });
    CHECK(((*got)[0].error.has_value() || (*got)[1].error.has_value()));
  }
  CHECK(node.Wait<BrokerStats>([&](auto done) { node.broker->Stats(std::move(done)); }).waiting_fetches == 0);
}

TEST_CASE("a fetch keeps to its bytes over all partitions, but always gives one batch") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t", 3).ok());
  for (int p = 0; p < 3; ++p) {
    for (int i = 0; i < 4; ++i) REQUIRE(node.Produce("t", std::string(1000, 'x'), p).ok());
  }
  FetchSpec spec;
  for (int p = 0; p < 3; ++p) spec.items.push_back({.topic = "t", .partition = PartitionId(p), .offset = Offset(0)});
  const auto bytes_of = [](const std::vector<FetchOutcome>& outcomes) {
    size_t bytes = 0;
    for (const auto& outcome : outcomes) {
      for (const auto& batch : outcome.batches) bytes += batch.size_bytes();
    }
    return bytes;
  };
  spec.bytes_max = 3500;
  const auto bounded = node.Fetch(spec);
  CHECK(bytes_of(bounded) <= 3500);
  CHECK(bytes_of(bounded) > 2000);
  spec.bytes_max = 1 << 20;
  for (auto& item : spec.items) item.bytes_max = 1500;
  const auto spread = node.Fetch(spec);
  for (const auto& outcome : spread) {
    CHECK_FALSE(outcome.batches.empty());
    CHECK(outcome.next_offset == outcome.batches.back().next_offset());
  }
  spec.bytes_max = 1;
  const auto least = node.Fetch(spec);
  CHECK(least[0].batches.size() == 1);
  CHECK(least[1].batches.empty());
}

TEST_CASE("a partition whose segment is gone or short is an error that names the file, and the others are served") {
  SimNode node;
  node.Start();
  const auto made = node.Create("t", 2);
  REQUIRE(made.ok());
  REQUIRE(node.Create("other").ok());
  // More than is carried along in the journal rather than written and synced.
  const std::string large(10'000, 'x');
  for (int i = 0; i < 12; ++i) REQUIRE(node.Produce("t", large, 0).ok());
  REQUIRE(node.Produce("t", "kept", 1).ok());
  REQUIRE(node.Produce("other", "kept too").ok());
  node.scheduler.RunFor(absl::Minutes(3));  // until all of it is checkpointed
  node.Stop();
  const std::string dir = "data/topics/" + made->id.ToString() + "/0";
  const auto names = node.fs.List(dir);
  REQUIRE(names.ok());
  const auto segment = std::find_if(names->begin(), names->end(), [](const auto& n) { return n.ends_with(".log"); });
  REQUIRE(segment != names->end());
  const std::string path = dir + "/" + *segment;
  const std::string whole = node.fs.Contents(path);
  if (GENERATE(true, false)) {
    REQUIRE(node.fs.Remove(path).ok());
    REQUIRE(node.fs.SyncDir(dir).ok());
  } else {
    node.fs.SetContents(path, whole.substr(0, 70));
  }
  node.Start();
  const auto names_it = [&path](const Error& error) {
    INFO(error.message);
    CHECK(error.reason == Reason::kCorruptLog);
    CHECK_FALSE(error.retriable);
    CHECK(error.topic == "t");
    CHECK(error.partition == PartitionId(0));
    CHECK(error.message.find(path) != std::string::npos);
  };
  const auto refused = node.Produce("t", "x", 0);
  REQUIRE_FALSE(refused.ok());
  names_it(refused.error());
  names_it(*node.Fetch(SimNode::FetchOne("t", 0))[0].error);
  names_it(*node.Fetch(SimNode::FetchOne("t", 0, absl::Minutes(1)))[0].error);
  names_it(*node.Wait<std::vector<ListOffsetsOutcome>>([&](auto done) {
                  node.broker->ListOffsets({{.topic = "t", .partition = PartitionId(0)}}, std::move(done));
                })[0]
                .error);
  names_it(*node.Wait<std::vector<DeleteRecordsOutcome>>([&](auto done) {
                  node.broker->DeleteRecords({{.topic = "t", .partition = PartitionId(0), .before = Offset(1)}},
                                             std::move(done));
                })[0]
                .error);
  CHECK(node.Values("t", 1) == Strings{"kept"});
  CHECK(node.Values("other") == Strings{"kept too"});
  REQUIRE(node.Produce("t", "more", 1).ok());
  const auto described =
      node.Wait<Result<TopicDescription>>([&](auto done) { node.broker->DescribeTopic("t", std::move(done)); });
  REQUIRE(described->partitions[0].error.has_value());
  names_it(*described->partitions[0].error);
  CHECK(described->partitions[0].leader_node == NodeId(1));  // who is asked, and says why
  CHECK_FALSE(described->partitions[1].error.has_value());
  const auto stats = node.Wait<BrokerStats>([&](auto done) { node.broker->Stats(std::move(done)); });
  CHECK(std::count_if(stats.partitions.begin(), stats.partitions.end(), [](const auto& p) { return p.failed; }) == 1);
  // Its settings can change, retention passes it by, and a restart finds it as it was.
  REQUIRE(node.Wait<Result<TopicInfo>>([&](auto done) {
                node.broker->AlterTopic({.name = "t", .set = {{"segment.ms", "5000"}}}, std::move(done));
              })
              .ok());
  node.scheduler.RunFor(absl::Minutes(3));
  node.Stop();

  node.fs.SetContents(path, whole);
  SECTION("and with the file back it serves again") {
    node.Start();
    CHECK(node.Values("t", 0) == Strings(12, large));
    REQUIRE(node.Produce("t", "x", 0).ok());
  }
  SECTION("and its topic can be deleted") {
    node.fs.SetContents(path, "");
    node.Start();
    REQUIRE(node.Delete("t").ok());
    CHECK_FALSE(*node.fs.Exists(dir));
    node.Stop();
    node.Start();
    CHECK(node.Values("other") == Strings{"kept too"});
  }
  node.Stop();
}

TEST_CASE("offsets are listed by kind, and deleted records are gone for good") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  const Offset first = node.Produce("t", "a")->base_offset;
  const Offset end = node.Produce("t", "b")->next_offset;
  using Kind = ListOffsetsItem::Kind;
  const auto list = [&](Kind kind, int64_t timestamp_ms = 0) {
    std::vector<ListOffsetsItem> items{
        {.topic = "t", .partition = PartitionId(0), .kind = kind, .timestamp_ms = timestamp_ms}};
    return node.Wait<std::vector<ListOffsetsOutcome>>(
        [&](auto done) { node.broker->ListOffsets(items, std::move(done)); })[0];
  };
  CHECK(list(Kind::kLatest).offset == end);
  CHECK(list(Kind::kEarliest).offset == Offset(0));
  CHECK(list(Kind::kLatestData).offset == end);
  CHECK(list(Kind::kLatest).log_end == end);
  CHECK(list(Kind::kTimestamp, 1'700'000'000'000).timestamp_ms == 1'700'000'000'000);
  CHECK(list(Kind::kTimestamp, 1'999'999'999'999).offset == Offset(-1));

  const auto remove = [&](Offset before) {
    std::vector<DeleteRecordsItem> items{{.topic = "t", .partition = PartitionId(0), .before = before}};
    return node.Wait<std::vector<DeleteRecordsOutcome>>(
        [&](auto done) { node.broker->DeleteRecords(items, std::move(done)); })[0];
  };
  CHECK(remove(end + 5).error->reason == Reason::kOffsetOutOfRange);
  CHECK(remove(Offset(-2)).error->reason == Reason::kInvalidArgument);
  CHECK(remove(first + 1).log_start == first + 1);
  CHECK(node.Values("t") == Strings{"b"});
  node.Crash();
  node.Start();
  CHECK(list(Kind::kEarliest).offset == first + 1);
  const auto below = node.Fetch(SimNode::FetchOne("t", 0));
  REQUIRE(below[0].error.has_value());
  CHECK(below[0].error->reason == Reason::kOffsetOutOfRange);
  CHECK(below[0].error->log_start == first + 1);
  CHECK(below[0].error->high_watermark > end);
  const auto unknown = node.Fetch(SimNode::FetchOne("none", 0, absl::Hours(1)));
  CHECK(unknown[0].error->reason == Reason::kUnknownTopic);
}

TEST_CASE("retention forgets what is too old, by itself") {
  BrokerOptions options;
  options.retention_check_every = absl::Seconds(10);
  SimNode node(1, options);
  node.Start();
  REQUIRE(node.Create("t", 1, {{"retention.ms", "3600000"}, {"segment.ms", "60000"}}).ok());
  REQUIRE(node.Produce("t", "old").ok());
  node.scheduler.RunFor(absl::Minutes(30));
  CHECK(node.Values("t") == Strings{"old"});
  node.scheduler.RunFor(absl::Minutes(40));
  CHECK(node.Values("t").empty());
}

TEST_CASE("Stop answers what is in flight and refuses what is new") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  const Offset end = node.Produce("t", "a")->next_offset;
  Pipeline stream{node};
  for (int i = 0; i < 20; ++i) stream.Send("t", Cat(i));
  std::optional<std::vector<FetchOutcome>> waiting;
  node.broker->Fetch(SimNode::FetchOne("t", end.value() + 1000, absl::Hours(1)),
                     [&](std::vector<FetchOutcome> outcomes) { waiting = std::move(outcomes); });
  std::optional<std::vector<FetchOutcome>> at_end;
  FetchSpec patient = SimNode::FetchOne("t", end.value(), absl::Hours(1));
  patient.bytes_min = 1 << 20;
  node.broker->Fetch(patient, [&](std::vector<FetchOutcome> outcomes) { at_end = std::move(outcomes); });
  bool stopped = false;
  node.broker->Stop([&](Done) {
    stopped = true;
    CHECK(at_end.has_value());
  });
  CHECK_FALSE(node.broker->IsServing());
  stream.Send("t", "late");
  node.RunUntil([&] { return stopped; });
  CHECK(node.clock.Monotonic() < absl::Minutes(1));
  auto reasons = stream.Reasons();
  CHECK(reasons.back() == Reason::kNotAvailable);
  reasons.pop_back();
  CHECK(std::all_of(reasons.begin(), reasons.end(), [](Reason reason) { return reason == Reason::kUnknown; }));
  CHECK(node.Create("u").error().reason == Reason::kNotAvailable);
  CHECK(node.Fetch(SimNode::FetchOne("t", 0))[0].error->reason == Reason::kNotAvailable);
  node.Kill();
  node.Start();
  CHECK(node.Values("t").size() == 21);
}

}  // namespace
}  // namespace sluice::broker
