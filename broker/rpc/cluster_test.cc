// What operators ask of the cluster, between the schema and the broker's structs: every field both ways.
#include <grpcpp/create_channel.h>

#include <catch2/catch.hpp>

#include "broker/rpc/errors.h"
#include "broker/rpc/server.h"
#include "broker/rpc/stub_broker.h"
#include "runtime/system.h"
#include "sluice/v1/cluster.grpc.pb.h"

namespace sluice::broker::rpc {
namespace {

class ClusterBroker final : public StubBroker {
 public:
  void DescribeCluster(Callback<Result<ClusterInfo>> done) override {
    ClusterInfo cluster;
    cluster.under_replicated_partitions = 3;
    cluster.leaderless_partitions = 2;
    cluster.offline_partitions = 1;
    cluster.feature_level = 4;
    NodeInfo node;
    node.id = NodeId(7);
    node.fenced = true;
    node.draining = true;
    node.feature_min = 1;
    node.feature_max = 5;
    node.peer_address = "n7:7401";
    node.controller_voter = true;
    cluster.nodes = {node, NodeInfo()};
    done(cluster);
  }
  void ListPartitions(ListPartitionsSpec spec, Callback<Result<std::vector<PartitionStatus>>> done) override {
    asked = spec;
    if (spec.topic == "none") return done(MakeError(Reason::kUnknownTopic, "there is no such topic"));
    PartitionStatus status;
    status.topic = "t";
    status.partition = PartitionId(2);
    status.leader_node = NodeId(3);
    status.leader = "n3:7400";
    status.leader_epoch = LeaderEpoch(9);
    status.preferred_leader = NodeId(1);
    status.replicas = {{.node = NodeId(3), .learner = false, .in_sync = true, .lag = 0},
                       {.node = NodeId(4), .learner = true, .in_sync = false, .lag = -1}};
    status.log_start = Offset(5);
    status.high_watermark = Offset(8);
    status.size_bytes = 1234;
    status.error = MakeError(Reason::kCorruptLog, "file f, byte 3");
    done(std::vector<PartitionStatus>{status});
  }
  void ElectLeader(ElectLeaderSpec spec, Callback<Result<ElectedLeader>> done) override {
    elected = spec;
    done(ElectedLeader{NodeId(3), "n3:7400", LeaderEpoch(10)});
  }

  ListPartitionsSpec asked;
  ElectLeaderSpec elected;
};

struct Served {
  Served() {
    ServerOptions options;
    options.address = "127.0.0.1:0";
    server = *Server::Start(options, broker, clock);
    stub = v1::Cluster::NewStub(grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  }
  ~Served() { server->Shutdown(absl::Seconds(2)); }
  runtime::SystemClock clock;
  ClusterBroker broker;
  std::unique_ptr<Server> server;
  std::unique_ptr<v1::Cluster::Stub> stub;
};

}  // namespace

TEST_CASE("What the cluster says of its nodes reaches the client whole") {
  Served served;
  grpc::ClientContext context;
  v1::DescribeClusterResponse response;
  REQUIRE(served.stub->Describe(&context, {}, &response).ok());
  CHECK(response.under_replicated_partitions() == 3);
  CHECK(response.leaderless_partitions() == 2);
  CHECK(response.offline_partitions() == 1);
  CHECK(response.feature_level() == 4);
  REQUIRE(response.nodes_size() == 2);
  const v1::Node& node = response.nodes(0);
  CHECK(node.fenced());
  CHECK(node.draining());
  CHECK(node.feature_min() == 1);
  CHECK(node.feature_max() == 5);
  CHECK(node.peer_address() == "n7:7401");
  CHECK(node.controller_voter());
  CHECK_FALSE(response.nodes(1).fenced());
  CHECK_FALSE(response.nodes(1).controller_voter());
}

TEST_CASE("Filters of partitions reach the broker, and how partitions stand the client") {
  Served served;
  v1::ListPartitionsRequest request;
  request.set_topic("t");
  request.set_node(4);
  request.set_under_replicated(true);
  v1::ListPartitionsResponse response;
  {
    grpc::ClientContext context;
    REQUIRE(served.stub->ListPartitions(&context, request, &response).ok());
  }
  CHECK(served.broker.asked.topic == "t");
  CHECK(served.broker.asked.node == NodeId(4));
  CHECK(served.broker.asked.under_replicated);
  CHECK_FALSE(served.broker.asked.leaderless);
  REQUIRE(response.partitions_size() == 1);
  const v1::PartitionStatus& status = response.partitions(0);
  CHECK(status.topic() == "t");
  CHECK(status.partition() == 2);
  CHECK(status.leader_node() == 3);
  CHECK(status.leader() == "n3:7400");
  CHECK(status.leader_epoch() == 9);
  CHECK(status.preferred_leader() == 1);
  REQUIRE(status.replicas_size() == 2);
  CHECK(status.replicas(0).in_sync());
  CHECK(status.replicas(0).lag() == 0);
  CHECK(status.replicas(1).node() == 4);
  CHECK(status.replicas(1).learner());
  CHECK_FALSE(status.replicas(1).in_sync());
  CHECK(status.replicas(1).lag() == -1);
  CHECK(status.log_start_offset() == 5);
  CHECK(status.high_watermark() == 8);
  CHECK(status.size_bytes() == 1234);
  CHECK(status.error().reason() == v1::ErrorDetail::CORRUPT_LOG);

  request.set_topic("none");
  request.set_leaderless(true);
  grpc::ClientContext context;
  CHECK(served.stub->ListPartitions(&context, request, &response).error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(served.broker.asked.leaderless);
}

TEST_CASE("An election names partition and node, and answers who leads then; negative numbers are refused") {
  Served served;
  v1::ElectLeaderRequest request;
  request.set_topic("t");
  request.set_partition(2);
  request.set_node(3);
  v1::ElectLeaderResponse response;
  {
    grpc::ClientContext context;
    REQUIRE(served.stub->ElectLeader(&context, request, &response).ok());
  }
  CHECK(served.broker.elected.topic == "t");
  CHECK(served.broker.elected.partition == PartitionId(2));
  CHECK(served.broker.elected.node == NodeId(3));
  CHECK(response.leader_node() == 3);
  CHECK(response.leader() == "n3:7400");
  CHECK(response.leader_epoch() == 10);
  request.set_partition(-1);
  grpc::ClientContext context;
  CHECK(served.stub->ElectLeader(&context, request, &response).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace sluice::broker::rpc
