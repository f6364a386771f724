// One node of the world: a disk, a clock, and the processes that live on them one after the other. A process is
// everything above the seams: log store, metadata store on simulated files, broker.
//
// A node dies only in Reap, between two events, never inside one of its own: what ends it (power loss in the middle of
// a write, a fatal error, a start that failed) is noted first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "broker/node_broker.h"
#include "broker/raft_log_factory.h"
#include "common/executor.h"
#include "common/log.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"
#include "storage/meta/metadata_store.h"
#include "tests/simulation/cluster/context.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"
#include "tests/simulation/sim_transport.h"

namespace sluice::cluster_simulation {

class Node {
 public:
  Node(Context& context, NodeId id, simulation::SimNetwork& peers);
  ~Node();

  NodeId id() const { return id_; }
  /// Where clients find it.
  std::string address() const;
  static NodeId AtAddress(const std::string& address);

  // ---- Its life
  /// A new process; it serves a little later, or is noted as one that could not start.
  void Start();
  /// Between events: ends the process where it must, and puts the disk right. True when something ended.
  bool Reap();
  /// Power loss now.
  void PowerOff();
  /// Power loss in the middle of the `nth` file operation from now on.
  void PowerOffAtOperation(uint64_t nth);
  /// As after SIGTERM; ends by itself.
  void StopInOrder();
  void Pause();
  void Resume();

  bool up() const { return process_ != nullptr; }
  bool serving() const { return up() && serving_; }
  bool paused() const { return up() && process_->paused(); }
  bool stopping() const { return stopping_; }
  /// Of the process; another one has another.
  uint64_t life() const { return life_; }
  std::string Describe() const;

  // ---- What reaches it
  broker::Broker& broker() const { return *broker_; }
  /// Runs `task` as something that came over the network; dropped when the process ends before.
  void Deliver(Task task);
  /// The session of that name in this life, made at its first use.
  std::shared_ptr<broker::ProduceSession> Session(uint64_t name);
  /// Committed batches that this node's replica holds, whoever leads; Unavailable where there is none.
  void ReadReplica(const ReplicaId& replica, Offset from,
                   absl::AnyInvocable<void(absl::StatusOr<replication::ReadResult>)> done);

  // ---- Faults of its disk and clock; they last until Mend.
  void FailCall(simulation::SimFileSystem::Call call);
  void FailSyncsOf(const std::string& ending);
  void FillDisk();
  void SlowDisk();
  void JumpClock();
  void Mend();
  /// Faults of its disk have struck in this life, or may still do so: it may refuse to start.
  bool excused() const { return excused_; }
  /// In this life single calls of its disk failed, or were to fail.
  bool calls_failed() const { return up() && calls_failed_; }
  void CountHits();

 private:
  struct Executors;

  absl::Status Open();
  absl::Status OpenStore(Uuid disk);
  void OpenRaft();
  void OpenBroker(Uuid cluster);
  std::unique_ptr<broker::Broker> MakeReplicated();
  void StopParts();
  void Fatal(absl::Status why);
  void OnStarted(const absl::Status& status);
  void Kill();
  void ApplyLatency();

  Context& context_;
  const NodeId id_;
  simulation::SimNetwork& peers_;
  simulation::SimFileSystem fs_;
  simulation::SimClock clock_;
  simulation::SimRandom random_;
  simulation::SimFaultCounts counted_;
  const Logger log_;

  // Of the process
  std::unique_ptr<simulation::SimProcess> process_;
  std::unique_ptr<Executors> executors_;
  std::unique_ptr<storage::MetadataStore> meta_;
  std::shared_ptr<storage::LogStore> store_;
  std::unique_ptr<replication::PeerTransport> transport_;
  std::shared_ptr<replication::RaftNode> raft_;
  std::unique_ptr<broker::LogFactory> factory_;
  std::unique_ptr<broker::Broker> broker_;
  std::map<uint64_t, std::shared_ptr<broker::ProduceSession>> sessions_;
  uint64_t life_ = 0;
  bool serving_ = false;
  bool stopping_ = false;
  bool stopped_ = false;     ///< In good order; Reap ends it.
  bool lose_power_ = false;  ///< At the next Reap.
  absl::Status fatal_;       ///< Why the process must end.
  bool armed_ = false;       ///< Calls of its disk will fail.
  bool excused_ = false;     ///< They may have failed in this life.
  bool calls_failed_ = false;
  uint64_t snapshots_counted_ = 0;
  bool slow_ = false;
};

}  // namespace sluice::cluster_simulation
