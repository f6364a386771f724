#include "tools/context.h"

#include <unistd.h>
#include <csignal>
#include <cstdio>

#include "client/error.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::tools {
namespace {

std::atomic<bool> gently{false};
std::atomic<bool> interrupted{false};

extern "C" void OnSignal(int) {
  if (!gently.load() || interrupted.exchange(true)) _exit(kInterrupted);
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kDone;
    case absl::StatusCode::kInvalidArgument:
      return kWrongUsage;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kNotReachable;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kResourceExhausted:
      return kRefused;
    default:
      return kFailed;
  }
}

absl::StatusOr<std::unique_ptr<client::Client>> Context::Connect() const {
  client::ClientOptions options;
  SLUICE_ASSIGN_OR_RETURN(options.brokers, client::ParseBrokers(brokers));
  options.tls_ca_file = tls_ca;
  options.timeout = timeout;
  return client::Connect(std::move(options));
}

int Fail(std::string_view what, const absl::Status& status) {
  std::fflush(stdout);
  const std::string line = Cat("sluice: ", what, ": ", status.message(), "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
  return ExitCodeOf(status);
}

int FailConnect(const Context& context, const absl::Status& status) {
  const bool authorities =
      absl::IsInvalidArgument(status) && !context.tls_ca.empty() && client::ParseBrokers(context.brokers).ok();
  return Fail(authorities ? "--tls-ca" : "--brokers", status);
}

bool Print(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
}

int Finish() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return Interrupted() ? kInterrupted : kDone;
  std::fputs("sluice: standard output cannot be written\n", stderr);
  return kFailed;
}

bool Interrupted() {
  return interrupted.load(std::memory_order_relaxed);
}

void EndGently() {
  gently = true;
}

void InstallSignalHandlers() {
  struct sigaction action {};
  action.sa_handler = OnSignal;  // without SA_RESTART, so that a read of standard input ends
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace sluice::tools
