#include "broker/node_config.h"

#include <limits>

#include "absl/strings/numbers.h"
#include "broker/controller_record.h"
#include "broker/limits.h"
#include "common/config.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 20;
constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kTiB = int64_t{1} << 40;

// What is told to the cluster, which takes no more than that.
std::string ReadText(const ConfigNode& section, std::string_view key, const std::string& fallback = {}) {
  std::string text = section.String(key, fallback);
  if (text.size() > kNodeTextBytesMax) {
    section.AddError(key, Cat("is ", text.size(), " bytes long, ", kNodeTextBytesMax, " are allowed"));
  }
  return text;
}

void ReadNode(const ConfigNode& node, NodeConfig* config) {
  config->id = NodeId(static_cast<int32_t>(node.Int("id", 1, {1, std::numeric_limits<int32_t>::max()})));
  config->data_dir = node.String("data_dir", config->data_dir);
  while (config->data_dir.size() > 1 && config->data_dir.ends_with('/')) config->data_dir.pop_back();
  if (config->data_dir.empty()) node.AddError("data_dir", "is empty");
  config->rack = ReadText(node, "rack");
  config->shards = static_cast<int32_t>(node.Int("shards", 0, {0, 256}));
}

void ReadCluster(const ConfigNode& cluster, NodeConfig* config) {
  config->cluster_name = ReadText(cluster, "name");
  config->seeds = cluster.Strings("seeds");
  for (const std::string& seed : config->seeds) {
    if (const auto address = ParseHostPort(seed); !address.ok()) cluster.AddError("seeds", Message(address.status()));
  }
}

std::string ReadAddress(const ConfigNode& section, std::string_view key, const std::string& fallback) {
  std::string address = ReadText(section, key, fallback);
  if (address.empty()) return address;
  if (auto parsed = ParseHostPort(address); !parsed.ok()) section.AddError(key, Message(parsed.status()));
  return address;
}

std::optional<TlsFiles> ReadTls(const ConfigNode& section, bool needs_ca) {
  const ConfigNode tls = section.Child("tls");
  if (!section.Has("tls")) return std::nullopt;
  TlsFiles files{.cert = tls.String("cert", ""), .key = tls.String("key", ""), .ca = tls.String("ca", "")};
  if (files.cert.empty()) section.AddError("tls", "has no cert");
  if (files.key.empty()) section.AddError("tls", "has no key");
  if (needs_ca && files.ca.empty()) section.AddError("tls", "has no ca");
  return files;
}

void ReadListen(const ConfigNode& listen, NodeConfig* config) {
  config->listen_insecure = listen.Bool("insecure", false);
  config->listen_tls = ReadTls(listen, false);
  for (const auto& [key, address] : {std::pair{"grpc", &config->listen_grpc}, std::pair{"peer", &config->listen_peer},
                                     std::pair{"http", &config->listen_http}}) {
    *address = ReadAddress(listen, key, *address);
    const auto parsed = ParseHostPort(*address);
    if (!parsed.ok()) {
      if (address->empty()) listen.AddError(key, "is empty");
      continue;
    }
    const std::string_view name = key;
    const bool safe = (name == "grpc" && config->listen_tls) || (name == "peer" && config->peer_tls);
    if (!parsed->IsLoopback() && !safe && !config->listen_insecure) {
      const std::string_view tls = name == "grpc" ? "listen.tls, or " : name == "peer" ? "peer.tls, or " : "";
      listen.AddError(key, Cat("\"", *address, "\" can be reached from other machines without TLS or authentication; ",
                               "set ", tls, "listen.insecure: true to allow it"));
    }
  }
}

void ReadStorage(const ConfigNode& storage, NodeConfig* config) {
  config->journal_bytes = storage.Size("journal_bytes", config->journal_bytes, {64 * kMiB, kTiB});
  config->topic_defaults.segment_bytes =
      storage.Size("segment_bytes", config->topic_defaults.segment_bytes, {kMiB, int64_t{1} << 30});
  config->cache_bytes = storage.Size("cache_bytes", config->cache_bytes, {16 * kMiB, kTiB});
  config->disk_low_watermark = storage.Size("disk_low_watermark", config->disk_low_watermark);
  // Set low alone, high follows: what matters is that they do not meet.
  config->disk_high_watermark =
      storage.Size("disk_high_watermark",
                   storage.Has("disk_low_watermark") ? 2 * config->disk_low_watermark : config->disk_high_watermark);
  if (config->disk_high_watermark < config->disk_low_watermark) {
    storage.AddError("disk_high_watermark", Cat("is less than disk_low_watermark, ", config->disk_low_watermark));
  }
  config->scrub_period =
      storage.Duration("scrub_period", config->scrub_period, {absl::ZeroDuration(), absl::Hours(24 * 3650)});
  config->scrub_bytes_per_second =
      storage.Size("scrub_bytes_per_second", config->scrub_bytes_per_second, {64 << 10, kTiB});
}

void ReadLimits(const ConfigNode& limits, NodeConfig* config) {
  config->connections_max = static_cast<int32_t>(limits.Int("connections", config->connections_max, {1, 1'000'000}));
  config->streams_max = static_cast<int32_t>(limits.Int("streams", config->streams_max, {1, 1'000'000}));
  config->message_bytes_max = limits.Size("message_bytes", config->message_bytes_max, {64 << 10, 256 * kMiB});
  config->inflight_bytes_max = limits.Size("inflight_bytes", config->inflight_bytes_max, {kMiB, kTiB});
  config->read_bytes_max = limits.Size("read_bytes", config->read_bytes_max, {kMiB, kTiB});
  if (config->inflight_bytes_max < config->message_bytes_max) {
    limits.AddError("inflight_bytes", Cat("is less than message_bytes, ", config->message_bytes_max,
                                          ": the largest message could never be taken"));
  }
}

void ReadController(const ConfigNode& controller, NodeConfig* config) {
  config->controller_log_bytes =
      controller.Size("log_bytes", config->controller_log_bytes, {int64_t{64} << 10, int64_t{1} << 30});
}

void ReadRaft(const ConfigNode& raft, NodeConfig* config) {
  const ConfigRange<absl::Duration> range{absl::Milliseconds(1), absl::Minutes(10)};
  config->raft_election_timeout = raft.Duration("election_timeout_ms", config->raft_election_timeout, range);
  config->raft_heartbeat = raft.Duration("heartbeat_ms", config->raft_heartbeat, range);
  if (config->raft_heartbeat >= config->raft_election_timeout) {
    raft.AddError("heartbeat_ms", "is not below election_timeout_ms");
  }
}

void ReadDefaults(const ConfigNode& defaults, NodeConfig* config) {
  config->default_partitions = static_cast<int32_t>(defaults.Int("partitions", 1, {1, kPartitionsMax}));
  config->default_replicas = static_cast<int32_t>(defaults.Int("replicas", 0, {0, static_cast<int64_t>(kReplicasMax)}));
  config->topic_defaults.retention_age = defaults.Duration("retention_ms", *config->topic_defaults.retention_age,
                                                           {absl::Milliseconds(1), absl::Hours(24 * 365 * 200)});
  if (absl::Status known = CheckDurability(defaults.String("durability", "quorum")); !known.ok()) {
    std::string_view message = Message(known);
    message.remove_prefix(std::string_view("durability: ").size());
    defaults.AddError("durability", message);
  }
}

}  // namespace

bool HostPort::IsLoopback() const {
  if (host == "localhost" || host == "::1") return true;
  // A name such as 127.example.com is no address: only digits and dots count.
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const auto bad = [text] {
    return absl::InvalidArgumentError(Cat("expected host:port, such as 127.0.0.1:7400, got \"", text, "\""));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();
  }
  const std::string digits(text.substr(colon + 1));
  HostPort parsed{.host = std::string(host), .port = -1};
  if (host.empty() || digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(digits, &parsed.port) || parsed.port > 65535) {
    return bad();
  }
  return parsed;
}

absl::StatusOr<NodeConfig> ParseNodeConfig(std::string_view name, std::string_view text,
                                           std::span<const std::string> sets) {
  SLUICE_ASSIGN_OR_RETURN(ConfigFile file, ConfigFile::Parse(name, text));
  for (const auto& set : sets) SLUICE_RETURN_IF_ERROR(file.Override(set));
  NodeConfig config;
  const ConfigNode root = file.root();
  ReadNode(root.Child("node"), &config);
  ReadCluster(root.Child("cluster"), &config);
  config.peer_tls = ReadTls(root.Child("peer"), true);
  ReadListen(root.Child("listen"), &config);
  const ConfigNode advertise = root.Child("advertise");
  // What is wrong with listen's is told there.
  config.advertise_grpc = advertise.Has("grpc") ? ReadAddress(advertise, "grpc", "") : config.listen_grpc;
  config.advertise_peer = advertise.Has("peer") ? ReadAddress(advertise, "peer", "") : config.listen_peer;
  ReadStorage(root.Child("storage"), &config);
  ReadLimits(root.Child("limits"), &config);
  ReadRaft(root.Child("raft"), &config);
  ReadController(root.Child("controller"), &config);
  ReadDefaults(root.Child("defaults"), &config);
  const ConfigNode log = root.Child("log");
  config.log_level = log.Enum("level", LogLevel::kInfo,
                              {{"debug", LogLevel::kDebug},
                               {"info", LogLevel::kInfo},
                               {"warn", LogLevel::kWarn},
                               {"error", LogLevel::kError},
                               {"off", LogLevel::kOff}});
  config.log_format = log.Enum("format", LogFormat::kText, {{"text", LogFormat::kText}, {"json", LogFormat::kJson}});
  SLUICE_RETURN_IF_ERROR(file.Finish());
  return config;
}

absl::StatusOr<NodeConfig> LoadNodeConfig(FileSystem& fs, const std::string& path, std::span<const std::string> sets) {
  std::string text;
  if (!path.empty()) {
    SLUICE_ASSIGN_OR_RETURN(text, ReadWholeFile(fs, path, kFileBytesMax));
  }
  return ParseNodeConfig(path.empty() ? "the defaults" : std::string_view(path), text, sets);
}

}  // namespace sluice::broker
