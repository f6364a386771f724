#include "tools/cluster_view.h"

#include <algorithm>

#include "common/text.h"
#include "common/units.h"
#include "tools/format.h"

namespace sluice::tools {
namespace {

std::string OrDash(const std::string& text) {
  return text.empty() ? "-" : text;
}

std::string NodeOrNone(NodeId node) {
  return node == NodeId(0) ? "none" : Cat(node);
}

// "1,2,3"; a learner is "4 (learner)".
std::string ReplicasText(const client::PartitionStatus& partition) {
  std::string text;
  for (const client::ReplicaStatus& replica : partition.replicas) {
    text += Cat(text.empty() ? "" : ",", replica.node, replica.learner ? " (learner)" : "");
  }
  return OrDash(text);
}

std::string InSyncText(const client::PartitionStatus& partition) {
  std::string text;
  for (const client::ReplicaStatus& replica : partition.replicas) {
    if (replica.in_sync) text += Cat(text.empty() ? "" : ",", replica.node);
  }
  return OrDash(text);
}

// Of the replica that is farthest behind.
std::string LagText(const client::PartitionStatus& partition) {
  int64_t lag = -1;
  for (const client::ReplicaStatus& replica : partition.replicas) lag = std::max(lag, replica.lag);
  return lag < 0 ? "-" : Cat(lag);
}

std::string FeaturesText(const client::NodeInfo& node) {
  return node.feature_min == node.feature_max ? Cat(node.feature_max) : Cat(node.feature_min, "-", node.feature_max);
}

}  // namespace

std::string NodeState(const client::NodeInfo& node) {
  if (node.draining) return "draining";  // fenced, too: it gets no new replicas
  if (node.fenced) return "fenced";
  return node.alive ? "alive" : "unknown";
}

std::string NodesTable(const client::ClusterInfo& cluster) {
  Table table({"#NODE", "ADDRESS", "STATE", "CONTROLLER", "RACK", "VERSION", "FEATURES", "STARTED", "#DISK USED",
               "#DISK FREE"});
  for (const client::NodeInfo& node : cluster.nodes) {
    const char* part = node.id == cluster.controller ? "leader" : node.controller_voter ? "voter" : "follower";
    const bool known = node.started_ms > 0;  // it could be asked
    table.Row({Cat(node.id), node.address, NodeState(node), part, OrDash(node.rack), OrDash(node.version),
               FeaturesText(node), known ? TimeText(node.started_ms) : "-",
               known ? HumanSizeText(node.disk_used_bytes) : "-", known ? HumanSizeText(node.disk_free_bytes) : "-"});
  }
  return table.Text();
}

std::string ClusterText(const client::ClusterInfo& cluster) {
  const auto alive = std::count_if(cluster.nodes.begin(), cluster.nodes.end(),
                                   [](const client::NodeInfo& node) { return node.alive && !node.fenced; });
  const auto unknown = std::count_if(cluster.nodes.begin(), cluster.nodes.end(),
                                     [](const client::NodeInfo& node) { return !node.alive && !node.fenced; });
  const std::string not_known = unknown == 0 ? std::string() : Cat(", ", unknown, " unknown");
  const std::string controller =
      cluster.controller == NodeId(0) ? std::string("none") : Cat("node ", cluster.controller);
  return Cat("cluster           ", OrDash(cluster.cluster_name), " (", cluster.cluster_id, ")\n", "nodes             ",
             alive, " of ", cluster.nodes.size(), " alive", not_known, "\n",   //
             "controller        ", controller, "\n",                           //
             "feature level     ", cluster.feature_level, "\n",                //
             "topics            ", cluster.topics, "\n",                       //
             "partitions        ", cluster.partitions, "\n",                   //
             "under-replicated  ", cluster.under_replicated_partitions, "\n",  //
             "leaderless        ", cluster.leaderless_partitions, "\n",        //
             "offline           ", cluster.offline_partitions, "\n");
}

std::string PartitionsTable(const std::vector<client::PartitionStatus>& partitions) {
  Table table({"TOPIC", "#PARTITION", "LEADER", "PREFERRED", "#EPOCH", "REPLICAS", "IN SYNC", "#LAG", "#LOG START",
               "#HIGH WATERMARK", "#BYTES"});
  for (const client::PartitionStatus& each : partitions) {
    table.Row({each.topic, Cat(each.partition), NodeOrNone(each.leader_node), NodeOrNone(each.preferred_leader),
               Cat(each.leader_epoch), ReplicasText(each), InSyncText(each), LagText(each), Cat(each.log_start),
               Cat(each.high_watermark), Cat(each.size_bytes)});
  }
  std::string text = table.Text();
  for (const client::PartitionStatus& each : partitions) {
    if (!each.error.empty()) text += Cat("\n", each.topic, "/", each.partition, " is not served: ", each.error, "\n");
  }
  return text;
}

void WriteNodes(JsonWriter& json, const client::ClusterInfo& cluster) {
  json.Key("nodes").BeginArray();
  for (const client::NodeInfo& node : cluster.nodes) {
    json.BeginObject().Key("id").Int(node.id.value()).Key("address").Bytes(node.address).Key("rack").Bytes(node.rack);
    json.Key("version").Bytes(node.version).Key("alive");
    node.alive || node.fenced ? json.Bool(node.alive) : json.Null();
    const auto told = [&](const char* key, int64_t value) {
      json.Key(key);
      node.started_ms > 0 ? json.Int(value) : json.Null();  // it could not be asked
    };
    told("started_ms", node.started_ms);
    told("disk_free_bytes", node.disk_free_bytes);
    told("disk_used_bytes", node.disk_used_bytes);
    json.Key("state").Bytes(NodeState(node)).Key("fenced").Bool(node.fenced).Key("draining").Bool(node.draining);
    json.Key("peer_address").Bytes(node.peer_address).Key("controller_voter").Bool(node.controller_voter);
    json.Key("feature_min").Int(node.feature_min).Key("feature_max").Int(node.feature_max).EndObject();
  }
  json.EndArray();
}

void WriteCluster(JsonWriter& json, const client::ClusterInfo& cluster) {
  json.Key("cluster_id").Bytes(cluster.cluster_id).Key("cluster_name").Bytes(cluster.cluster_name);
  json.Key("controller_node").Int(cluster.controller.value()).Key("feature_level").Int(cluster.feature_level);
  json.Key("topics").Int(cluster.topics).Key("partitions").Int(cluster.partitions);
  json.Key("under_replicated_partitions").Int(cluster.under_replicated_partitions);
  json.Key("leaderless_partitions").Int(cluster.leaderless_partitions);
  json.Key("offline_partitions").Int(cluster.offline_partitions);
}

void WritePartitions(JsonWriter& json, const std::vector<client::PartitionStatus>& partitions) {
  json.Key("partitions").BeginArray();
  for (const client::PartitionStatus& each : partitions) {
    json.BeginObject().Key("topic").Bytes(each.topic).Key("partition").Int(each.partition.value());
    json.Key("leader_node").Int(each.leader_node.value()).Key("leader").Bytes(each.leader);
    json.Key("leader_epoch").Int(each.leader_epoch.value());
    json.Key("preferred_leader").Int(each.preferred_leader.value()).Key("replicas").BeginArray();
    for (const client::ReplicaStatus& replica : each.replicas) {
      json.BeginObject().Key("node").Int(replica.node.value()).Key("learner").Bool(replica.learner);
      json.Key("in_sync").Bool(replica.in_sync).Key("lag");
      (replica.lag < 0 ? json.Null() : json.Int(replica.lag)).EndObject();
    }
    json.EndArray().Key("log_start_offset").Int(each.log_start.value());
    json.Key("high_watermark").Int(each.high_watermark.value()).Key("size_bytes").Int(each.size_bytes);
    if (!each.error.empty()) json.Key("error").Bytes(each.error);
    json.EndObject();
  }
  json.EndArray();
}

}  // namespace sluice::tools
