// Asks again where asking again may help: full-jitter exponential back-off, never earlier than the server's
// Retry-After.
//
// Tried again: 408, 425, 429, every 5xx but 501 and 505, and errors of the connection. Everything else is final.
// Threads: one at a time.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/executor.h"
#include "connector/http/http_client.h"
#include "connector/stop_signal.h"

namespace sluice::connector::http {

struct RetryPolicy {
  int attempts_max = 8;
  absl::Duration backoff_first = absl::Milliseconds(200);  // the most that the first wait can be
  absl::Duration backoff_max = absl::Minutes(1);
  absl::Duration retry_after_max = absl::Hours(1);  // a longer wait asked for is an error
};

/// A uniform share of min(backoff_max, backoff_first * 2^retry): `retry` counts from 0.
absl::Duration Backoff(const RetryPolicy& policy, int retry, Random& random);

/// Called before each wait, for progress: what went wrong, and how long until the next try.
using OnRetry = absl::FunctionRef<void(const absl::Status& why, absl::Duration wait)>;

/// The first 2xx (or 304) answer. Otherwise the last error: a final status code as UNAUTHENTICATED (401),
/// PERMISSION_DENIED (403), NOT_FOUND (404), RESOURCE_EXHAUSTED (429 to the end), UNAVAILABLE (5xx to the end),
/// FAILED_PRECONDITION (the rest); an error of the connection as it is; CANCELLED when stopped. The message has the
/// beginning of the answer's body, without the request's secrets.
absl::StatusOr<Response> SendWithRetries(Client& client, const Request& request, const RetryPolicy& policy,
                                         const Clock& clock, Random& random, StopSignal& stop, OnRetry on_retry);

}  // namespace sluice::connector::http
