#include "broker/rpc/envelope.h"

#include <catch2/catch.hpp>
#include <random>

#include "absl/strings/escaping.h"
#include "broker/rpc/wire.h"
#include "common/record/record.h"

namespace sluice::broker::rpc {
namespace {

// Cuts a message into slices at random places, empty ones among them.
std::vector<std::string_view> Cut(std::string_view text, std::mt19937& random) {
  std::vector<std::string_view> slices;
  while (!text.empty()) {
    const size_t count = std::min<size_t>(random() % 40, text.size());
    slices.push_back(text.substr(0, count));
    text.remove_prefix(count);
  }
  return slices;
}

// A message again, by the generated code, from what the envelope holds.
v1::ProduceRequest ToProto(const ProduceEnvelope& envelope) {
  v1::ProduceRequest request;
  request.set_correlation_id(envelope.correlation_id);
  for (const ProduceEnvelopeItem& item : envelope.items) {
    v1::ProduceItem& out = *request.add_items();
    out.set_topic(item.topic);
    out.set_partition(item.partition);
    if (item.batch) out.set_batch(std::string(item.batch->view()));
    for (const v1::Record& record : item.records) *out.add_records() = record;
    if (item.expected_base_offset) out.set_expected_base_offset(*item.expected_base_offset);
    out.set_leader_epoch(item.leader_epoch);
    out.set_reset(item.reset);
  }
  return request;
}

v1::ProduceRequest RandomRequest(std::mt19937& random) {
  const auto text = [&](size_t max) { return std::string(random() % max, static_cast<char>('a' + random() % 26)); };
  v1::ProduceRequest request;
  if (random() % 4 != 0) request.set_correlation_id((uint64_t{random()} << 32) | random());
  for (size_t i = random() % 4; i > 0; --i) {
    v1::ProduceItem& item = *request.add_items();
    if (random() % 4 != 0) item.set_topic(text(20) + "\xc3\xa9");
    if (random() % 2 != 0) item.set_partition(static_cast<int32_t>(random()));
    if (random() % 2 != 0) item.set_batch(text(300));
    for (size_t r = random() % 3; r > 0; --r) {
      v1::Record& record = *item.add_records();
      if (random() % 2 != 0) record.set_key(text(5));
      if (random() % 2 != 0) record.set_value(text(50));
      record.set_timestamp_ms(static_cast<int64_t>(random()) - (int64_t{1} << 31));
      record.add_headers()->set_key(text(5));
    }
    if (random() % 2 != 0) item.set_expected_base_offset(static_cast<int64_t>(random() % 3) - 1);
    if (random() % 2 != 0) item.set_leader_epoch(static_cast<int32_t>(random() % 100) - 50);
    item.set_reset(random() % 2 != 0);
  }
  return request;
}

TEST_CASE("A produce request read by hand is what the generated code reads, however it is cut into slices") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const v1::ProduceRequest request = RandomRequest(random);
    const std::string bytes = request.SerializeAsString();
    const auto envelope = ParseProduceRequest(Cut(bytes, random));
    REQUIRE(envelope.ok());
    CHECK(ToProto(*envelope).SerializeAsString() == bytes);
  }
}

TEST_CASE("Damaged produce requests are refused or read exactly as the generated code does") {
  std::mt19937 random(2);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = RandomRequest(random).SerializeAsString();
    if (bytes.empty()) continue;
    for (size_t flips = 1 + random() % 3; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 3 == 0) bytes.resize(random() % bytes.size());
    v1::ProduceRequest generated;
    google::protobuf::LogSilencer silence;
    const bool sound = generated.ParseFromString(bytes);
    const auto envelope = ParseProduceRequest(Cut(bytes, random));
    INFO(absl::CEscape(bytes) << " " << envelope.status());
    REQUIRE(envelope.ok() == sound);
    if (!sound) {
      ++refused;
      continue;
    }
    // Fields that neither side knows are kept by the generated code only.
    generated.DiscardUnknownFields();
    for (v1::ProduceItem& item : *generated.mutable_items()) {
      if (item.batch().empty()) item.clear_batch();
    }
    v1::ProduceRequest by_hand = ToProto(*envelope);
    by_hand.DiscardUnknownFields();
    CHECK(by_hand.SerializeAsString() == generated.SerializeAsString());
  }
  CHECK(refused > 1000);
}

TEST_CASE("Every truncation of a produce request is refused or is a shorter request, never read beyond its end") {
  v1::ProduceRequest request;
  request.set_correlation_id(300);
  request.add_items()->set_topic("topic");
  request.mutable_items(0)->set_batch(std::string(500, 'b'));
  const std::string bytes = request.SerializeAsString();
  for (size_t length = 0; length < bytes.size(); ++length) {
    const std::string cut(bytes, 0, length);  // of its own memory, so that a sanitizer sees a read behind it
    const std::string_view slice = cut;
    v1::ProduceRequest generated;
    CHECK(ParseProduceRequest({&slice, 1}).ok() == generated.ParseFromString(cut));
  }
}

TEST_CASE("A request of more items or records than the bound is refused before it takes memory") {
  v1::ProduceRequest items;
  for (size_t i = 0; i <= kItemsMax; ++i) items.add_items();
  std::string bytes = items.SerializeAsString();
  std::string_view slice = bytes;
  CHECK(ParseProduceRequest({&slice, 1}).status().message().find("items") != absl::string_view::npos);
  v1::ProduceRequest records;
  records.add_items();
  for (size_t i = 0; i <= kStructuredRecordsMax; ++i) records.mutable_items(0)->add_records();
  bytes = records.SerializeAsString();
  slice = bytes;
  CHECK(ParseProduceRequest({&slice, 1}).status().message().find("records") != absl::string_view::npos);
}

TEST_CASE("Nested groups end at a bound, not at the end of the stack") {
  std::string bytes;
  for (int i = 0; i < 1'000'000; ++i) PutTag(&bytes, 9, WireType::kGroup);
  const std::string_view slice = bytes;
  CHECK(!ParseProduceRequest({&slice, 1}).ok());
}

Error SomeError() {
  Error error;
  error.reason = Reason::kOffsetOutOfRange;
  error.message = "offset 9 is above the high watermark";
  error.topic = "t";
  error.partition = PartitionId(3);
  error.log_start = Offset(1);
  error.high_watermark = Offset(8);
  return error;
}

TEST_CASE("A produce answer written by hand is what the generated code writes") {
  const ProduceOutcome good = ProduceAck{Offset(0), Offset(1) + (int64_t{1} << 40), LeaderEpoch(7), 1234567890123};
  const ProduceOutcome bad = SomeError();
  const std::vector<ProduceAnswerItem> items = {{"topic", 0, &good}, {"t", 3, &bad}};
  v1::ProduceResponse response;
  REQUIRE(response.ParseFromString(EncodeProduceResponse(uint64_t{1} << 60, items)));
  CHECK(response.SerializeAsString() == EncodeProduceResponse(uint64_t{1} << 60, items));
  CHECK(response.correlation_id() == uint64_t{1} << 60);
  REQUIRE(response.results_size() == 2);
  CHECK(response.results(0).topic() == "topic");
  CHECK(response.results(0).next_offset() == (int64_t{1} << 40) + 1);
  CHECK(response.results(0).leader_epoch() == 7);
  CHECK(response.results(0).log_append_time_ms() == 1234567890123);
  CHECK(!response.results(0).has_error());
  CHECK(response.results(1).base_offset() == -1);
  CHECK(response.results(1).error().reason() == v1::ErrorDetail::OFFSET_OUT_OF_RANGE);
  CHECK(response.results(1).error().high_watermark() == 8);
}

record::Batch SomeBatch(size_t value_bytes, int64_t base) {
  record::BatchBuilder builder;
  REQUIRE(builder.Append(1, std::nullopt, std::string(value_bytes, 'v')).ok());
  auto built = builder.Build();
  REQUIRE(built.ok());
  return (*std::move(built)).Assign(Offset(base), LeaderEpoch(2));
}

TEST_CASE("A fetch answer written by hand is what the generated code writes, and large batches are not copied") {
  std::vector<FetchOutcome> outcomes(3);
  outcomes[0].topic = "topic";
  outcomes[0].partition = PartitionId(5);
  outcomes[0].batches = {SomeBatch(10, 0), SomeBatch(100'000, 1), SomeBatch(20, 2), SomeBatch(50'000, 3)};
  outcomes[0].next_offset = Offset(4);
  outcomes[0].high_watermark = Offset(9);
  outcomes[0].log_start = Offset(0);
  outcomes[0].leader_epoch = LeaderEpoch(2);
  outcomes[1].topic = "empty";
  outcomes[2].error = SomeError();

  const std::vector<Piece> pieces = EncodeFetchResponse(77, outcomes);
  std::string bytes;
  for (const Piece& piece : pieces) bytes += piece.view();
  v1::FetchResponse response;
  REQUIRE(response.ParseFromString(bytes));
  CHECK(response.SerializeAsString() == bytes);
  CHECK(response.correlation_id() == 77);
  REQUIRE(response.results_size() == 3);
  std::string batches;
  for (const record::Batch& batch : outcomes[0].batches) batches += batch.bytes().view();
  CHECK(response.results(0).batches() == batches);
  CHECK(response.results(0).next_offset() == 4);
  CHECK(response.results(0).high_watermark() == 9);
  CHECK(response.results(1).high_watermark() == -1);
  CHECK(response.results(2).error().message() == "offset 9 is above the high watermark");
  const auto shared = [&](const record::Batch& batch) {
    return std::any_of(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.data() == batch.bytes().data(); });
  };
  CHECK(shared(outcomes[0].batches[1]));
  CHECK(shared(outcomes[0].batches[3]));
}

TEST_CASE("UTF-8 is told from what is not") {
  for (const char* good : {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(IsUtf8(good));
  for (const char* bad : {"\x80", "\xc0\xaf", "\xc3", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf8\x88\x80\x80\x80", "a\xff"}) {
    CHECK(!IsUtf8(bad));
  }
}

}  // namespace
}  // namespace sluice::broker::rpc
