// Clusters that something has happened to: nodes that have moved, full disks, a founder that was wiped.
#include <catch2/catch.hpp>

#include "tests/broker/cluster_rig.h"

namespace sluice::broker {
namespace {

TopicCreated Topic(uint64_t n) {
  TopicRecord topic{.id = Uuid::FromRandom(n, n), .name = "t" + std::to_string(n), .partitions = 1, .replicas = 1};
  topic.assignments = {{{.node = NodeId(1), .incarnation = Uuid{}}}};
  return {topic};
}

TEST_CASE("nodes that have all moved, and have no leader, find each other by a seed") {
  ClusterRig rig(5);
  rig.StartAll();
  rig.Settle(5);
  for (auto& node : rig.nodes) node->Kill();
  // A minority of them, so that nobody leads and nobody can register; only one is where the seeds say.
  rig.node(1).address = "n1-moved:7401";
  rig.node(2).address = "n2-moved:7401";
  rig.node(1).seeds = {rig.node(3).address, "n1-moved:7401"};
  rig.node(2).seeds = {"n1-moved:7401"};
  rig.Start(1);
  rig.Start(2);
  rig.Until([&] {
    return rig.node(1).calls->AddressOf(NodeId(2)) == "n2-moved:7401" &&
           rig.node(2).calls->AddressOf(NodeId(1)) == "n1-moved:7401";
  });
  // A third has moved as well: it hears of both from the one that it can ask.
  rig.node(3).address = "n3-moved:7401";
  rig.node(3).seeds = {"n1-moved:7401"};
  rig.base.network.Isolate(NodeId(3));
  rig.Start(3);
  rig.base.network.HealAll();
  rig.Until([&] {
    return rig.node(3).calls->AddressOf(NodeId(2)) == "n2-moved:7401" &&
           rig.node(2).calls->AddressOf(NodeId(3)) == "n3-moved:7401";
  });
  rig.Settle(5);
  CHECK(rig.State().FindNode(NodeId(2))->node.peer_address == "n2-moved:7401");
}

TEST_CASE("a leader that has moved finds those that look for it where it was") {
  ClusterRig rig(2);
  rig.StartAll();
  rig.Settle(1);  // the first alone votes, so it leads at once
  for (auto& node : rig.nodes) node->Kill();
  rig.node(1).address = "n1-moved:7401";
  rig.node(2).address = "n2-moved:7401";
  for (const int id : {1, 2}) rig.node(id).seeds = {"n2-moved:7401"};
  rig.Start(1);
  rig.Start(2);
  rig.Settle(1);
  CHECK(rig.State().FindNode(NodeId(2))->node.peer_address == "n2-moved:7401");
  CHECK(rig.node(2).calls->AddressOf(NodeId(1)) == "n1-moved:7401");
}

TEST_CASE("what group 0 says of a node for other reasons does not undo where it says that it is") {
  PeerBook book(NodeId(1), "n1:1", nullptr);
  book.Registered(NodeId(2), "n2:1", Offset(5));
  book.SaidItself(NodeId(2), "n2:2", Offset(5));
  book.Registered(NodeId(2), "n2:1", Offset(5));  // fenced, say
  CHECK(book.AddressOf(NodeId(2)) == "n2:2");
  book.Heard(NodeId(2), {.address = "n2:3", .epoch = Offset(5), .since = true});  // from somebody who has not heard yet
  CHECK(book.AddressOf(NodeId(2)) == "n2:2");
  CHECK(book.All() ==
        std::map<NodeId, PeerWhere>{{NodeId(1), {"n1:1", Offset(-1), true}}, {NodeId(2), {"n2:2", Offset(5), true}}});
  book.Registered(NodeId(2), "n2:4", Offset(7));
  CHECK(book.AddressOf(NodeId(2)) == "n2:4");
  book.Heard(NodeId(2), {.address = "n2:5", .epoch = Offset(7), .since = true});
  CHECK(book.AddressOf(NodeId(2)) == "n2:5");
  CHECK(book.AddressOf(NodeId(3)).empty());
  // It registers once more, where it did before: what it said in between was a mistake.
  book.Registered(NodeId(2), "n2:4", Offset(9));
  CHECK(book.AddressOf(NodeId(2)) == "n2:4");
  book.Registered(NodeId(1), "n1:1", Offset(11));
  CHECK(book.All() ==
        std::map<NodeId, PeerWhere>{{NodeId(1), {"n1:1", Offset(11), false}}, {NodeId(2), {"n2:4", Offset(9), false}}});
}

// The answer to a registration can come later than what group 0 had to say meanwhile.
TEST_CASE("where a node was when this one registered does not undo where it has registered since") {
  PeerBook book(NodeId(1), "n1:1", nullptr);
  book.Registered(NodeId(2), "n2:1", Offset(5));
  book.Registered(NodeId(2), "n2:2", Offset(8));
  book.Heard(NodeId(2), {.address = "n2:1", .epoch = Offset(5), .since = false});
  CHECK(book.AddressOf(NodeId(2)) == "n2:2");
  // And a log that is behind does not undo what the leader knew.
  book.Registered(NodeId(3), "n3:1", Offset(6));
  book.Heard(NodeId(3), {.address = "n3:3", .epoch = Offset(10), .since = false});
  book.Registered(NodeId(3), "n3:2", Offset(7));
  CHECK(book.AddressOf(NodeId(3)) == "n3:3");
}

// The one who says so missed the registration.
TEST_CASE("hearsay from before a registration does not undo it, however late it comes") {
  PeerBook behind(NodeId(1), "n1:1", nullptr);
  behind.Registered(NodeId(2), "n2:1", Offset(5));
  behind.SaidItself(NodeId(2), "n2:2", Offset(5));
  PeerBook book(NodeId(3), "n3:1", nullptr);
  book.Registered(NodeId(2), "n2:1", Offset(5));
  book.Heard(NodeId(2), behind.All().at(NodeId(2)));
  CHECK(book.AddressOf(NodeId(2)) == "n2:2");
  book.Registered(NodeId(2), "n2:3", Offset(8));
  book.Heard(NodeId(2), behind.All().at(NodeId(2)));
  CHECK(book.AddressOf(NodeId(2)) == "n2:3");
  // What is said of a registration that this one has not heard of yet is news, and stays when that comes.
  book.SaidItself(NodeId(2), "n2:4", Offset(9));
  book.Registered(NodeId(2), "n2:3", Offset(9));
  CHECK(book.AddressOf(NodeId(2)) == "n2:4");
  behind.Heard(NodeId(2), book.All().at(NodeId(2)));
  CHECK(behind.AddressOf(NodeId(2)) == "n2:4");
}

/// The third has joined, and the leader died before it got any state from it; what would give it one comes from the
/// leader alone, and that is elsewhere by now.
struct JoinedWithoutState {
  JoinedWithoutState() : rig(3) {
    rig.Start(1);
    rig.Start(2);
    rig.Settle(1);
    rig.node(3).seeds = {rig.node(1).address, rig.node(2).address};
    rig.Start(3);
    rig.base.network.Block(NodeId(1), NodeId(3));
    rig.node(1).Kill();
    rig.node(1).address = "n1-moved:7401";
    REQUIRE(HasNoState());
  }
  bool HasNoState() { return rig.node(3).controller().state().cluster_id.IsNil(); }
  ClusterRig rig;
};

TEST_CASE("a node that has just joined hears from others where the leader is by now") {
  JoinedWithoutState t;
  t.rig.Start(1);
  t.rig.Until([&] { return t.rig.node(3).calls->AddressOf(NodeId(1)) == "n1-moved:7401"; });
  CHECK(t.HasNoState());
  t.rig.base.network.HealAll();
  t.rig.Settle(3);
}

TEST_CASE("a node that has just joined believes the leader that says where it is by now") {
  JoinedWithoutState t;
  RegisterRequest here;
  here.ask_only = true;
  here.cluster_id = t.rig.node(1).folder.cluster;
  here.node = {.id = NodeId(1), .disk = t.rig.node(1).folder.disk, .peer_address = "n1-moved:7401"};
  t.rig.base.node(NodeId(3)).executor().Post(
      [&] { t.rig.node(3).service->Register(here, [](const absl::StatusOr<RegisterAnswer>&) {}); });
  t.rig.base.scheduler.RunFor(absl::Milliseconds(1));
  CHECK(t.rig.node(3).calls->AddressOf(NodeId(1)) == "n1-moved:7401");
  CHECK(t.HasNoState());
}

TEST_CASE("who says where a node is must be that node, with its disk") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  RegisterRequest request;
  request.ask_only = true;
  request.cluster_id = rig.node(1).folder.cluster;
  request.node = rig.State().FindNode(NodeId(2))->node;
  request.node.peer_address = "n2-moved:7401";
  const auto ask = [&](const Uuid& disk, NodeId caller) {
    std::optional<absl::StatusOr<std::string>> answer;
    RegisterRequest said = request;
    said.node.disk = disk;
    PeerCall call{.from = {.node = caller, .cluster = request.cluster_id, .disk = disk, .session = {}, .address = {}},
                  .kind = kRegisterCall,
                  .request = EncodeRegisterRequest(said),
                  .time_left = absl::Seconds(1)};
    rig.base.node(NodeId(1)).executor().Post([&, call = std::move(call)]() mutable {
      rig.node(1).service->Answer(std::move(call),
                                  [&](absl::StatusOr<std::string> bytes) { answer = std::move(bytes); });
    });
    rig.Until([&] { return answer.has_value(); });
    return answer->status();
  };
  CHECK(absl::IsInvalidArgument(ask(request.node.disk, NodeId(3))));
  CHECK(ask(Uuid::FromRandom(9, 9), NodeId(2)).ok());
  CHECK(rig.node(1).calls->AddressOf(NodeId(2)) == rig.node(2).address);
  CHECK(ask(request.node.disk, NodeId(2)).ok());
  CHECK(rig.node(1).calls->AddressOf(NodeId(2)) == "n2-moved:7401");
}

// A leader that has moved registers with itself like everybody, and may have let others in before.
TEST_CASE("who registers is told where the others are by now, not only where they registered") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  const int leader = rig.Leader();
  const NodeId mover(leader == 2 ? 3 : 2);
  RegisterRequest moved;
  moved.ask_only = true;
  moved.cluster_id = rig.State().cluster_id;
  moved.node = rig.State().FindNode(mover)->node;
  moved.node.peer_address = "moved:7401";
  RegisterRequest again = moved;
  again.ask_only = false;
  again.node = rig.State().FindNode(NodeId(leader))->node;
  std::optional<absl::StatusOr<RegisterAnswer>> answer;
  rig.base.node(NodeId(leader)).executor().Post([&] {
    ClusterService& service = *rig.node(leader).service;
    service.Register(moved, [](const absl::StatusOr<RegisterAnswer>&) {});
    service.Register(again, [&](absl::StatusOr<RegisterAnswer> given) { answer = std::move(given); });
  });
  rig.Until([&] { return answer.has_value(); });
  REQUIRE(answer->ok());
  REQUIRE((*answer)->registered.has_value());
  CHECK((*answer)->registered->nodes.at(mover).address == "moved:7401");
}

TEST_CASE("a leader whose disk is full hands over to a voter that can write, and changes go on") {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    ClusterRig rig(3, seed);
    rig.StartAll();
    rig.Settle(3);
    const NodeId full(rig.Leader());
    simulation::SimFileSystem& fs = rig.base.node(full).fs;
    fs.SetCapacity(fs.UsedBytes());
    uint64_t made = 0;
    rig.Until([&] {
      const auto leader = rig.base.LeaderNow();
      return leader.has_value() && rig.base.Change(*leader, Topic(++made)).ok() && rig.base.LeaderNow() != full;
    });
    // It stays away, also when it could be elected.
    rig.base.scheduler.RunFor(absl::Seconds(30));
    CHECK(rig.base.LeaderNow() != full);
    rig.base.Change(Topic(++made));
    fs.SetCapacity(-1);
    rig.Settle(3);
  }
}

TEST_CASE("a new leader whose disk turns out to be full hands over, too") {
  ClusterRig rig(5);
  rig.StartAll();
  rig.Settle(5);
  const NodeId first(rig.Leader());
  const NodeId second(first == NodeId(1) ? 2 : 1);  // who is asked first
  for (const NodeId full : {first, second}) {
    rig.base.node(full).fs.SetCapacity(rig.base.node(full).fs.UsedBytes());
  }
  const auto led_by_others = [&] {
    const auto leader = rig.base.LeaderNow();
    return leader.has_value() && *leader != first && *leader != second;
  };
  for (uint64_t made = 1; made <= 20 && !led_by_others(); ++made) {
    rig.base.node(first).executor().Post(
        [&rig, first, made] { rig.base.controller(first).Change(Topic(made), [](const absl::Status&) {}); });
    rig.base.scheduler.RunFor(absl::Seconds(1));
  }
  rig.Until(led_by_others);
  rig.base.Change(Topic(1000));
  CHECK(led_by_others());
}

TEST_CASE("where all disks are full the leader stays") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  for (auto& node : rig.base.nodes) node->fs.SetCapacity(node->fs.UsedBytes());
  const NodeId leader(rig.Leader());
  // Until every one has met it.
  for (uint64_t made = 1; made <= 20; ++made) {
    (void)rig.base.Change(leader, Topic(made));
    rig.base.scheduler.RunFor(absl::Milliseconds(500));
  }
  const auto term = [&] {
    LeaderEpoch most;
    for (auto& node : rig.nodes) most = std::max(most, node->controller().log()->leader_epoch());
    return most;
  };
  rig.base.scheduler.RunFor(absl::Seconds(20));
  const LeaderEpoch settled = term();
  rig.base.scheduler.RunFor(absl::Seconds(50));
  CHECK(term() == settled);
  // And it leads again once there is room.
  for (auto& node : rig.base.nodes) node->fs.SetCapacity(-1);
  rig.Settle(3);
}

TEST_CASE("the leader names those whose disks are full where without them there is no majority") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  ClusterNode& leader = rig.node(rig.Leader());
  std::vector<NodeId> followers;
  for (auto& node : rig.nodes) {
    if (node->id == leader.id) continue;
    CHECK(leader.membership->WithoutRoom().empty());
    followers.push_back(node->id);
    node->disk_full = true;
    rig.base.scheduler.RunFor(absl::Seconds(2));
  }
  CHECK(leader.membership->WithoutRoom() == followers);
  rig.node(followers.front().value()).disk_full = false;
  rig.base.scheduler.RunFor(absl::Seconds(2));
  CHECK(leader.membership->WithoutRoom().empty());
}

TEST_CASE("every node learns whose disks are full, and holds it against nobody once no leader says so any more") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  const std::vector<NodeId> all = {NodeId(1), NodeId(2), NodeId(3)};
  const auto told = [&](const std::vector<NodeId>& full) {
    return std::all_of(rig.nodes.begin(), rig.nodes.end(),
                       [&](const auto& node) { return node->full.Among(all) == full; });
  };
  CHECK(told({}));
  const int follower = rig.Leader() == 1 ? 2 : 1;
  rig.node(follower).disk_full = true;
  rig.base.scheduler.RunFor(absl::Seconds(2));
  CHECK(told({NodeId(follower)}));
  rig.node(3).disk_full = true;
  rig.base.scheduler.RunFor(absl::Seconds(8));
  CHECK(told({NodeId(follower), NodeId(3)}));
  rig.node(3).disk_full = false;
  rig.base.scheduler.RunFor(absl::Seconds(2));
  CHECK(told({NodeId(follower)}));
  // Nobody leads: what is known grows old.
  for (const NodeId node : all) rig.base.network.Isolate(node);
  rig.base.scheduler.RunFor(absl::Seconds(20));
  CHECK(told({}));
}

TEST_CASE("a founder that was wiped and has no seeds forms a cluster of its own, which touches nobody else") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  rig.base.Change(Topic(1));
  const Uuid cluster = rig.node(1).folder.cluster;
  const Uuid disk = rig.node(1).folder.disk;
  rig.node(1).Wipe();
  rig.Start(1);
  rig.base.scheduler.RunFor(absl::Seconds(20));
  CHECK_FALSE(rig.node(1).folder.cluster == cluster);
  CHECK(rig.node(1).controller().state().nodes.size() == 1);
  CHECK(rig.node(1).controller().state().topics.empty());
  for (const int id : {2, 3}) {
    const ControllerState& state = rig.node(id).controller().state();
    CHECK(state.cluster_id == cluster);
    CHECK(state.topics.size() == 1);
    CHECK(state.nodes.size() == 3);
    CHECK(state.FindNode(NodeId(1))->node.disk == disk);
    CHECK(state.FindNode(NodeId(1))->fenced);
    CHECK(rig.node(id).controller().leader() != NodeId(1));
  }
  // With seeds it is told what to do instead.
  rig.node(1).Wipe();
  rig.node(1).seeds = {rig.node(2).address};
  const absl::Status refused = rig.node(1).TryStart();
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(refused.ToString().find("give it a new node.id") != std::string::npos);
}

TEST_CASE("a controller that is cut off does not say that there is nothing to change") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  rig.Until([&] { return rig.base.LeaderNow().has_value(); });
  const NodeId cut = *rig.base.LeaderNow();
  Controller& controller = rig.node(cut.value()).controller();
  rig.base.network.Isolate(cut);
  std::optional<absl::Status> answer;
  rig.base.node(cut).executor().Post([&] {
    REQUIRE(controller.IsLeader());  // as far as it knows
    controller.Decide([](const ControllerState&) { return std::optional<ControllerChange>(); },
                      [&](absl::Status status) { answer = std::move(status); });
  });
  rig.Until([&] { return answer.has_value(); });
  CHECK(absl::IsUnavailable(*answer));
}

TEST_CASE("a controller that is cut off refuses no node: it may have been let in meanwhile") {
  ClusterRig rig(3);
  rig.StartAll();
  rig.Settle(3);
  rig.Until([&] { return rig.base.LeaderNow().has_value(); });
  const NodeId cut = *rig.base.LeaderNow();
  ClusterNode& leader = rig.node(cut.value());
  RegisterRequest request;
  request.cluster_id = leader.folder.cluster;
  request.node = leader.controller().state().FindNode(NodeId(cut == NodeId(1) ? 2 : 1))->node;
  request.node.disk = Uuid::FromRandom(9, 9);
  const auto ask = [&] {
    std::optional<absl::StatusOr<RegisterAnswer>> answer;
    rig.base.node(cut).executor().Post([&] {
      REQUIRE(leader.controller().IsLeader());  // as far as it knows
      leader.service->Register(request, [&](absl::StatusOr<RegisterAnswer> said) { answer = std::move(said); });
    });
    rig.Until([&] { return answer.has_value(); });
    return *answer;
  };
  const auto refused = ask();
  REQUIRE(refused.ok());
  CHECK(refused->refused.find("give it a new node.id") != std::string::npos);
  rig.base.network.Isolate(cut);
  const auto unsure = ask();
  CHECK(absl::IsUnavailable(unsure.status()));
}

}  // namespace
}  // namespace sluice::broker
