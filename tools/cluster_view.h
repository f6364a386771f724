// What the commands about nodes and partitions print: tables for people, JSON for programs. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "client/admin.h"
#include "tools/json_writer.h"

namespace sluice::tools {

/// "alive", "draining" (stopping), "fenced" (registered, but not heard of), or "down".
std::string NodeState(const client::NodeInfo& node);

std::string NodesTable(const client::ClusterInfo& cluster);
/// The cluster in a few lines, without its nodes.
std::string ClusterText(const client::ClusterInfo& cluster);
std::string PartitionsTable(const std::vector<client::PartitionStatus>& partitions);

// Each writes members of the object that is open.
void WriteNodes(JsonWriter& json, const client::ClusterInfo& cluster);
void WriteCluster(JsonWriter& json, const client::ClusterInfo& cluster);
void WritePartitions(JsonWriter& json, const std::vector<client::PartitionStatus>& partitions);

}  // namespace sluice::tools
