// Addresses of a host, within a time limit. The system's look-up can neither be given one nor be cancelled: it runs on
// a thread of its own, which is left behind when it takes too long; a later question for the same host waits for it
// again instead of starting another.
//
// Threads: Resolve one at a time; Cancel from any.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::connector::http {

class Resolver {
 public:
  /// Blocks; numeric addresses ("127.0.0.1", "::1") of a host name or address, the preferred one first.
  using Lookup = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host)>;
  explicit Resolver(Lookup lookup = SystemLookup) : lookup_(std::move(lookup)) {}
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  /// UNAVAILABLE when there is no such host, DEADLINE_EXCEEDED, CANCELLED.
  absl::StatusOr<std::vector<std::string>> Resolve(const std::string& host, absl::Duration timeout);
  /// Ends a Resolve under way and refuses later ones.
  void Cancel();

  static absl::StatusOr<std::vector<std::string>> SystemLookup(const std::string& host);

 private:
  // What the thread left behind still holds.
  struct Question {
    std::mutex mutex;
    std::condition_variable changed;
    bool cancelled = false;
    bool done = false;
    absl::StatusOr<std::vector<std::string>> answer = absl::UnknownError("no answer");
  };

  const Lookup lookup_;
  std::mutex mutex_;
  bool cancelled_ = false;
  std::string host_;  // that `question_` is about
  std::shared_ptr<Question> question_;
};

}  // namespace sluice::connector::http
