#include "replication/core/epoch_history.h"

#include <catch2/catch.hpp>

namespace sluice::raft {

namespace {

LogPlace Place(int32_t epoch, int64_t end) {
  return {LeaderEpoch(epoch), Offset(end)};
}

EpochHistory Of(int64_t start, int64_t end, int32_t base, std::vector<EpochStart> epochs) {
  const BaseEpoch before{LeaderEpoch(base), LeaderEpoch(base)};
  return EpochHistory::Make(Offset(start), Offset(end), before, std::move(epochs)).value();
}

EpochStart Start(int32_t epoch, int64_t start) {
  return {LeaderEpoch(epoch), Offset(start)};
}

}  // namespace

TEST_CASE("an empty log ends in epoch 0 at offset 0, and that is known") {
  const EpochHistory log;
  REQUIRE(log.empty());
  REQUIRE(log.Last() == Place(0, 0));
  REQUIRE(log.EpochBefore(Offset(0)) == LeaderEpoch(0));
  REQUIRE_FALSE(log.EpochBefore(Offset(1)));
  REQUIRE_FALSE(log.EpochAt(Offset(0)));
  REQUIRE_FALSE(log.EndOf(LeaderEpoch(9)));
}

TEST_CASE("batches of one epoch are one start, and each place has the epoch of the batch before it") {
  EpochHistory log;
  log.Append(LeaderEpoch(1), Offset(1));
  log.Append(LeaderEpoch(1), Offset(10));
  log.Append(LeaderEpoch(3), Offset(20));
  REQUIRE(log.epochs() == std::vector<EpochStart>{Start(1, 0), Start(3, 10)});
  REQUIRE(log.EpochAt(Offset(9)) == LeaderEpoch(1));
  REQUIRE(log.EpochAt(Offset(10)) == LeaderEpoch(3));
  REQUIRE(log.EpochBefore(Offset(10)) == LeaderEpoch(1));
  REQUIRE(log.EpochBefore(Offset(11)) == LeaderEpoch(3));
  REQUIRE(log.Last() == Place(3, 20));
}

TEST_CASE("the end of an epoch that is not there is the end of the largest one below it") {
  const EpochHistory log = Of(0, 30, 0, {Start(2, 0), Start(4, 10), Start(7, 25)});
  REQUIRE(log.EndOf(LeaderEpoch(9)) == Place(7, 30));
  REQUIRE(log.EndOf(LeaderEpoch(7)) == Place(7, 30));
  REQUIRE(log.EndOf(LeaderEpoch(6)) == Place(4, 25));
  REQUIRE(log.EndOf(LeaderEpoch(2)) == Place(2, 10));
  REQUIRE_FALSE(log.EndOf(LeaderEpoch(1)));
}

TEST_CASE("a truncation takes the epochs that began behind it") {
  EpochHistory log = Of(0, 30, 0, {Start(2, 0), Start(4, 10), Start(7, 25)});
  log.Truncate(Offset(25));
  REQUIRE(log.Last() == Place(4, 25));
  log.Truncate(Offset(10));
  REQUIRE(log.Last() == Place(2, 10));
  log.Truncate(Offset(0));
  REQUIRE(log.Last() == Place(0, 0));
}

TEST_CASE("a log start that moves up remembers the epoch before it, also when nothing is left") {
  EpochHistory log = Of(0, 30, 0, {Start(2, 0), Start(4, 10), Start(7, 25)});
  log.SetStart(Offset(10));
  REQUIRE(log.EpochBefore(Offset(10)) == LeaderEpoch(2));
  log.SetStart(Offset(12));  // inside epoch 4
  REQUIRE(log.EpochBefore(Offset(12)) == LeaderEpoch(4));
  REQUIRE_FALSE(log.EpochBefore(Offset(11)));
  log.SetStart(Offset(30));
  REQUIRE(log.empty());
  REQUIRE(log.Last() == Place(7, 30));
  log.SetStart(Offset(5));  // lower changes nothing
  REQUIRE(log.start() == Offset(30));
}

TEST_CASE("without a base epoch the place at the log start is not known") {
  const EpochHistory unknown = Of(10, 20, 0, {Start(4, 10)});
  REQUIRE_FALSE(unknown.EpochBefore(Offset(10)));
  REQUIRE(unknown.EpochBefore(Offset(11)) == LeaderEpoch(4));
  const EpochHistory known = Of(10, 10, 3, {});
  REQUIRE(known.Last() == Place(3, 10));
}

TEST_CASE("after a reset the log is empty behind the given place") {
  EpochHistory log = Of(0, 30, 0, {Start(2, 0)});
  log.Reset(Offset(100), {LeaderEpoch(5), LeaderEpoch(5)});
  REQUIRE(log.Last() == Place(5, 100));
  log.Append(LeaderEpoch(6), Offset(101));
  REQUIRE(log.EpochBefore(Offset(100)) == LeaderEpoch(5));
  REQUIRE(log.EpochBefore(Offset(101)) == LeaderEpoch(6));
}

TEST_CASE("an empty log whose last epoch is not known may still know what it is at most") {
  EpochHistory log = Of(0, 30, 0, {Start(2, 0)});
  log.Reset(Offset(100), {LeaderEpoch(0), LeaderEpoch(7)});
  REQUIRE(log.Last() == Place(0, 100));
  REQUIRE(log.LastAtMost() == Place(7, 100));
  REQUIRE(log.base() == BaseEpoch{LeaderEpoch(0), LeaderEpoch(7)});
  log.Append(LeaderEpoch(8), Offset(101));
  REQUIRE(log.LastAtMost() == Place(8, 101));
}

TEST_CASE("a history that cannot be is refused") {
  const auto make = [](int64_t start, int64_t end, std::vector<EpochStart> epochs) {
    return EpochHistory::Make(Offset(start), Offset(end), BaseEpoch{}, std::move(epochs)).ok();
  };
  REQUIRE(make(0, 10, {Start(1, 0)}));
  REQUIRE_FALSE(make(5, 4, {}));
  REQUIRE_FALSE(make(0, 10, {}));
  REQUIRE_FALSE(make(0, 10, {Start(1, 1)}));
  REQUIRE_FALSE(make(0, 10, {Start(1, 0), Start(1, 5)}));
  REQUIRE_FALSE(make(0, 10, {Start(2, 0), Start(1, 5)}));
  REQUIRE_FALSE(make(0, 10, {Start(1, 0), Start(2, 10)}));
  REQUIRE_FALSE(make(0, 10, {Start(0, 0)}));
}

}  // namespace sluice::raft
