// NodeBroker: the Broker of one node. Wires the controller, the topics, their partitions and the bounds together, and
// brings each call to the shard where it belongs.
//
// It reaches the world only through what it is given, so that a whole node runs in the simulator.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/api.h"
#include "broker/cluster_calls.h"
#include "broker/controller_record.h"
#include "broker/limits.h"
#include "broker/log_factory.h"
#include "broker/peer_calls.h"
#include "broker/topic_settings.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/log.h"
#include "storage/meta/metadata_store.h"

namespace sluice::broker {

/// What a node has joined its cluster with.
struct Membership {
  Uuid disk;                           ///< Of the data folder; nil: a node on its own, of no cluster.
  std::string peer_address;            ///< host:port for other nodes.
  std::vector<std::string> seeds;      ///< Peer addresses.
  bool joins = false;                  ///< DataFolder::joins: this node's replica of group 0 never forms a group.
  Uuid process = {};                   ///< Drawn at this start.
  std::optional<Registration> joined;  ///< Of this start already, where the node had to join first.
};

struct BrokerOptions {
  NodeId node{1};
  Uuid cluster_id;
  std::string cluster_name;
  std::string address;  ///< host:port for clients.
  std::string rack;
  std::string version;
  int32_t feature_min = kFeatureLevelMin;  ///< The feature levels that this program works at.
  int32_t feature_max = kFeatureLevelMax;
  std::string data_dir;  ///< Whose file system is watched.
  Membership membership;

  int32_t default_partitions = 1;
  int32_t default_replicas = 0;  ///< 0: min(3, nodes).
  TopicSettings topic_defaults;
  int64_t message_bytes_max = int64_t{16} << 20;  ///< Of one message of a client (limits.message_bytes).

  int64_t controller_log_bytes = int64_t{8} << 20;  ///< ControllerOptions::log_bytes.
  size_t controller_snapshot_piece_bytes = kSnapshotPieceBytes;
  absl::Duration replace_voter_after = absl::Hours(1);  ///< Group0Options::replace_voter_after.

  int64_t inflight_bytes_max = int64_t{128} << 20;    ///< Of produce items not answered yet.
  int64_t read_bytes_max = int64_t{64} << 20;         ///< Of answers to readers that are not written yet.
  int64_t disk_free_low_bytes = int64_t{256} << 20;   ///< Fewer free: appends are refused ...
  int64_t disk_free_high_bytes = int64_t{512} << 20;  ///< ... until there are as many.
  absl::Duration disk_check_every = absl::Seconds(1);
  absl::Duration retention_check_every = absl::Minutes(1);
};

/// All borrowed; they outlive the broker, and no task of theirs runs after it is gone.
struct BrokerSeams {
  std::vector<Executor*> shards;  ///< At least one; the first is the controller's home too.
  BlockingExecutor& blocking;     ///< For the metadata store and the disk's free bytes.
  Clock& clock;
  Random& random;  ///< Used on the first shard.
  FileSystem& files;
  storage::MetadataStore& metadata;
  LogFactory& logs;
  const Logger& log;
  PeerCalls* peers = nullptr;          ///< Null: a node without peers. The broker serves its calls.
  PeerAddresses* addresses = nullptr;  ///< Told where the other nodes are; null without peers.
  /// The cluster does not let this node in any more; or the controller's log or store has failed here, or says what
  /// cannot be understood, before PrepareStop was called: the process must stop. On the first shard.
  std::function<void(const absl::Status& why)> on_refused = nullptr;
};

std::unique_ptr<Broker> MakeNodeBroker(BrokerOptions options, BrokerSeams seams);

}  // namespace sluice::broker
