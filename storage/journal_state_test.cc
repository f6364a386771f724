#include "storage/journal_state.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/crc32c.h"

namespace sluice::storage {

namespace {

const ReplicaId kId{Uuid::FromRandom(1, 1), PartitionId(0)};

// A registry with one replica, and words to change it.
struct Registry {
  Registry() { REQUIRE(state.Apply(CreateRecord{kId, Uuid::FromRandom(2, 2)}).ok()); }

  absl::Status Append(SegmentId segment, int64_t position, const std::string& bytes, int64_t next,
                      AppendHolds holds = AppendHolds::kData) {
    return state.Apply(
        AppendRecord{kId, segment, position, Bytes::Copy(bytes), Crc32c(bytes), Offset(next), next, holds});
  }
  const ReplicaState& replica() const { return *state.Find(kId); }

  JournalState state;
};

constexpr SegmentId kFirst{Offset(0), LeaderEpoch(1)};
constexpr SegmentId kSecond{Offset(10), LeaderEpoch(1)};
constexpr auto kMisfit = absl::StatusCode::kFailedPrecondition;

}  // namespace

TEST_CASE("a segment's checksum grows with its appends without reading them again") {
  Registry r;
  REQUIRE(r.Append(kFirst, 0, "abc", 5).ok());
  REQUIRE(r.Append(kFirst, 3, "defg", 10).ok());
  const SegmentState& segment = r.replica().segments.front();
  REQUIRE(segment.crc32c == Crc32c("abcdefg"));
  REQUIRE(segment.end_position == 7);
  REQUIRE(segment.next_offset == Offset(10));
  REQUIRE(r.replica().next_offset == Offset(10));
}

TEST_CASE("appends must tile, and one that is there already changes nothing") {
  Registry r;
  REQUIRE(r.Append(kFirst, 1, "abc", 5).code() == kMisfit);
  REQUIRE(r.Append(kSecond, 0, "abc", 15).code() == kMisfit);
  REQUIRE(r.Append(kFirst, 0, "abc", 10).ok());
  const JournalState before = r.state;
  REQUIRE(r.Append(kFirst, 0, "abc", 10).ok());
  REQUIRE(r.state == before);
  REQUIRE(r.Append(kFirst, 2, "xyz", 12).code() == kMisfit);  // half inside
  REQUIRE(r.Append(kFirst, 3, "xyz", 10).code() == kMisfit);  // no new offset
  REQUIRE(r.Append(kSecond, 0, "xyz", 12).ok());              // a roll
  REQUIRE(r.Append(kFirst, 3, "xyz", 14).code() == kMisfit);  // closed by the roll
  REQUIRE(r.Append(kFirst, 0, "abc", 10).ok());               // carried forward
  REQUIRE(r.replica().segments.size() == 2);
}

TEST_CASE("the registry knows where the data ends, control batches left out, and when it does not know") {
  Registry r;
  REQUIRE(r.replica().data_end == Offset(0));
  REQUIRE(r.Append(kFirst, 0, "ctl", 1, AppendHolds::kControlOnly).ok());
  REQUIRE(r.replica().data_end == Offset(0));
  REQUIRE(r.Append(kFirst, 3, "abc", 5).ok());
  REQUIRE(r.Append(kFirst, 6, "ctl", 6, AppendHolds::kControlOnly).ok());
  REQUIRE(r.replica().data_end == Offset(5));
  REQUIRE(r.Append(kFirst, 3, "abc", 5).ok());  // carried forward
  REQUIRE(r.state.Apply(LogStartRecord{kId, Offset(6)}).ok());
  REQUIRE(r.replica().data_end == Offset(5));
  REQUIRE(r.Append(kFirst, 9, "more", 10).ok());
  REQUIRE(r.replica().data_end == Offset(10));
  // What it took was the last of the data: where that ends now, the segments know.
  REQUIRE(r.state.Apply(TruncateRecord{kId, kFirst, 9, Crc32c("ctlabcctl"), Offset(6), 5}).ok());
  REQUIRE(r.replica().data_end == ReplicaState::kDataEndUnknown);
  const SegmentId next{Offset(6), LeaderEpoch(2)};
  REQUIRE(r.Append(next, 0, "ctl", 7, AppendHolds::kControlOnly).ok());
  REQUIRE(r.replica().data_end == ReplicaState::kDataEndUnknown);
  REQUIRE(r.Append(next, 3, "abc", 8).ok());
  REQUIRE(r.replica().data_end == Offset(8));
  REQUIRE(r.state.Apply(TruncateRecord{kId, next, 6, Crc32c("ctlabc"), Offset(8), 8}).ok());  // only closes
  REQUIRE(r.replica().data_end == Offset(8));
  // Of an append that an older version journaled nobody knows.
  REQUIRE(r.Append({Offset(8), LeaderEpoch(3)}, 0, "old", 9, AppendHolds::kUnknown).ok());
  REQUIRE(r.replica().data_end == ReplicaState::kDataEndUnknown);
  REQUIRE(r.state.Apply(ResetRecord{kId, Offset(20)}).ok());
  REQUIRE(r.replica().data_end == Offset(0));
}

TEST_CASE("a truncation closes the segment it keeps, and the log goes on in a new one") {
  Registry r;
  REQUIRE(r.Append(kFirst, 0, "abc", 5).ok());
  REQUIRE(r.Append(kFirst, 3, "defg", 10).ok());
  REQUIRE(r.Append(kSecond, 0, "xyz", 12).ok());
  REQUIRE(r.state.Apply(CheckpointRecord{kId, kSecond, 3}).ok());
  REQUIRE(r.state.Apply(TruncateRecord{kId, kFirst, 3, Crc32c("abc"), Offset(5), 5}).ok());
  REQUIRE(r.replica().segments.size() == 1);
  REQUIRE(r.replica().next_offset == Offset(5));
  REQUIRE(r.replica().checkpoint == SegmentPosition{kFirst, 3});
  REQUIRE(r.Append(kFirst, 3, "new", 6).code() == kMisfit);
  REQUIRE(r.Append({Offset(5), LeaderEpoch(2)}, 0, "new", 6).ok());
  REQUIRE(r.state.Apply(TruncateRecord{kId, kFirst, 9, 0, Offset(11), 5}).code() == kMisfit);
}

TEST_CASE("the log start never goes back, and segments wholly below it go, but never the last") {
  Registry r;
  REQUIRE(r.Append(kFirst, 0, "abc", 10).ok());
  REQUIRE(r.Append(kSecond, 0, "xyz", 12).ok());
  REQUIRE(r.state.Apply(LogStartRecord{kId, Offset(9)}).ok());
  REQUIRE(r.replica().segments.size() == 2);
  REQUIRE(r.state.Apply(LogStartRecord{kId, Offset(12)}).ok());
  REQUIRE(r.replica().segments.size() == 1);
  REQUIRE(r.state.Apply(LogStartRecord{kId, Offset(3)}).ok());
  REQUIRE(r.replica().log_start == Offset(12));
  REQUIRE(r.state.Apply(LogStartRecord{kId, Offset(13)}).code() == kMisfit);
  REQUIRE(r.state.Apply(TruncateRecord{kId, kSecond, 0, 0, Offset(10), 0}).code() == kMisfit);
}

TEST_CASE("a term never goes back and a vote does not change within one") {
  Registry r;
  const VoterId one{NodeId(1), Uuid::FromRandom(1, 1)};
  const VoterId other{NodeId(2), Uuid::FromRandom(1, 1)};
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(4), {}}}).ok());
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(4), one}}).ok());
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(4), one}}).ok());
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(4), other}}).code() == kMisfit);
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(4), {}}}).code() == kMisfit);
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(3), {}}}).code() == kMisfit);
  REQUIRE(r.state.Apply(HardStateRecord{kId, {LeaderEpoch(5), other}}).ok());
  REQUIRE(r.replica().hard_state.voted_for == other);
}

TEST_CASE("a replica is created once, and a checkpoint of what is gone changes nothing") {
  Registry r;
  REQUIRE(r.state.Apply(CreateRecord{kId, Uuid::FromRandom(2, 2)}).ok());
  REQUIRE(r.state.Apply(CreateRecord{kId, Uuid::FromRandom(3, 3)}).code() == kMisfit);
  REQUIRE(r.Append(kFirst, 0, "abc", 10).ok());
  REQUIRE(r.state.Apply(CheckpointRecord{kId, kFirst, 99}).ok());
  REQUIRE(r.replica().checkpoint == SegmentPosition{kFirst, 3});
  REQUIRE(r.state.Apply(ResetRecord{kId, Offset(100)}).ok());
  REQUIRE(r.state.Apply(CheckpointRecord{kId, kFirst, 3}).ok());
  REQUIRE(r.replica().checkpoint == SegmentPosition{});
  REQUIRE(r.replica().log_start == Offset(100));
  REQUIRE(r.state.Apply(DropRecord{kId}).ok());
  REQUIRE(r.state.Apply(DropRecord{kId}).ok());
  REQUIRE(r.state.Apply(CheckpointRecord{kId, kFirst, 3}).ok());
  REQUIRE(r.Append(kFirst, 0, "abc", 10).code() == kMisfit);
  REQUIRE(r.state.replicas().empty());
}

}  // namespace sluice::storage
