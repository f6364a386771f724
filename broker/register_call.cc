#include "broker/register_call.h"

#include <utility>

#include "common/text.h"

namespace sluice::broker {

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
