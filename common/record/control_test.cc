#include "common/record/control.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/crc32c.h"
#include "common/endian.h"
#include "common/record/record.h"

namespace sluice::record {

namespace {

ControlRecord Back(const ControlRecord& record) {
  const Batch batch = MakeControlBatch(record, 42).Assign(Offset(9), LeaderEpoch(4));
  REQUIRE(batch.is_control());
  REQUIRE(batch.record_count() == 1);
  REQUIRE(batch.max_timestamp_ms() == 42);
  REQUIRE(batch.view().VerifyCrc().ok());
  const auto decoded = DecodeControlBatch(batch.view());
  REQUIRE(decoded.ok());
  return *decoded;
}

absl::Status DecodeStatus(std::string_view bytes) {
  const auto view = BatchView::Parse(bytes);
  REQUIRE(view.ok());
  return DecodeControlBatch(*view).status();
}

}  // namespace

TEST_CASE("control records survive their batches") {
  REQUIRE(Back(LeaderChange{NodeId(3)}) == ControlRecord(LeaderChange{NodeId(3)}));
  REQUIRE(Back(LogStartAdvance{Offset(1234567890123)}) == ControlRecord(LogStartAdvance{Offset(1234567890123)}));
  REQUIRE(Back(Membership{"voters"}) == ControlRecord(Membership{"voters"}));
}

TEST_CASE("a client cannot send a control batch") {
  const PendingBatch batch = MakeControlBatch(LeaderChange{NodeId(1)}, 0);
  REQUIRE(batch.view().VerifyClientAttributes().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("what is no control batch, or one from a later version, is refused") {
  BatchBuilder builder;
  REQUIRE(builder.Append(1, "k", "v").ok());
  const auto data = builder.Build();
  REQUIRE(data.ok());
  REQUIRE(DecodeStatus(data->bytes()).code() == absl::StatusCode::kDataLoss);

  const PendingBatch made = MakeControlBatch(LogStartAdvance{Offset(5)}, 1);
  const std::string good(made.bytes());
  REQUIRE(DecodeStatus(good).ok());
  // Record: length, attributes, timestamp delta, offset delta, key length, key (4), value length, value.
  constexpr size_t kKeyAt = kBatchHeaderBytes + 5;
  constexpr size_t kValueAt = kKeyAt + 5;
  for (const size_t at : {kKeyAt + 1, kKeyAt + 3, kValueAt + 1, kValueAt + 2}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ '\x80');  // key version, type, value version, sign of the offset
    CAPTURE(at);
    REQUIRE(DecodeStatus(bad).code() == absl::StatusCode::kDataLoss);
  }
}

}  // namespace sluice::record
