// What a producer of a whole node sees: order, refusals and what follows them on the same stream.
#include <catch2/catch.hpp>

#include "tests/broker/sim_node.h"

namespace sluice::broker {
namespace {

using Strings = std::vector<std::string>;

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

TEST_CASE("the end that an append may expect is told only as far as it can be read") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  const Offset end = node.Produce("t", "a")->next_offset;
  // An append whose answer its sender does not wait for; both questions come before it is committed.
  std::optional<ProduceOutcome> written;
  std::optional<ProduceOutcome> refused;
  std::optional<ListOffsetsOutcome> listed;
  const auto append = [&](const char* value, std::optional<ProduceOutcome>* out) {
    node.broker->Produce(
        {.topic = "t", .partition = PartitionId(0), .batch = MakeBatch({value}), .expected_base_offset = end}, nullptr,
        [out](ProduceOutcome outcome) { out->emplace(std::move(outcome)); });
  };
  append("b", &written);
  append("b", &refused);
  node.broker->ListOffsets({{.topic = "t", .partition = PartitionId(0), .kind = ListOffsetsItem::Kind::kLatest}},
                           [&](std::vector<ListOffsetsOutcome> outcomes) { listed.emplace(std::move(outcomes[0])); });
  node.RunUntil([&] { return refused.has_value() && listed.has_value(); });
  REQUIRE_FALSE(written.has_value());
  REQUIRE(refused->error().reason == Reason::kExpectedOffsetMismatch);
  CHECK(refused->error().log_end == end);
  REQUIRE(listed->offset == end);
  CHECK(listed->log_end == end);
  node.RunUntil([&] { return written.has_value(); });
  CHECK(written->ok());
  CHECK(node.Produce("t", "b", 0, end).error().log_end == end + 1);
  CHECK(node.Values("t") == Strings{"a", "b"});
}

TEST_CASE("a session knows where within a block the next batch of a partition will begin") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  const auto session = node.broker->NewSession();
  CHECK(node.broker->PlaceOf(*session, "t", PartitionId(0), 20'000) == 0);  // not named by an item yet
  int64_t position = 0;
  for (int i = 0; i < 6; ++i) {
    const record::PendingBatch made = MakeBatch({std::string(20'000 + 11 * i, 'v')});
    MutableBytes bytes(made.size_bytes(), node.broker->PlaceOf(*session, "t", PartitionId(0), made.size_bytes()));
    const auto place = reinterpret_cast<uintptr_t>(bytes.data()) % kBlockBytes;
    std::memcpy(bytes.data(), made.bytes().data(), bytes.size());
    if (i == 2) position = static_cast<int64_t>(place);  // by then it knows of the leader's control batch
    if (i > 2) CHECK(static_cast<int64_t>(place) == position % kBlockBytes);
    position += static_cast<int64_t>(bytes.size());
    const auto produced = node.Wait<ProduceOutcome>([&](auto done) {
      node.broker->Produce(
          {.topic = "t", .partition = PartitionId(0), .batch = record::PendingBatch::FromBuilder(std::move(bytes))},
          session, std::move(done));
    });
    REQUIRE(produced.ok());
  }
  CHECK(position % kBlockBytes != 0);
  CHECK(node.broker->PlaceOf(*session, "t", PartitionId(7), 1) == 0);
}

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
  const auto none = node.Create("u");
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().reason == Reason::kDiskFull);
  CHECK(none.error().message.find("on the disk of node 1 ") != std::string::npos);
  node.fs.SetCapacity(-1);
  node.scheduler.RunFor(absl::Seconds(3));
  CHECK(node.Produce("t", "v").ok());
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

}  // namespace
}  // namespace sluice::broker
