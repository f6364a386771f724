// Group 0's log is cut, and nodes that are behind its start get the state instead.
#include <catch2/catch.hpp>

#include "tests/broker/cluster_rig.h"

namespace sluice::broker {
namespace {

/// A topic whose name makes its record long.
TopicCreated Topic(uint64_t n) {
  TopicRecord topic{
      .id = Uuid::FromRandom(n, n), .name = Cat("topic-", n, std::string(100, 'x')), .partitions = 1, .replicas = 1};
  topic.assignments = {{{.node = NodeId(1), .incarnation = Uuid{}}}};
  return {topic};
}

struct SmallLogs : ClusterRig {
  explicit SmallLogs(int count, uint64_t seed = 1) : ClusterRig(count, seed) {
    base.controller_options = {.log_bytes = 2000, .snapshot_piece_bytes = 300};
  }
  void MakeTopics(uint64_t from, uint64_t to) {
    for (uint64_t n = from; n <= to; ++n) base.Change(Topic(n));
  }
  /// The first three nodes start, and all have so many topics.
  void StartThreeWith(uint64_t topics) {
    for (int id = 1; id <= 3; ++id) Start(id);
    Settle(3);
    MakeTopics(1, topics);
    Settle(3);
  }
  /// Starts a node that is given the state slowly, up to where that is on its way.
  void StartInstalling(int id) {
    call_network.SetDelay(absl::Milliseconds(100), absl::Milliseconds(100));
    REQUIRE(node(id).TryStart().ok());
    Until([&] { return log(id).raft().installing(); });
  }
  replication::RaftLog& log(int id) { return *node(id).controller().log(); }
  Offset LogStart(int id) { return log(id).bounds().log_start; }
  uint64_t Installed(int id) { return log(id).stats().snapshots_installed; }
};

TEST_CASE("group 0's log is bounded on every node, and a restart finds the state that it began with") {
  SmallLogs rig(3);
  rig.StartThreeWith(100);
  for (int id = 1; id <= 3; ++id) {
    CHECK(rig.LogStart(id) > Offset(50));
    CHECK(rig.log(id).size_bytes() >= 2000);
    CHECK(rig.log(id).size_bytes() < 4000);
  }
  for (int id = 1; id <= 3; ++id) rig.node(id).Crash();
  rig.StartAll();
  rig.Settle(3);
  CHECK(rig.State().topics.size() == 100);
  for (int id = 1; id <= 3; ++id) CHECK(rig.Installed(id) == 0);
}

TEST_CASE("a node that joins when the log has been cut gets the state, and applies what came after it") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SmallLogs rig(3, seed);
    rig.Start(1);
    rig.Settle(1);
    rig.MakeTopics(1, 60);
    rig.Start(2);
    rig.MakeTopics(61, 70);
    rig.Start(3);
    rig.Settle(3);
    CHECK(rig.Installed(2) >= 1);
    CHECK(rig.Installed(3) >= 1);
    rig.MakeTopics(71, 75);
    rig.Settle(3);
    CHECK(rig.node(3).controller().state().topics.size() == 75);
    // Told like any other change.
    rig.base.Converge();
    ClusterDelta told;
    for (const auto& delta : rig.base.node(NodeId(3)).witness->deltas) told.Merge(delta);
    CHECK(told.topics.size() == 75);
    CHECK(told.nodes.size() == 3);
  }
}

TEST_CASE("a node that was away gets the state, and remembers the replicas of topics that are gone") {
  SmallLogs rig(3);
  rig.StartThreeWith(10);
  const int away = rig.Leader() == 3 ? 2 : 3;
  rig.node(away).Kill();
  for (uint64_t n = 1; n <= 5; ++n) rig.base.Change(TopicDeleted{Topic(n).topic.id});
  rig.MakeTopics(11, 60);
  rig.Start(away);
  rig.Settle(3);
  CHECK(rig.Installed(away) == 1);
  const ControllerState& state = rig.node(away).controller().state();
  CHECK(state.topics.size() == 55);
  CHECK(state.dropping.size() == 5);
  CHECK(rig.base.node(NodeId(away)).Saved().dropping == state.dropping);
}

TEST_CASE("a node that is only a little late needs no snapshot") {
  SmallLogs rig(3);
  rig.StartThreeWith(60);
  const int away = rig.Leader() == 3 ? 2 : 3;
  rig.node(away).Kill();
  rig.MakeTopics(61, 64);
  rig.Start(away);
  rig.Settle(3);
  CHECK(rig.Installed(away) == 0);
}

TEST_CASE("a snapshot arrives though pieces are lost and the one who offers it dies") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SmallLogs rig(4, seed);
    rig.StartThreeWith(60);
    rig.call_network.SetLoss(300);
    REQUIRE(rig.node(4).TryStart().ok());
    rig.base.scheduler.RunFor(absl::Milliseconds(200));
    const int leader = rig.Leader();
    rig.node(leader).Crash();
    rig.base.scheduler.RunFor(absl::Seconds(5));
    rig.call_network.SetLoss(0);
    rig.Start(leader);
    rig.Settle(3);
    CHECK(rig.node(4).controller().state().topics.size() == 60);
    CHECK(rig.Installed(4) >= 1);
  }
}

TEST_CASE("when the one who offers a snapshot dies without a word, the next leader offers one as soon as it leads") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SmallLogs rig(4, seed);
    rig.StartThreeWith(60);
    const int first = rig.Leader();
    rig.StartInstalling(4);
    rig.base.scheduler.RunFor(absl::Milliseconds(700));
    REQUIRE(rig.log(4).raft().installing());
    rig.base.network.Isolate(NodeId(first));
    rig.call_network.SetDelay(absl::Milliseconds(1), absl::Milliseconds(2));
    rig.Until([&] {
      const auto leader = rig.node(4).controller().leader();
      return leader.has_value() && *leader != NodeId(first);
    });
    REQUIRE(rig.Installed(4) == 0);
    rig.Until([&] { return rig.Installed(4) == 1; }, absl::Seconds(1));
    rig.base.network.HealAll();
    rig.Settle(3);
    CHECK(rig.node(4).controller().state().topics.size() == 60);
  }
}

TEST_CASE(
    "a snapshot arrives as it was offered though the log is cut behind it meanwhile, and what came since follows") {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SmallLogs rig(4, seed);
    rig.StartThreeWith(60);
    rig.StartInstalling(4);
    const Offset offered = rig.base.controller(rig.base.Leader()).applied();
    rig.MakeTopics(61, 160);
    REQUIRE(rig.LogStart(rig.Leader()) > offered);
    REQUIRE(rig.log(4).raft().installing());
    rig.Until([&] { return rig.node(4).controller().applied() > Offset(0); });
    CHECK(rig.node(4).controller().state().topics.size() == 60);
    rig.Settle(3);
    CHECK(rig.node(4).controller().state().topics.size() == 160);
  }
}

TEST_CASE("what has come of a snapshot stays when its way breaks, and is not asked for again") {
  simulation::SimScheduler scheduler(1);
  simulation::SimExecutor executor(scheduler);
  struct Calls final : PeerCalls {
    void Call(PeerTarget, uint32_t, std::string request, absl::Duration, PeerAnswered done) override {
      const SnapshotPieceRequest asked = DecodeSnapshotPieceRequest(request).value();
      ++bytes_asked[asked.position];
      if (++calls > 3 && broken) return done(absl::UnavailableError("cut"));
      done(giver->Answer(asked));
    }
    void Serve(PeerCallHandler) override {}
    SnapshotTransfer* giver = nullptr;
    std::map<uint64_t, int> bytes_asked;
    int calls = 0;
    bool broken = true;
  } calls;
  SnapshotTransfer giver({.executor = executor});
  SnapshotTransfer taker({.executor = executor, .calls = &calls, .piece_bytes = 100});
  calls.giver = &giver;
  ClusterState state;
  for (uint64_t n = 1; n <= 10; ++n) state.Apply(Topic(n), Offset(static_cast<int64_t>(n)));
  const SnapshotName name = giver.Offer(state, Offset(11), Offset(5));
  std::optional<absl::StatusOr<ClusterSnapshot>> answer;
  const auto fetch = [&] {
    answer.reset();
    executor.Post([&] {
      taker.Fetch(NodeId(1), name, [&](absl::StatusOr<ClusterSnapshot> got) { answer.emplace(std::move(got)); });
    });
    scheduler.RunFor(absl::Seconds(5));
    REQUIRE(answer.has_value());
  };
  fetch();
  CHECK(absl::IsUnavailable(answer->status()));
  calls.broken = false;
  fetch();
  REQUIRE(answer->ok());
  CHECK((*answer)->state == state);
  CHECK((*answer)->applied == Offset(11));
  CHECK(calls.bytes_asked[0] == 1);
  CHECK(calls.bytes_asked[200] == 1);
  // A part of one that is not asked for again is let go of as well.
  for (const absl::Duration pause : {absl::Seconds(10), absl::Minutes(1)}) {
    const int asked = calls.bytes_asked[0];
    calls.calls = 0;
    calls.broken = true;
    fetch();
    REQUIRE_FALSE(answer->ok());
    calls.broken = false;
    scheduler.RunFor(pause);
    giver.Offer(state, Offset(11), Offset(5));
    fetch();
    REQUIRE(answer->ok());
    CHECK(calls.bytes_asked[0] == asked + (pause < absl::Seconds(30) ? 1 : 2));
  }
  // The same is given as long as the log goes on from it; nobody asks, and it is let go.
  CHECK(giver.Offer({}, Offset(20), Offset(11)) == name);
  scheduler.RunFor(absl::Minutes(1));
  CHECK(absl::IsNotFound(giver.Answer({.name = name, .position = 0, .bytes_max = 10}).status()));
}

TEST_CASE("a large snapshot arrives over a slow link, piece by piece within the time of each") {
  simulation::SimScheduler scheduler(1);
  simulation::SimExecutor executor(scheduler);
  struct SlowCalls final : PeerCalls {
    void Call(PeerTarget, uint32_t, std::string request, absl::Duration deadline, PeerAnswered done) override {
      auto answer = giver->Answer(DecodeSnapshotPieceRequest(request).value());
      REQUIRE(answer.ok());
      const absl::Duration takes = absl::Seconds(static_cast<double>(answer->size()) / 100e3) + absl::Milliseconds(300);
      if (takes > deadline) answer = absl::DeadlineExceededError("too slow");
      executor->PostAfter(std::min(takes, deadline),
                          [answer = std::move(answer), done = std::move(done)]() mutable { done(std::move(answer)); });
    }
    void Serve(PeerCallHandler) override {}
    SnapshotTransfer* giver = nullptr;
    Executor* executor = nullptr;
  } calls;
  calls.executor = &executor;
  SnapshotTransfer giver({.executor = executor});
  SnapshotTransfer taker(
      {.executor = executor, .calls = &calls, .piece_bytes = ControllerOptions().snapshot_piece_bytes});
  calls.giver = &giver;
  ClusterState state;
  for (uint64_t n = 1; n <= 4000; ++n) state.Apply(Topic(n), Offset(static_cast<int64_t>(n)));
  const SnapshotName name = giver.Offer(state, Offset(4001), Offset(5));
  REQUIRE(name.size_bytes > 500'000);
  std::optional<absl::StatusOr<ClusterSnapshot>> answer;
  executor.Post([&] {
    taker.Fetch(NodeId(1), name, [&](absl::StatusOr<ClusterSnapshot> got) { answer.emplace(std::move(got)); });
  });
  scheduler.RunFor(absl::Minutes(2));
  REQUIRE(answer.has_value());
  INFO(answer->status());
  REQUIRE(answer->ok());
  CHECK((*answer)->state == state);
}

TEST_CASE("a crash at any operation while the log is cut leaves a node that starts with all it had answered") {
  const auto run = [](uint64_t crash_at) {
    ControlRig rig(1, 1 + crash_at);
    rig.controller_options.log_bytes = 600;
    rig.StartAll();
    ControlNode& node = rig.node(NodeId(1));
    const uint64_t begun = node.fs.operations();
    if (crash_at > 0) node.fs.CrashAt(begun + crash_at);
    uint64_t made = 0;
    for (uint64_t n = 1; n <= 14 && !node.fs.crashed(); ++n) {
      std::optional<absl::Status> changed;
      rig.RunUntil([&] { return node.fs.crashed() || rig.LeaderNow().has_value(); });
      if (node.fs.crashed()) break;
      node.executor().Post([&] {
        node.controller->Change(Topic(n), [&changed](absl::Status status) { changed.emplace(std::move(status)); });
      });
      rig.RunUntil([&] { return node.fs.crashed() || changed.has_value(); });
      if (changed.has_value() && changed->ok()) made = n;
      if (!changed.has_value()) break;
    }
    const uint64_t operations = node.fs.operations() - begun;
    const bool cut = node.controller->log()->bounds().log_start > Offset(0);
    node.Crash();
    const absl::Status started = node.TryStart(rig.Members(1));
    INFO("crash at operation " << crash_at << ": " << started);
    REQUIRE(started.ok());
    rig.Converge();
    REQUIRE(node.controller->state().topics.size() >= made);
    rig.Change(Topic(100));
    return std::pair(operations, cut);
  };
  const auto [operations, cut] = run(0);
  REQUIRE(cut);
  REQUIRE(operations > 50);
  for (uint64_t at = 1; at <= operations; ++at) run(at);
}

TEST_CASE("a crash at any operation while a snapshot is installed leaves a node that starts, and gets it") {
  for (uint64_t at = 1;; ++at) {
    SmallLogs rig(2, at);
    rig.StartAll();
    rig.Settle(1);
    rig.node(2).Kill();
    rig.MakeTopics(1, 30);
    const absl::Status restarted = rig.node(2).TryStart();
    REQUIRE(restarted.ok());
    simulation::SimFileSystem& fs = rig.base.node(NodeId(2)).fs;
    fs.CrashAt(fs.operations() + at);
    rig.base.RunUntil([&] { return fs.crashed() || rig.Installed(2) > 0; });
    const bool done = !fs.crashed();
    rig.node(2).Crash();
    INFO("crash at operation " << at);
    const absl::Status started = rig.node(2).TryStart();
    INFO(started);
    REQUIRE(started.ok());
    rig.Settle(1);
    REQUIRE(rig.node(2).controller().state().topics.size() == 30);
    if (done) {
      REQUIRE(at > 3);
      return;
    }
  }
}

TEST_CASE("a snapshot that finds no room is saved when there is") {
  SmallLogs rig(2);
  rig.StartAll();
  rig.Settle(1);
  rig.node(2).Kill();
  rig.MakeTopics(1, 40);
  REQUIRE(rig.node(2).TryStart().ok());
  simulation::SimFileSystem& fs = rig.base.node(NodeId(2)).fs;
  fs.SetCapacity(fs.UsedBytes());
  rig.base.scheduler.RunFor(absl::Seconds(20));
  CHECK(rig.Installed(2) == 0);
  CHECK(rig.base.node(NodeId(2)).Saved().state.topics.empty());
  fs.SetCapacity(-1);
  rig.Settle(1);
  CHECK(rig.Installed(2) == 1);
  CHECK(rig.node(2).controller().state().topics.size() == 40);
}

TEST_CASE("a metadata store that is behind the start of the log refuses to start, and says which it is") {
  ControlRig rig(1);
  rig.controller_options.log_bytes = 600;
  rig.StartAll();
  for (uint64_t n = 1; n <= 20; ++n) rig.Change(Topic(n));
  ControlNode& node = rig.node(NodeId(1));
  node.Kill();
  const auto files = node.fs.List("data/meta");
  REQUIRE(files.ok());
  for (const std::string& file : *files) REQUIRE(node.fs.Remove("data/meta/" + file).ok());
  const absl::Status started = node.TryStart(rig.Members(1));
  CHECK(absl::IsDataLoss(started));
  CHECK(started.ToString().find("the metadata store (meta/)") != std::string::npos);
}

}  // namespace
}  // namespace sluice::broker
