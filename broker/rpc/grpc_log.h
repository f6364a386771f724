// What gRPC says by itself, such as of handshakes that fail: into the node's log, and not more often than helps. A
// client that speaks plain text to a TLS port tries again and again, and gRPC has a line for each.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/log.h"

namespace sluice::broker::rpc {

/// One line for each place of gRPC's code in a while; what was left out since is counted. Not thread-safe.
class GrpcLogLimiter {
 public:
  explicit GrpcLogLimiter(absl::Duration every) : every_(every) {}
  /// How many lines of this place were left out before this one; nullopt: this one is left out, too.
  std::optional<int64_t> Admit(const std::string& file, int line, absl::Duration now);

 private:
  struct Place {
    absl::Duration said;
    int64_t left_out = 0;
  };
  const absl::Duration every_;
  std::map<std::pair<std::string, int>, Place> places_;  ///< As many as there are in gRPC.
};

/// From now on, for the whole process: errors as warnings, the rest for debugging. Call before gRPC is used.
void RouteGrpcLog(const Logger& log);

}  // namespace sluice::broker::rpc
