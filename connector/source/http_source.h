// Pages from an HTTP API, as a pipeline's `source.http` describes them.
//
// A next URL (from the body or a Link header) is followed only at the origin of the configured URL, because the request
// carries the configured credentials. Threads: one at a time, except Cancel.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/executor.h"
#include "connector/http/http_client.h"
#include "connector/http/retry.h"
#include "connector/pipeline_config.h"
#include "connector/source/page_source.h"
#include "connector/stop_signal.h"

namespace sluice::connector {

class HttpSource final : public PageSource {
 public:
  struct Seams {
    Clock* clock = nullptr;
    Random* random = nullptr;
    StopSignal* stop = nullptr;
    std::function<void(const absl::Status& why, absl::Duration wait)> on_retry;  // may be empty
  };
  HttpSource(HttpSourceConfig config, SliceConfig slice, std::optional<std::string> key_pointer, Seams seams);

  /// Errors begin with the place in the pipeline's file, say what to look at, and show no secret.
  absl::StatusOr<Page> Fetch(const PageAsk& ask) override;

 private:
  absl::StatusOr<Page> FetchOnce(const PageAsk& ask);
  const HttpSourceConfig config_;
  const SliceConfig slice_;
  const std::optional<std::string> key_pointer_;
  const Seams seams_;
  const http::RetryPolicy policy_;
  std::shared_ptr<http::Client> client_;
};

}  // namespace sluice::connector
