#include "broker/partition_survey.h"

#include <catch2/catch.hpp>

#include "broker/error.h"

namespace sluice::broker {
namespace {

const ReplicaId kReplica{Uuid::FromRandom(1, 2), PartitionId(0)};
const ReplicaId kOther{Uuid::FromRandom(3, 4), PartitionId(0)};

// How this node, which does not lead it, sees a partition of three replicas.
PartitionStatus Seen(std::optional<Error> error = std::nullopt) {
  PartitionStatus status;
  status.leader_node = NodeId(2);
  status.leader = "b:7400";
  status.leader_epoch = LeaderEpoch(4);
  status.replicas.resize(3);
  status.error = std::move(error);
  return status;
}
ReplicaReport Follows(std::optional<Error> error = std::nullopt) {
  return {.replica = kReplica, .leads = false, .status = Seen(std::move(error))};
}
ReplicaReport Leads(int32_t epoch) {
  ReplicaReport report{.replica = kReplica, .leads = true, .status = Seen()};
  report.status.leader_epoch = LeaderEpoch(epoch);
  report.status.high_watermark = Offset(int64_t{10} * epoch);
  return report;
}
Error Damage() {
  return MakeError(Reason::kCorruptLog, "damaged");
}

PartitionSurvey Asked(PartitionStatus own, bool has_replica = true) {
  PartitionSurvey survey({std::move(own)});
  survey.AskOthers(0, kReplica, has_replica);
  return survey;
}
const PartitionStatus& Of(const PartitionSurvey& survey) {
  return survey.statuses().at(0);
}

}  // namespace

TEST_CASE("what a node believes of a leader elsewhere counts for nothing until that one says so") {
  PartitionSurvey survey = Asked(Seen());
  CHECK_FALSE(survey.all_led());
  CHECK(Of(survey).leader.empty());
  survey.Take(NodeId(3), "c:7400", {Leads(5)});
  CHECK(survey.all_led());
  CHECK(Of(survey).leader_node == NodeId(3));
  CHECK(Of(survey).leader == "c:7400");
  CHECK(Of(survey).leader_epoch == LeaderEpoch(5));
  CHECK(Of(survey).high_watermark == Offset(50));
}

TEST_CASE("of two who believe that they lead the later one does, in whichever order they answer") {
  for (const auto& [first, second] : {std::pair(5, 6), std::pair(6, 5)}) {
    PartitionSurvey survey = Asked(Seen());
    survey.Take(NodeId(first), "first:7400", {Leads(first)});
    survey.Take(NodeId(second), "second:7400", {Leads(second)});
    CHECK(Of(survey).leader_node == NodeId(6));
    CHECK(Of(survey).high_watermark == Offset(60));
  }
}

TEST_CASE("a partition without a leader is not offline while a majority of its replicas answers soundly") {
  PartitionSurvey survey = Asked(Seen());
  CHECK(IsOffline(Of(survey)));
  survey.Take(NodeId(2), "b:7400", {Follows()});
  CHECK(Of(survey).sound == 2);
  CHECK_FALSE(IsOffline(Of(survey)));
}

TEST_CASE("a replica with an error is not sound, here and elsewhere, and says why nobody leads") {
  PartitionSurvey here = Asked(Seen(Damage()));
  here.Take(NodeId(2), "b:7400", {Follows()});
  CHECK(Of(here).sound == 1);
  CHECK(IsOffline(Of(here)));
  CHECK(Of(here).error->message == "damaged");

  PartitionSurvey elsewhere = Asked(Seen());
  elsewhere.Take(NodeId(2), "b:7400", {Follows(Damage())});
  CHECK(Of(elsewhere).sound == 1);
  CHECK(IsOffline(Of(elsewhere)));
  CHECK(Of(elsewhere).error->message == "damaged");
  elsewhere.Take(NodeId(3), "c:7400", {Leads(5)});
  CHECK_FALSE(IsOffline(Of(elsewhere)));
}

TEST_CASE("a node without a replica is none, and an answer to what was not asked is nothing") {
  PartitionSurvey survey = Asked(Seen(), false);
  CHECK(Of(survey).sound == 0);
  ReplicaReport other = Leads(9);
  other.replica = kOther;
  survey.Take(NodeId(2), "b:7400", {other, Follows()});
  CHECK(Of(survey).sound == 1);
  CHECK_FALSE(survey.all_led());
}

}  // namespace sluice::broker
