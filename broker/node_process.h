// NodeProcess: what `sluiced` is made of. Wires the seams for real, the storage, the peers, the broker and its adapters
// together, and takes them down again.
//
// Everything is made here and handed down; nothing below reaches for the world by itself. What is made later stands on
// what was made earlier, and is taken down in the opposite order.
// Threads: all calls from one, which waits in them.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "broker/data_folder.h"
#include "broker/node_broker.h"
#include "broker/node_config.h"
#include "broker/raft_log_factory.h"
#include "broker/rpc/peer_transport.h"
#include "broker/rpc/server.h"
#include "common/log.h"
#include "runtime/blocking_threads.h"
#include "runtime/http_listener.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"
#include "runtime/thread_executor.h"
#include "storage/log_store.h"
#include "storage/meta/metadata_store.h"

namespace sluice::broker {

class NodeProcess {
 public:
  NodeProcess(NodeConfig config, const Logger& log);

  /// Opens and serves. After a failure only Stop is left to call. Cancelled when a signal came while it waited for its
  /// cluster.
  absl::Status Start(runtime::TerminationSignals& signals);
  /// Why the node stopped by itself; OK when it did not.
  absl::Status Refused();
  /// Answers what is in flight, then takes everything down.
  void Stop();

 private:
  absl::Status OpenStorage();
  absl::Status OpenPeers();
  rpc::PeerIdentity Identity() const {
    return {.node = folder_.node_id, .cluster = folder_.cluster_id, .disk = folder_.disk_id};
  }
  /// Asks the seeds until the cluster lets this node in, where it has no replica of group 0 yet.
  absl::Status Join(runtime::TerminationSignals& signals);
  bool HasGroup0() const;
  /// So that a later start without it is refused.
  void NoteOwnGroup0();
  NodeRecord Record() const;
  std::string PeerAddress() const;
  void StartRaft();
  absl::Status StartBroker(runtime::TerminationSignals& signals);
  absl::Status StartHttp();
  void AnswerMetrics(runtime::HttpRespond respond);

  const NodeConfig config_;
  const Logger& log_;
  runtime::SystemClock clock_;
  const absl::Time started_;
  runtime::SystemRandom random_;          // of the first shard
  runtime::SystemRandom journal_random_;  // of the journal's thread
  runtime::PosixFileSystem files_;
  DataFolder folder_;
  Uuid process_;  ///< Drawn at the start.

  // Threads; stopped in Stop, before what their tasks use goes.
  std::vector<std::unique_ptr<runtime::ThreadExecutor>> shards_;
  runtime::BlockingThreads journal_io_;
  runtime::BlockingThreads segment_io_;
  runtime::BlockingThreads cold_reads_;
  runtime::BlockingThreads metadata_io_;

  std::shared_ptr<storage::LogStore> store_;
  std::unique_ptr<storage::MetadataStore> metadata_;
  std::unique_ptr<rpc::GrpcPeerTransport> peers_;
  std::optional<Registration> joined_;
  std::shared_ptr<replication::RaftNode> raft_;
  std::unique_ptr<RaftLogFactory> logs_;
  std::unique_ptr<Broker> broker_;
  std::unique_ptr<rpc::Server> server_;
  std::atomic<bool> ready_ = false;  // `server_` and all below it may be used by the HTTP listener
  runtime::HttpListener http_;
  std::mutex refused_mutex_;
  absl::Status refused_;
};

}  // namespace sluice::broker
