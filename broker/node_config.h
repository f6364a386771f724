// A node's configuration: what sluiced.yaml and `--set key=value` say, with defaults, checked to the last key
// (docs/configuration.md). Every error names file, line and key.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/tls_files.h"
#include "broker/topic_settings.h"
#include "common/file_system.h"
#include "common/log.h"
#include "common/types.h"

namespace sluice::broker {

struct NodeConfig {
  NodeId id{1};
  std::string data_dir = "./sluice-data";  ///< Without a slash at its end.
  std::string rack;
  int32_t shards = 0;  ///< 0: one a core, one where there are two or fewer.

  std::string cluster_name;        ///< Empty: "sluice" for a cluster that this node forms, any for one that it joins.
  std::vector<std::string> seeds;  ///< Peer addresses; with them, an empty data folder joins a cluster.

  // host:port each.
  std::string listen_grpc = "127.0.0.1:7400";
  std::string listen_peer = "127.0.0.1:7401";
  std::string listen_http = "127.0.0.1:7402";
  std::optional<TlsFiles> listen_tls;  ///< For clients; `ca` may be empty.
  std::optional<TlsFiles> peer_tls;    ///< Between nodes; has all three.
  bool listen_insecure = false;
  std::string advertise_grpc;  ///< What clients are told; listen_grpc unless set.
  std::string advertise_peer;

  int64_t journal_bytes = int64_t{512} << 20;          ///< Of all journal files; appends are refused beyond it.
  int64_t cache_bytes = int64_t{96} << 20;             ///< Batches in memory.
  int64_t disk_low_watermark = int64_t{256} << 20;     ///< Fewer bytes free: appends are refused ...
  int64_t disk_high_watermark = int64_t{512} << 20;    ///< ... until there are as many.
  absl::Duration scrub_period = absl::Hours(7 * 24);   ///< In which all closed segments are read once; zero: never.
  int64_t scrub_bytes_per_second = int64_t{16} << 20;  ///< Though it then takes longer.

  int32_t connections_max = 1'000;
  int32_t streams_max = 10'000;
  int64_t message_bytes_max = int64_t{16} << 20;   ///< Of one gRPC message.
  int64_t inflight_bytes_max = int64_t{64} << 20;  ///< Of appends that are not answered yet.
  int64_t read_bytes_max = int64_t{64} << 20;      ///< Of answers to readers that are not written yet.

  absl::Duration raft_election_timeout = absl::Seconds(1);
  absl::Duration raft_heartbeat = absl::Milliseconds(100);

  int64_t controller_log_bytes = int64_t{8} << 20;  ///< Of group 0's log that are kept.

  int32_t default_partitions = 1;
  int32_t default_replicas = 0;  ///< 0: min(3, nodes).
  TopicSettings topic_defaults;  ///< With defaults.retention_ms and storage.segment_bytes.

  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

/// `name` is for messages; `sets` are assignments such as "listen.grpc=127.0.0.1:0", the last one winning.
/// INVALID_ARGUMENT with a line for each error.
absl::StatusOr<NodeConfig> ParseNodeConfig(std::string_view name, std::string_view text,
                                           std::span<const std::string> sets);
/// The same of a file; an empty path is an empty file.
absl::StatusOr<NodeConfig> LoadNodeConfig(FileSystem& fs, const std::string& path, std::span<const std::string> sets);

struct HostPort {
  std::string host;  ///< Without the brackets of an IPv6 address.
  int port = 0;
  /// 127.0.0.0/8, ::1 or localhost: where nobody else can connect.
  bool IsLoopback() const;
};
/// "host:port" or "[::1]:port".
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);

}  // namespace sluice::broker
