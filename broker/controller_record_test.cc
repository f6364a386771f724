#include "broker/controller_record.h"

#include <catch2/catch.hpp>

#include "absl/strings/escaping.h"

namespace sluice::broker {
namespace {

std::string FromHex(std::string_view hex) {
  return absl::HexStringToBytes({hex.data(), hex.size()});
}

Uuid Id(uint64_t n) {
  return Uuid::FromRandom(n, n);
}

TopicRecord Orders() {
  return {.id = Id(1),
          .name = "orders",
          .partitions = 2,
          .replicas = 3,
          .config = {{"retention.ms", "5"}},
          .created_ms = 17,
          .assignments = {{{NodeId(1), Id(11)}, {NodeId(2), Id(12)}, {NodeId(3), Id(13)}},
                          {{NodeId(2), Id(21)}, {NodeId(3), Id(22)}, {NodeId(1), Id(23)}}}};
}

NodeRecord Node(int id) {
  return {.id = NodeId(id),
          .disk = Id(100),
          .incarnation = Id(101),
          .grpc_address = "a:7400",
          .peer_address = "a:7401",
          .rack = "r1",
          .version = "0.2.0",
          .feature_min = 0,
          .feature_max = 1,
          .process = Id(102)};
}

TEST_CASE("every controller change, topic and node reads back what was written") {
  const TopicRecord topic = Orders();
  CHECK(*DecodeTopicRecord(EncodeTopicRecord(topic)) == topic);
  const RegisteredNode node{.node = Node(3), .epoch = Offset(88), .fenced = true};
  CHECK(*DecodeRegisteredNode(EncodeRegisteredNode(node)) == node);
  const std::vector<ControllerChange> changes = {
      TopicCreated{topic},
      TopicDeleted{topic.id},
      TopicAltered{topic.id, {{"a", "b"}}},
      PartitionsAdded{topic.id, 3, {{{NodeId(9), Id(31)}, {NodeId(2), Uuid{}}}}},
      ClusterFormed{Id(7), "prod"},
      NodeRegistered{Node(4)},
      NodeFenced{NodeId(4), Offset(12)},
      NodeUnfenced{NodeId(4), Offset(12)},
      FeatureLevelRaised{1}};
  for (const auto& change : changes) CHECK(*DecodeControllerChange(EncodeControllerChange(change)) == change);
}

// Out of group 0's log in tests/fixtures/0.1.0.
TEST_CASE("what 0.1 wrote is read as one replica a partition without an incarnation") {
  const auto created = DecodeControllerChange(
      FromHex("0a400a3e0a10a7fabb5cac6b4b698bba0250d56d5ba61206636f64656373180320012a120a0c726574656e74696f6e2e6d73"
              "12022d3130c9bdd2e99f343a03010101"));
  REQUIRE(created.ok());
  const ReplicaAssignment alone{.node = NodeId(1), .incarnation = Uuid{}};
  const TopicRecord codecs{.id = *Uuid::Parse("a7fabb5c-ac6b-4b69-8bba-0250d56d5ba6"),
                           .name = "codecs",
                           .partitions = 3,
                           .replicas = 1,
                           .config = {{"retention.ms", "-1"}},
                           .created_ms = 1795249446601,
                           .assignments = {{alone}, {alone}, {alone}}};
  CHECK(std::get<TopicCreated>(*created).topic == codecs);

  const auto added = DecodeControllerChange(FromHex("22170a10ecff303a4ef740b7a7cd9db0a5fbe0eb10021a0101"));
  REQUIRE(added.ok());
  CHECK(std::get<PartitionsAdded>(*added) ==
        PartitionsAdded{*Uuid::Parse("ecff303a-4ef7-40b7-a7cd-9db0a5fbe0eb"), 2, {{alone}}});
}

TEST_CASE("what a node writes alone has 0.1's bytes") {
  const std::string created = FromHex(
      "0a400a3e0a10a7fabb5cac6b4b698bba0250d56d5ba61206636f64656373180320012a120a0c726574656e74696f6e2e6d7312022d3130c9"
      "bdd2e99f343a03010101");
  CHECK(EncodeControllerChange(*DecodeControllerChange(created)) == created);
  const std::string added = FromHex("22170a10ecff303a4ef740b7a7cd9db0a5fbe0eb10021a0101");
  CHECK(EncodeControllerChange(*DecodeControllerChange(added)) == added);
  CHECK(FeatureLevelOf(*DecodeControllerChange(created)) == 0);
  CHECK(FeatureLevelOf(*DecodeControllerChange(added)) == 0);
}

TEST_CASE("replicas and fencing need the first feature level, forming a cluster needs none") {
  CHECK(FeatureLevelOf(TopicCreated{Orders()}) == 1);
  CHECK(FeatureLevelOf(PartitionsAdded{Id(1), 3, {{{NodeId(1), Id(2)}}}}) == 1);
  CHECK(FeatureLevelOf(NodeFenced{NodeId(1), Offset(1)}) == 1);
  CHECK(FeatureLevelOf(NodeRegistered{Node(1)}) == 0);
  CHECK(FeatureLevelOf(ClusterFormed{Id(1), ""}) == 0);
  CHECK(FeatureLevelOf(FeatureLevelRaised{1}) == 0);
}

TEST_CASE("a controller change that is damaged or of an unknown kind is data loss, not an empty change") {
  CHECK(absl::IsDataLoss(DecodeControllerChange("").status()));
  CHECK(absl::IsDataLoss(DecodeControllerChange("\xff\xff\xff").status()));
  // Field 15 of a later version.
  CHECK(absl::IsDataLoss(DecodeControllerChange(std::string("\x7a\x00", 2)).status()));
  CHECK(absl::IsDataLoss(DecodeTopicRecord("").status()));
  CHECK(absl::IsDataLoss(DecodeRegisteredNode("").status()));
  CHECK(absl::IsDataLoss(DecodeControllerChange(EncodeControllerChange(TopicDeleted{})).status()));
}

TEST_CASE("assignments that cannot be are data loss") {
  const auto status = [](auto break_it) {
    TopicRecord topic = Orders();
    break_it(topic);
    return DecodeTopicRecord(EncodeTopicRecord(topic)).status();
  };
  CHECK(status([](TopicRecord&) {}).ok());
  CHECK(absl::IsDataLoss(status([](TopicRecord& topic) { topic.assignments.pop_back(); })));
  CHECK(absl::IsDataLoss(status([](TopicRecord& topic) { topic.assignments[1].clear(); })));
  CHECK(absl::IsDataLoss(status([](TopicRecord& topic) { topic.assignments[1][0].node = NodeId(1); })));
  CHECK(absl::IsDataLoss(status([](TopicRecord& topic) { topic.assignments[0][0].node = NodeId(0); })));
}

TEST_CASE("a node that cannot be is data loss") {
  const auto status = [](auto break_it) {
    NodeRecord node = Node(1);
    break_it(node);
    return DecodeControllerChange(EncodeControllerChange(NodeRegistered{node})).status();
  };
  CHECK(status([](NodeRecord&) {}).ok());
  CHECK(absl::IsDataLoss(status([](NodeRecord& node) { node.id = NodeId(0); })));
  CHECK(absl::IsDataLoss(status([](NodeRecord& node) { node.disk = Uuid{}; })));
  CHECK(absl::IsDataLoss(status([](NodeRecord& node) { node.incarnation = Uuid{}; })));
  CHECK(absl::IsDataLoss(status([](NodeRecord& node) { node.feature_min = 2; })));
  CHECK(absl::IsDataLoss(status([](NodeRecord& node) { node.rack = std::string(2000, 'x'); })));
}

}  // namespace
}  // namespace sluice::broker
