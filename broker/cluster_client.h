// A node's side of belonging to a cluster: for as long as it runs, being registered with and reporting to whoever leads
// the controller. How it comes to be of one: cluster_joiner.h.
//
// What a call could not prove is asked again: registering is idempotent for a process, and what is stale has an epoch
// that is over. A refusal ends it: the node is told why and stops. So does another process that has registered as this
// node since this one had: the data folder was copied, and who has started later is the node.
// Threads: the controller's executor; callbacks too. Calls that are answered after the end find nobody.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/admission.h"
#include "broker/cluster_service.h"
#include "broker/controller.h"
#include "broker/peer_book.h"
#include "broker/peer_calls.h"
#include "broker/register_call.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

class ClusterClient final : public ControllerObserver {
 public:
  struct Seams {
    Executor& executor;
    Controller& controller;
    ClusterService& service;             ///< This node's own, for when it leads.
    PeerCalls* calls = nullptr;          ///< Null on a node without peers.
    PeerAddresses* addresses = nullptr;  ///< Told where the other nodes are, as they register; may be null.
    const Logger& log;
    /// Of the data folder's disk; for heartbeats.
    std::function<int64_t()> disk_free_bytes;
    /// The cluster does not let this node in any more: it must stop. Once.
    std::function<void(const absl::Status& why)> on_refused;
    /// Whether the disk is full; for heartbeats, beside what the controller knows. May be empty.
    std::function<bool()> disk_full = nullptr;
    /// Told which nodes' disks are full, by what the leader answers; may be null.
    FullNodes* full = nullptr;
  };

  ClusterClient(ClusterClientOptions options, Seams seams);
  ~ClusterClient() override;

  /// Once the controller has started. Where it leads and has no cluster yet, this node forms one (the folder's cluster
  /// id, the configured name). `joined`: a registration that this start has made already.
  void Start(std::optional<Registration> joined);
  void Stop();
  /// From now on heartbeats say that this node is about to stop; one is sent at once.
  void SetDraining();
  bool draining() const { return draining_; }

  /// Of this start; nullopt before it is registered.
  std::optional<Offset> epoch() const { return epoch_; }
  /// How many heartbeats of this node a leader has taken.
  uint64_t heartbeats_taken() const { return heartbeats_taken_; }
  /// Answers once this node is registered and its own state has that; with the reason when it is refused before.
  void WhenRegistered(Callback<absl::Status> done);

  void OnApplied(const ClusterDelta& delta) override;
  void OnLeadership(bool leads) override;

 private:
  void End(const absl::Status& why);
  void RunLater(absl::Duration after);
  void Run();
  void Form();
  void Register();
  /// `asked`: its address; empty: this node itself.
  void OnRegistered(const std::string& asked, absl::StatusOr<RegisterAnswer> answer);
  void SendHeartbeat();
  void OnHeartbeatAnswered(Offset epoch, const absl::StatusOr<HeartbeatAnswer>& answer);
  std::string NextAddress();
  std::vector<std::string> Everybody() const;
  bool CannotWrite() const;
  void AskWhereIfLost();
  void AskWhere();
  void OnTold(const absl::StatusOr<RegisterAnswer>& answer);
  RegisterRequest Request() const;
  void Ask(const std::string& address, const RegisterRequest& request, Callback<absl::StatusOr<RegisterAnswer>> done);
  void CheckSeeds();
  void Refuse(const std::string& why);
  /// For a process at `address` that is this node, too.
  void RefuseBeside(const std::string& address);
  void OnBeside(const std::string& address);
  bool IsReplacedBy(const std::optional<OtherProcess>& other);
  void AnswerRegistered();

  const ClusterClientOptions options_;
  const Seams seams_;
  bool running_ = false;
  bool busy_ = false;  ///< Forming or registering.
  bool draining_ = false;
  bool unheard_ = false;  ///< The last heartbeat was not answered, or not by the leader.
  absl::Status ended_;    ///< Why it runs no more.
  RegisterTrouble trouble_;
  std::set<std::string> told_beside_;  ///< Addresses of processes with a copy of the folder.
  std::optional<Offset> epoch_;
  Offset held_;              ///< The last epoch of this process; 0: none yet.
  Offset known_;             ///< Of the node, as a member said it; 0: it did not.
  std::string leader_hint_;  ///< An address that a member named.
  size_t next_address_ = 0;
  PeerBook book_;
  std::optional<absl::Duration> lost_since_;  ///< Without a leader; or since it last asked where the others are.
  size_t next_asked_ = 0;
  uint64_t heartbeats_taken_ = 0;
  int tries_in_vain_ = 0;  ///< Since the last heartbeat that was taken.
  Executor::TimerId timer_ = 0;
  std::vector<Callback<absl::Status>> when_registered_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::broker
