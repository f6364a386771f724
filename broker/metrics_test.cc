#include "broker/metrics.h"

#include <catch2/catch.hpp>

namespace sluice::broker {
namespace {

bool Has(const std::string& text, std::string_view line) {
  return text.find(line) != std::string::npos;
}

NodeStats WithPartitions(int count) {
  NodeStats stats;
  stats.version = "9.9";
  stats.ready = true;
  for (int i = 0; i < count; ++i) {
    PartitionStats partition;
    partition.topic = "t";
    partition.partition = PartitionId(i);
    partition.produced_records = 2;
    partition.high_watermark = Offset(7);
    stats.broker.partitions.push_back(partition);
  }
  return stats;
}

TEST_CASE("Counters stand under their names with topic and partition") {
  NodeStats stats = WithPartitions(2);
  stats.broker.errors = {{"UNKNOWN_TOPIC", 3}};
  const std::string text = RenderMetrics(stats);
  CHECK(Has(text, "sluice_broker_build_info{version=\"9.9\"} 1"));
  CHECK(Has(text, "# TYPE sluice_broker_produced_records_total counter"));
  CHECK(Has(text, "sluice_broker_produced_records_total{topic=\"t\",partition=\"1\"} 2"));
  CHECK(Has(text, "sluice_broker_high_watermark{topic=\"t\",partition=\"0\"} 7"));
  CHECK(Has(text, "sluice_broker_errors_total{code=\"UNKNOWN_TOPIC\"} 3"));
}

TEST_CASE("How the groups of this node stand is told") {
  NodeStats stats = WithPartitions(1);
  stats.raft.leaders = 4;
  stats.raft.under_replicated = 2;
  stats.raft.without_leader = 1;
  stats.raft.lag_offsets_max = 77;
  stats.raft.elections_won = 6;
  stats.raft.commits = 10;
  stats.raft.commit_total = absl::Milliseconds(2500);
  stats.raft.messages_unrouted = 3;
  const std::string text = RenderMetrics(stats);
  CHECK(Has(text, "sluice_broker_raft_leaders 4\n"));
  CHECK(Has(text, "sluice_broker_raft_under_replicated 2\n"));
  CHECK(Has(text, "sluice_broker_raft_without_leader 1\n"));
  CHECK(Has(text, "sluice_broker_raft_lag_max_offsets 77\n"));
  CHECK(Has(text, "sluice_broker_raft_elections_total 6\n"));
  CHECK(Has(text, "sluice_broker_raft_commits_total 10\n"));
  CHECK(Has(text, "sluice_broker_raft_commit_seconds_total 2.5\n"));
  CHECK(Has(text, "sluice_broker_raft_messages_lost_total{reason=\"unrouted\"} 3\n"));
}

TEST_CASE("What the scrubber has read and found is told") {
  NodeStats stats = WithPartitions(1);
  stats.scrub = {.rounds = 2, .segments = 5, .bytes = 4096, .damaged = 9, .unreadable = 3, .damaged_now = 1};
  const std::string text = RenderMetrics(stats);
  CHECK(Has(text, "sluice_broker_scrub_rounds_total 2\n"));
  CHECK(Has(text, "sluice_broker_scrub_segments_total 5\n"));
  CHECK(Has(text, "sluice_broker_scrub_bytes_total 4096\n"));
  CHECK(Has(text, "sluice_broker_scrub_read_errors_total 3\n"));
  CHECK(Has(text, "sluice_broker_scrub_damaged_segments 1\n"));
}

TEST_CASE("Above the bound of partitions, counters are summed by topic") {
  const std::string text = RenderMetrics(WithPartitions(static_cast<int>(kPartitionLabelsMax) + 1));
  CHECK(Has(text, "sluice_broker_produced_records_total{topic=\"t\"} 2002"));
  CHECK(!Has(text, "partition="));
}

TEST_CASE("A partition that failed is named, others have no sample of it") {
  NodeStats stats = WithPartitions(static_cast<int>(kPartitionLabelsMax) + 1);
  CHECK(Has(RenderMetrics(stats), "sluice_broker_partitions_failed 0"));
  stats.broker.partitions[3].failed = true;
  const std::string text = RenderMetrics(stats);
  CHECK(Has(text, "sluice_broker_partitions_failed 1"));
  CHECK(Has(text, "sluice_broker_partition_failed{topic=\"t\",partition=\"3\"} 1"));
  CHECK(!Has(text, "partition=\"4\""));
}

TEST_CASE("The latency histogram is cumulative and ends at +Inf") {
  rpc::LatencyHistogram histogram;
  histogram.Observe(absl::Microseconds(50));
  histogram.Observe(absl::Milliseconds(3));
  histogram.Observe(absl::Seconds(60));
  NodeStats stats = WithPartitions(0);
  stats.rpc.produce_latency = histogram.Snapshot();
  const std::string text = RenderMetrics(stats);
  CHECK(Has(text, "sluice_broker_produce_seconds_bucket{le=\"0.0001\"} 1\n"));
  CHECK(Has(text, "sluice_broker_produce_seconds_bucket{le=\"0.005\"} 2\n"));
  CHECK(Has(text, "sluice_broker_produce_seconds_bucket{le=\"+Inf\"} 3\n"));
  CHECK(Has(text, "sluice_broker_produce_seconds_count 3\n"));
}

TEST_CASE("A node that is not ready says so and shows its process only") {
  NodeStats stats;
  stats.process.resident_bytes = 1024;
  const std::string text = RenderMetrics(stats);
  CHECK(Has(text, "sluice_broker_ready 0"));
  CHECK(Has(text, "process_resident_memory_bytes 1024"));
  CHECK(!Has(text, "sluice_broker_topics"));
}

}  // namespace
}  // namespace sluice::broker
