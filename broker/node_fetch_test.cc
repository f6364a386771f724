// What a reader of a whole node sees: waiting, bounds, and offsets by kind.
#include <catch2/catch.hpp>

#include "tests/broker/sim_node.h"

namespace sluice::broker {
namespace {

using Strings = std::vector<std::string>;

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

}  // namespace
}  // namespace sluice::broker
