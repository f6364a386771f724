#include "broker/cluster_state.h"

#include <catch2/catch.hpp>

#include "storage/meta/log_store.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::broker {
namespace {

Uuid Id(uint64_t n) {
  return Uuid::FromRandom(n, n);
}

NodeRecord Node(int id, uint64_t disk = 0) {
  return {.id = NodeId(id),
          .disk = Id(disk == 0 ? 100 + static_cast<uint64_t>(id) : disk),
          .incarnation = Id(200 + static_cast<uint64_t>(id)),
          .grpc_address = "h" + std::to_string(id) + ":7400",
          .peer_address = "h" + std::to_string(id) + ":7401",
          .feature_max = 1};
}

TopicRecord Topic(uint64_t id, const std::string& name, int32_t partitions = 1) {
  TopicRecord topic{.id = Id(id), .name = name, .partitions = partitions, .replicas = 1};
  topic.assignments.assign(static_cast<size_t>(partitions), {{.node = NodeId(1), .incarnation = Id(id + 1000)}});
  return topic;
}

std::set<TopicId> Topics(uint64_t id) {
  return {Id(id)};
}

/// A history in which every kind of change has an effect, and some have none.
std::vector<ControllerChange> History() {
  return {ClusterFormed{Id(9), "prod"},
          NodeRegistered{Node(1)},
          FeatureLevelRaised{1},
          TopicCreated{Topic(1, "a")},
          NodeRegistered{Node(2)},
          NodeUnfenced{NodeId(2), Offset(4)},
          TopicCreated{Topic(2, "b", 2)},
          TopicAltered{Id(1), {{"k", "v"}}},
          PartitionsAdded{Id(1), 3, {{{NodeId(1), Id(5)}}, {{NodeId(2), Id(6)}}}},
          NodeFenced{NodeId(2), Offset(4)},
          TopicCreated{Topic(3, "a")},  // taken
          TopicDeleted{Id(2)},
          TopicDeleted{Id(2)},
          NodeRegistered{Node(2)},
          NodeUnfenced{NodeId(2), Offset(4)},  // of an epoch that is over
          NodeUnfenced{NodeId(2), Offset(13)},
          TopicCreated{Topic(4, "b")},
          FeatureLevelRaised{1},
          ClusterFormed{Id(10), "other"}};
}

ClusterState After(const std::vector<ControllerChange>& changes) {
  ClusterState state;
  for (size_t i = 0; i < changes.size(); ++i) state.Apply(changes[i], Offset(static_cast<int64_t>(i)));
  return state;
}

TEST_CASE("topics are made, altered, widened and deleted") {
  ClusterState state;
  CHECK(state.Apply(TopicCreated{Topic(1, "a")}, Offset(1)) == ClusterDelta{.topics = Topics(1)});
  CHECK(state.FindTopic("a")->id == Id(1));
  CHECK(state.Apply(TopicAltered{Id(1), {{"k", "v"}}}, Offset(2)) == ClusterDelta{.topics = Topics(1)});
  CHECK(state.FindTopic("a")->config == TopicConfig{{"k", "v"}});
  CHECK(state.Apply(PartitionsAdded{Id(1), 2, {{{NodeId(2), Id(5)}}}}, Offset(3)) == ClusterDelta{.topics = Topics(1)});
  CHECK(state.FindTopic("a")->partitions == 2);
  CHECK(state.FindTopic("a")->assignments[1] == PartitionAssignment{{NodeId(2), Id(5)}});
  const TopicRecord last = *state.FindTopic("a");
  const ClusterDelta gone = state.Apply(TopicDeleted{Id(1)}, Offset(4));
  CHECK(gone == ClusterDelta{.deleted = {{Id(1), last}}});
  CHECK(state == ClusterState{});
}

TEST_CASE("a change that does not fit the state changes nothing") {
  const ClusterState before = After(History());
  const std::vector<ControllerChange> late = {TopicCreated{Topic(77, "a")},
                                              TopicCreated{Topic(1, "free")},
                                              TopicDeleted{Id(77)},
                                              TopicAltered{Id(77), {}},
                                              PartitionsAdded{Id(77), 2, {}},
                                              PartitionsAdded{Id(1), 3, {{{NodeId(1), Id(5)}}}},
                                              PartitionsAdded{Id(1), 5, {{{NodeId(1), Id(5)}}}},
                                              ClusterFormed{Id(77), "x"},
                                              NodeRegistered{Node(2, 77)},
                                              NodeFenced{NodeId(77), Offset(1)},
                                              NodeFenced{NodeId(2), Offset(4)},
                                              NodeUnfenced{NodeId(2), Offset(12)},
                                              FeatureLevelRaised{0}};
  for (const auto& change : late) {
    ClusterState state = before;
    CHECK(state.Apply(change, Offset(100)).empty());
    CHECK(state == before);
  }
}

TEST_CASE("applying a change again changes nothing") {
  ClusterState state;
  const auto changes = History();
  for (size_t i = 0; i < changes.size(); ++i) {
    const Offset at(static_cast<int64_t>(i));
    state.Apply(changes[i], at);
    const ClusterState once = state;
    CHECK(state.Apply(changes[i], at).empty());
    CHECK(state == once);
  }
}

TEST_CASE("a registration's offset is the node's epoch, and only that epoch can be fenced") {
  ClusterState state;
  state.Apply(NodeRegistered{Node(1)}, Offset(3));
  CHECK_FALSE(state.FindNode(NodeId(1))->fenced);  // the first: it has nobody to catch up with
  CHECK(state.Apply(NodeRegistered{Node(2)}, Offset(5)).nodes == std::set<NodeId>{NodeId(2)});
  CHECK(state.FindNode(NodeId(2))->fenced);
  CHECK(state.FindNode(NodeId(2))->epoch == Offset(5));
  CHECK(state.Apply(NodeUnfenced{NodeId(2), Offset(5)}, Offset(6)).nodes == std::set<NodeId>{NodeId(2)});
  CHECK_FALSE(state.FindNode(NodeId(2))->fenced);
  state.Apply(NodeRegistered{Node(2)}, Offset(9));
  CHECK(state.Apply(NodeFenced{NodeId(2), Offset(5)}, Offset(10)).empty());
  CHECK_FALSE(state.FindNode(NodeId(2))->fenced);
  state.Apply(NodeFenced{NodeId(2), Offset(9)}, Offset(11));
  CHECK(state.FindNode(NodeId(2))->fenced);
}

TEST_CASE("a node that registers again brings new addresses and keeps its incarnation") {
  ClusterState state;
  state.Apply(NodeRegistered{Node(1)}, Offset(1));
  NodeRecord moved = Node(1);
  moved.peer_address = "elsewhere:1";
  moved.incarnation = Id(999);
  state.Apply(NodeRegistered{moved}, Offset(2));
  CHECK(state.FindNode(NodeId(1))->node.peer_address == "elsewhere:1");
  CHECK(state.FindNode(NodeId(1))->node.incarnation == Node(1).incarnation);
  CHECK(state.FindNode(NodeId(1))->epoch == Offset(2));
}

TEST_CASE("deltas of several changes add up") {
  ClusterState state;
  ClusterDelta all = state.Apply(TopicCreated{Topic(1, "a")}, Offset(0));
  all.Merge(state.Apply(TopicCreated{Topic(2, "b")}, Offset(1)));
  all.Merge(state.Apply(TopicDeleted{Id(1)}, Offset(2)));
  all.Merge(state.Apply(NodeRegistered{Node(1)}, Offset(3)));
  CHECK(all == ClusterDelta{.topics = Topics(2), .deleted = {{Id(1), Topic(1, "a")}}, .nodes = {NodeId(1)}});
}

struct Store {
  Store() {
    auto opened = storage::OpenLogMetadataStore(fs, "meta", {});
    REQUIRE(opened.ok());
    store = *std::move(opened);
  }
  void Save(const ClusterState& state, const ClusterDelta& delta, int64_t applied) {
    storage::MetadataChanges changes;
    AddStoreChanges(state, delta, &changes);
    REQUIRE(store->Apply(kControllerMachine, applied, changes).ok());
  }
  void Put(const std::string& key, const std::string& value) {
    storage::MetadataChanges changes;
    changes.Put(key, value);
    REQUIRE(store->Apply(kControllerMachine, 0, changes).ok());
  }
  LoadedClusterState Load() {
    auto loaded = LoadClusterState(*store);
    INFO(loaded.status());
    REQUIRE(loaded.ok());
    return *std::move(loaded);
  }
  simulation::SimFileSystem fs{1};
  std::unique_ptr<storage::MetadataStore> store;
};

TEST_CASE("going on from any saved prefix gives the state of all changes in one go") {
  const auto changes = History();
  const ClusterState whole = After(changes);
  for (size_t cut = 0; cut <= changes.size(); ++cut) {
    Store store;
    ClusterState state;
    for (size_t i = 0; i < cut; ++i) {
      const auto delta = state.Apply(changes[i], Offset(static_cast<int64_t>(i)));
      store.Save(state, delta, static_cast<int64_t>(i) + 1);
    }
    LoadedClusterState loaded = store.Load();
    REQUIRE(loaded.applied == Offset(static_cast<int64_t>(cut)));
    REQUIRE(loaded.state == state);
    // What follows, saved in one write.
    ClusterDelta rest;
    for (size_t i = cut; i < changes.size(); ++i) {
      rest.Merge(loaded.state.Apply(changes[i], Offset(static_cast<int64_t>(i))));
    }
    CHECK(loaded.state == whole);
    store.Save(loaded.state, rest, static_cast<int64_t>(changes.size()));
    CHECK(store.Load().state == whole);
    CHECK(store.Load().dropping == DroppingMarks{{Id(2), 2}});
  }
}

TEST_CASE("a deleted topic's mark stays until it is forgotten") {
  Store store;
  ClusterState state;
  state.Apply(TopicCreated{Topic(1, "a", 3)}, Offset(0));
  store.Save(state, state.Apply(TopicDeleted{Id(1)}, Offset(1)), 2);
  CHECK(store.Load().dropping == DroppingMarks{{Id(1), 3}});
  storage::MetadataChanges changes;
  AddForgetDropped(Id(1), &changes);
  REQUIRE(store.store->Apply(kControllerMachine, 2, changes).ok());
  CHECK(store.Load().dropping.empty());
}

TEST_CASE("a store that cannot be read is data loss that names the key") {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"topic/x", ""},
      {"topic/" + Id(1).ToString(), "garbage"},
      {"topic/" + Id(1).ToString(), EncodeTopicRecord(Topic(2, "b"))},
      {"dropping/" + Id(1).ToString(), "many"},
      {"node/1", EncodeRegisteredNode({.node = Node(2), .epoch = Offset(1)})},
      {"node/1", "garbage"},
      {"cluster", EncodeControllerChange(TopicDeleted{Id(1)})},
      {"feature_level", "x"}};
  for (const auto& [key, value] : bad) {
    Store store;
    store.Put(key, value);
    const absl::Status status = LoadClusterState(*store.store).status();
    CHECK(absl::IsDataLoss(status));
    CHECK(status.ToString().find(key) != std::string::npos);
  }
}

}  // namespace
}  // namespace sluice::broker
