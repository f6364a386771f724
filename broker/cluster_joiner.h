// How a node without a cluster comes to be of one: by its seeds, and the leader of the controller that they name.
//
// Threads: the executor of the controller; callbacks too. Calls that are answered after the end find nobody.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "broker/register_call.h"
#include "common/executor.h"
#include "common/log.h"

namespace sluice::broker {

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
  ClusterJoiner(ClusterClientOptions options, Seams seams)
      : options_(std::move(options)), seams_(seams), trouble_(seams.log) {}
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
  absl::Status CheckAnswers(const Round& round) const;
  /// The reason in words where no time heals that `answer`: two nodes of one number, another version; else OK.
  absl::Status Refusal(const std::string& address, const absl::Status& answer) const;
  /// Of the leaders that were named, one after the other.
  std::string NextLeader(const Round& round);
  void RegisterAt(std::string address, int hops, Offset replaces = {});
  void OnRegistered(const std::string& address, const absl::StatusOr<RegisterAnswer>& answer, int hops);
  void TryLater(std::string_view why);
  void End(absl::StatusOr<Joined> result);
  void Ask(const std::string& address, const RegisterRequest& request, Callback<absl::StatusOr<RegisterAnswer>> done);

  const ClusterClientOptions options_;
  const Seams seams_;
  Callback<absl::StatusOr<Joined>> done_;
  Executor::TimerId timer_ = 0;
  size_t leaders_tried_ = 0;
  RegisterTrouble trouble_;
  bool said_waiting_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::broker
