#include "tools/cluster_view.h"

#include <catch2/catch.hpp>

namespace sluice::tools {
namespace {

client::ClusterInfo Cluster() {
  client::ClusterInfo cluster;
  cluster.cluster_id = "id";
  cluster.controller = NodeId(1);
  cluster.topics = 2;
  cluster.partitions = 9;
  cluster.under_replicated_partitions = 3;
  cluster.leaderless_partitions = 2;
  cluster.offline_partitions = 1;
  client::NodeInfo node;
  node.id = NodeId(1);
  node.address = "n1:7400";
  node.alive = true;
  node.controller_voter = true;
  node.version = "0.2";
  node.feature_min = 1;
  node.feature_max = 2;
  cluster.nodes.push_back(node);
  node.id = NodeId(2);
  node.address = "n2:7400";
  node.alive = false;
  node.fenced = true;
  node.controller_voter = false;
  node.rack = "r2";
  cluster.nodes.push_back(node);
  return cluster;
}

client::PartitionStatus Partition() {
  client::PartitionStatus status;
  status.topic = "clicks";
  status.partition = PartitionId(4);
  status.leader_node = NodeId(2);
  status.leader = "n2:7400";
  status.leader_epoch = LeaderEpoch(7);
  status.preferred_leader = NodeId(1);
  status.replicas = {{NodeId(1), false, false, 12}, {NodeId(2), false, true, 0}, {NodeId(3), true, false, -1}};
  status.log_start = Offset(5);
  status.high_watermark = Offset(90);
  status.size_bytes = 1000;
  return status;
}

template <class Write>
std::string Json(Write write) {
  JsonWriter json;
  json.BeginObject();
  write(json);
  return json.EndObject().Take();
}

}  // namespace

TEST_CASE("A node is alive, draining, fenced, or nobody knows") {
  client::NodeInfo node;
  CHECK(NodeState(node) == "unknown");
  node.alive = true;
  CHECK(NodeState(node) == "alive");
  node.draining = true;
  CHECK(NodeState(node) == "draining");
  node.fenced = true;
  CHECK(NodeState(node) == "draining");
  node.draining = false;
  CHECK(NodeState(node) == "fenced");
}

TEST_CASE("The table of nodes says who is there and who leads the controller") {
  client::ClusterInfo cluster = Cluster();
  cluster.nodes[0].started_ms = 1'000;
  cluster.nodes[0].disk_used_bytes = 2048;
  CHECK(NodesTable(cluster) ==
        "NODE  ADDRESS  STATE   CONTROLLER  RACK  VERSION  FEATURES  STARTED                   DISK USED  DISK FREE\n"
        "   1  n1:7400  alive   leader      -     0.2      1-2       1970-01-01T00:00:01.000Z   2.00 KiB        0 B\n"
        "   2  n2:7400  fenced  follower    r2    0.2      1-2       -                                 -          -\n");
}

TEST_CASE("The cluster's lines count what is wrong") {
  const std::string text = ClusterText(Cluster());
  for (const char* line :
       {"cluster           - (id)\n", "nodes             1 of 2 alive\n", "controller        node 1\n",
        "partitions        9\n", "under-replicated  3\n", "leaderless        2\n", "offline           1\n"}) {
    CHECK_THAT(text, Catch::Contains(line));
  }
  client::ClusterInfo headless = Cluster();
  headless.controller = NodeId(0);
  headless.nodes[1].fenced = false;
  CHECK_THAT(ClusterText(headless), Catch::Contains("controller        none\n"));
  CHECK_THAT(ClusterText(headless), Catch::Contains("nodes             1 of 2 alive, 1 unknown\n"));
  CHECK_THAT(Json([&](JsonWriter& json) { WriteNodes(json, headless); }), Catch::Contains(R"("alive":null)"));
}

TEST_CASE("The table of partitions shows leaders, replicas, and how far the last is behind") {
  client::PartitionStatus lost;
  lost.topic = "t";
  lost.error = "its file is damaged";
  CHECK(PartitionsTable({Partition(), lost}) ==
        "TOPIC   PARTITION  LEADER  PREFERRED  EPOCH  REPLICAS         IN SYNC  LAG  LOG START  HIGH WATERMARK  BYTES\n"
        "clicks          4  2       1              7  1,2,3 (learner)  2         12          5              90   1000\n"
        "t               0  none    none           0  -                -          -          0               0      0\n"
        "\nt/0 is not served: its file is damaged\n");
}

TEST_CASE("JSON has every field of a partition, and null for a lag that nobody knows") {
  CHECK(Json([](JsonWriter& json) { WritePartitions(json, {Partition()}); }) ==
        R"({"partitions":[{"topic":"clicks","partition":4,"leader_node":2,"leader":"n2:7400","leader_epoch":7,)"
        R"("preferred_leader":1,"replicas":[{"node":1,"learner":false,"in_sync":false,"lag":12},)"
        R"({"node":2,"learner":false,"in_sync":true,"lag":0},{"node":3,"learner":true,"in_sync":false,"lag":null}],)"
        R"("log_start_offset":5,"high_watermark":90,"size_bytes":1000}]})");
}

TEST_CASE("JSON has every field of the cluster and its nodes") {
  const std::string text = Json([](JsonWriter& json) {
    WriteCluster(json, Cluster());
    WriteNodes(json, Cluster());
  });
  for (const char* part : {R"("under_replicated_partitions":3)", R"("leaderless_partitions":2)",
                           R"("offline_partitions":1)", R"("controller_node":1)", R"("state":"fenced","fenced":true)",
                           R"("controller_voter":true)", R"("feature_min":1,"feature_max":2)", R"("alive":true)",
                           R"("started_ms":null,"disk_free_bytes":null,"disk_used_bytes":null)"}) {
    CHECK_THAT(text, Catch::Contains(part));
  }
}

}  // namespace sluice::tools
