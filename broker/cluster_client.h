// A node's side of belonging to a cluster: joining one by its seeds, and then, for as long as the node runs, being
// registered with and reporting to whoever leads the controller.
//
// What a call could not prove is asked again: registering is idempotent for a process, and what is stale has an epoch
// that is over. A refusal ends it: the node is told why and stops. So does another process that has registered as this
// node since this one had: the data folder was copied, and who has started later is the node.
// Threads: the controller's executor; callbacks too. Calls that are answered after the end find nobody.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/admission.h"
#include "broker/cluster_calls.h"
#include "broker/cluster_service.h"
#include "broker/controller.h"
#include "broker/peer_book.h"
#include "broker/peer_calls.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

struct ClusterClientOptions {
  NodeRecord node;           ///< Its incarnation is looked at only where this node forms the cluster.
  Uuid cluster_id;           ///< Of the data folder; nil: it belongs to none yet.
  std::string cluster_name;  ///< As configured; empty: any.
  std::vector<std::string> seeds;
  absl::Duration heartbeat_every = absl::Milliseconds(500);
  absl::Duration retry_every = absl::Milliseconds(500);
  absl::Duration call_deadline = absl::Seconds(2);
  absl::Duration ask_where_after = absl::Seconds(1);  ///< Without a leader; and from then on as often.
};

/// What a node knows once it has joined: to be written down before it opens its replica of group 0 with
/// `registration.incarnation` and no members.
struct Joined {
  Uuid cluster_id;
  std::string cluster_name;
  Registration registration;
};

/// Asks the seeds which cluster they are of, and its leader to be let in; for as long as it takes.
class ClusterJoiner {
 public:
  struct Seams {
    Executor& executor;
    PeerCalls& calls;
    const Logger& log;
  };
  ClusterJoiner(ClusterClientOptions options, Seams seams) : options_(std::move(options)), seams_(seams) {}
  ~ClusterJoiner();

  /// FailedPrecondition, with the reason in words for an operator, when seeds are of different clusters, or the cluster
  /// refuses this node. Dropped without an answer when the joiner is destroyed before.
  void Join(Callback<absl::StatusOr<Joined>> done);
  /// Gives up, or is done; on the executor, before it is destroyed elsewhere.
  void Abandon();

 private:
  struct Round;
  void AskSeeds();
  void OnAsked(const std::shared_ptr<Round>& round);
  /// Whether all that has been answered so far goes together.
  static absl::Status CheckAnswers(const Round& round);
  /// Of the leaders that were named, one after the other.
  std::string NextLeader(const Round& round);
  void RegisterAt(std::string address, int hops, Offset replaces = {});
  void OnRegistered(const absl::StatusOr<RegisterAnswer>& answer, int hops);
  void TryLater(std::string_view why);
  void End(absl::StatusOr<Joined> result);
  void Call(const std::string& address, const RegisterRequest& request, Callback<absl::StatusOr<RegisterAnswer>> done);

  const ClusterClientOptions options_;
  const Seams seams_;
  Callback<absl::StatusOr<Joined>> done_;
  Executor::TimerId timer_ = 0;
  size_t leaders_tried_ = 0;
  bool said_waiting_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

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
  void OnRegistered(absl::StatusOr<RegisterAnswer> answer, bool local);
  void SendHeartbeat();
  void OnHeartbeatAnswered(Offset epoch, const absl::StatusOr<HeartbeatAnswer>& answer);
  std::string NextAddress();
  std::vector<std::string> Everybody() const;
  bool CannotWrite() const;
  void AskWhereIfLost();
  void AskWhere();
  void OnTold(const absl::StatusOr<RegisterAnswer>& answer);
  RegisterRequest Request() const;
  void CheckSeeds();
  void Refuse(std::string why);
  /// For a process at `address` that is this node, too.
  void RefuseBeside(const std::string& address);
  bool IsReplacedBy(const std::optional<OtherProcess>& other);
  void AnswerRegistered();

  const ClusterClientOptions options_;
  const Seams seams_;
  bool running_ = false;
  bool busy_ = false;  ///< Forming or registering.
  bool draining_ = false;
  bool unheard_ = false;  ///< The last heartbeat was not answered, or not by the leader.
  absl::Status ended_;    ///< Why it runs no more.
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
