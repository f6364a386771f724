// What admins, producers, consumers and appenders of one client share: channels to brokers, one each, and who leads
// which partition. Internal to the client. Everything but the accessors runs on the executor. A call under way keeps
// it, until its answer or CloseChannels.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/channel.h"
#include "client/client.h"
#include "client/metadata.h"
#include "common/executor.h"

namespace sluice::client {

class Core : public std::enable_shared_from_this<Core> {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<Bytes>)>;

  static std::shared_ptr<Core> Make(ClientOptions options, const ClientSeams& seams);
  ~Core();

  Executor& executor() { return *seams_.executor; }
  Clock& clock() { return *seams_.clock; }
  const ClientOptions& options() const { return options_; }
  Metadata& metadata() { return *metadata_; }

  enum class Kind {
    kQuestion,  // may be asked twice, and of several brokers
    kChange,    // made once at most; a broker that says that it did nothing may be followed by another
  };
  /// To any broker: those configured, then those heard of, beginning with the last that answered. Goes on to the next
  /// while one cannot be reached or did nothing (NOT_LEADER, NOT_AVAILABLE, and a question that got no answer), and
  /// begins again, with a back-off, while there is one that may still do it. Ends by `timeout`. The failure of a change
  /// that a broker may have made, but did not speak of, has WasAsked.
  void CallAny(Kind kind, std::string_view method, Bytes request, absl::Duration timeout, Done done);
  /// To one broker.
  void CallAt(const std::string& address, std::string_view method, Bytes request, absl::Duration timeout, Done done);
  Channel& ChannelTo(const std::string& address);
  /// Cancels everything under way; whatever still asks gets CANCELLED.
  void CloseChannels();
  bool closed() const { return closed_ != nullptr; }

 private:
  struct Attempt;
  Core(ClientOptions options, const ClientSeams& seams);

  void StartRound(const std::shared_ptr<Attempt>& attempt);
  void TryNext(const std::shared_ptr<Attempt>& attempt);
  void EndRound(const std::shared_ptr<Attempt>& attempt);
  void Reach(const std::shared_ptr<Attempt>& attempt, const std::string& address);
  void Ask(const std::shared_ptr<Attempt>& attempt, const std::string& address);
  void OnAnswer(const std::shared_ptr<Attempt>& attempt, const std::string& address, absl::StatusOr<Bytes> answer);
  void DescribeTopic(const std::string& topic, absl::Duration timeout, Metadata::Done done);
  void NoteLeaders(bool all_known);
  void PreferNext();
  void Hear(const std::string& address);
  void LearnNodes();

  const ClientOptions options_;
  const ClientSeams seams_;
  std::map<std::string, std::unique_ptr<Channel>> channels_;
  std::unique_ptr<Channel> closed_;                 // what there is instead once the channels are closed
  std::vector<std::string> brokers_;                // those configured, then those heard of
  std::string preferred_;                           // the last that answered, or another where that one knew too little
  std::optional<absl::Duration> leaderless_since_;  // that answers have lacked a leader
  absl::Duration nodes_asked_at_ = -absl::InfiniteDuration();
  std::shared_ptr<Metadata> metadata_;
};

/// Whether a failed CallAny may have had an effect.
bool WasAsked(const absl::Status& status);

}  // namespace sluice::client
