#include "broker/register_call.h"

#include <utility>

#include "common/text.h"

namespace sluice::broker {
namespace {

/// About five seconds: longer than nodes take that start together, and elections.
constexpr int kPassingTries = 10;
/// More reasons than there are; one that is never the same twice is told no further.
constexpr size_t kToldMax = 20;

}  // namespace

RegisterRequest RequestOf(const ClusterClientOptions& options) {
  RegisterRequest request{
      .ask_only = false, .cluster_id = options.cluster_id, .cluster_name = options.cluster_name, .node = options.node};
  request.node.incarnation = {};
  return request;
}

std::string TwoProcesses(const NodeRecord& self, const std::string& address, std::string_view which) {
  return Cat("two processes run as node ", self.id, ": this one, at ", self.peer_address, ", and one at ", address,
             " that ", which,
             ". The data folder was copied, so this one stops: keep one of the two folders and delete ",
             "the other, or give its node an empty node.data_dir and a node.id of its own");
}

absl::Status NoLeader() {
  return absl::UnavailableError("no leader of the controller is known there");
}

void RegisterTrouble::OnFailed(const std::string& address, const absl::Status& why) {
  ++tries_;
  const bool passes = absl::IsUnavailable(why) || absl::IsDeadlineExceeded(why);
  const bool quiet =
      (passes && tries_ < kPassingTries) || told_.size() >= kToldMax || !told_.insert(why.ToString()).second;
  if (quiet) return log_.Debug("could not register", {{"at", address}, {"error", why}});
  log_.Warn("this node could not register with its cluster; it goes on trying, and says this once",
            {{"at", address}, {"error", why}});
}

void RegisterTrouble::OnDone() {
  tries_ = 0;
  told_.clear();
}

void AskToRegister(PeerCalls& calls, const std::string& address, const RegisterRequest& request,
                   absl::Duration deadline, Executor& executor, std::shared_ptr<bool> alive,
                   Callback<absl::StatusOr<RegisterAnswer>> done) {
  // Decoded on the thread of the calls, so that the executor has only the answer to look at.
  calls.Call(
      address, kRegisterCall, EncodeRegisterRequest(request), deadline,
      [&executor, alive = std::move(alive), done = std::move(done)](absl::StatusOr<std::string> answer) mutable {
        absl::StatusOr<RegisterAnswer> decoded =
            answer.ok() ? DecodeRegisterAnswer(*answer) : absl::StatusOr<RegisterAnswer>(answer.status());
        executor.Post([alive = std::move(alive), decoded = std::move(decoded), done = std::move(done)]() mutable {
          if (*alive) done(std::move(decoded));
        });
      });
}

}  // namespace sluice::broker
