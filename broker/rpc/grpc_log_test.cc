#include "broker/rpc/grpc_log.h"

#include <grpc/support/log.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

namespace sluice::broker::rpc {
namespace {

TEST_CASE("a place of gRPC's code is heard once in a while, with how often it was not") {
  GrpcLogLimiter limiter(absl::Seconds(10));
  CHECK(limiter.Admit("a.cc", 1, absl::Seconds(100)) == 0);
  CHECK(limiter.Admit("a.cc", 1, absl::Seconds(101)) == std::nullopt);
  CHECK(limiter.Admit("a.cc", 1, absl::Seconds(109)) == std::nullopt);
  CHECK(limiter.Admit("a.cc", 2, absl::Seconds(109)) == 0);
  CHECK(limiter.Admit("a.cc", 1, absl::Seconds(110)) == 2);
  CHECK(limiter.Admit("a.cc", 1, absl::Seconds(111)) == std::nullopt);
  CHECK(limiter.Admit("a.cc", 1, absl::Seconds(130)) == 1);
}

TEST_CASE("what gRPC reports comes into the log, a repeated error once") {
  auto lines = std::make_shared<std::vector<std::string>>();
  const Logger log({.level = LogLevel::kInfo,
                    .format = LogFormat::kText,
                    .write = [lines](std::string_view line) { lines->emplace_back(line); },
                    .now = {}});
  RouteGrpcLog(log);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);  // as once gRPC is in use
  for (int i = 0; i < 100; ++i) gpr_log(GPR_ERROR, "Handshake %s", "failed");
  gpr_log(GPR_INFO, "chatter");
  REQUIRE(lines->size() == 1);
  CHECK(lines->front().find("Handshake failed") != std::string::npos);
  CHECK(lines->front().find("grpc_log_test.cc") != std::string::npos);
}

}  // namespace
}  // namespace sluice::broker::rpc
