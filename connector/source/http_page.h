// The pages of an HTTP API: what to ask for a page, and what an answer holds. Pure functions; any thread.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "connector/http/http_client.h"
#include "connector/pipeline_config.h"
#include "connector/source/page_source.h"

namespace sluice::connector {

/// The request for a page.
absl::StatusOr<http::Request> BuildPageRequest(const HttpSourceConfig& config, const SliceConfig& slice,
                                               const PageAsk& ask);
/// What an answer to `ask` holds. DATA_LOSS for what is not JSON, INVALID_ARGUMENT for what has not the
/// configured shape.
absl::StatusOr<Page> ReadPage(const HttpSourceConfig& config, const std::optional<std::string>& key_pointer,
                              const PageAsk& ask, const http::Response& response);

}  // namespace sluice::connector
