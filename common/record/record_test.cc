#include "common/record/record.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "common/crc32c.h"
#include "common/endian.h"
#include "common/record/varint.h"

namespace sluice::record {

namespace {

constexpr Codec kCodecs[] = {Codec::kNone, Codec::kGzip, Codec::kSnappy, Codec::kLz4, Codec::kZstd};

std::vector<Record> Samples() {
  return {
      Record{1000, "key", "value", {}, Offset(0)},
      Record{1001, std::nullopt, "no key", {}, Offset(1)},
      Record{990, "tombstone", std::nullopt, {}, Offset(2)},
      Record{1002, std::nullopt, std::nullopt, {}, Offset(3)},
      Record{
          1003, "", "", {{"", ""}, {"empty", ""}, {"null", std::nullopt}, {"twice", "1"}, {"twice", "2"}}, Offset(4)},
      Record{1700000000000, "far", std::string_view("nul\0byte", 8), {{"h", std::string_view("\0\xff", 2)}}, Offset(5)},
  };
}

PendingBatch BuildSamples(Codec codec) {
  BatchBuilder builder;
  for (const Record& record : Samples()) REQUIRE(builder.Append(record).ok());
  auto built = builder.Build(codec);
  REQUIRE(built.ok());
  REQUIRE(builder.empty());
  return *std::move(built);
}

// Every record of a batch, or the first error.
absl::StatusOr<std::vector<Record>> ReadAll(RecordReader& reader) {
  std::vector<Record> records;
  while (true) {
    Record record;
    const absl::StatusOr<bool> more = reader.Next(&record);
    if (!more.ok()) return more.status();
    if (!*more) return records;
    records.push_back(record);
  }
}

absl::Status ReadStatus(std::string_view bytes) {
  const auto view = BatchView::Parse(bytes);
  if (!view.ok()) return view.status();
  auto reader = RecordReader::Open(*view);
  if (!reader.ok()) return reader.status();
  return ReadAll(*reader).status();
}

}  // namespace

TEST_CASE("records survive a batch of every codec, with nulls, empty fields and headers") {
  for (const Codec codec : kCodecs) {
    CAPTURE(CodecName(codec));
    const PendingBatch batch = BuildSamples(codec);
    REQUIRE(batch.view().codec() == codec);
    REQUIRE(batch.view().VerifyCrc().ok());
    REQUIRE(batch.view().VerifyRecords({}).ok());
    REQUIRE(batch.view().record_count() == 6);
    REQUIRE(batch.view().first_timestamp_ms() == 1000);
    REQUIRE(batch.view().max_timestamp_ms() == 1700000000000);
    auto reader = RecordReader::Open(batch.view());
    REQUIRE(reader.ok());
    RecordReader moved = *std::move(reader);
    const auto records = ReadAll(moved);
    REQUIRE(records.ok());
    REQUIRE(*records == Samples());
  }
}

TEST_CASE("a record's offset counts from its batch's base offset") {
  const Batch batch = BuildSamples(Codec::kLz4).Assign(Offset(500), LeaderEpoch(3));
  auto reader = RecordReader::Open(batch.view());
  REQUIRE(reader.ok());
  const auto records = ReadAll(*reader);
  REQUIRE(records.ok());
  REQUIRE(records->front().offset == Offset(500));
  REQUIRE(records->back().offset == Offset(505));
}

TEST_CASE("a builder used again starts an empty batch") {
  BatchBuilder builder;
  REQUIRE(builder.Append(5, "a", "b").ok());
  REQUIRE(builder.Build().ok());
  REQUIRE(builder.Build().status().code() == absl::StatusCode::kFailedPrecondition);
  REQUIRE(builder.Append(3, "dropped", "").ok());
  builder.Reset();
  builder.SetProducer(77, 2, 10);
  REQUIRE(builder.Append(9, "c", "d").ok());
  const auto batch = builder.Build();
  REQUIRE(batch.ok());
  REQUIRE(batch->view().record_count() == 1);
  REQUIRE(batch->view().first_timestamp_ms() == 9);
  REQUIRE(batch->view().max_timestamp_ms() == 9);
  REQUIRE(batch->view().producer_id() == 77);
  REQUIRE(batch->view().producer_epoch() == 2);
  REQUIRE(batch->view().base_sequence() == 10);
}

TEST_CASE("batches of one builder do not share memory, whatever their sizes are") {
  BatchBuilder builder;
  const size_t values[] = {10, 700, 300'000, 290'000, 5, 150'000, 150'001, 0, 1'000'000, 20};
  std::vector<std::pair<std::string, PendingBatch>> built;
  char letter = 'a';
  for (const size_t bytes : values) {
    std::string value(bytes, letter++);
    REQUIRE(builder.Append(1, std::nullopt, value).ok());
    REQUIRE(builder.Append(2, "second", "x").ok());
    auto batch = builder.Build();
    REQUIRE(batch.ok());
    REQUIRE(builder.empty());
    built.emplace_back(std::move(value), *std::move(batch));
  }
  for (auto& [value, batch] : built) {
    REQUIRE(batch.view().VerifyCrc().ok());
    auto reader = RecordReader::Open(batch.view());
    REQUIRE(reader.ok());
    const auto records = ReadAll(*reader);
    REQUIRE(records.ok());
    REQUIRE(records->size() == 2);
    REQUIRE(records->front().value == value);
  }
}

TEST_CASE("the builder's size is that of the uncompressed batch, and no record takes more than was foretold") {
  BatchBuilder builder;
  const std::vector<Header> headers = {{"name", "value"}, {"null", std::nullopt}};
  for (int i = 0; i < 300; ++i) {
    const size_t before = builder.size_bytes();
    REQUIRE(builder.Append(1000 + i * 1000, "key", "some value", headers).ok());
    REQUIRE(builder.size_bytes() - before <= BatchBuilder::RecordBytesMax("key", "some value", headers));
  }
  const size_t size = builder.size_bytes();
  const auto batch = builder.Build();
  REQUIRE(batch.ok());
  REQUIRE(batch->size_bytes() == size);
}

TEST_CASE("timestamps that cannot be told as a difference are refused, and the batch stays as it was") {
  BatchBuilder builder;
  REQUIRE(builder.Append(INT64_MIN, "a", "b").ok());
  REQUIRE(builder.Append(INT64_MAX, "a", "b").code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(builder.record_count() == 1);
  const auto batch = builder.Build();
  REQUIRE(batch.ok());
  REQUIRE(batch->view().VerifyRecords({}).ok());
}

TEST_CASE("records of a batch with the broker's time all carry that time") {
  PendingBatch batch = BuildSamples(Codec::kZstd);
  batch.SetLogAppendTime(123456);
  auto reader = RecordReader::Open(batch.view());
  REQUIRE(reader.ok());
  const auto records = ReadAll(*reader);
  REQUIRE(records.ok());
  for (const Record& record : *records) REQUIRE(record.timestamp_ms == 123456);
}

TEST_CASE("a reader of damaged records stops with an error or in order, at any byte that is changed") {
  for (const Codec codec : kCodecs) {
    const std::string good(BuildSamples(codec).bytes());
    for (size_t at = kBatchHeaderBytes; at < good.size(); ++at) {
      for (const char flip : {'\x01', '\x80', '\xff'}) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ flip);
        const auto view = BatchView::Parse(bad);
        if (!view.ok()) continue;
        REQUIRE_FALSE(view->VerifyCrc().ok());
        auto reader = RecordReader::Open(*view);
        if (!reader.ok()) continue;
        const auto records = ReadAll(*reader);
        if (records.ok()) REQUIRE(records->size() == 6);
        if (!records.ok()) {
          Record record;
          REQUIRE_FALSE(reader->Next(&record).ok());  // and stays stopped
        }
      }
    }
  }
}

TEST_CASE("records cut short anywhere are refused even when the length field agrees") {
  for (const Codec codec : kCodecs) {
    const std::string good(BuildSamples(codec).bytes());
    for (size_t size = kBatchHeaderBytes; size < good.size(); ++size) {
      std::string bad = good.substr(0, size);
      StoreBig<int32_t>(bad.data() + kBatchLengthAt, static_cast<int32_t>(size - kLengthCountsFrom));
      CAPTURE(CodecName(codec), size);
      REQUIRE_FALSE(ReadStatus(bad).ok());
    }
  }
}

TEST_CASE("bytes behind the last record are refused") {
  std::string bad(BuildSamples(Codec::kNone).bytes());
  bad.push_back('\0');
  StoreBig<int32_t>(bad.data() + kBatchLengthAt, static_cast<int32_t>(bad.size() - kLengthCountsFrom));
  REQUIRE(ReadStatus(bad).code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("varints round trip at every width and refuse what is too large or cut short") {
  std::mt19937_64 random(1);
  for (int width = 0; width < 64; ++width) {
    for (int i = 0; i < 20; ++i) {
      const int64_t value = static_cast<int64_t>(random()) >> width;
      char text[kVarintBytesMax];
      const char* const end = PutVarint(text, value);
      REQUIRE(static_cast<size_t>(end - text) == VarintBytes(value));
      const char* at = text;
      int64_t back;
      REQUIRE(GetVarint64(&at, end, &back));
      REQUIRE(back == value);
      REQUIRE(at == end);
      at = text;
      REQUIRE_FALSE(GetVarint64(&at, end - 1, &back));
      int32_t narrow;
      REQUIRE(GetVarint32(&at, end, &narrow) == (value >= INT32_MIN && value <= INT32_MAX));
    }
  }
  const std::string endless(11, '\xff');
  const char* at = endless.data();
  int64_t value;
  REQUIRE_FALSE(GetVarint64(&at, endless.data() + endless.size(), &value));
}

}  // namespace sluice::record
