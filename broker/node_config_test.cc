#include "broker/node_config.h"

#include <catch2/catch.hpp>

#include "common/text.h"

namespace sluice::broker {
namespace {

absl::StatusOr<NodeConfig> Parse(std::string_view text, std::vector<std::string> sets = {}) {
  return ParseNodeConfig("sluiced.yaml", text, sets);
}

/// The error that `text` gives; fails the test when it gives none.
std::string ErrorOf(std::string_view text, std::vector<std::string> sets = {}) {
  const auto parsed = Parse(text, std::move(sets));
  REQUIRE(absl::IsInvalidArgument(parsed.status()));
  return std::string(Message(parsed.status()));
}

bool Has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("an empty configuration is one node on loopback") {
  const auto config = Parse("");
  REQUIRE(config.ok());
  CHECK(config->id == NodeId(1));
  CHECK(config->data_dir == "./sluice-data");
  CHECK(config->listen_grpc == "127.0.0.1:7400");
  CHECK(config->advertise_grpc == "127.0.0.1:7400");
  CHECK(config->topic_defaults.retention_age == absl::Hours(7 * 24));
}

TEST_CASE("a configuration says what it sets, with units, and --set goes over the file") {
  const auto config = Parse(
      "node: {id: 3, data_dir: /var/lib/sluice/, rack: a}\n"
      "listen: {grpc: '[::1]:0', http: localhost:8080}\n"
      "advertise: {grpc: broker.example:7400}\n"
      "storage: {segment_bytes: 16MiB, disk_low_watermark: 1GiB, scrub_period: 12h, scrub_bytes_per_second: 1MiB}\n"
      "limits: {inflight_bytes: 32MiB, read_bytes: 8MiB}\n"
      "defaults: {partitions: 4, retention_ms: 2d, durability: quorum}\n"
      "log: {level: debug, format: json}\n",
      {"defaults.partitions=8", "log.level=warn"});
  INFO(config.status().ToString());
  REQUIRE(config.ok());
  CHECK(config->id == NodeId(3));
  CHECK(config->data_dir == "/var/lib/sluice");
  CHECK(config->listen_grpc == "[::1]:0");
  CHECK(config->advertise_grpc == "broker.example:7400");
  CHECK(config->topic_defaults.segment_bytes == 16 << 20);
  CHECK(config->disk_high_watermark == int64_t{2} << 30);
  CHECK(config->scrub_period == absl::Hours(12));
  CHECK(config->scrub_bytes_per_second == 1 << 20);
  CHECK(config->read_bytes_max == 8 << 20);
  CHECK(config->default_partitions == 8);
  CHECK(config->topic_defaults.retention_age == absl::Hours(48));
  CHECK(config->log_level == LogLevel::kWarn);
  CHECK(config->log_format == LogFormat::kJson);
}

TEST_CASE("a mistake in the configuration names file, line and key") {
  CHECK(Has(ErrorOf("node:\n  data_dri: /x\n"), "sluiced.yaml:2"));
  CHECK(Has(ErrorOf("node:\n  data_dri: /x\n"), "data_dri"));
  CHECK(Has(ErrorOf("node: {id: seven}\n"), "node.id"));
  CHECK(Has(ErrorOf("storage: {journal_bytes: 1}\n"), "storage.journal_bytes"));
  CHECK(Has(ErrorOf("storage: {scrub_bytes_per_second: 1}\n"), "storage.scrub_bytes_per_second"));
  CHECK(Has(ErrorOf("defaults:\n\n  durability: always\n"), "sluiced.yaml:3"));
  CHECK(Has(ErrorOf("defaults: {durability: replicated}\n"), "use \"quorum\""));
  CHECK(Has(ErrorOf("storage: {disk_low_watermark: 2GiB, disk_high_watermark: 1GiB}\n"), "disk_high_watermark"));
  CHECK(Has(ErrorOf("limits: {inflight_bytes: 2MiB}\n"), "limits.inflight_bytes"));
  CHECK(Has(ErrorOf("listen: {grpc: 7400}\n"), "host:port"));
  CHECK(Has(ErrorOf("listen: {tls: {cert: x}}\n"), "listen.tls: has no key"));
  CHECK(Has(ErrorOf("listen: {tls: {cert: x, key: y, keys: z}}\n"), "keys"));
  CHECK(Has(ErrorOf("peer: {tls: {cert: x, key: y}}\n"), "peer.tls: has no ca"));
  CHECK(Has(ErrorOf("cluster: {seeds: [a:1, b]}\n"), "cluster.seeds"));
  CHECK(Has(ErrorOf("", {"nowhere.x=1"}), "nowhere"));
  // What the cluster could not take of a node.
  const std::string_view texts[] = {"node.rack", "cluster.name", "advertise.grpc", "advertise.peer"};
  for (const std::string_view key : texts) {
    const std::string address = key.starts_with("advertise") ? ":1" : "";
    CHECK(Has(ErrorOf("", {Cat(key, "=", std::string(1025, 'x'), address)}), key));
    CHECK(Parse("", std::vector<std::string>{Cat(key, "=", std::string(1000, 'x'), address)}).ok());
  }
}

TEST_CASE("an address that others can reach is refused unless it is said to be insecure") {
  for (const std::string address :
       {"0.0.0.0:7400", "'[::]:7400'", "192.168.1.2:7400", "broker.example:7400", "127.example.com:7400"}) {
    for (const std::string key : {"grpc", "peer", "http"}) {
      const std::string listen = Cat("listen: {", key, ": ", address, "}\n");
      CHECK(Has(ErrorOf(listen), "listen.insecure"));
      CHECK(Parse(listen, {"listen.insecure=true"}).ok());
    }
  }
  CHECK(Parse("listen: {grpc: 127.8.9.1:7400}\n").ok());
}

TEST_CASE("with TLS others may reach what it covers, and nothing else") {
  const std::string listen = "listen: {grpc: 0.0.0.0:7400, tls: {cert: a, key: b}}\n";
  const std::string peer = "listen: {peer: 0.0.0.0:7401}\npeer: {tls: {cert: c, key: d, ca: e}}\n";
  CHECK(Parse(listen)->listen_tls == TlsFiles{.cert = "a", .key = "b", .ca = ""});
  CHECK(Parse(peer)->peer_tls == TlsFiles{.cert = "c", .key = "d", .ca = "e"});
  CHECK(!Parse("")->listen_tls.has_value());
  CHECK(Has(ErrorOf("listen: {peer: 0.0.0.0:7401, tls: {cert: a, key: b}}\n"), "peer.tls"));
  CHECK(Has(ErrorOf("listen: {grpc: 0.0.0.0:7401}\npeer: {tls: {cert: c, key: d, ca: e}}\n"), "listen.tls"));
  CHECK(Has(ErrorOf("listen: {http: 0.0.0.0:7402, tls: {cert: a, key: b}}\n"), "listen.insecure"));
}

TEST_CASE("host and port are told apart, and nothing else is taken for them") {
  CHECK(ParseHostPort("[::1]:80")->host == "::1");
  CHECK(ParseHostPort("h:65535")->port == 65535);
  for (const char* bad : {"", ":", "h", "h:", ":1", "h:65536", "h:-1", "h:1x", "::1:80", "h:99999999999999"}) {
    INFO(bad);
    CHECK_FALSE(ParseHostPort(bad).ok());
  }
}

}  // namespace
}  // namespace sluice::broker
