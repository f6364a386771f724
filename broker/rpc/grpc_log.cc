#include "broker/rpc/grpc_log.h"

#include <grpc/support/log.h>

#include <chrono>
#include <mutex>

#include "common/text.h"

namespace sluice::broker::rpc {
namespace {

constexpr absl::Duration kSayEvery = absl::Seconds(10);

struct Route {
  explicit Route(const Logger& to) : log(to) {}
  const Logger log;
  std::mutex mutex;
  GrpcLogLimiter limiter{kSayEvery};  // under the mutex
};

// gRPC may speak until the process ends.
Route* route = nullptr;

void Take(gpr_log_func_args* args) {
  const bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
  if (!route->log.Enabled(error ? LogLevel::kWarn : LogLevel::kDebug)) return;
  std::string file = args->file;
  file.erase(0, file.rfind('/') + 1);
  std::optional<int64_t> left_out;
  {
    const absl::Duration now = absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
    std::lock_guard lock(route->mutex);
    left_out = route->limiter.Admit(file, args->line, now);
  }
  if (!left_out.has_value()) return;
  const std::string where = Cat(file, ":", args->line);
  if (error) {
    route->log.Warn("gRPC reports an error", {{"error", args->message}, {"at", where}, {"left_out", *left_out}});
  } else {
    route->log.Debug("gRPC reports", {{"what", args->message}, {"at", where}, {"left_out", *left_out}});
  }
}

}  // namespace

std::optional<int64_t> GrpcLogLimiter::Admit(const std::string& file, int line, absl::Duration now) {
  const auto [it, is_new] = places_.try_emplace({file, line}, Place{.said = now, .left_out = 0});
  if (is_new) return 0;
  Place& place = it->second;
  if (now - place.said < every_) {
    ++place.left_out;
    return std::nullopt;
  }
  place.said = now;
  return std::exchange(place.left_out, 0);
}

void RouteGrpcLog(const Logger& log) {
  if (route != nullptr) return;
  route = new Route(log);
  gpr_set_log_function(&Take);
}

}  // namespace sluice::broker::rpc
