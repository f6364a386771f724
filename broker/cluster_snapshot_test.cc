#include "broker/cluster_snapshot.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <sstream>

#include "broker/limits.h"
#include "common/endian.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

Uuid Id(uint64_t n) {
  return Uuid::FromRandom(n, n);
}

/// The bytes of the block of docs/formats.md that opens with "```hex NAME".
std::string Example(const std::string& name) {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/formats.md");
  std::string bytes;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (inside && line == "```") return bytes;
    if (inside) {
      std::istringstream digits(line.substr(0, line.find('#')));
      for (std::string pair; digits >> pair;) bytes.push_back(static_cast<char>(std::stoi(pair, nullptr, 16)));
    }
    if (line == "```hex " + name) inside = true;
  }
  FAIL("no example " << name);
  return {};
}

ClusterState SomeState() {
  ClusterState state;
  state.Apply(ClusterFormed{.id = Id(9), .name = "prod"}, Offset(1));
  for (int id = 1; id <= 12; ++id) {
    state.Apply(NodeRegistered{{.id = NodeId(id),
                                .disk = Id(100 + static_cast<uint64_t>(id)),
                                .incarnation = Id(200 + static_cast<uint64_t>(id)),
                                .peer_address = Cat("n", id, ":7401"),
                                .feature_max = 1}},
                Offset(1 + id));
  }
  state.Apply(FeatureLevelRaised{1}, Offset(20));
  for (uint64_t n = 1; n <= 20; ++n) {
    TopicRecord topic{.id = Id(n), .name = Cat("t", n), .partitions = 1, .replicas = 1};
    for (int i = 0; i < 8; ++i) topic.config[Cat("key", i)] = Cat("value", n * 10 + static_cast<uint64_t>(i));
    topic.assignments = {{{.node = NodeId(1), .incarnation = Id(n)}}};
    state.Apply(TopicCreated{topic}, Offset(20 + static_cast<int64_t>(n)));
  }
  return state;
}

TEST_CASE("a snapshot holds the whole state, and equal states have equal bytes") {
  const ClusterState state = SomeState();
  const std::string bytes = EncodeClusterSnapshot(state, Offset(77));
  const auto read = DecodeClusterSnapshot(bytes);
  REQUIRE(read.ok());
  CHECK(read->applied == Offset(77));
  CHECK(read->state == state);
  for (int i = 0; i < 10; ++i) CHECK(EncodeClusterSnapshot(read->state, Offset(77)) == bytes);
  CHECK(EncodeClusterSnapshot(state, Offset(78)) != bytes);
  const auto nothing = DecodeClusterSnapshot(EncodeClusterSnapshot({}, Offset(0)));
  REQUIRE(nothing.ok());
  CHECK(nothing->state == ClusterState());
}

TEST_CASE("a snapshot with any byte damaged, or cut anywhere, is refused") {
  const std::string bytes = EncodeClusterSnapshot(SomeState(), Offset(77));
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    INFO("byte " << at);
    REQUIRE(absl::IsDataLoss(DecodeClusterSnapshot(damaged).status()));
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    REQUIRE(absl::IsDataLoss(DecodeClusterSnapshot(std::string_view(bytes).substr(0, size)).status()));
  }
  REQUIRE(absl::IsDataLoss(DecodeClusterSnapshot(Cat(bytes, "x")).status()));
}

TEST_CASE("a snapshot of a later version is refused, and says so") {
  std::string bytes = EncodeClusterSnapshot(SomeState(), Offset(77));
  StoreLittle(bytes.data() + 4, uint32_t{2});
  const absl::Status refused = DecodeClusterSnapshot(bytes).status();
  CHECK(absl::IsDataLoss(refused));
  CHECK(refused.ToString().find("of version 2") != std::string::npos);
}

TEST_CASE("the example of a snapshot in the documentation is one, and so is its name") {
  ClusterState state;
  state.Apply(FeatureLevelRaised{1}, Offset(3));
  const std::string bytes = EncodeClusterSnapshot(state, Offset(300));
  CHECK(bytes == Example("cluster-snapshot"));
  const SnapshotName name = NameOfSnapshot(Offset(300), bytes);
  CHECK(EncodeSnapshotName(name) == Example("cluster-snapshot-name"));
  CHECK(DecodeSnapshotName(Example("cluster-snapshot-name")).value() == name);
}

TEST_CASE("a name of something too large or of another form is refused") {
  const auto refused = [](const SnapshotName& name) {
    return absl::IsDataLoss(DecodeSnapshotName(EncodeSnapshotName(name)).status());
  };
  CHECK(refused({.applied = Offset(1), .size_bytes = kClusterSnapshotBytesMax + 1}));
  CHECK(refused({.applied = Offset(1), .size_bytes = 1}));
  CHECK(refused({.applied = Offset(-1), .size_bytes = 100}));
  CHECK_FALSE(refused({.applied = Offset(1), .size_bytes = 100}));
  CHECK(absl::IsDataLoss(DecodeSnapshotName("").status()));
}

}  // namespace
}  // namespace sluice::broker
