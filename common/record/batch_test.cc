#include "common/record/batch.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>
#include <string>

#include "common/crc32c.h"
#include "common/endian.h"
#include "common/record/record.h"
#include "common/text.h"

namespace sluice::record {

namespace {

MutableBytes Mutable(std::string_view text) {
  MutableBytes bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// A client's batch of three records, to be damaged on purpose.
std::string ThreeRecords(Codec codec = Codec::kNone) {
  BatchBuilder builder;
  REQUIRE(builder.Append(1000, "k0", "v0").ok());
  REQUIRE(builder.Append(1005, "k1", "v1", std::vector<Header>{{"h", "x"}}).ok());
  REQUIRE(builder.Append(1002, std::nullopt, "v2").ok());
  return std::string(builder.Build(codec)->bytes());
}

// Makes the CRC right again, as a hostile or broken client would.
void Reseal(std::string* bytes) {
  StoreBig<uint32_t>(bytes->data() + kCrcAt, Crc32c(std::string_view(*bytes).substr(kCrcCoversFrom)));
}

absl::Status FromClient(std::string_view bytes) {
  return PendingBatch::FromClient(Mutable(bytes)).status();
}

bool Mentions(const absl::Status& status, std::string_view text) {
  return Message(status).find(text) != std::string_view::npos;
}

}  // namespace

TEST_CASE("a batch gets its place, and every field can be read from it") {
  auto pending = PendingBatch::FromClient(Mutable(ThreeRecords()));
  REQUIRE(pending.ok());
  const Batch batch = (*std::move(pending)).Assign(Offset(100), LeaderEpoch(7));
  REQUIRE(batch.base_offset() == Offset(100));
  REQUIRE(batch.last_offset() == Offset(102));
  REQUIRE(batch.next_offset() == Offset(103));
  REQUIRE(batch.epoch() == LeaderEpoch(7));
  REQUIRE(batch.record_count() == 3);
  REQUIRE(batch.max_timestamp_ms() == 1005);
  REQUIRE(batch.codec() == Codec::kNone);
  REQUIRE_FALSE(batch.is_control());
  REQUIRE(batch.view().VerifyCrc().ok());
  REQUIRE(batch.view().base_offset() == Offset(100));
  REQUIRE(batch.view().leader_epoch() == LeaderEpoch(7));
  REQUIRE(batch.view().producer_id() == kNoProducerId);

  const auto stored = Batch::FromStored(Bytes::Copy(batch.bytes().view()));
  REQUIRE(stored.ok());
  REQUIRE(stored->last_offset() == Offset(102));
  REQUIRE(stored->whole_crc32c() == batch.whole_crc32c());
}

TEST_CASE("the whole batch's checksum equals one taken over all its bytes") {
  for (const Codec codec : {Codec::kNone, Codec::kZstd}) {
    auto pending = PendingBatch::FromClient(Mutable(ThreeRecords(codec)));
    REQUIRE(pending.ok());
    const Batch batch = (*std::move(pending)).Assign(Offset(int64_t{1} << 40), LeaderEpoch(2));
    REQUIRE(batch.whole_crc32c() == Crc32c(batch.bytes().view()));
  }
}

TEST_CASE("patching the append time gives the CRC that reading everything again would") {
  for (const Codec codec : {Codec::kNone, Codec::kGzip}) {
    auto pending = PendingBatch::FromClient(Mutable(ThreeRecords(codec)));
    REQUIRE(pending.ok());
    for (const int64_t ms : {int64_t{1700000000123}, int64_t{0}, INT64_MAX}) {
      pending->SetLogAppendTime(ms);
      REQUIRE(pending->view().VerifyCrc().ok());
      REQUIRE(pending->view().is_log_append_time());
      REQUIRE(pending->view().max_timestamp_ms() == ms);
      REQUIRE(pending->view().first_timestamp_ms() == 1000);
      REQUIRE(pending->view().codec() == codec);
      REQUIRE(pending->view().VerifyRecords({}).ok());
    }
  }
}

TEST_CASE("a client's batch with one changed byte anywhere is refused, except in its place in the log") {
  for (const Codec codec : {Codec::kNone, Codec::kLz4}) {
    const std::string good = ThreeRecords(codec);
    REQUIRE(FromClient(good).ok());
    for (size_t at = 0; at < good.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
        // Base offset and leader epoch are the broker's to write and stand under no checksum of the client's.
        const bool place = at < kBatchLengthAt || (at >= kLeaderEpochAt && at < kMagicAt);
        if (place) continue;
        CAPTURE(at, bit);
        REQUIRE(FromClient(bad).code() == absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST_CASE("a batch cut anywhere, or with something behind it, is refused") {
  const std::string good = ThreeRecords();
  for (size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    REQUIRE(BatchView::Parse(std::string_view(good).substr(0, size)).status().code() == absl::StatusCode::kDataLoss);
  }
  REQUIRE_FALSE(BatchView::Parse(good + "x").ok());
}

TEST_CASE("batches can be taken one by one off a run of them") {
  const std::string one = ThreeRecords();
  const std::string run = one + one;
  REQUIRE(*BatchView::PeekSize(run) == one.size());
  const auto first = BatchView::ParseFirst(run);
  REQUIRE(first.ok());
  REQUIRE(first->bytes() == one);
  REQUIRE_FALSE(BatchView::ParseFirst(std::string_view(run).substr(one.size() + 1)).ok());
}

TEST_CASE("a right CRC does not hide wrong counts, deltas or fields") {
  struct Wrong {
    std::string_view what;
    std::function<void(std::string*)> make;
    std::string_view mentions;
  };
  // The first record: 1 byte length, attributes, timestamp delta, offset delta, key length, key (2), value length, …
  constexpr size_t kFirst = kBatchHeaderBytes;
  const Wrong wrongs[] = {
      {"offset delta", [](std::string* b) { (*b)[kFirst + 3] = 2; }, "offset delta 1"},
      {"timestamp delta", [](std::string* b) { (*b)[kFirst + 2] = 100; }, "largest timestamp"},
      {"largest timestamp", [](std::string* b) { StoreBig<int64_t>(b->data() + kMaxTimestampAt, 1006); }, "1006"},
      {"record length", [](std::string* b) { (*b)[kFirst] = static_cast<char>((*b)[kFirst] + 2); }, "record 0"},
      {"negative record length", [](std::string* b) { (*b)[kFirst] = 1; }, "length -1"},
      {"empty record", [](std::string* b) { (*b)[kFirst] = 0; }, "empty"},
      {"key length", [](std::string* b) { (*b)[kFirst + 4] = 120; }, "key"},
      {"key length below null", [](std::string* b) { (*b)[kFirst + 4] = 3; }, "key"},
      {"fewer records",
       [](std::string* b) {
         StoreBig<int32_t>(b->data() + kRecordCountAt, 2);
         StoreBig<int32_t>(b->data() + kLastOffsetDeltaAt, 1);
       },
       "left over"},
      {"more records",
       [](std::string* b) {
         StoreBig<int32_t>(b->data() + kRecordCountAt, 4);
         StoreBig<int32_t>(b->data() + kLastOffsetDeltaAt, 3);
       },
       "record 3"},
      {"absurdly many records",
       [](std::string* b) {
         StoreBig<int32_t>(b->data() + kRecordCountAt, INT32_MAX);
         StoreBig<int32_t>(b->data() + kLastOffsetDeltaAt, INT32_MAX - 1);
       },
       "cannot stand"},
      {"count against offsets", [](std::string* b) { StoreBig<int32_t>(b->data() + kRecordCountAt, 2); },
       "2 records over 3"},
      {"negative count", [](std::string* b) { StoreBig<int32_t>(b->data() + kRecordCountAt, -3); }, "records over"},
      {"negative delta", [](std::string* b) { StoreBig<int32_t>(b->data() + kLastOffsetDeltaAt, -1); }, "delta -1"},
      {"null header key",
       [](std::string* b) {
         const size_t at = b->find("\x02h\x02x");
         REQUIRE(at != std::string::npos);
         (*b)[at] = 1;
       },
       "header 0"},
      {"header count", [](std::string* b) { (*b)[b->find("\x02h\x02x") - 1] = 4; }, "header 1"},
      {"negative header count", [](std::string* b) { (*b)[b->find("\x02h\x02x") - 1] = 1; }, "header count"},
      {"no records",
       [](std::string* b) {
         b->resize(kBatchHeaderBytes);
         StoreBig<int32_t>(b->data() + kBatchLengthAt, kBatchLengthMin);
         StoreBig<int32_t>(b->data() + kRecordCountAt, 0);
       },
       "without records"},
      {"control bit", [](std::string* b) { (*b)[kAttributesAt + 1] = kControlBit; }, "not for clients"},
      {"the broker's time", [](std::string* b) { (*b)[kAttributesAt + 1] = kLogAppendTimeBit; }, "not for clients"},
      {"transactional bit", [](std::string* b) { (*b)[kAttributesAt + 1] = kTransactionalBit; }, "not for clients"},
      {"high bit", [](std::string* b) { (*b)[kAttributesAt] = '\x80'; }, "not for clients"},
      {"unknown codec", [](std::string* b) { (*b)[kAttributesAt + 1] = 5; }, "unknown codec 5"},
      {"magic", [](std::string* b) { (*b)[kMagicAt] = 1; }, "magic 1"},
      {"base offset", [](std::string* b) { StoreBig<int64_t>(b->data(), -1); }, "base offset -1"},
      {"base offset at the end", [](std::string* b) { StoreBig<int64_t>(b->data(), INT64_MAX - 2); }, "too large"},
      {"length below the header", [](std::string* b) { StoreBig<int32_t>(b->data() + kBatchLengthAt, 48); }, "48"},
      {"negative length", [](std::string* b) { StoreBig<int32_t>(b->data() + kBatchLengthAt, -1); }, "-1"},
  };
  for (const Wrong& wrong : wrongs) {
    std::string bytes = ThreeRecords();
    wrong.make(&bytes);
    Reseal(&bytes);
    const absl::Status status = FromClient(bytes);
    INFO(wrong.what << ": " << Message(status));
    REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
    REQUIRE(Mentions(status, wrong.mentions));
  }
}

TEST_CASE("a stored batch needs its checksum and a leader epoch, and may be an emptied range") {
  std::string bytes = ThreeRecords();
  REQUIRE(Mentions(Batch::FromStored(Bytes::Copy(bytes)).status(), "leader epoch"));
  StoreBig<int32_t>(bytes.data() + kLeaderEpochAt, 1);
  REQUIRE(Batch::FromStored(Bytes::Copy(bytes)).ok());
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  REQUIRE(Mentions(Batch::FromStored(Bytes::Copy(bytes)).status(), "CRC32C"));

  std::string emptied = ThreeRecords().substr(0, kBatchHeaderBytes);
  StoreBig<int32_t>(emptied.data() + kBatchLengthAt, kBatchLengthMin);
  StoreBig<int32_t>(emptied.data() + kRecordCountAt, 0);
  StoreBig<int32_t>(emptied.data() + kLeaderEpochAt, 1);
  Reseal(&emptied);
  const auto batch = Batch::FromStored(Bytes::Copy(emptied));
  REQUIRE(batch.ok());
  REQUIRE(batch->record_count() == 0);
  REQUIRE(batch->next_offset() == Offset(3));
  REQUIRE(batch->view().VerifyRecords({}).ok());
}

TEST_CASE("records inside a compressed batch are walked within the limit") {
  const std::string bytes = ThreeRecords(Codec::kZstd);
  REQUIRE(BatchView::Parse(bytes)->VerifyRecords({}).ok());
  REQUIRE(BatchView::Parse(bytes)->VerifyRecords(DecompressLimits{8}).code() == absl::StatusCode::kResourceExhausted);

  std::string records = ThreeRecords().substr(kBatchHeaderBytes);
  records[3] = 2;  // offset delta of the first record
  std::string wrong = bytes.substr(0, kBatchHeaderBytes);
  REQUIRE(Compress(Codec::kZstd, kDefaultLevel, records, &wrong).ok());
  StoreBig<int32_t>(wrong.data() + kBatchLengthAt, static_cast<int32_t>(wrong.size() - kLengthCountsFrom));
  Reseal(&wrong);
  REQUIRE(BatchView::Parse(wrong)->VerifyCrc().ok());
  REQUIRE(Mentions(BatchView::Parse(wrong)->VerifyRecords({}), "offset delta 1"));
}

}  // namespace sluice::record
