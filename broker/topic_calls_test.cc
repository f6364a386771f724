#include "broker/topic_calls.h"

#include <catch2/catch.hpp>

#include "broker/error.h"

namespace sluice::broker {
namespace {

// A name is cut where its bytes are too many, and a file may be called anything.
const std::string kHalf = std::string(248, 'x') + "\xc3";

TEST_CASE("a refused change of a topic arrives as it was refused, also where it quotes half a character") {
  const Error refused = MakeError(Reason::kUnknownTopic, "there is no topic \"" + kHalf + "\"", kHalf);
  const auto read = DecodeTopicChanged(EncodeTopicChanged(refused));
  INFO(read.status());
  REQUIRE(read.ok());
  REQUIRE_FALSE(read->ok());
  CHECK(read->error().reason == Reason::kUnknownTopic);
  CHECK(read->error().message == refused.message);
  CHECK(read->error().topic == kHalf);
}

TEST_CASE("one partition's error does not hide how the others stand, whatever it says") {
  ReplicaReport sound{.replica = {Uuid::FromRandom(1, 1), PartitionId(0)}, .leads = true, .status = {}};
  sound.status.high_watermark = Offset(7);
  ReplicaReport damaged{.replica = {Uuid::FromRandom(1, 1), PartitionId(1)}, .leads = false, .status = {}};
  damaged.status.error = MakeError(Reason::kCorruptLog, "/data/" + kHalf + "/0.log is missing");
  const auto read = DecodePartitionStatusAnswer(EncodePartitionStatusAnswer({sound, damaged}));
  INFO(read.status());
  REQUIRE(read.ok());
  REQUIRE(read->size() == 2);
  CHECK(read->at(0).leads);
  CHECK(read->at(0).status.high_watermark == Offset(7));
  REQUIRE(read->at(1).status.error.has_value());
  CHECK(read->at(1).status.error->reason == Reason::kCorruptLog);
  CHECK(read->at(1).status.error->message == damaged.status.error->message);
}

TEST_CASE("an election that is refused says why, also where that is no text") {
  const auto read = DecodeElectLeaderAnswer(EncodeElectLeaderAnswer(MakeError(Reason::kNotAvailable, kHalf)));
  REQUIRE(read.ok());
  REQUIRE_FALSE(read->ok());
  CHECK(read->error().message == kHalf);
}

}  // namespace
}  // namespace sluice::broker
