// One node of the world: a disk, a clock, and the processes that live on them one after the other. A process is
// everything above the seams, put together as the program does it: data folder, log store, metadata store on simulated
// files, joining by seeds, Raft groups, broker with its controller.
//
// A node dies only in Reap, between two events, never inside one of its own: what ends it (power loss in the middle of
// a write, a fatal error, a start that failed) is noted first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "broker/cluster_client.h"
#include "broker/cluster_joiner.h"
#include "broker/data_folder.h"
#include "broker/node_broker.h"
#include "broker/raft_log_factory.h"
#include "common/executor.h"
#include "common/log.h"
#include "common/text.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"
#include "storage/meta/metadata_store.h"
#include "tests/simulation/cluster/context.h"
#include "tests/simulation/cluster/peer_port.h"
#include "tests/simulation/sim_executor.h"
#include "tests/simulation/sim_file_system.h"

namespace sluice::cluster_simulation {

/// Where a node is found.
struct Place {
  std::string host;
  int client_port = 7400;
  int peer_port = 7401;
  std::string client() const { return Cat(host, ":", client_port); }
  std::string peer() const { return Cat(host, ":", peer_port); }
};
inline Place FirstPlace(NodeId id) {
  return {.host = Cat("node", id)};
}

/// What an operator configures.
struct NodeSetup {
  NodeId id;
  bool founds = false;             ///< `sluiced init` is run on its first disk: it forms the cluster.
  std::vector<std::string> seeds;  ///< None: forms a cluster of its own, too.
  bool upgraded = false;           ///< Is the next version of the program from the beginning on.
};

/// Who leads group 0, in which term, and who takes part in it as that one has it.
struct ControllerTerm {
  NodeId leader;
  LeaderEpoch term;
  raft::Configuration members;
};

class Node {
 public:
  Node(Context& context, NodeSetup setup, Peers& peers);
  ~Node();

  NodeId id() const { return id_; }
  const Place& place() const { return place_; }
  std::string rack() const;
  /// Whether what this one sends to the other goes where that is.
  bool Finds(NodeId other) const { return up() && port_ != nullptr && port_->Finds(other); }

  // ---- Its life
  /// A new process; it serves a little later, or is noted as one that could not start.
  void Start();
  /// Between events: ends the process where it must, and puts the disk right. True when something ended.
  bool Reap();
  /// Power loss now.
  void PowerOff();
  /// Power loss in the middle of the `nth` file operation from now on.
  void PowerOffAtOperation(uint64_t nth);
  /// As kill -9: what it wrote to files is there, synced or not.
  void KillProcess();
  /// The process dies with its disk; the next one finds an empty one, and must be refused: from then on this node is
  /// gone, and its number with it.
  void LoseDisk(std::vector<std::string> seeds);
  /// Power loss now; and when it is back, something on its disk, or what the disk says once, is not what was written.
  /// Nothing that it then does may harm anybody; it need not work before it has lost the disk.
  void Damage();
  /// From its next process on it is found elsewhere; whoever calls sees to it that there is one.
  void MoveTo(Place place) { place_ = std::move(place); }
  /// From its next process on it is the next version of the program, with feature levels that are one higher.
  void Upgrade();
  /// As after SIGTERM; ends by itself.
  void StopInOrder();
  void Pause();
  void Resume();

  bool up() const { return process_ != nullptr; }
  bool serving() const { return up() && serving_; }
  /// Serves, and the cluster counts on it.
  bool ready() const { return serving() && broker_->IsReady(); }
  bool gone() const { return gone_; }
  bool lost_disk() const { return lost_disk_; }
  bool damaged() const { return damaged_; }
  /// Has a replica whose log may have lost its end, and that is not known to be whole again.
  bool in_doubt() const { return up() && raft_ != nullptr && raft_->stats().in_doubt > 0; }
  bool upgraded() const { return upgraded_; }
  /// The highest that its process supports; of one whose disk is lost, that the process before did.
  int32_t feature_max() const { return program_.feature_max; }
  /// Where its replica leads group 0.
  std::optional<ControllerTerm> LeadsController() const;
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
  /// A read of its disk, the n-th from now, returns what is not there.
  void FlipBitOfRead(uint64_t nth) { fs_->FlipBitOfRead(nth); }
  /// Where its log starts; 0 where there is none.
  Offset ReplicaStart(const ReplicaId& replica) const;
  /// Committed batches that this node's replica holds, whoever leads; Unavailable where there is none.
  void ReadReplica(const ReplicaId& replica, Offset from,
                   absl::AnyInvocable<void(absl::StatusOr<replication::ReadResult>)> done);
  /// On its disk.
  std::vector<ReplicaId> Replicas() const { return store_->Replicas(); }

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
  /// What another version has other.
  struct Program {
    std::string_view version = "simulated";
    int32_t feature_min = broker::kFeatureLevelMin;
    int32_t feature_max = broker::kFeatureLevelMax;
  };

  // node_start.cc
  absl::Status OpenStorage();
  absl::Status OpenStore();
  void OpenPeers();
  void Join();
  void OnJoined(const absl::StatusOr<broker::Joined>& joined);
  void StartBroker(std::optional<broker::Registration> joined);
  void OpenRaft();
  void OnStarted(const absl::Status& status);
  void OnRefused(const absl::Status& why);

  enum class Damaged : uint8_t { kRead, kCut, kBlock, kBit };
  void DamageDisk();
  /// One that has something in it.
  std::string AnyFile(bool in_topics);
  void StopParts();
  void Fatal(absl::Status why);
  void Kill();
  void ApplyLatency();

  Context& context_;
  const NodeId id_;
  Peers& peers_;
  std::unique_ptr<simulation::SimFileSystem> fs_;
  simulation::SimClock clock_;
  simulation::SimRandom random_;
  simulation::SimFaultCounts counted_;
  const Logger log_;
  bool founds_;
  std::vector<std::string> seeds_;
  Place place_;
  bool upgraded_;
  Program program_;  ///< Of the process, or of the last one.

  // Of the process
  std::unique_ptr<simulation::SimProcess> process_;
  Uuid process_id_;  ///< Of this life.
  std::unique_ptr<Executors> executors_;
  std::unique_ptr<storage::MetadataStore> meta_;
  std::shared_ptr<storage::LogStore> store_;
  broker::DataFolder folder_;
  std::unique_ptr<PeerPort> port_;
  std::unique_ptr<broker::ClusterJoiner> joiner_;
  std::shared_ptr<replication::RaftNode> raft_;
  std::unique_ptr<broker::LogFactory> factory_;
  std::unique_ptr<broker::Broker> broker_;
  std::map<uint64_t, std::shared_ptr<broker::ProduceSession>> sessions_;
  uint64_t life_ = 0;
  bool serving_ = false;
  bool stopping_ = false;
  bool stopped_ = false;     ///< In good order; Reap ends it.
  bool lose_power_ = false;  ///< At the next Reap.
  bool killed_ = false;
  int damages_ = 0;  ///< To come with its loss of power.
  bool damaged_ = false;
  bool lose_disk_ = false;
  bool lost_disk_ = false;
  bool gone_ = false;
  absl::Status fatal_;    ///< Why the process must end.
  bool armed_ = false;    ///< Calls of its disk will fail.
  bool excused_ = false;  ///< They may have failed in this life.
  bool calls_failed_ = false;
  uint64_t snapshots_counted_ = 0;
  uint64_t states_counted_ = 0;
  Offset controller_log_start_counted_;
  bool slow_ = false;
};

}  // namespace sluice::cluster_simulation
