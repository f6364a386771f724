// One gRPC client thread with raw messages: the load that both the broker and the bare server get, so that only what is
// behind them differs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::bench {

struct StreamResult {
  int64_t messages = 0;
  int64_t bytes = 0;
  double seconds = 0;
  std::vector<double> latencies_ms;  ///< Of an open loop: from when a message should have left to its answer.
  std::vector<double> late_ms;       ///< Of an open loop: from then to when the client gave it to gRPC.
};

class StreamClient {
 public:
  static std::unique_ptr<StreamClient> Connect(const std::string& address);
  virtual ~StreamClient() = default;

  /// A unary call with serialized messages; UNAVAILABLE when nobody answers within `wait`.
  virtual absl::StatusOr<std::string> Call(const std::string& method, const std::string& request,
                                           absl::Duration wait) = 0;
  /// Sends `message` again and again, at most `window` unanswered, and waits for all answers. `check` sees each answer.
  virtual absl::StatusOr<StreamResult> Send(const std::string& method, const std::string& message, int window,
                                            absl::Duration time, std::function<bool(const std::string&)> check) = 0;
  /// Sends one message each `interval`, whether or not earlier ones are answered.
  virtual absl::StatusOr<StreamResult> SendPaced(const std::string& method, const std::string& message,
                                                 absl::Duration interval, absl::Duration time,
                                                 std::function<bool(const std::string&)> check) = 0;
  /// Sends `request` once and reads until `bytes` have come. `refill` is sent each time half of it has.
  virtual absl::StatusOr<StreamResult> Receive(const std::string& method, const std::string& request,
                                               const std::string& refill, int64_t refill_bytes, int64_t bytes) = 0;
};

/// Serves until killed: every message of any stream is dropped and answered with a few bytes; a message to the method
/// "/bare/Source" is answered with messages of `source_bytes` without end. Prints the port to standard output.
int RunBareServer(int64_t source_bytes);

}  // namespace sluice::bench
