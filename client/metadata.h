// Who leads which partition, as far as this client knows: what brokers said of each topic, corrected by the hints of
// brokers that were asked in vain. Internal to the client.
//
// Always holds:
//  - of one topic at most one question is under way, and between two of them lies a back-off that grows while
//    questions do not help; so however many partitions have no leader, a broker is asked at a bounded rate;
//  - a leader of a later epoch is not replaced by an answer that is older, unless it was told to have failed;
//  - at most kHopsMax hints in a row are followed without a fresh answer between them, so hints never make a circle;
//  - who waits is answered by the end of its time, whatever brokers do.
// Threads: everything on the client's executor.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/executor.h"
#include "common/types.h"

namespace sluice::client {

struct Route {
  std::string leader;     // host:port; empty: none known
  LeaderEpoch epoch;      // of that leader, or less where a hint named it
  std::string trouble{};  // where none is known: why, if the node that was asked says so
  bool failed = false;    // it refused, or cannot be reached
  int hops = 0;           // hints followed since the last answer
};

/// A topic's partitions, by number. Immutable once shared.
struct TopicRoutes {
  TopicId id;
  std::vector<Route> partitions;
  // Of the question that this is the answer to.
  uint64_t question = 0;
  absl::Duration asked_at;
};

class Metadata : public std::enable_shared_from_this<Metadata> {
 public:
  using Routes = std::shared_ptr<const TopicRoutes>;
  using Done = absl::AnyInvocable<void(absl::StatusOr<Routes>)>;
  /// Asks the cluster about a topic; answers by the end of the time given.
  using Describe = std::function<void(const std::string& topic, absl::Duration timeout, Done done)>;

  static constexpr int kHopsMax = 2;

  struct Options {
    absl::Duration age_max = absl::Minutes(5);
    absl::Duration backoff_min = absl::Milliseconds(20);
    absl::Duration backoff_max = absl::Milliseconds(250);
    /// One question.
    absl::Duration timeout = absl::Seconds(30);
  };

  Metadata(Executor& executor, Clock& clock, Options options, Describe describe);

  /// Null when nothing is known.
  Routes Known(const std::string& topic) const;
  /// From memory where there is something, otherwise from the cluster. What has grown old is asked for again, while the
  /// old still counts. `done` may run before this returns.
  void Find(const std::string& topic, absl::Duration timeout, Done done);
  /// The number of the last question, of any topic; a clock of what can be known.
  uint64_t last_question() const { return last_question_; }
  /// What the cluster says, to a question later than `since`. `done` may run before this returns.
  void Refresh(const std::string& topic, uint64_t since, absl::Duration timeout, Done done);
  /// `leader` did not take what it was sent as the partition's leader, and named `hint` (host:port, or nothing) for it.
  /// True when the partition now has another leader to try; otherwise ask again by Refresh.
  bool Follow(const std::string& topic, int32_t partition, std::string_view leader, std::string_view hint);
  /// The same without a hint: it could not be reached, or says that it does not know.
  void Failed(const std::string& topic, int32_t partition, std::string_view leader) {
    (void)Follow(topic, partition, leader, {});
  }
  void Forget(const std::string& topic);
  /// Answers who waits with CANCELLED, and so everybody later.
  void Close();

 private:
  struct Waiter {
    uint64_t since;
    Executor::TimerId timer = 0;
    Done done;
  };
  struct Topic {
    Routes routes;
    std::list<std::shared_ptr<Waiter>> waiting;
    bool asking = false;  // a question is under way, or its timer runs
    int questions = 0;    // since the last quiet time
    absl::Duration answered_at = -absl::InfiniteDuration();
    absl::Status error;  // of the last question
  };

  absl::Duration Backoff(int questions) const;
  void AskSoon(const std::string& name, Topic& topic);
  void Ask(const std::string& name);
  void OnAnswer(const std::string& name, uint64_t question, absl::Duration asked_at, absl::StatusOr<Routes> answer);
  static std::shared_ptr<TopicRoutes> Merge(const Routes& old, const TopicRoutes& answer);

  Executor& executor_;
  Clock& clock_;
  const Options options_;
  Describe describe_;
  bool closed_ = false;
  uint64_t last_question_ = 0;
  std::map<std::string, Topic> topics_;
};

/// NOT_AVAILABLE for a partition without a leader, NOT_FOUND for one that the topic does not have; else the address.
absl::StatusOr<std::string> LeaderOf(const TopicRoutes& routes, std::string_view topic, int32_t partition);

}  // namespace sluice::client
