#include "broker/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>
#include <map>
#include <utility>
#include <vector>

namespace sluice::broker {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// Families in the making. References from Add stay valid until the next Add.
class Page {
 public:
  MetricFamily& Add(MetricType type, const std::string& name, const std::string& help) {
    MetricFamily& family = families_.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
    return family;
  }
  void Gauge(const std::string& name, const std::string& help, double value) {
    Put(Add(MetricType::Gauge, name, help), {}, value);
  }
  void Counter(const std::string& name, const std::string& help, double value) {
    Put(Add(MetricType::Counter, name, help), {}, value);
  }
  static void Put(MetricFamily& family, Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family.type == MetricType::Gauge) {
      metric.gauge.value = value;
    } else {
      metric.counter.value = value;
    }
    family.metric.push_back(std::move(metric));
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  std::vector<MetricFamily> families_;
};

void AddProcess(const NodeStats& stats, Page* page) {
  MetricFamily& build = page->Add(MetricType::Gauge, "sluice_broker_build_info", "Always 1; the version is the label.");
  Page::Put(build, {{"version", stats.version}}, 1);
  page->Gauge("sluice_broker_ready", "1 while the node serves.", stats.ready ? 1 : 0);
  page->Counter("process_cpu_seconds_total", "User and system time.", stats.process.cpu_seconds);
  page->Gauge("process_resident_memory_bytes", "Resident memory.", static_cast<double>(stats.process.resident_bytes));
  page->Gauge("process_start_time_seconds", "Start of the process since 1970.", stats.process.start_time_seconds);
}

void AddLatency(const rpc::LatencySnapshot& latency, Page* page) {
  MetricFamily& family = page->Add(MetricType::Histogram, "sluice_broker_produce_seconds",
                                   "From a produce request's arrival to its answer.");
  ClientMetric metric;
  uint64_t seen = 0;
  for (size_t i = 0; i < latency.counts.size(); ++i) {
    seen += static_cast<uint64_t>(latency.counts[i]);
    ClientMetric::Bucket bucket;
    bucket.cumulative_count = seen;
    bucket.upper_bound =
        i < rpc::kLatencyBounds.size() ? rpc::kLatencyBounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back(bucket);
  }
  metric.histogram.sample_count = seen;
  metric.histogram.sample_sum = latency.sum_seconds;
  family.metric.push_back(std::move(metric));
}

void AddRpc(const rpc::ServerStats& rpc, Page* page) {
  page->Gauge("sluice_broker_rpc_connections", "Client connections.", static_cast<double>(rpc.connections));
  page->Counter("sluice_broker_rpc_connections_refused_total", "Over the bound, or for want of file descriptors.",
                static_cast<double>(rpc.connections_refused));
  page->Counter("sluice_broker_rpc_calls_total", "Calls begun.", static_cast<double>(rpc.calls_started));
  page->Counter("sluice_broker_rpc_calls_refused_total", "Calls refused: too many, or shutting down.",
                static_cast<double>(rpc.calls_refused));
  page->Gauge("sluice_broker_rpc_calls", "Calls under way, streams among them.", static_cast<double>(rpc.calls_active));
  page->Gauge("sluice_broker_rpc_inflight_bytes", "Of requests read and not answered.",
              static_cast<double>(rpc.inflight_bytes));
  AddLatency(rpc.produce_latency, page);
}

void AddJournal(const storage::JournalStats& journal, Page* page) {
  page->Counter("sluice_broker_journal_syncs_total", "Syncs of the journal.", static_cast<double>(journal.syncs));
  page->Counter("sluice_broker_journal_sync_seconds_total", "Time spent in them.",
                absl::ToDoubleSeconds(journal.sync_total));
  page->Gauge("sluice_broker_journal_sync_max_seconds", "The longest since start.",
              absl::ToDoubleSeconds(journal.sync_max));
  page->Counter("sluice_broker_journal_written_bytes_total", "Written, padding included.",
                static_cast<double>(journal.bytes));
  page->Counter("sluice_broker_journal_entries_total", "Entries made durable.", static_cast<double>(journal.entries));
  page->Gauge("sluice_broker_journal_queued_bytes", "Waiting for the disk.", static_cast<double>(journal.queued_bytes));
  page->Gauge("sluice_broker_journal_used_bytes", "Of files that cannot be recycled yet.",
              static_cast<double>(journal.used_bytes));
}

// Of all groups of this node, group 0 among them.
void AddRaft(const replication::RaftNodeStats& raft, Page* page) {
  const auto gauge = [page](const char* name, const char* help, int64_t value) {
    page->Gauge(name, help, static_cast<double>(value));
  };
  const auto counter = [page](const char* name, const char* help, uint64_t value) {
    page->Counter(name, help, static_cast<double>(value));
  };
  gauge("sluice_broker_raft_groups", "Groups with a replica here.", raft.groups);
  gauge("sluice_broker_raft_leaders", "Groups that are led here.", raft.leaders);
  gauge("sluice_broker_raft_under_replicated", "Groups led here with a voter that is silent or behind.",
        raft.under_replicated);
  gauge("sluice_broker_raft_without_leader",
        "Groups whose leader this node does not know: offline, unless it is soon "
        "elected.",
        raft.without_leader);
  gauge("sluice_broker_raft_in_doubt", "Replicas that do not know what of their log is left.", raft.in_doubt);
  gauge("sluice_broker_raft_damaged", "Replicas that cannot read their log or have stopped.", raft.damaged);
  gauge("sluice_broker_raft_lag_max_offsets", "From the end of a log led here to its farthest voter's.",
        raft.lag_offsets_max);
  gauge("sluice_broker_raft_recovery_bytes", "Under way to followers that catch up.", raft.recovery_bytes);
  gauge("sluice_broker_raft_inbox_bytes", "Received from other nodes and not looked at yet.", raft.inbox_bytes);
  counter("sluice_broker_raft_elections_total", "Won here.", raft.elections_won);
  counter("sluice_broker_raft_commits_total", "Appends that were committed and answered.", raft.commits);
  page->Counter("sluice_broker_raft_commit_seconds_total", "From taking them to that.",
                absl::ToDoubleSeconds(raft.commit_total));
  page->Gauge("sluice_broker_raft_commit_max_seconds", "The longest since start.",
              absl::ToDoubleSeconds(raft.commit_max));
  counter("sluice_broker_raft_unknown_outcomes_total", "Appends whose outcome could not be learnt.",
          raft.unknown_outcomes);
  counter("sluice_broker_raft_appends_refused_total", "Leaders' batches that disk or memory had no room for.",
          raft.appends_refused);
  counter("sluice_broker_raft_snapshots_sent_total", "To followers behind the log's start.", raft.snapshots_sent);
  counter("sluice_broker_raft_snapshots_installed_total", "From leaders.", raft.snapshots_installed);
  MetricFamily& lost = page->Add(MetricType::Counter, "sluice_broker_raft_messages_lost_total",
                                 "Messages of other nodes that were not taken, by reason.");
  Page::Put(lost, {{"reason", "refused"}}, static_cast<double>(raft.messages_refused));
  Page::Put(lost, {{"reason", "dropped"}}, static_cast<double>(raft.messages_dropped));
  Page::Put(lost, {{"reason", "unrouted"}}, static_cast<double>(raft.messages_unrouted));
}

void AddScrub(const storage::ScrubStats& scrub, Page* page) {
  page->Counter("sluice_broker_scrub_rounds_total", "Rounds over all closed segments.",
                static_cast<double>(scrub.rounds));
  page->Counter("sluice_broker_scrub_segments_total", "Segments compared with their checksums.",
                static_cast<double>(scrub.segments));
  page->Counter("sluice_broker_scrub_bytes_total", "Bytes read for that.", static_cast<double>(scrub.bytes));
  page->Counter("sluice_broker_scrub_read_errors_total", "Reads that failed; they are tried again in the next round.",
                static_cast<double>(scrub.unreadable));
  page->Gauge("sluice_broker_scrub_damaged_segments", "Segments that were damaged when they were last read.",
              static_cast<double>(scrub.damaged_now));
}

struct PartitionMetric {
  MetricType type;
  const char* name;
  const char* help;
  double (*value)(const PartitionStats& stats);
};

constexpr PartitionMetric kPartitionMetrics[] = {
    {MetricType::Counter, "sluice_broker_produced_records_total", "Records acknowledged.",
     [](const PartitionStats& s) { return static_cast<double>(s.produced_records); }},
    {MetricType::Counter, "sluice_broker_produced_batches_total", "Batches acknowledged.",
     [](const PartitionStats& s) { return static_cast<double>(s.produced_batches); }},
    {MetricType::Counter, "sluice_broker_produced_bytes_total", "Bytes of batches acknowledged.",
     [](const PartitionStats& s) { return static_cast<double>(s.produced_bytes); }},
    {MetricType::Counter, "sluice_broker_produce_errors_total", "Items refused or failed.",
     [](const PartitionStats& s) { return static_cast<double>(s.produce_errors); }},
    {MetricType::Counter, "sluice_broker_fetched_bytes_total", "Bytes of batches read.",
     [](const PartitionStats& s) { return static_cast<double>(s.fetched_bytes); }},
    {MetricType::Counter, "sluice_broker_fetches_total", "Reads of a partition.",
     [](const PartitionStats& s) { return static_cast<double>(s.fetches); }},
    {MetricType::Gauge, "sluice_broker_log_size_bytes", "Bytes in segments.",
     [](const PartitionStats& s) { return static_cast<double>(s.size_bytes); }},
};

// Only where each partition has labels of its own: a sum of offsets says nothing.
constexpr PartitionMetric kOffsetMetrics[] = {
    {MetricType::Gauge, "sluice_broker_log_start_offset", "First offset that can be read.",
     [](const PartitionStats& s) { return static_cast<double>(s.log_start.value()); }},
    {MetricType::Gauge, "sluice_broker_high_watermark", "One past the last committed offset.",
     [](const PartitionStats& s) { return static_cast<double>(s.high_watermark.value()); }},
};

void AddEach(const std::vector<PartitionStats>& partitions, const PartitionMetric& metric, Page* page) {
  MetricFamily& family = page->Add(metric.type, metric.name, metric.help);
  for (const PartitionStats& stats : partitions) {
    Page::Put(family, {{"topic", stats.topic}, {"partition", std::to_string(stats.partition.value())}},
              metric.value(stats));
  }
}

// Only those that failed: an alert wants their names, however many others there are.
void AddFailed(const std::vector<PartitionStats>& partitions, Page* page) {
  int64_t count = 0;
  MetricFamily& family =
      page->Add(MetricType::Gauge, "sluice_broker_partition_failed",
                "1 for each partition whose replica here cannot be opened or read; others have no sample.");
  for (const PartitionStats& stats : partitions) {
    if (!stats.failed) continue;
    Page::Put(family, {{"topic", stats.topic}, {"partition", std::to_string(stats.partition.value())}}, 1);
    ++count;
  }
  page->Gauge("sluice_broker_partitions_failed", "Partitions whose replica here cannot be opened or read.",
              static_cast<double>(count));
}

void AddPartitions(const std::vector<PartitionStats>& partitions, Page* page) {
  if (partitions.size() <= kPartitionLabelsMax) {
    for (const PartitionMetric& metric : kPartitionMetrics) AddEach(partitions, metric, page);
    for (const PartitionMetric& metric : kOffsetMetrics) AddEach(partitions, metric, page);
    return;
  }
  for (const PartitionMetric& metric : kPartitionMetrics) {
    std::map<std::string, double> sums;
    for (const PartitionStats& stats : partitions) sums[stats.topic] += metric.value(stats);
    MetricFamily& family = page->Add(metric.type, metric.name, metric.help);
    for (const auto& [topic, sum] : sums) Page::Put(family, {{"topic", topic}}, sum);
  }
}

void AddBroker(const BrokerStats& broker, Page* page) {
  page->Gauge("sluice_broker_topics", "Topics, internal ones among them.", broker.topics);
  page->Gauge("sluice_broker_partitions", "Partitions on this node.", static_cast<double>(broker.partitions.size()));
  page->Gauge("sluice_broker_inflight_bytes", "Of batches not answered yet.",
              static_cast<double>(broker.inflight_bytes));
  page->Gauge("sluice_broker_inflight_max_bytes", "The bound on them.", static_cast<double>(broker.inflight_bytes_max));
  page->Gauge("sluice_broker_read_bytes", "Of answers to readers, being read or not written to the client yet.",
              static_cast<double>(broker.read_bytes));
  page->Gauge("sluice_broker_read_max_bytes", "The bound on them.", static_cast<double>(broker.read_bytes_max));
  page->Gauge("sluice_broker_reads_waiting", "Reads that wait for memory.", static_cast<double>(broker.reads_waiting));
  page->Counter("sluice_broker_slow_reads_cut_off_total",
                "Answers given up because their client did not take them while other reads waited for memory.",
                static_cast<double>(broker.reads_called_in));
  page->Gauge("sluice_broker_waiting_fetches", "Fetches that wait at the end of a log.",
              static_cast<double>(broker.waiting_fetches));
  page->Gauge("sluice_broker_disk_free_bytes", "Free on the data folder's disk.",
              static_cast<double>(broker.disk_free_bytes));
  page->Gauge("sluice_broker_disk_refusing_writes", "1 while appends are refused for want of space.",
              broker.disk_refusing_writes ? 1 : 0);
  MetricFamily& errors = page->Add(MetricType::Counter, "sluice_broker_errors_total", "Errors answered, by reason.");
  for (const auto& [reason, count] : broker.errors) Page::Put(errors, {{"code", reason}}, static_cast<double>(count));
}

}  // namespace

std::string RenderMetrics(const NodeStats& stats) {
  Page page;
  AddProcess(stats, &page);
  if (stats.ready) {
    AddRpc(stats.rpc, &page);
    AddJournal(stats.journal, &page);
    AddRaft(stats.raft, &page);
    AddScrub(stats.scrub, &page);
    AddBroker(stats.broker, &page);
    AddFailed(stats.broker.partitions, &page);
    AddPartitions(stats.broker.partitions, &page);
  }
  return page.Text();
}

}  // namespace sluice::broker
