// What admins, producers, consumers and appenders of one client share: channels to brokers, and who leads which
// partition. Internal to the client. Everything but the accessors runs on the executor. A call under way keeps it,
// until its answer or CloseChannels.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/channel.h"
#include "client/client.h"
#include "common/executor.h"

namespace sluice::client {

/// A topic's partitions: the address of each leader, empty where there is none.
struct TopicRoutes {
  std::vector<std::string> leaders;
};

class Core : public std::enable_shared_from_this<Core> {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<Bytes>)>;
  using RoutesDone = absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<const TopicRoutes>>)>;

  Core(ClientOptions options, const ClientSeams& seams);

  Executor& executor() { return *seams_.executor; }
  Clock& clock() { return *seams_.clock; }
  const ClientOptions& options() const { return options_; }

  /// To any broker: the first that can be connected to, in the order configured, beginning with the last that could.
  /// The call is made at one broker only; one that is not the right one and says which is (NOT_LEADER) is followed
  /// once. A failure after the request may have reached a broker, which did not say what became of it, has WasAsked.
  void CallAny(std::string_view method, Bytes request, absl::Duration timeout, Done done);
  /// To one broker.
  void CallAt(const std::string& address, std::string_view method, Bytes request, absl::Duration timeout, Done done);
  /// Leaders of a topic, from memory unless forgotten. Calls for one topic at the same time share one question.
  void FindTopic(const std::string& topic, absl::Duration timeout, RoutesDone done);
  void ForgetTopic(const std::string& topic);
  Channel& ChannelTo(const std::string& address);
  /// Cancels everything under way; whatever still asks gets CANCELLED.
  void CloseChannels();
  bool closed() const { return closed_ != nullptr; }

 private:
  struct Attempt;
  void TryNext(const std::shared_ptr<Attempt>& attempt);
  void Ask(const std::shared_ptr<Attempt>& attempt, const std::string& address);

  const ClientOptions options_;
  const ClientSeams seams_;
  std::map<std::string, std::unique_ptr<Channel>> channels_;
  std::unique_ptr<Channel> closed_;  // what there is instead once the channels are closed
  size_t preferred_ = 0;             // of options_.brokers
  std::map<std::string, std::shared_ptr<const TopicRoutes>> routes_;
  std::map<std::string, std::vector<RoutesDone>> asking_;
};

/// Whether a failed CallAny may have had an effect.
bool WasAsked(const absl::Status& status);

/// NOT_AVAILABLE for a partition without a leader, NOT_FOUND for one that the topic does not have; else the address.
absl::StatusOr<std::string> LeaderOf(const TopicRoutes& routes, std::string_view topic, int32_t partition);

}  // namespace sluice::client
