// The call by which a node asks another to let it in, or only which cluster that is of and where its nodes are: what
// joining a cluster and belonging to one have in common.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/cluster_calls.h"
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

/// As `options` say, without an incarnation.
RegisterRequest RequestOf(const ClusterClientOptions& options);

/// That another process at `address` is this node, too, and what to do, in words; `which`: that process.
std::string TwoProcesses(const NodeRecord& self, const std::string& address, std::string_view which);

/// Tells an operator why a node is not let in: each reason once, as a warning, however often it is tried. What passes
/// in most cases (nobody answers, there is no leader) is told once that has lasted for some tries.
class RegisterTrouble {
 public:
  /// Borrowed.
  explicit RegisterTrouble(const Logger& log) : log_(log) {}
  /// A try has failed, at `address`.
  void OnFailed(const std::string& address, const absl::Status& why);
  /// It is let in; what stands in its way from now on is told anew.
  void OnDone();

 private:
  const Logger& log_;
  int tries_ = 0;
  std::set<std::string> told_;
};

/// Of a try at which there was no leader to be asked.
absl::Status NoLeader();

/// Asks whoever listens at `address`. `done` is called on `executor` with the answer, what made it unreadable, or why
/// there is none (the statuses of PeerCalls); not at all where `*alive`, which is of that executor, is false by then.
void AskToRegister(PeerCalls& calls, const std::string& address, const RegisterRequest& request,
                   absl::Duration deadline, Executor& executor, std::shared_ptr<bool> alive,
                   Callback<absl::StatusOr<RegisterAnswer>> done);

}  // namespace sluice::broker
