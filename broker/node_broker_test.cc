// What a client of a whole node sees over its life, on real storage over a simulated disk.
#include "broker/node_broker.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "broker/controller.h"
#include "tests/broker/sim_node.h"

namespace sluice::broker {
namespace {

using Strings = std::vector<std::string>;

TEST_CASE("what is produced is fetched, also after a restart, and is gone with its topic") {
  SimNode node;
  node.Start();
  const auto made = node.Create("orders", 2);
  REQUIRE(made.ok());
  CHECK(made->partitions == 2);
  const auto first = node.Produce("orders", "a");
  REQUIRE(first.ok());
  CHECK(first->next_offset == first->base_offset + 1);
  CHECK(node.Produce("orders", "b")->base_offset == first->next_offset);
  REQUIRE(node.Produce("orders", "other", 1).ok());
  CHECK(node.Values("orders") == Strings{"a", "b"});

  SECTION("in good order") {
    node.Stop();
  }
  SECTION("by a kill") {
    node.Kill();
  }
  SECTION("by power loss") {
    node.Crash();
  }
  node.Start();
  CHECK(node.Values("orders") == Strings{"a", "b"});
  CHECK(node.Values("orders", 1) == Strings{"other"});
  const auto epoch = node.Produce("orders", "c")->leader_epoch;
  CHECK(epoch > first->leader_epoch);
  CHECK(node.Values("orders") == Strings{"a", "b", "c"});

  REQUIRE(node.Delete("orders").ok());
  CHECK(node.Produce("orders", "d").error().reason == Reason::kUnknownTopic);
  CHECK_FALSE(*node.fs.Exists("data/topics/" + made->id.ToString() + "/0"));
  REQUIRE(node.Create("orders").ok());
  CHECK(node.Values("orders").empty());
  node.Stop();
}

TEST_CASE("topics are created, listed, described, altered and widened") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("b", 3, {{"retention.ms", "1000"}}).ok());
  REQUIRE(node.Create({.name = "__internal", .partitions = 0, .replicas = 0, .config = {}, .internal = true}).ok());
  REQUIRE(node.Create("a").ok());
  CHECK(node.Create("a").error().reason == Reason::kTopicExists);
  CHECK(node.Create("__mine").error().reason == Reason::kInvalidArgument);
  CHECK(node.Create("x/y").error().reason == Reason::kInvalidArgument);
  CHECK(node.Create("x", 1, {{"nope", "1"}}).error().reason == Reason::kInvalidArgument);
  CHECK(node.Create("x", -1).error().reason == Reason::kInvalidArgument);
  CHECK(node.Create(CreateTopicSpec{.name = "x", .partitions = 1, .replicas = 3}).error().reason ==
        Reason::kInvalidArgument);
  const auto names = [&](bool internal) {
    Strings found;
    auto listed = node.Wait<Result<std::vector<TopicInfo>>>(
        [&](auto done) { node.broker->ListTopics(internal, std::move(done)); });
    for (const auto& topic : *listed) found.push_back(topic.name);
    return found;
  };
  CHECK(names(false) == Strings{"a", "b"});
  CHECK(names(true) == Strings{"__internal", "a", "b"});

  const auto alter = [&](AlterTopicSpec spec) {
    return node.Wait<Result<TopicInfo>>([&](auto done) { node.broker->AlterTopic(spec, std::move(done)); });
  };
  CHECK(alter({.name = "b", .set = {{"segment.ms", "5000"}}, .unset = {"retention.ms"}})->config ==
        TopicConfig{{"segment.ms", "5000"}});
  CHECK(alter({.name = "b", .set = {{"segment.ms", "x"}}}).error().reason == Reason::kInvalidArgument);
  CHECK(alter({.name = "b", .set = {}, .unset = {"typo"}}).error().reason == Reason::kInvalidArgument);
  CHECK(alter({.name = "none"}).error().reason == Reason::kUnknownTopic);
  const auto widen = [&](int32_t partitions) {
    return node.Wait<Result<TopicInfo>>(
        [&](auto done) { node.broker->AddPartitions("b", partitions, std::move(done)); });
  };
  CHECK(widen(3).error().reason == Reason::kInvalidArgument);
  CHECK(widen(5)->partitions == 5);
  REQUIRE(node.Produce("b", "v", 4).ok());

  node.Crash();
  node.Start();
  const auto described =
      node.Wait<Result<TopicDescription>>([&](auto done) { node.broker->DescribeTopic("b", std::move(done)); });
  REQUIRE(described.ok());
  CHECK(described->topic.config == TopicConfig{{"segment.ms", "5000"}});
  REQUIRE(described->partitions.size() == 5);
  CHECK(described->partitions[4].leader_node == NodeId(1));
  CHECK(described->partitions[4].leader == "127.0.0.1:7400");
  CHECK(node.Values("b", 4) == Strings{"v"});
  CHECK(node.Produce("b", "v", 5).error().reason == Reason::kUnknownTopic);
  const auto cluster =
      node.Wait<Result<ClusterInfo>>([&](auto done) { node.broker->DescribeCluster(std::move(done)); });
  CHECK(cluster->partitions == 7);
}

TEST_CASE("a node alone leads all its partitions, in sync with itself, and says so to operators") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("b", 2).ok());
  REQUIRE(node.Create("a").ok());
  REQUIRE(node.Produce("b", "v", 1).ok());
  const auto list = [&](const ListPartitionsSpec& spec) {
    return node.Wait<Result<std::vector<PartitionStatus>>>(
        [&](auto done) { node.broker->ListPartitions(spec, std::move(done)); });
  };
  const auto all = list({});
  REQUIRE(all.ok());
  REQUIRE(all->size() == 3);
  CHECK((*all)[0].topic == "a");
  const PartitionStatus& last = (*all)[2];
  CHECK(last.topic == "b");
  CHECK(last.partition == PartitionId(1));
  CHECK(last.leader_node == NodeId(1));
  CHECK(last.preferred_leader == NodeId(1));
  CHECK(last.leader == "127.0.0.1:7400");
  REQUIRE(last.replicas.size() == 1);
  CHECK(last.replicas[0].in_sync);
  CHECK(last.replicas[0].lag == 0);
  CHECK(last.high_watermark > last.log_start);
  CHECK(last.size_bytes > (*all)[1].size_bytes);
  CHECK(list({.topic = "b", .node = NodeId(1)})->size() == 2);
  CHECK(list({.node = NodeId(2)})->empty());
  CHECK(list({.under_replicated = true})->empty());
  CHECK(list({.leaderless = true})->empty());
  CHECK(list({.topic = "none"}).error().reason == Reason::kUnknownTopic);

  const auto elect = [&](const ElectLeaderSpec& spec) {
    return node.Wait<Result<ElectedLeader>>([&](auto done) { node.broker->ElectLeader(spec, std::move(done)); });
  };
  CHECK(elect({.topic = "a", .partition = PartitionId(0)})->leader_node == NodeId(1));
  CHECK(elect({.topic = "a", .partition = PartitionId(0), .node = NodeId(1)})->leader_epoch == (*all)[0].leader_epoch);
  CHECK(elect({.topic = "a", .partition = PartitionId(0), .node = NodeId(2)}).error().reason ==
        Reason::kInvalidArgument);
  CHECK(elect({.topic = "a", .partition = PartitionId(9)}).error().reason == Reason::kUnknownTopic);

  const auto cluster =
      node.Wait<Result<ClusterInfo>>([&](auto done) { node.broker->DescribeCluster(std::move(done)); });
  CHECK(cluster->under_replicated_partitions == 0);
  CHECK(cluster->leaderless_partitions == 0);
  CHECK(cluster->offline_partitions == 0);
  REQUIRE(cluster->nodes.size() == 1);
  CHECK(cluster->nodes[0].controller_voter);
  CHECK(cluster->nodes[0].disk_used_bytes > 0);
}

TEST_CASE("a change of a topic that is committed is in force, also when the metadata store could not take it yet") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("old").ok());
  REQUIRE(node.Create("wide").ok());
  node.fs.SetCapacity(node.fs.UsedBytes());  // the journal is written in place, the metadata store grows
  const auto widen = [&] {
    return node.Wait<Result<TopicInfo>>([&](auto done) { node.broker->AddPartitions("wide", 2, std::move(done)); });
  };
  SECTION("a new topic") {
    CHECK(node.Create("new").error().reason == Reason::kOutcomeUnknown);
    node.fs.SetCapacity(-1);
    CHECK(node.Create("new").error().reason == Reason::kTopicExists);
    CHECK(node.Produce("new", "v").ok());
    node.Crash();
    node.Start();
    CHECK(node.Values("new") == Strings{"v"});
  }
  SECTION("more partitions") {
    CHECK(widen().error().reason == Reason::kOutcomeUnknown);
    node.fs.SetCapacity(-1);
    CHECK(node.Produce("wide", "v", 1).ok());
  }
  SECTION("a deleted topic takes no more records, which the next start would drop") {
    CHECK(node.Delete("old").error().reason == Reason::kOutcomeUnknown);
    node.fs.SetCapacity(-1);
    CHECK(node.Produce("old", "v").error().reason == Reason::kUnknownTopic);
    node.Crash();
    node.Start();
    CHECK(node.Produce("old", "v").error().reason == Reason::kUnknownTopic);
  }
  CHECK(node.Produce("wide", "v").ok());
}

TEST_CASE("a partition whose segment is gone or short is an error that names the file, and the others are served") {
  SimNode node;
  node.Start();
  const auto made = node.Create("t", 2);
  REQUIRE(made.ok());
  REQUIRE(node.Create("other").ok());
  // More than is carried along in the journal rather than written and synced.
  const std::string large(10'000, 'x');
  for (int i = 0; i < 12; ++i) REQUIRE(node.Produce("t", large, 0).ok());
  REQUIRE(node.Produce("t", "kept", 1).ok());
  REQUIRE(node.Produce("other", "kept too").ok());
  node.scheduler.RunFor(absl::Minutes(3));  // until all of it is checkpointed
  node.Stop();
  const std::string dir = "data/topics/" + made->id.ToString() + "/0";
  const auto names = node.fs.List(dir);
  REQUIRE(names.ok());
  const auto segment = std::find_if(names->begin(), names->end(), [](const auto& n) { return n.ends_with(".log"); });
  REQUIRE(segment != names->end());
  const std::string path = dir + "/" + *segment;
  const std::string whole = node.fs.Contents(path);
  if (GENERATE(true, false)) {
    REQUIRE(node.fs.Remove(path).ok());
    REQUIRE(node.fs.SyncDir(dir).ok());
  } else {
    node.fs.SetContents(path, whole.substr(0, 70));
  }
  node.Start();
  const auto names_it = [&path](const Error& error) {
    INFO(error.message);
    CHECK(error.reason == Reason::kCorruptLog);
    CHECK_FALSE(error.retriable);
    CHECK(error.topic == "t");
    CHECK(error.partition == PartitionId(0));
    CHECK(error.message.find(path) != std::string::npos);
  };
  const auto refused = node.Produce("t", "x", 0);
  REQUIRE_FALSE(refused.ok());
  names_it(refused.error());
  names_it(*node.Fetch(SimNode::FetchOne("t", 0))[0].error);
  names_it(*node.Fetch(SimNode::FetchOne("t", 0, absl::Minutes(1)))[0].error);
  names_it(*node.Wait<std::vector<ListOffsetsOutcome>>([&](auto done) {
                  node.broker->ListOffsets({{.topic = "t", .partition = PartitionId(0)}}, std::move(done));
                })[0]
                .error);
  names_it(*node.Wait<std::vector<DeleteRecordsOutcome>>([&](auto done) {
                  node.broker->DeleteRecords({{.topic = "t", .partition = PartitionId(0), .before = Offset(1)}},
                                             std::move(done));
                })[0]
                .error);
  CHECK(node.Values("t", 1) == Strings{"kept"});
  CHECK(node.Values("other") == Strings{"kept too"});
  REQUIRE(node.Produce("t", "more", 1).ok());
  const auto described =
      node.Wait<Result<TopicDescription>>([&](auto done) { node.broker->DescribeTopic("t", std::move(done)); });
  REQUIRE(described->partitions[0].error.has_value());
  names_it(*described->partitions[0].error);
  CHECK(described->partitions[0].leader_node == NodeId(1));  // who is asked, and says why
  CHECK_FALSE(described->partitions[1].error.has_value());
  const auto behind = node.Wait<Result<std::vector<PartitionStatus>>>(
      [&](auto done) { node.broker->ListPartitions({.under_replicated = true}, std::move(done)); });
  REQUIRE(behind->size() == 1);
  names_it(*behind->front().error);
  names_it(node.Wait<Result<ElectedLeader>>([&](auto done) {
                 node.broker->ElectLeader({.topic = "t", .partition = PartitionId(0)}, std::move(done));
               })
               .error());
  CHECK(node.Wait<Result<ClusterInfo>>([&](auto done) { node.broker->DescribeCluster(std::move(done)); })
            ->offline_partitions == 1);
  const auto stats = node.Wait<BrokerStats>([&](auto done) { node.broker->Stats(std::move(done)); });
  CHECK(std::count_if(stats.partitions.begin(), stats.partitions.end(), [](const auto& p) { return p.failed; }) == 1);
  // Its settings can change, retention passes it by, and a restart finds it as it was.
  REQUIRE(node.Wait<Result<TopicInfo>>([&](auto done) {
                node.broker->AlterTopic({.name = "t", .set = {{"segment.ms", "5000"}}}, std::move(done));
              })
              .ok());
  node.scheduler.RunFor(absl::Minutes(3));
  node.Stop();

  node.fs.SetContents(path, whole);
  SECTION("and with the file back it serves again") {
    node.Start();
    CHECK(node.Values("t", 0) == Strings(12, large));
    REQUIRE(node.Produce("t", "x", 0).ok());
  }
  SECTION("and its topic can be deleted") {
    node.fs.SetContents(path, "");
    node.Start();
    REQUIRE(node.Delete("t").ok());
    CHECK_FALSE(*node.fs.Exists(dir));
    node.Stop();
    node.Start();
    CHECK(node.Values("other") == Strings{"kept too"});
  }
  node.Stop();
}

TEST_CASE("retention forgets what is too old, by itself") {
  BrokerOptions options;
  options.retention_check_every = absl::Seconds(10);
  SimNode node(1, options);
  node.Start();
  REQUIRE(node.Create("t", 1, {{"retention.ms", "3600000"}, {"segment.ms", "60000"}}).ok());
  REQUIRE(node.Produce("t", "old").ok());
  node.scheduler.RunFor(absl::Minutes(30));
  CHECK(node.Values("t") == Strings{"old"});
  node.scheduler.RunFor(absl::Minutes(40));
  CHECK(node.Values("t").empty());
}

TEST_CASE("a clock that jumps ahead deletes nothing by age, until it has stood for a day") {
  BrokerOptions options;
  options.retention_check_every = absl::Minutes(1);
  SimNode node(1, options);
  node.Start();
  REQUIRE(node.Create("t", 1, {{"retention.ms", "172800000"}, {"segment.ms", "60000"}}).ok());
  REQUIRE(node.Produce("t", "kept").ok());
  node.scheduler.RunFor(absl::Minutes(10));
  node.clock.JumpWall(absl::Hours(100));
  node.scheduler.RunFor(absl::Hours(23));
  CHECK(node.Values("t") == Strings{"kept"});
  node.scheduler.RunFor(absl::Hours(2));
  CHECK(node.Values("t").empty());
}

TEST_CASE("Stop answers what is in flight and refuses what is new") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  const Offset end = node.Produce("t", "a")->next_offset;
  Pipeline stream{node};
  for (int i = 0; i < 20; ++i) stream.Send("t", Cat(i));
  std::optional<std::vector<FetchOutcome>> waiting;
  node.broker->Fetch(SimNode::FetchOne("t", end.value() + 1000, absl::Hours(1)),
                     [&](std::vector<FetchOutcome> outcomes) { waiting = std::move(outcomes); });
  std::optional<std::vector<FetchOutcome>> at_end;
  FetchSpec patient = SimNode::FetchOne("t", end.value(), absl::Hours(1));
  patient.bytes_min = 1 << 20;
  node.broker->Fetch(patient, [&](std::vector<FetchOutcome> outcomes) { at_end = std::move(outcomes); });
  bool stopped = false;
  node.broker->Stop([&](Done) {
    stopped = true;
    CHECK(at_end.has_value());
  });
  CHECK_FALSE(node.broker->IsServing());
  stream.Send("t", "late");
  node.RunUntil([&] { return stopped; });
  CHECK(node.clock.Monotonic() < absl::Minutes(1));
  auto reasons = stream.Reasons();
  CHECK(reasons.back() == Reason::kNotAvailable);
  reasons.pop_back();
  CHECK(std::all_of(reasons.begin(), reasons.end(), [](Reason reason) { return reason == Reason::kUnknown; }));
  CHECK(node.Create("u").error().reason == Reason::kNotAvailable);
  CHECK(node.Fetch(SimNode::FetchOne("t", 0))[0].error->reason == Reason::kNotAvailable);
  node.Kill();
  node.Start();
  CHECK(node.Values("t").size() == 21);
}

BrokerOptions OfACluster() {
  BrokerOptions options;
  options.membership.disk = Uuid::FromRandom(4, 4);
  return options;
}

// It cannot have forgotten what no earlier process had, whatever became of the journal's end.
TEST_CASE("a replica of what was made since this start was registered is opened as one that was never before") {
  SimNode node(1, OfACluster());
  std::map<ReplicaId, bool> never_before;
  node.on_open = [&](const ReplicaSpec& spec, Executor&) { never_before[spec.replica] = spec.never_before; };
  node.Start();
  const auto made = node.Create("t");
  REQUIRE(made.ok());
  const ReplicaId first{made->id, PartitionId(0)};
  const ReplicaId second{made->id, PartitionId(1)};
  CHECK(never_before.at(first));
  CHECK_FALSE(never_before.at(kControllerReplica));
  node.Crash();
  never_before.clear();
  node.Start();
  CHECK_FALSE(never_before.at(first));
  // Of a topic that was there, a partition that was not.
  const auto widened =
      node.Wait<Result<TopicInfo>>([&](auto done) { node.broker->AddPartitions("t", 2, std::move(done)); });
  REQUIRE(widened.ok());
  CHECK(never_before.at(second));
}

TEST_CASE("a stop ends in time while records wait for room on a full disk") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  REQUIRE(node.Produce("t", "written").ok());
  node.fs.SetCapacity(node.fs.UsedBytes());
  Pipeline pipeline{node};
  for (int i = 0; i < 64; ++i) pipeline.Send("t", std::string(16 << 10, 'x'));
  node.scheduler.RunFor(absl::Seconds(1));
  const auto answered = [](const auto& outcome) { return outcome.has_value(); };
  REQUIRE_FALSE(std::all_of(pipeline.out->begin(), pipeline.out->end(), answered));
  const absl::Duration began = node.scheduler.now();
  node.Stop();
  CHECK(node.scheduler.now() - began < absl::Seconds(10));
  for (const auto& outcome : *pipeline.out) {
    REQUIRE(outcome.has_value());
    if (!outcome->ok()) CHECK(outcome->error().reason == Reason::kOutcomeUnknown);
  }
  node.fs.SetCapacity(-1);
  node.Start();
  CHECK(node.Produce("t", "goes on").ok());
}

TEST_CASE("a stop on a full disk is no failure of the node, though the controller's log waits for room as well") {
  SimNode node(1, OfACluster());
  node.Start();
  REQUIRE(node.Create("t").ok());
  node.fs.SetCapacity(node.fs.UsedBytes());
  Pipeline pipeline{node};
  for (int i = 0; i < 64; ++i) pipeline.Send("t", std::string(16 << 10, 'x'));
  std::optional<Result<TopicInfo>> altered;
  node.broker->AlterTopic({.name = "t", .set = {{"retention.ms", "5000"}}, .unset = {}},
                          [&](Result<TopicInfo> answer) { altered.emplace(std::move(answer)); });
  node.scheduler.RunFor(absl::Seconds(1));
  REQUIRE(absl::IsResourceExhausted(node.journal().Admit()));
  REQUIRE_FALSE(altered.has_value());
  // As the process does.
  node.Wait<Done>([&](auto done) { node.broker->PrepareStop(std::move(done)); });
  node.journal().FailOnFullDisk();
  node.scheduler.RunFor(absl::Seconds(1));
  node.Stop();
  CHECK(altered.has_value());
  INFO(node.refused);
  CHECK(node.refused.ok());
  node.fs.SetCapacity(-1);
  node.Start();
  CHECK(node.Produce("t", "goes on").ok());
}

TEST_CASE("a node that is its own cluster starts once it is registered, and is ready") {
  SimNode node(1, OfACluster());
  node.Start();
  CHECK(node.broker->IsReady());
  node.Stop();
}

TEST_CASE("a start that waits for a registration which the full disk does not take ends when it is to stop") {
  SimNode node;
  node.Start();
  REQUIRE(node.Create("t").ok());
  node.Stop();
  node.Reconfigure(OfACluster());
  // From when the controller has started: nothing more of it can be saved.
  node.cannot_open = [&](const ReplicaId& replica) {
    if (replica != kControllerReplica) node.fs.SetCapacity(node.fs.UsedBytes());
    return absl::OkStatus();
  };
  bool prepared = false;
  node.scheduler.At(absl::Seconds(10), [&] {
    CHECK_FALSE(node.broker->IsReady());
    node.broker->PrepareStop([&](Done) { prepared = true; });
  });
  const absl::Status started = node.TryStart();
  INFO(started);
  REQUIRE(absl::IsUnavailable(started));
  CHECK(prepared);
  CHECK_FALSE(node.broker->IsServing());
  node.Stop();
  node.cannot_open = nullptr;
  node.fs.SetCapacity(-1);
  node.Start();
  CHECK(node.broker->IsReady());
}

TEST_CASE("a node starts without a partition that cannot be opened now, says so, and opens it later") {
  for (const auto& [fault, reason] : {std::pair{absl::ResourceExhaustedError("no space"), Reason::kDiskFull},
                                      std::pair{absl::InternalError("an I/O error"), Reason::kNotAvailable}}) {
    SimNode node;
    node.Start();
    const TopicId id = node.Create("t", 2)->id;
    REQUIRE(node.Create("other").ok());
    REQUIRE(node.Produce("t", "a", 1).ok());
    node.Crash();
    node.cannot_open = [&, fault = fault](const ReplicaId& replica) {
      return replica == ReplicaId{id, PartitionId(1)} ? fault : absl::OkStatus();
    };
    node.Start();
    CHECK(node.Produce("other", "a").ok());
    CHECK(node.Produce("t", "a", 0).ok());
    const auto failed = node.Produce("t", "b", 1);
    REQUIRE_FALSE(failed.ok());
    CHECK(failed.error().reason == reason);
    CHECK(failed.error().retriable);
    CHECK(failed.error().message.find(std::string(Message(fault))) != std::string::npos);
    const auto stats = node.Wait<BrokerStats>([&](auto done) { node.broker->Stats(std::move(done)); });
    CHECK(std::count_if(stats.partitions.begin(), stats.partitions.end(), [](const auto& one) { return one.failed; }) ==
          1);
    node.cannot_open = nullptr;
    bool served = false;
    node.scheduler.At(absl::Seconds(20), [&] { served = true; });
    node.RunUntil([&] { return served; });
    CHECK(node.Produce("t", "b", 1).ok());
    CHECK(node.Values("t", 1) == Strings{"a", "b"});
    node.Stop();
  }
}

}  // namespace
}  // namespace sluice::broker
