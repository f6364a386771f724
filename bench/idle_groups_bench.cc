#include "bench/idle_groups_bench.h"

#include <sys/resource.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <future>
#include <memory>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "replication/raft_node.h"
#include "runtime/blocking_threads.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"
#include "runtime/thread_executor.h"
#include "storage/log_store.h"

namespace sluice::bench {

namespace {

constexpr int kNodes = 3;

/// Hands messages to the other nodes' receivers, in the sender's thread.
class Switchboard {
 public:
  class Line final : public replication::PeerTransport {
   public:
    Line(Switchboard& board, NodeId node) : board_(board), node_(node) {}
    void Start(replication::PeerReceiver& receiver) override { board_.Join(node_, &receiver); }
    void Stop(absl::AnyInvocable<void()> done) override {
      board_.Join(node_, nullptr);
      done();
    }
    bool Send(const ReplicaId& group, raft::Message message) override {
      ++board_.group_messages;
      const std::shared_lock lock(board_.mutex_);
      replication::PeerReceiver* const receiver = board_.At(message.to.node);
      if (receiver == nullptr) return false;
      receiver->OnMessage(group, std::move(message));
      return true;
    }
    bool SendLiveness(NodeId to, replication::LivenessMessage message) override {
      ++board_.liveness_messages;
      // Answers come on the same thread, and a shared lock is not to be taken twice.
      replication::PeerReceiver* receiver = nullptr;
      {
        const std::shared_lock lock(board_.mutex_);
        receiver = board_.At(to);
      }
      if (receiver == nullptr) return false;
      receiver->OnLiveness(node_, std::move(message));
      return true;
    }

   private:
    Switchboard& board_;
    const NodeId node_;
  };

  std::atomic<uint64_t> group_messages{0};
  std::atomic<uint64_t> liveness_messages{0};

 private:
  void Join(NodeId node, replication::PeerReceiver* receiver) {
    const std::unique_lock lock(mutex_);
    receivers_[static_cast<size_t>(node.value())] = receiver;
  }
  replication::PeerReceiver* At(NodeId node) const { return receivers_[static_cast<size_t>(node.value())]; }

  std::shared_mutex mutex_;
  std::array<replication::PeerReceiver*, kNodes + 1> receivers_{};
};

class Node {
 public:
  Node(Switchboard& board, NodeId id, std::string dir) : id_(id), dir_(std::move(dir)), line_(board, id) {}
  ~Node() {
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  /// The threads of other nodes may call this one until they have stopped, too.
  void Stop() {
    line_.Stop([] {});
    if (raft_ != nullptr) {
      std::promise<void> stopped;
      raft_->Stop([&] { stopped.set_value(); });
      stopped.get_future().wait();
    }
    if (store_ != nullptr) {
      std::promise<void> stopped;
      store_->Stop([&](const absl::Status&) { stopped.set_value(); });
      stopped.get_future().wait();
    }
    shard_.Stop();
    home_.Stop();
  }

  absl::Status Start() {
    std::filesystem::create_directories(dir_);
    storage::LogStoreOptions options;
    options.data_dir = dir_;
    options.journal.file_bytes = 8 << 20;
    options.journal.total_bytes_max = 128 << 20;
    options.journal.random = &random_;
    options.journal.timers = &home_;
    options.cache_bytes = 32 << 20;
    options.disk_low_watermark_bytes = options.disk_high_watermark_bytes = 0;
    SLUICE_ASSIGN_OR_RETURN(
        store_,
        storage::LogStore::Open(
            fs_, clock_,
            {.home = &home_, .journal_io = &journal_io_, .segment_io = &segment_io_, .cold_reads = &cold_reads_},
            options));
    replication::RaftNodeOptions raft;
    raft.node = id_;
    raft_ = replication::RaftNode::Make(raft, {.shards = {&shard_},
                                               .transport = &line_,
                                               .clock = &clock_,
                                               .random = &random_,
                                               .store = store_,
                                               .log = &logger_,
                                               .on_leader_change = nullptr});
    raft_->Start();
    return absl::OkStatus();
  }

  VoterId voter() const { return {id_, Uuid::FromRandom(7, static_cast<uint64_t>(id_.value()))}; }
  void Open(const ReplicaId& group, const raft::Configuration& members, std::promise<absl::Status>& opened) {
    raft_->Open({.group = group, .shard = 0, .log = {}, .incarnation = voter().incarnation, .initial = members},
                [&opened](auto log) { opened.set_value(log.status()); });
  }
  replication::RaftNodeStats stats() const { return raft_->stats(); }

 private:
  const NodeId id_;
  const std::string dir_;
  Switchboard::Line line_;
  runtime::PosixFileSystem fs_;
  runtime::SystemClock clock_;
  runtime::SystemRandom random_;
  const Logger logger_ = Logger::Silent();
  runtime::ThreadExecutor shard_{"shard"};
  runtime::ThreadExecutor home_{"home"};
  runtime::BlockingThreads journal_io_{1, "journal"};
  runtime::BlockingThreads segment_io_{1, "segments"};
  runtime::BlockingThreads cold_reads_{1, "reads"};
  std::shared_ptr<storage::LogStore> store_;
  std::shared_ptr<replication::RaftNode> raft_;
};

struct Nodes {
  ~Nodes() {
    for (auto& node : all) node->Stop();
  }
  std::vector<std::unique_ptr<Node>> all;
};

double ProcessorSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double Now() {
  return absl::ToDoubleSeconds(runtime::SystemClock().Monotonic());
}

}  // namespace

absl::StatusOr<IdleGroupsMeasurement> MeasureIdleGroups(const std::string& dir, int groups, absl::Duration each) {
  Switchboard board;
  std::vector<std::promise<absl::Status>> opened(static_cast<size_t>(kNodes * groups));
  Nodes stops_together;
  std::vector<std::unique_ptr<Node>>& nodes = stops_together.all;
  raft::Configuration members;
  for (int i = 1; i <= kNodes; ++i) {
    nodes.push_back(std::make_unique<Node>(board, NodeId(i), dir + "/node" + std::to_string(i)));
    SLUICE_RETURN_IF_ERROR(nodes.back()->Start());
    members.voters.push_back(nodes.back()->voter());
  }
  IdleGroupsMeasurement measured{.groups = groups};
  const double began = Now();
  for (size_t i = 0; i < opened.size(); ++i) {
    const ReplicaId group{Uuid::FromRandom(1, 1), PartitionId(static_cast<int32_t>(i) / kNodes)};
    nodes[i % kNodes]->Open(group, members, opened[i]);
  }
  for (auto& one : opened) SLUICE_RETURN_IF_ERROR(one.get_future().get());
  const auto settled = [&] {
    int64_t leaders = 0;
    for (const auto& node : nodes) {
      const replication::RaftNodeStats stats = node->stats();
      leaders += stats.leaders;
      if (stats.without_leader > 0 || stats.under_replicated > 0) return false;
    }
    return leaders == groups;
  };
  while (!settled()) {
    if (Now() - began > 120) return absl::DeadlineExceededError("not every group has found a leader");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  measured.seconds_to_leaders = Now() - began;
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const double from = Now();
  const double processor = ProcessorSeconds();
  const uint64_t group_messages = board.group_messages;
  const uint64_t liveness_messages = board.liveness_messages;
  std::this_thread::sleep_for(absl::ToChronoMilliseconds(each));
  const double seconds = Now() - from;
  measured.core_percent_per_node = 100 * (ProcessorSeconds() - processor) / seconds / kNodes;
  measured.group_messages_per_second = static_cast<double>(board.group_messages - group_messages) / seconds;
  measured.liveness_messages_per_second = static_cast<double>(board.liveness_messages - liveness_messages) / seconds;
  return measured;
}

bool PrintIdleGroupsBench(std::ostream& out, const std::string& dir, absl::Duration each) {
  const auto measured = MeasureIdleGroups(dir, 1000, each);
  if (!measured.ok()) {
    out << "idle groups: " << measured.status().ToString() << "\n";
    return false;
  }
  out << absl::StrFormat(
      "\nIdle groups: %d with 3 replicas on 3 nodes in one process\n"
      "  leaders after %.1f s; idle %.2f %% of a core a node, %.0f messages/s of groups, %.0f of nodes\n",
      measured->groups, measured->seconds_to_leaders, measured->core_percent_per_node,
      measured->group_messages_per_second, measured->liveness_messages_per_second);
  return true;
}

}  // namespace sluice::bench
